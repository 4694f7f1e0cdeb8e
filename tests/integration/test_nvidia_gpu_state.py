# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nvidia_gpu_state through real Ansible, on the stand-in driver: set, again, change, again, reset, again.

The target's Python has no nvidia-ml-py: it arrives with the call.
"""

from __future__ import annotations

import json
from pathlib import Path

import fake_nvml
import private
import pytest

pytestmark = pytest.mark.skipif(bool(private.why_not()), reason=private.why_not() or "possible")

CARDS = ["rtx3090", "a100"]
SETTINGS = {
    "persistence": True,
    "power_limit": "90%",
    "compute_mode": "exclusive_process",
    "gpus": [
        {"id": "RTX 3090", "gpu_clocks": {"max_mhz": 1800}, "memory_clocks": {"min_mhz": 5001, "max_mhz": 9501}},
        {
            "id": "0000:02:00.0",
            "ecc": False,
            "mig": True,
            "application_clocks": {"memory_mhz": 1512, "graphics_mhz": 1200},
            "gpu_clocks": {"min_mhz": 210, "max_mhz": 1200},
        },
    ],
}
CHANGED = {**SETTINGS, "power_limit": "250W", "compute_mode": "prohibited"}
RESET = {"persistence": False, "reset": True, "gpus": [{"id": "1", "ecc": True, "mig": False}]}


@pytest.fixture
def bed(tmp_path):
    fake_nvml.build()
    with fake_nvml.Machine(tmp_path / "gpu", CARDS) as machine:
        yield Bed(machine, tmp_path / "var_lib")


class Bed:
    def __init__(self, machine, var_lib: Path) -> None:
        self.machine, self.var_lib = machine, var_lib

    def run(self, arguments, *flags):
        self.machine.trace(clear=True)
        return private.module("nvidia_gpu_state", arguments, self.var_lib, self.machine.environment(), "--diff", *flags)

    def setters(self):
        return [
            call.function
            for call in self.machine.trace()
            if call.function.startswith(("nvmlDeviceSet", "nvmlDeviceRes"))
        ]


def test_set_again_change_again_reset_again_in_check_and_real(bed):
    for arguments, count in ((SETTINGS, 12), (CHANGED, 4), (RESET, None)):
        predicted = bed.run(arguments, "--check")
        assert not predicted.get("failed"), predicted.get("msg")
        assert bed.setters() == []
        real = bed.run(arguments)
        assert not real.get("failed"), real.get("msg")
        assert bed.setters() != []
        assert (predicted["changed"], real["changed"]) == (True, True)
        if arguments is not RESET:
            assert len(real["changes"]) == count
            assert predicted["diff"] == real["diff"]
            assert predicted["changes"] == real["changes"]
        again = bed.run(arguments)
        assert again["changed"] is False, again["changes"]
        assert bed.setters() == []
        assert bed.run(arguments, "--check")["changed"] is False


def test_the_result_says_what_the_driver_has(bed):
    result = bed.run(SETTINGS)
    first, second = result["gpus"]
    assert (first["persistence"], first["power_watts"]["limit"]) == ("on", 315)
    assert second["ecc"] == {"current": "on", "pending": "off"}
    assert result["reboot_required"] is True
    assert (bed.var_lib / "ai-workstation" / "ledger.json").exists()


def test_the_binding_travels_unseen(bed):
    result = bed.run({"persistence": True}, "-vvv")
    assert result["invocation"]["module_args"]["pynvml"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert len(result["output"]) < 100_000
    assert len([call for call in bed.machine.trace() if call.function == "nvmlInitWithFlags"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"power_limit": "9000 W"}, "9000 W is not within what the card takes: 100 to 350 W"),
        ({"power_limit": "fast"}, "'fast' is not a power limit"),
        ({"compute_mode": "exclusive"}, "value of compute_mode must be one of"),
        ({"gpus": [{"id": "H200", "ecc": True}]}, "no GPU matches 'H200'"),
        ({"gpus": [{"id": "NVIDIA", "ecc": True}]}, "matches 2 GPUs"),
        ({"persistense": True}, "Unsupported parameters"),
    ],
)
def test_bad_input_is_one_line(bed, arguments, words):
    result = bed.run(arguments)
    assert result["failed"] is True
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert "Traceback" not in json.dumps(result["msg"])
    assert bed.setters() == []


def test_library_and_driver_of_different_versions(bed):
    bed.machine.set(init_rc=18)
    result = bed.run({"persistence": True, "require_gpu": False})
    assert result["failed"] is True
    assert "upgraded without a reboot" in result["msg"]


def test_no_driver_is_a_skip_where_no_gpu_is_required(bed):
    result = private.module("nvidia_gpu_state", {"persistence": True, "require_gpu": False}, bed.var_lib, {})
    assert result["changed"] is False
    assert result["skipped_keys"][0]["key"] == "gpu:*"
