# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""verify against the record: what moved is named once, what cannot be read back is never called right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_present
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import PATH as RECORD
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import Record
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import verify
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    kernel_settings,
    managed_files,
    unit_state,
)
from fake_kernel import FakeKernel, run_module
from gpu_box import FULL
from linked_systemd import LinkedSystemd
from nvml_child import in_child

SWAP = "/proc/sys/vm/swappiness"
DROP_IN = "/etc/systemd/journald.conf.d/50-a.conf"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put_all({SWAP: "60", "/proc/sys/vm/max_map_count": "65530"})
    return kernel


def tune(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, owner="role", sysctl={"vm.swappiness": 10, "vm.max_map_count": 99999})
    run_module(managed_files, kernel, owner="role", files=[{"path": DROP_IN, "content": "[Journal]\n"}])
    kernel.writes.clear()


def check(kernel: FakeKernel) -> verify.Report:
    report = verify.against_record(Machine(kernel))
    assert kernel.writes == []
    assert json.loads(json.dumps(report)) == report
    return report


def test_a_machine_as_recorded_is_clean(kernel: FakeKernel) -> None:
    tune(kernel)
    report = check(kernel)
    assert (report["drift"], report["not_checked"], verify.status(report)) == ([], [], 0)
    assert report["matching"] >= 4
    assert verify.lines(report) == [f"{report['matching']} as recorded, 0 drifted, 0 not verifiable, 0 not checked"]


def test_what_moved_is_one_line_with_wanted_live_and_who(kernel: FakeKernel) -> None:
    tune(kernel)
    kernel.put_all({SWAP: "55", "/etc/sysctl.d/60-vendor.conf": "vm.swappiness=55"})
    report = check(kernel)
    (row,) = report["drift"]
    assert (row["key"], row["wanted"], row["live"], row["owner"], row["part"]) == (
        "sysctl:vm.swappiness", "10", "55", "role", "kernel_settings")  # fmt: skip
    assert verify.lines(report)[0] == (
        "sysctl:vm.swappiness: wanted 10, live 55; /etc/sysctl.d/60-vendor.conf:1 sets it to 55"
    )
    assert verify.status(report) == 1


def test_files_are_compared_too_and_their_text_is_not_shown(kernel: FakeKernel) -> None:
    tune(kernel)
    kernel.put(DROP_IN, "# Written by ai_infra.workstation\npassword=x")
    report = check(kernel)
    assert [row["key"] for row in report["drift"]] == [f"file:{DROP_IN}"]
    assert "password" not in json.dumps(report)


def test_a_link_that_was_removed_without_a_word_to_systemd_is_named(tmp_path: Path) -> None:
    kernel = LinkedSystemd(tmp_path)
    for name in ("a.timer", "b.timer"):
        kernel.unit(name, "timers.target", enabled=False)
    units = [{"name": name, "unit_file": "enabled", "active": True} for name in ("a.timer", "b.timer")]
    run_module(unit_state, kernel, owner="role", units=units)
    assert verify.against_record(Machine(kernel))["drift"] == []
    os.unlink(kernel.at("/etc/systemd/system/timers.target.wants/a.timer"))
    (row,) = verify.against_record(Machine(kernel))["drift"]
    assert (row["key"], row["wanted"], row["live"]) == ("unit_file:a.timer", "enabled", "disabled")
    os.unlink(kernel.at("/usr/lib/systemd/system/a.timer"))
    (row,) = verify.against_record(Machine(kernel))["drift"]
    assert (row["key"], row["wanted"], row["live"]) == ("unit_file:a.timer", "enabled", "disabled")


def test_what_two_owners_want_is_one_line_and_what_was_taken_back_none(kernel: FakeKernel) -> None:
    tune(kernel)
    run_module(kernel_settings, kernel, owner="other", sysctl={"vm.swappiness": 10}, persist=False)
    kernel.writes.clear()
    kernel.put(SWAP, "55")
    assert len(check(kernel)["drift"]) == 1
    record = Record(kernel)
    record.leave_alone(["sysctl:vm.swappiness"])
    record.save()
    kernel.writes.clear()
    assert check(kernel)["drift"] == []


def test_a_part_that_cannot_be_compared_is_said_and_the_others_are_compared(kernel: FakeKernel) -> None:
    tune(kernel)
    os.unlink(kernel.at("/proc/sys/vm/max_map_count"))
    report = check(kernel)
    (row,) = report["not_checked"]
    assert (row["part"], "max_map_count" in row["reason"]) == ("kernel_settings", True)
    assert (report["matching"] > 0, verify.status(report)) == (True, 2)
    kernel.put(SWAP, "55")
    assert verify.status(check(kernel)) == 1


@pytest.mark.parametrize("text", [None, "{"])
def test_without_a_record_there_is_no_verdict(kernel: FakeKernel, text: str | None) -> None:
    if text:
        kernel.put(RECORD, text)
    with pytest.raises(RefusedError, match="record.json"):
        verify.against_record(Machine(kernel))


def test_changes_of_roles_become_drift(kernel: FakeKernel) -> None:
    kernel.put(SWAP, "55")
    foretold = run_module(
        kernel_settings, kernel, check=True, owner="role", sysctl={"vm.swappiness": 10}, persist=False
    )
    report = verify.of_changes(Machine(kernel), foretold["changes"])
    assert [(row["key"], row["wanted"], row["live"]) for row in report["drift"]] == [
        ("sysctl:vm.swappiness", "10", "55")
    ]
    assert verify.status(verify.of_changes(Machine(kernel), [])) == 0


@root_only
def test_a_lock_of_clocks_is_never_called_right(make_box) -> None:
    box = make_box()
    result = box.run(**FULL)
    key = f"gpu:{box.uuid()}/gpu_locked_clocks"

    def compare(changes=None):
        def piece():
            machine = Machine(box.kernel, lambda: open_present(box.kernel))
            return verify.against_record(machine) if changes is None else verify.of_changes(machine, changes)

        return in_child(box.driver, piece)

    for report in (compare(), compare([])):
        assert [(row["key"], row["wanted"]) for row in report["not_verifiable"]] == [(key, "420-1800")]
        assert (report["drift"], verify.status(report)) == ([], 0)
        assert f"{key}: not verifiable, " in "\n".join(verify.lines(report))
    assert len(result["changes"]) == 4
    box.driver.reload_driver()
    report = compare()
    assert {row["key"]: row["live"] for row in report["drift"]}[key] == "unknown"
    assert report["not_verifiable"] == []
    assert len(report["drift"]) == 4
