# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The power goes during a run: the next boot works, and the next run ends what the cut one began."""

from __future__ import annotations

import maximal
import pytest
import state
from plays import Controller
from vm import Vm

LEDGER = "/var/lib/ai-workstation/ledger.json"

# Conditions in the machine, each the moment of a cut.
DURING_APPLY = {
    "the first key is in the ledger": f"test -e {LEDGER}",
    "a sysctl is written and its file is not": "test $(cat /proc/sys/vm/swappiness) = 33",
    "update-grub runs": "pgrep -f grub-mkconfig",
}
DURING_ROLLBACK = {
    "update-grub runs": "pgrep -f grub-mkconfig",
    "a sysctl is back": "test $(cat /proc/sys/vm/swappiness) = 60",
}
SURVIVED: set[str] = set()


def cut(vm: Vm, controller: Controller, book: str, moment: str) -> None:
    """Start a playbook, and take the power away when a condition holds in the machine."""
    running = controller.start(book, maximal.VARIABLES)
    try:
        vm.await_true(moment, limit=900, pause=0.02)
        vm.power_cut()
    finally:
        running.abandon()
    vm.boot()
    assert vm.ssh("systemctl is-system-running --wait", timeout=600, check=False).strip() == "running"


@pytest.mark.parametrize("moment", DURING_APPLY)
def test_power_cut_during_apply(vm: Vm, controller: Controller, moment: str, proof) -> None:
    before = state.look(vm)
    cut(vm, controller, "site.yml", DURING_APPLY[moment])
    controller.play("site.yml", maximal.VARIABLES).ok()
    assert controller.play("site.yml", maximal.VARIABLES).ok().changed == []
    controller.play("playbooks/rollback.yml").ok()
    assert state.differences(before, state.look(vm)) == {}
    SURVIVED.add(f"apply: {moment}")
    proof(power_cuts_survived=len(SURVIVED))


@pytest.mark.parametrize("moment", DURING_ROLLBACK)
def test_power_cut_during_rollback(vm: Vm, controller: Controller, moment: str, proof) -> None:
    before = state.look(vm)
    controller.play("site.yml", maximal.VARIABLES).ok()
    cut(vm, controller, "playbooks/rollback.yml", DURING_ROLLBACK[moment])
    controller.play("playbooks/rollback.yml").ok()
    assert state.differences(before, state.look(vm)) == {}
    SURVIVED.add(f"rollback: {moment}")
    proof(power_cuts_survived=len(SURVIVED))
