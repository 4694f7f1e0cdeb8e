# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a killed run, a full disk or a damaged ledger leaves behind, and what the next run makes of it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    kernel_settings,
    managed_files,
    unit_state,
)
from fake_kernel import FakeKernel, killed, refuse, run_module
from linked_systemd import LinkedSystemd

SWAP = "/proc/sys/vm/swappiness"
CACHE = "/proc/sys/vm/vfs_cache_pressure"
UNIT = "/etc/systemd/system/docker.service.d/50-ai.conf"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put(SWAP, "60")
    kernel.put(CACHE, "100")
    return kernel


def swappiness(kernel: FakeKernel, value: int | None, **params):
    sysctl = {} if value is None else {"vm.swappiness": value}
    return run_module(kernel_settings, kernel, sysctl=sysctl, persist=False, **params)


def zeroes(other: str):
    """What vm.dirty_bytes and vm.dirty_ratio do to each other; the bytes do not take 0 (mm/page-writeback.c)."""

    def rule(kernel: FakeKernel, text: str) -> str:
        if text == "0" and other.endswith("ratio"):
            raise OSError(errno.EINVAL, "Invalid argument")
        kernel.put(other, "0")
        return text

    return rule


def pending(kernel: FakeKernel) -> list[str]:
    return json.loads(kernel.text(LEDGER))["pending_actions"]


def test_two_kills_in_a_row_lose_no_undo(kernel: FakeKernel) -> None:
    assert killed(kernel, lambda: swappiness(kernel, 10), 2, point=LEDGER)
    assert killed(kernel, lambda: swappiness(kernel, 20), point=SWAP)
    assert kernel.text(SWAP) == "10"
    assert swappiness(kernel, None)["warnings"] == []
    assert kernel.text(SWAP) == "60"


@pytest.mark.parametrize("point", ["/proc/sys/vm/dirty_ratio", SWAP])
def test_a_killed_release_goes_on_in_the_same_order(kernel: FakeKernel, point: str) -> None:
    entangled(kernel)
    run_module(kernel_settings, kernel, sysctl={"vm.dirty_bytes": 1 << 30, "vm.swappiness": 10}, persist=False)
    for _again in range(2):
        assert killed(kernel, lambda: swappiness(kernel, None), point=point)
    swappiness(kernel, None)
    values = [kernel.text(path) for path in ("/proc/sys/vm/dirty_ratio", "/proc/sys/vm/dirty_bytes", SWAP)]
    assert values == ["20", "0", "60"]


def entangled(kernel: FakeKernel) -> tuple[str, str]:
    ratio, written = "/proc/sys/vm/dirty_ratio", "/proc/sys/vm/dirty_bytes"
    kernel.put(ratio, "20", zeroes(written))
    kernel.put(written, "0", zeroes(ratio))
    return ratio, written


def test_what_the_kernel_moved_along_with_a_killed_run_goes_back(kernel: FakeKernel) -> None:
    ratio, written = entangled(kernel)
    wanted = {"vm.dirty_bytes": 1 << 30, "vm.swappiness": 10}

    def tune() -> None:
        run_module(kernel_settings, kernel, sysctl=wanted, persist=False)

    assert killed(kernel, tune, point=SWAP)
    tune()
    assert swappiness(kernel, None)["warnings"] == []
    assert [kernel.text(path) for path in (ratio, written, SWAP)] == ["20", "0", "60"]


def test_the_ledger_forgets_what_a_killed_release_had_brought_back(kernel: FakeKernel) -> None:
    ratio, _written = entangled(kernel)
    run_module(kernel_settings, kernel, sysctl={"vm.dirty_bytes": 1 << 30, "vm.swappiness": 10}, persist=False)
    assert killed(kernel, lambda: swappiness(kernel, None), point=SWAP)
    assert kernel.text(ratio) == "20"
    swappiness(kernel, None)
    assert swappiness(kernel, None)["changed"] is False
    assert json.loads(kernel.text(LEDGER))["entries"] == {}


def test_a_failed_call_leaves_what_an_earlier_one_had_to_do(kernel: FakeKernel) -> None:
    reload = [{"path": UNIT, "content": "[Unit]\n", "actions": ["daemon-reload"]}]
    assert killed(kernel, lambda: run_module(managed_files, kernel, files=reload), point="systemctl daemon-reload")
    kernel.rules[SWAP] = refuse(22)
    with pytest.raises(ApplyError, match="nothing of this call remains"):
        swappiness(kernel, 10)
    assert pending(kernel) == ["daemon-reload"]
    del kernel.rules[SWAP]
    kernel.acted.clear()
    assert swappiness(kernel, 10)["actions"] == ["daemon-reload"]
    assert (kernel.acted, pending(kernel)) == (["systemctl daemon-reload"], [])


def test_a_failed_call_does_not_leave_to_do_what_its_undo_has_done(kernel: FakeKernel) -> None:
    once = [Completed(1, "", "Job failed")]

    def systemctl(_kernel: FakeKernel, argv: list[str]) -> Completed:
        return once.pop() if argv[0] == "try-restart" and once else Completed(0, "", "")

    kernel.programs["systemctl"] = systemctl
    files = [{"path": UNIT, "content": "[Unit]\n", "actions": ["daemon-reload"], "restart": ["docker.service"]}]
    with pytest.raises(ApplyError, match="Job failed; nothing of this call remains"):
        run_module(managed_files, kernel, files=files)
    assert (pending(kernel), kernel.acted[-1]) == ([], "systemctl try-restart docker.service")


def no_space(kernel: FakeKernel, monkeypatch, after: int) -> None:
    """The disk is full for the ledger after so many saves."""
    real, saves = kernel.save_json, []

    def save(path: str, data: object) -> None:
        saves.append(path)
        if len(saves) > after:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(kernel, "save_json", save)


def test_a_ledger_that_cannot_be_closed_is_told_from_an_unchanged_machine(kernel: FakeKernel, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        no_space(kernel, patched, 1)
        with pytest.raises(ApplyError, match="the changes are made.*No space left.*run again") as caught:
            swappiness(kernel, 10)
    assert "nothing was changed" not in str(caught.value)
    assert kernel.text(SWAP) == "10"
    swappiness(kernel, None)
    assert kernel.text(SWAP) == "60"


def test_an_undo_that_cannot_be_noted_is_told_as_well(kernel: FakeKernel, monkeypatch) -> None:
    kernel.rules[SWAP] = refuse(22)
    no_space(kernel, monkeypatch, 1)
    with pytest.raises(ApplyError, match=r"Invalid argument.*in flight \(No space left.*run again") as caught:
        swappiness(kernel, 10)
    assert "nothing was changed" not in str(caught.value)


def test_an_empty_ledger_is_not_taken_for_none(kernel: FakeKernel) -> None:
    swappiness(kernel, 10)
    Path(kernel.at(LEDGER)).write_text("")
    with pytest.raises(RefusedError, match="ledger.json is empty.*restore a backup"):
        swappiness(kernel, 20)
    assert kernel.text(SWAP) == "10"


def test_a_ledger_that_root_cannot_read_ends_the_call(kernel: FakeKernel, monkeypatch) -> None:
    swappiness(kernel, 10)
    real = kernel.raw
    monkeypatch.setattr(kernel, "raw", lambda path: None if path == LEDGER else real(path))
    with pytest.raises(RefusedError, match="ledger.json cannot be read"):
        swappiness(kernel, 20)
    assert kernel.text(SWAP) == "10"
    kernel.root_user = False
    outcome = run_module(kernel_settings, kernel, True, sysctl={"vm.swappiness": 20}, persist=False)
    assert "can be read by root only" in outcome["warnings"][0]


@pytest.mark.parametrize("killed_before", ["systemctl daemon-reload", "systemctl start a.service"])
def test_a_unit_starts_again_although_a_killed_release_left_systemd_with_old_files(
    tmp_path: Path, killed_before: str
) -> None:
    kernel = LinkedSystemd(tmp_path)
    kernel.unit("a.service", "multi-user.target")
    before = kernel.links()
    run_module(unit_state, kernel, units=[{"name": "a.service", "unit_file": "masked", "active": False}])
    assert killed(kernel, lambda: run_module(unit_state, kernel, units=[]), point=killed_before)
    run_module(unit_state, kernel, units=[])
    assert (kernel.links(), kernel.running) == (before, {"a.service"})
    assert json.loads(kernel.text(LEDGER))["entries"] == {}
    assert run_module(unit_state, kernel, units=[])["changed"] is False
