# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A full disk, a read-only /etc, a security module that says no: one clear line, nothing half done. A folder that is
missing is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import state
from cases import CASES
from plays import Controller
from vm import Vm

HERE = Path(__file__).resolve().parent
MODULE, PARAMS = "kernel_settings", CASES["kernel_settings"]
FILL = "dd if=/dev/zero of={folder}/fill bs=4k 2>/dev/null; ! echo more >> {folder}/fill"

# name -> (the commands that bring it about, what takes it away, what the error must say)
FAULTS = {
    "no space for the drop-in": (
        "mount -t tmpfs -o size=16k full /etc/sysctl.d && " + FILL.format(folder="/etc/sysctl.d"),
        "umount /etc/sysctl.d",
        ("/etc/sysctl.d/99-zz-ai-workstation.conf", "No space left on device"),
    ),
    "no space for the ledger": (
        "mkdir -p /var/lib/ai-workstation && mount -t tmpfs -o size=16k full /var/lib/ai-workstation && "
        + FILL.format(folder="/var/lib/ai-workstation"),
        "umount /var/lib/ai-workstation && rmdir /var/lib/ai-workstation",
        ("/var/lib/ai-workstation", "No space left on device"),
    ),
    "a read-only /etc": (
        "mount --bind /etc /etc && mount -o remount,ro,bind /etc",
        "umount /etc",
        ("/etc/sysctl.d/99-zz-ai-workstation.conf", "the file system is read-only"),
    ),
    "a file where the folder belongs": (
        "mv /etc/tmpfiles.d /etc/tmpfiles.gone && touch /etc/tmpfiles.d",
        "rm /etc/tmpfiles.d && mv /etc/tmpfiles.gone /etc/tmpfiles.d",
        ("/etc/tmpfiles.d", "Not a directory"),
    ),
    "an immutable folder": (
        "chattr +i /etc/tmpfiles.d",
        "chattr -i /etc/tmpfiles.d",
        ("/etc/tmpfiles.d", "Operation not permitted"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(vm: Vm, controller: Controller, fault: str) -> None:
    cause, cure, words = FAULTS[fault]
    before = state.look(vm)
    vm.ssh(cause)
    told = controller.module(MODULE, PARAMS)
    vm.ssh(cure)
    check(told, *words)
    assert state.differences(before, state.look(vm)) == {}
    repaired(vm, controller)


def test_a_folder_that_is_missing_is_made_and_goes_again(vm: Vm, controller: Controller) -> None:
    vm.ssh("mv /etc/modules-load.d /root/gone")
    before = state.look(vm)
    repaired(vm, controller)
    assert vm.ssh("cat /etc/modules-load.d/ai-workstation.conf").endswith("tcp_bbr\n")
    assert not controller.module(MODULE, {})["failed"]
    assert state.differences(before, state.look(vm)) == {}


def test_a_security_module_that_refuses_one_folder(vm: Vm, controller: Controller) -> None:
    """Landlock answers as SELinux does: EACCES, to root as well."""
    vm.push(HERE / "landlocked", "/opt/landlocked")
    vm.ssh("chmod 755 /opt/landlocked/python3")
    before = state.look(vm)
    controller.variables["ansible_python_interpreter"] = "/opt/landlocked/python3"
    told = controller.module(MODULE, PARAMS)
    del controller.variables["ansible_python_interpreter"]
    check(told, "/etc/tmpfiles.d", "Permission denied")
    assert state.differences(before, state.look(vm)) == {}
    repaired(vm, controller)


def check(told: dict[str, object], *words: str) -> None:
    message = str(told.get("msg"))
    assert told["failed"], told
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert "\n" not in message.strip()
    assert "NOT restored" not in message


def repaired(vm: Vm, controller: Controller) -> None:
    """The same call works, and is complete."""
    done = controller.module(MODULE, PARAMS)
    assert (done["failed"], done["changed"]) == (False, True), done
    assert vm.ssh("sysctl -n vm.swappiness").strip() == "10"
    assert not controller.module(MODULE, PARAMS)["changed"]
