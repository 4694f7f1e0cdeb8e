# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, on demand: drivers that are missing, cards that vanish, setters that lie."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest
from fake_nvml import Machine
from nvml_client import (
    INVALID,
    LOST,
    MISMATCH,
    NOT_LOADED,
    PERMISSION,
    UNINITIALIZED,
    Client,
    needs_root,
    one,
    state_seen,
)


def test_nothing_works_before_init_and_after_shutdown(directory: Path) -> None:
    with Client(one(directory), init=False) as nvml:
        assert nvml.code("nvmlDeviceGetCount") == UNINITIALIZED
        assert nvml.code("nvmlShutdown") == UNINITIALIZED
        nvml("nvmlInit")
        assert nvml("nvmlDeviceGetCount") == 1
        nvml("nvmlShutdown")
        assert nvml.code("nvmlDeviceGetCount") == UNINITIALIZED
        assert nvml.code("nvmlShutdown") == UNINITIALIZED
        nvml("nvmlInit")  # one shutdown too many is not owed
        assert nvml("nvmlDeviceGetCount") == 1


@pytest.mark.parametrize("code", [NOT_LOADED, MISMATCH])
def test_init_can_fail_as_a_machine_does(directory: Path, code: int) -> None:
    with Client(one(directory, init_rc=code), init=False) as nvml:
        assert nvml.code("nvmlInit") == code
        assert nvml.code("nvmlDeviceGetCount") == UNINITIALIZED


def test_without_a_machine_there_is_no_driver(directory: Path) -> None:
    machine = one(directory)
    (directory / "machine").unlink()
    with Client(machine, init=False) as nvml:
        assert nvml.code("nvmlInit") == NOT_LOADED


def test_the_library_finds_the_machine_by_the_file_beside_it(directory: Path, tmp_path: Path) -> None:
    machine = one(directory)
    machine.install(tmp_path)
    program = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(0)))"
    environment = {key: value for key, value in os.environ.items() if key != "FAKE_NVML_STATE"}
    seen = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout == "NVIDIA GeForce RTX 5090\n"


def test_a_lost_gpu_is_lost_until_reload(directory: Path) -> None:
    machine = Machine(directory, ["rtx5090", "rtx3090"])
    with Client(machine) as nvml:
        machine.lose(1)
        assert nvml.code("nvmlDeviceGetName", 1) == LOST
        assert (machine.trace()[-1].function, machine.trace()[-1].code) == ("nvmlDeviceGetHandleByIndex_v2", LOST)
        assert nvml("nvmlDeviceGetCount") == 2
        assert nvml.code("nvmlDeviceGetName", 0) == 0
    machine.reload_driver()
    with Client(machine) as nvml:
        assert nvml.code("nvmlDeviceGetName", 1) == 0


@needs_root
def test_a_gpu_falls_off_the_bus_in_the_middle_of_a_call(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        machine.fault(fn="nvmlDeviceSetPowerManagementLimit", action="lost")
        assert nvml.code("nvmlDeviceSetPowerManagementLimit", 0, 450000) == LOST
        machine.fault()
        assert nvml.code("nvmlDeviceGetPowerUsage", 0) == LOST


def test_faults_by_function_count_and_gpu(directory: Path) -> None:
    machine = Machine(directory, ["rtx5090", "rtx3090"])
    with Client(machine) as nvml:
        machine.fault("fn=nvmlDeviceGetPowerUsage rc=999 times=1")
        assert nvml.code("nvmlDeviceGetPowerUsage", 0) == 999
        assert nvml.code("nvmlDeviceGetPowerUsage", 0) == 0
        machine.fault("fn=nvmlDeviceGetPower* rc=10 gpu=1 after=1")
        assert nvml.code("nvmlDeviceGetPowerUsage", 0) == 0
        assert nvml.code("nvmlDeviceGetPowerUsage", 1) == 0
        assert nvml.code("nvmlDeviceGetPowerManagementLimit", 1) == 10
        assert nvml.code("nvmlDeviceGetName", 1) == 0


def test_faults_by_call_number_hit_that_call_of_a_process(directory: Path) -> None:
    machine = one(directory)
    machine.fault("call=3 rc=17")
    for _turn in range(2):
        with Client(machine) as nvml:  # call 1 is the init
            assert nvml("nvmlDeviceGetCount") == 1  # 2
            assert nvml.code("nvmlDeviceGetCount") == 17  # 3
            assert nvml.code("nvmlDeviceGetCount") == 0


@needs_root
def test_a_lying_setter_reports_success_and_does_nothing(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        machine.fault(fn="nvmlDeviceSetPowerManagementLimit", rc=0)
        assert nvml.code("nvmlDeviceSetPowerManagementLimit", 0, 450000) == 0
        assert nvml("nvmlDeviceGetPowerManagementLimit", 0) == 575000


@needs_root
def test_a_private_umask_does_not_hide_the_state_from_others(directory: Path) -> None:
    machine = one(directory)
    umask = os.umask(0o077)
    try:
        with Client(machine) as nvml:
            nvml("nvmlDeviceSetPersistenceMode", 0, 1)
    finally:
        os.umask(umask)
    with Client(machine) as nvml:
        nvml("setuid", None, 65534)
        assert nvml("nvmlDeviceGetPersistenceMode", 0) == 1


@needs_root
@pytest.mark.parametrize(("action", "kept"), [("kill", 575000), ("kill-after", 450000)])
def test_a_process_can_be_killed_before_or_after_a_setting(directory: Path, action: str, kept: int) -> None:
    machine = one(directory)
    machine.set(gpu=0, processes="1:C:1")  # somebody holds the GPU, so that the setting stays
    machine.fault(fn="nvmlDeviceSetPowerManagementLimit", action=action, times=1)
    nvml = Client(machine).__enter__()
    with pytest.raises(EOFError, match="-9"):
        nvml("nvmlDeviceSetPowerManagementLimit", 0, 450000)
    assert state_seen(machine)[0] == kept
    with Client(machine) as nvml:  # once is once, over all processes
        assert nvml.code("nvmlDeviceSetPowerManagementLimit", 0, 460000) == 0


def test_the_trace_lists_calls_with_codes(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        nvml.code("nvmlDeviceSetPowerManagementLimit", 0, 1)
    calls = [call.function for call in machine.trace()]
    assert calls == [
        "nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceSetPowerManagementLimit", "nvmlShutdown",
    ]  # fmt: skip
    setter = machine.trace(clear=True)[2]
    assert (setter.gpu, setter.code, setter.arguments) == (0, INVALID if os.geteuid() == 0 else PERMISSION, "1")
    assert machine.trace() == []


@needs_root
def test_processes_do_not_lose_each_others_settings(directory: Path) -> None:
    machine = Machine(directory, ["rtx5090"] * 8)
    clients = [Client(machine).__enter__() for _turn in range(4)]
    for nvml in clients:  # all at once: write the requests before reading any answer
        assert nvml.child.stdin
        for gpu in range(8):
            function = "nvmlDeviceSetPersistenceMode" if gpu % 2 else "nvmlDeviceSetComputeMode"
            nvml.child.stdin.write(f'["{function}", {gpu}, {1 if gpu % 2 else 3}]\n')
        nvml.child.stdin.flush()
    for nvml in clients:
        assert nvml.child.stdout
        assert [nvml.child.stdout.readline() for _turn in range(8)] == ['{"value": null}\n'] * 8
    with clients[0] as nvml:
        for gpu in range(8):
            getter = "nvmlDeviceGetPersistenceMode" if gpu % 2 else "nvmlDeviceGetComputeMode"
            assert nvml(getter, gpu) == (1 if gpu % 2 else 3)
    for nvml in clients[1:]:
        nvml.__exit__(None, None, None)


def test_error_texts_are_those_that_pynvml_knows(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        for code in range(1, 16):
            assert nvml("nvmlErrorString", None, code) == pynvml.NVMLError._errcode_to_string[code]
        assert nvml("nvmlErrorString", None, 999) == nvml("nvmlErrorString", None, 500) == "Unknown Error"
