# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Back to the byte on a whole machine: much of everything, changed and taken back, also across reboots."""

from __future__ import annotations

import state
from plays import Controller
from vm import Vm

MUCH = {
    "workstation_profile": "aggressive",
    "os_tuning_sysctl": {"vm.swappiness": 5, "vm.dirty_bytes": 268435456, "kernel.printk": "3 4 1 3"},
    "os_tuning_sysfs": {"/sys/kernel/mm/ksm/sleep_millisecs": 50},
    "os_tuning_hugepages": [{"size": "2M", "count": 64}],
    "os_tuning_hugepage_mounts": [{"path": "/dev/hugepages-ai", "page_size": "2M", "mode": "0770"}],
    "os_tuning_governor": "performance",
    "os_tuning_modules": ["tcp_bbr"],
    "os_tuning_slices": {"system": {"cpu_weight": 50}, "ai": {"cpu_weight": 400, "memory_high": "90%"}},
    "os_tuning_files": [{"path": "/etc/systemd/journald.conf.d/50-ai.conf", "content": "[Journal]\nSystemMaxUse=1G\n"}],
    "os_tuning_units": [
        {"name": "apt-daily.timer", "unit_file": "masked", "active": False},
        {"name": "e2scrub_all.timer", "unit_file": "disabled", "active": False},
    ],
    "os_tuning_kernel_parameters": {"transparent_hugepage": "madvise"},
    "gpu_tuning_power_limit": "450",
}
LIMIT = 1500


def test_much_goes_back_as_foretold_and_so_it_stays_after_a_reboot(vm: Vm, controller: Controller, proof) -> None:
    before = state.look(vm)
    done = controller.play("site.yml", MUCH, timeout=LIMIT).ok()
    assert len(done.changes) > 50
    vm.reboot()
    foretold = controller.play("playbooks/rollback.yml", {}, "--check", "--diff").ok()
    assert len(foretold.changes) > 30
    back = controller.play("playbooks/rollback.yml", {}, "--diff", timeout=LIMIT).ok()
    assert back.changes == foretold.changes
    assert back.skipped == {}
    assert back.tasks[-1]["result"]["left_alone"] == []
    assert back.tasks[-1]["result"]["archived"]
    assert controller.play("playbooks/rollback.yml", {}).ok().changed == []
    vm.reboot()
    different = state.differences(before, state.look(vm))
    proof(rollback_keys=len(back.changes), rollback_differences_after_reboot=len(different))
    assert not different


def test_three_profiles_in_a_row_go_back_in_one(vm: Vm, controller: Controller, proof) -> None:
    before = state.look(vm)
    for profile in ("conservative", "aggressive", "balanced"):
        controller.play("site.yml", {"workstation_profile": profile}, timeout=LIMIT).ok()
    controller.play("playbooks/rollback.yml", {}, timeout=LIMIT).ok()
    different = state.differences(before, state.look(vm))
    proof(rollback_differences_after_three_profiles=len(different))
    assert not different


def test_one_key_stays_back_over_a_reboot(vm: Vm, controller: Controller) -> None:
    wanted = {"workstation_profile": "balanced"}
    controller.play("site.yml", wanted).ok()
    was = vm.ssh("cat /proc/sys/vm/swappiness")
    back = controller.play("playbooks/rollback.yml", {"rollback_keys": "vm.swappiness"}).ok()
    assert {*back.changes} == {"sysctl:vm.swappiness", "file:/etc/sysctl.d/99-zz-ai-workstation.conf"}
    original = vm.ssh("cat /proc/sys/vm/swappiness")
    assert original != was
    vm.reboot()
    assert vm.ssh("cat /proc/sys/vm/swappiness") == original
    assert controller.play("site.yml", wanted).ok().changes["sysctl:vm.swappiness"]["after"] == was.strip()
