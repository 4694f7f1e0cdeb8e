# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nvidia_gpu_state when the driver does not do as asked: every call, every setter, every code."""

from __future__ import annotations

import os
import re

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import (
    ApplyError,
    RefusedError,
    WorkstationError,
)
from gpu_box import FULL

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")


def keys(result):
    return [change["key"].rpartition("/")[2] for change in result["changes"]]


SETTERS = {
    "nvmlDeviceSetPersistenceMode": {"persistence": True},
    "nvmlDeviceSetPowerManagementLimit": {"persistence": True, "power_limit": "250"},
    "nvmlDeviceSetGpuLockedClocks": {"persistence": True, "gpu_clocks": {"max_mhz": 1410}},
    "nvmlDeviceSetMemoryLockedClocks": {"persistence": True, "memory_clocks": {"min_mhz": 5001}},
    "nvmlDeviceSetApplicationsClocks": {
        "persistence": True,
        "application_clocks": {"memory_mhz": 1512, "graphics_mhz": 1200},
    },
    "nvmlDeviceSetComputeMode": {"persistence": True, "compute_mode": "prohibited"},
    "nvmlDeviceSetEccMode": {"persistence": True, "ecc": False},
    "nvmlDeviceSetMigMode": {"persistence": True, "mig": True},
}


@pytest.mark.parametrize("code", [2, 3, 4, 15, 18, 19, 77, 999])
@pytest.mark.parametrize("function", SETTERS)
def test_each_error_of_each_setter_is_one_line_and_leaves_nothing(make_box, function, code):
    # The A100 has everything but a memory lock.
    box = make_box("rtx3090" if "Memory" in function else "a100")
    before = box.state()
    box.driver.fault(f"fn={function} rc={code} times=1")
    with pytest.raises(ApplyError) as caught:
        box.run(**SETTERS[function])
    message = str(caught.value)
    assert "\n" not in message
    assert f"gpu:{box.uuid()}/" in message
    assert f"({code})" in message
    assert function in message
    assert "nothing of this call remains" in message
    box.driver.fault()
    assert box.state() == before
    box.run(**SETTERS[function])
    assert box.run(**SETTERS[function])["changed"] is False


def run_or_fail(box, wanted):
    """How the call ended, and what it said."""
    try:
        box.run(**wanted)
    except (WorkstationError, OSError) as error:
        return type(error).__name__, str(error)
    return "applied", ""


def test_a_fault_at_every_call_of_one_apply(make_box):
    """Whatever call fails, once: the state is as before, or as asked when the failure did not matter."""
    wanted = {**FULL, "memory_clocks": {"min_mhz": 5001, "max_mhz": 9501}}
    box = make_box("rtx3090")
    before = box.state()
    box.driver.trace(clear=True)
    box.run(**wanted)
    after, calls = box.state(), [call.function for call in box.driver.trace() if "Shutdown" not in call.function]
    first = [call.function for call in box.driver.trace()].index("nvmlShutdown")
    assert first > 40
    outcomes = set()
    for number in range(1, first + 2):
        box = make_box("rtx3090")
        box.driver.fault(f"call={number} rc=999 times=1")
        outcome, message = run_or_fail(box, wanted)
        expected = after if outcome == "applied" else before
        assert "\n" not in message
        assert "NOT restored" not in message, (number, calls[number - 1], message)
        box.driver.fault()
        assert box.state() == expected, (number, calls[number - 1], outcome)
        outcomes.add(outcome)
        box.run(**wanted)
        assert box.state() == after
        assert box.run(**wanted)["changed"] is False
    assert {"applied", "ApplyError", "RefusedError"} <= outcomes


def test_what_cannot_be_undone_is_listed(make_box):
    box = make_box("rtx3090")
    # The compute mode is refused, and so is every attempt to put the power limit back.
    box.driver.fault("fn=nvmlDeviceSetComputeMode rc=999", "fn=nvmlDeviceSetPowerManagementLimit rc=999 after=1")
    with pytest.raises(ApplyError) as caught:
        box.run(persistence=True, power_limit="300", compute_mode="prohibited")
    assert re.search(
        r"NOT restored: gpu:GPU-\S+/power_limit_mw \(should be 350000: .*NVML_ERROR_UNKNOWN", str(caught.value)
    )
    assert len(caught.value.details["not_restored"]) == 1
    box.driver.fault()
    assert box.run(persistence=True)["changes"][0]["after"] in ("on", 350000)


def test_a_gpu_that_falls_off_the_bus_midway(make_box):
    box = make_box("rtx3090", "rtx4090")
    before = box.state()
    box.driver.fault("fn=nvmlDeviceSetPowerManagementLimit gpu=1 action=lost")
    with pytest.raises(ApplyError) as caught:
        box.run(persistence=True, power_limit="80%")
    message = str(caught.value)
    assert "GPU_IS_LOST (15)" in message
    assert "Xid 79" in message
    assert f"NOT restored: gpu:{box.uuid(1)}/" in message
    assert box.uuid(0) not in message.partition("NOT restored")[2]
    box.driver.fault()
    assert box.state() == before[:1]


def test_a_lost_gpu_is_named_and_the_others_can_be_set(make_box):
    box = make_box("rtx3090", "rtx4090")
    box.run(persistence=True)
    box.driver.lose(1)
    with pytest.raises(RefusedError, match="GPU_IS_LOST.*Xid 79"):
        box.run(persistence=True, power_limit="90%")
    result = box.run(gpus=[{"id": "0", "persistence": True, "power_limit": "90%"}])
    assert keys(result) == ["power_limit_mw"]
    assert any("cannot be reached" in warning for warning in result["warnings"])


def test_a_getter_that_fails_is_not_taken_for_a_card_without_the_feature(make_box):
    box = make_box()
    box.driver.fault(fn="nvmlDeviceGetComputeMode", rc=999)
    with pytest.raises(RefusedError, match=r"compute_mode: nvmlDeviceGetComputeMode: NVML_ERROR_UNKNOWN"):
        box.run(compute_mode="prohibited", optional=["*"])


@pytest.mark.parametrize("function", [name for name in SETTERS if "Locked" not in name])
def test_a_setter_that_lies_is_found_out(make_box, function):
    box = make_box("a100")
    before = box.state()
    box.driver.fault(fn=function, rc=0)
    with pytest.raises(ApplyError, match=r"asked for .*, read back .*; nothing of this call remains"):
        box.run(**SETTERS[function])
    box.driver.fault()
    assert box.state() == before


def test_a_lock_that_was_put_back_keeps_its_record(make_box):
    box = make_box()
    held = {"persistence": True, "gpu_clocks": {"max_mhz": 1800}}
    box.run(**held)
    box.driver.fault(fn="nvmlDeviceSetComputeMode", rc=999)
    with pytest.raises(ApplyError, match="nothing of this call remains"):
        box.run(persistence=True, gpu_clocks={"max_mhz": 1500}, compute_mode="prohibited")
    box.driver.fault()
    assert box.run(**held)["changed"] is False
