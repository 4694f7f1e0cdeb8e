# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The power goes during a run: the next boot works, and the next run ends what the cut one began."""

from __future__ import annotations

from collections.abc import Callable

import state
from plays import Controller
from vm import Vm

LEDGER = "/var/lib/ai-workstation/ledger.json"

# Something of every kind, without the initial file system, whose rebuild takes minutes here.
WANTED = {
    "workstation_profile": "aggressive",
    "os_tuning_sysctl": {"vm.swappiness": 33, "vm.dirty_bytes": 1 << 29, "vm.dirty_background_bytes": 1 << 27},
    # What this machine of 3 GiB cannot carry, and nobody uses.
    "workstation_plan_accept": ["memory_overcommitted", "huge_pages_without_user"],
    "os_tuning_hugepages": [{"size": "2M", "count": 8, "node": 0}],
    "os_tuning_kernel_parameters": {"audit": "0"},
    "os_tuning_services_disabled": ["avahi-daemon"],
    "gpu_tuning_power_limit": "80%",
}

# Conditions in the machine, each the moment of a cut; a run that begins anew comes further than the one before.
DURING_APPLY = {
    "the first key is in the ledger": f"test -e {LEDGER}",
    "a sysctl is written and its file is not": "test $(cat /proc/sys/vm/swappiness) = 33",
    "update-grub runs": "pgrep -f grub-mkconfig",
}
DURING_ROLLBACK = {
    "a sysctl is back": "test $(cat /proc/sys/vm/swappiness) = 60",
    "update-grub runs": "pgrep -f grub-mkconfig",
}


def cut(vm: Vm, controller: Controller, book: str, moment: str) -> None:
    """Start a playbook, and take the power away when a condition holds in the machine; the next boot must work."""
    running = controller.start(book, WANTED)
    try:
        vm.await_true(moment, limit=900, pause=0.02)
        vm.power_cut()
    finally:
        running.abandon()
    vm.boot()
    assert vm.ssh("systemctl is-system-running --wait", timeout=600, check=False).strip() == "running"


def test_power_cuts_one_after_the_other(vm: Vm, controller: Controller, proof: Callable[..., None]) -> None:
    before = state.look(vm)
    for moment in DURING_APPLY.values():
        cut(vm, controller, "site.yml", moment)
    controller.play("site.yml", WANTED).ok()
    assert controller.play("site.yml", WANTED).ok().changed == []
    for moment in DURING_ROLLBACK.values():
        cut(vm, controller, "playbooks/rollback.yml", moment)
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    left = state.differences(before, state.look(vm))
    proof(power_cuts_survived=len(DURING_APPLY) + len(DURING_ROLLBACK), rollback_differences_after_power_cuts=len(left))
    assert left == {}
