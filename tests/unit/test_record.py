# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of what was asked for: kept after success only, replaced only when different."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import PATH, Record
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    cpu_governor,
    irq_affinity,
    kernel_settings,
    managed_files,
)
from fake_kernel import FakeKernel, refuse, run_module

SWAP = "/proc/sys/vm/swappiness"
WANT = {"owner": "role", "sysctl": {"vm.swappiness": 10}, "persist": False, "expect": None}


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put(SWAP, "60")
    return kernel


def wanted(kernel: FakeKernel) -> dict:
    return json.loads(kernel.text(PATH) or "null")["wanted"]


def test_what_a_call_asked_for_is_kept_for_root_alone(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, **WANT)
    assert wanted(kernel) == {"role": {"kernel_settings": {"sysctl": {"vm.swappiness": 10}, "persist": False}}}
    assert os.stat(kernel.at(PATH)).st_mode & 0o777 == 0o600


def test_check_mode_and_a_failed_call_record_nothing(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, check=True, **WANT)
    assert kernel.writes == []
    kernel.rules[SWAP] = refuse(errno.EPERM)
    with pytest.raises(ApplyError):
        run_module(kernel_settings, kernel, **WANT)
    assert not kernel.exists(PATH)


def test_a_second_run_does_not_write_and_other_parameters_do_without_a_change(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, **WANT)
    kernel.writes.clear()
    run_module(kernel_settings, kernel, **WANT)
    assert kernel.writes == []
    outcome = run_module(kernel_settings, kernel, **WANT, optional=["vm.swappiness"])
    assert (outcome["changed"], kernel.writes) == (False, [PATH])


def test_a_part_that_wants_nothing_goes_out_and_other_owners_stay(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, **WANT)
    run_module(kernel_settings, kernel, **{**WANT, "owner": "other"})
    run_module(kernel_settings, kernel, owner="role", sysctl={}, persist=False)
    assert list(wanted(kernel)) == ["other"]


def test_all_parts_of_a_call_are_recorded_also_those_that_changed_nothing(kernel: FakeKernel) -> None:
    kernel.put_all({"/sys/devices/system/cpu/online": "0-7", "/proc/irq/default_smp_affinity": "ff"})
    irq = {"owner": "role", "default_cpus": "0-3", "optional": []}
    files = {"owner": "role", "files": [{"path": "/etc/systemd/journald.conf.d/50-a.conf", "content": "[Journal]\n"}]}
    parts = [(cpu_governor, {"owner": "role"}), (kernel_settings, WANT), (irq_affinity, irq), (managed_files, files)]
    converge_parts(parts, False, Machine(kernel))
    assert list(wanted(kernel)["role"]) == ["irq_affinity", "kernel_settings", "managed_files"]
    # What only that moment knew (the CPUs that SMT leaves online) is not in it.
    assert wanted(kernel)["role"]["irq_affinity"] == {"default_cpus": "0-3", "optional": []}
    os.unlink(kernel.at(PATH))
    assert converge_parts(parts, False, Machine(kernel))["changed"] is False
    assert list(wanted(kernel)["role"]) == ["irq_affinity", "kernel_settings", "managed_files"]


def test_a_part_that_fails_keeps_what_it_had(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, **WANT)
    kernel.rules[SWAP] = refuse(errno.EPERM)
    files = {"owner": "role", "files": [{"path": "/etc/sysctl.d/50-a.conf", "content": "a\n"}]}
    with pytest.raises(ApplyError):
        converge_parts(
            [(managed_files, files), (kernel_settings, {**WANT, "sysctl": {"vm.swappiness": 1}})],
            False,
            Machine(kernel),
        )
    assert wanted(kernel)["role"]["kernel_settings"]["sysctl"] == {"vm.swappiness": 10}
    assert "managed_files" in wanted(kernel)["role"]


def test_keys_left_alone_are_so_until_a_call_names_them(kernel: FakeKernel) -> None:
    run_module(kernel_settings, kernel, **WANT)
    record = Record(kernel)
    record.leave_alone(["sysctl:vm.swappiness", "irq:default"])
    record.save()
    assert Record(kernel).left_alone == {"sysctl:vm.swappiness", "irq:default"}
    run_module(kernel_settings, kernel, **WANT)
    assert Record(kernel).left_alone == {"irq:default"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "wanted": {}, "left_alone": []}'])
def test_a_damaged_record_is_said_and_written_anew_by_the_next_run(kernel: FakeKernel, text: str) -> None:
    kernel.put(PATH, text)
    with pytest.raises(RefusedError, match=r"record.json (cannot be read|has version 2).*; the next run"):
        Record(kernel).parts()
    run_module(kernel_settings, kernel, **WANT)
    assert [part for _owner, part, _params in Record(kernel).parts()] == ["kernel_settings"]


def test_a_record_that_cannot_be_written_is_an_error_in_one_line(kernel: FakeKernel, monkeypatch) -> None:
    def full(path: str) -> None:
        if path == PATH:
            raise OSError(errno.ENOSPC, "No space left on device")

    kernel.before_write = full
    with pytest.raises(ApplyError, match=r"^all is as asked for, but .*record.json could not be written \(No space"):
        run_module(kernel_settings, kernel, **WANT)
    assert kernel.text(SWAP) == "10"
