# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program's ways back: what it says, and that a boot takes back only what an earlier boot has left."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine import switch
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.switch import Switch
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import main as program
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_settings, managed_files
from fake_kernel import FakeKernel, run_module

SWAP = "/proc/sys/vm/swappiness"
FILE = "/etc/systemd/system/system.slice.d/50-a.conf"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put_all({SWAP: 60, switch.PROGRAM: ""})
    monkeypatch.setattr(program, "Host", lambda: kernel)
    return kernel


def said(capsys, *argv: str) -> tuple[int, list[str]]:
    code = program.main(argv)
    return code, capsys.readouterr().out.splitlines()


def test_rollback_foretells_then_does_and_then_finds_nothing(kernel: FakeKernel, capsys) -> None:
    run_module(kernel_settings, kernel, owner="os_tuning", sysctl={"vm.swappiness": 10}, persist=False)
    line = ["sysctl:vm.swappiness: 10 -> 60"]
    assert said(capsys, "rollback", "--check") == (0, line)
    assert kernel.text(SWAP) == "10"
    assert said(capsys, "rollback", "--owner", "gpu_tuning")[1] == ["nothing to take back"]
    assert said(capsys, "rollback", "--owner", "os_tuning", "--key", "vm.*") == (0, line)
    assert kernel.text(SWAP) == "60"
    assert said(capsys, "rollback") == (0, ["nothing to take back"])


def test_what_stays_is_said_with_an_exit_status(kernel: FakeKernel, capsys) -> None:
    run_module(kernel_settings, kernel, owner="os_tuning", sysctl={"vm.swappiness": 10}, persist=False)
    kernel.put(SWAP, "30")
    assert said(capsys, "rollback") == (1, ["stays: sysctl:vm.swappiness: changed by someone else to 30"])
    assert said(capsys, "rollback", "--force") == (0, ["sysctl:vm.swappiness: 30 -> 60"])


def test_only_a_boot_after_the_call_restores(kernel: FakeKernel, capsys) -> None:
    machine = Machine(kernel)
    machine.switch = Switch(60)
    files = [{"path": FILE, "content": "[Slice]\n", "risk": "CPUs are confined"}]
    converge_parts([(managed_files, {"owner": "os_tuning", "files": files})], False, machine)
    assert said(capsys, "restore", "--boot") == (0, ["nothing waits from an earlier boot"])
    assert kernel.exists(FILE)
    kernel.reboot()
    _code, (line,) = said(capsys, "restore", "--boot")
    assert f"file:{FILE} (CPUs are confined)" in line
    assert not kernel.exists(FILE)
    assert said(capsys, "restore") == (0, ["nothing waits for a confirmation"])
