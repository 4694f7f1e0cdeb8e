# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A changed kernel command line boots once on trial, and becomes the default only after the machine is back."""

from __future__ import annotations

from collections.abc import Callable

import state
from plays import Controller
from vm import Vm

TRIAL = "/etc/grub.d/"
WISHES = {"os_tuning_kernel_parameters": {"audit": "0"}, "workstation_reboot_allowed": True}
# The root file system is not found: the initramfs gives up, and nobody can reach the machine.
FATAL = {
    "os_tuning_kernel_parameters": {"root": "/dev/nonexistent"},
    "os_tuning_kernel_parameters_accept": ["root"],
    "os_tuning_kernel_parameters_trial": True,
}


def command_line(vm: Vm) -> list[str]:
    return vm.ssh("cat /proc/cmdline").split()


def boots(vm: Vm) -> int:
    return len(vm.ssh("journalctl --list-boots --no-pager -o json 2>/dev/null || true").split('"boot_id"')) - 1


def test_a_trial_that_comes_back_becomes_the_default(
    vm: Vm, controller: Controller, proof: Callable[..., None]
) -> None:
    vm.ssh("mkdir -p /var/log/journal && systemctl restart systemd-journald")
    before = state.look(vm)
    started = boots(vm)
    run = controller.play("site.yml", WISHES, timeout=1500).ok()
    proof(reboots_of_one_run=boots(vm) - started)
    assert boots(vm) - started == 1
    assert "audit=0" in command_line(vm)
    assert not any(
        word.startswith("panic=") for word in vm.ssh("grep -h CMDLINE /etc/default/grub.d/*ai-work*").split()
    )
    assert "next_entry=\n" in vm.ssh("grub-editenv - list; echo next_entry=")
    assert vm.ssh("ls /etc/grub.d | grep -c trial || true").strip() == "0"
    assert "kernel parameters" not in str(run.errors)
    again = controller.play("site.yml", WISHES, timeout=900).ok()
    assert again.changes == {}
    vm.reboot()
    assert "audit=0" in command_line(vm)
    assert not any(word.startswith("panic=") for word in command_line(vm))
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    assert state.differences(before, state.look(vm)) == {}


def test_a_trial_that_does_not_come_back_leaves_the_old_default(vm: Vm, controller: Controller) -> None:
    before = state.look(vm)
    armed = controller.play("site.yml", FATAL).ok()
    assert any(key == "grub:next_entry" for key in armed.changes), list(armed.changes)
    vm.reboot()  # the trial panics, and the machine is back on its old command line by itself
    assert "root=/dev/nonexistent" not in command_line(vm)
    told = controller.play("site.yml", FATAL)
    assert told.code != 0
    assert any("trial" in error and "root=/dev/nonexistent" in error for error in told.errors), told.errors
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    assert state.differences(before, state.look(vm)) == {}
