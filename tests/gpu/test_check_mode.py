# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nvidia_gpu_state in check mode: every option on every card, and bad input; the cards stay as they are."""

from __future__ import annotations

import pytest

# Checked against the card's own lists and limits, so the values come from there.
OPTIONS = ("persistence", "power_limit", "gpu_clocks", "memory_clocks", "application_clocks", "compute_mode", "ecc")
OPTIONS += ("mig", "reset")


def value(option, nvml, gpu):
    """A value for an option that this card takes, if it has the feature at all."""
    rungs = nvml.memory_clocks(gpu.uuid) or [1]
    ladder = nvml.graphics_clocks(gpu.uuid, rungs[-1]) or [1]
    return {
        "persistence": True,
        "power_limit": "95%",
        "gpu_clocks": {"min_mhz": ladder[0], "max_mhz": ladder[len(ladder) // 2]},
        "memory_clocks": {"reset": True} if gpu.architecture == "blackwell" else {"max_mhz": rungs[-1]},
        "application_clocks": {"memory_mhz": rungs[-1], "graphics_mhz": ladder[-1]},
        "compute_mode": "exclusive_process",
        "ecc": True,
        "mig": True,
        "reset": True,
    }[option]


def untouched(nvml, gpus):
    """What can be set, without what moves by itself."""
    moving = {"graphics_mhz", "sm_mhz", "memory_mhz", "power_enforced_mw"}
    return [
        {name: known for name, known in nvml.settings(gpu.uuid).values.items() if name not in moving} for gpu in gpus
    ]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_predicted_and_nothing_is_set(call, nvml, gpus, option):
    before = untouched(nvml, gpus)
    wanted = [{"id": gpu.uuid, "persistence": True, option: value(option, nvml, gpu)} for gpu in gpus]
    result = call("nvidia_gpu_state", gpus=wanted, optional=["*"])
    assert not result["failed"], result["msg"]
    keys = {change["key"] for change in result["changes"]} | {skip["key"] for skip in result["skipped_keys"]}
    assert {key.partition(":")[2].partition("/")[0] for key in keys} <= {gpu.uuid for gpu in gpus}
    assert [gpu["uuid"] for gpu in result["gpus"]] == [gpu.uuid for gpu in gpus]
    assert untouched(nvml, gpus) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"power_limit": "9000"}, "9000 W is not within what the card takes"),
        ({"power_limit": "fast"}, "'fast' is not a power limit"),
        ({"persistence": True, "gpu_clocks": {"max_mhz": 99999}}, "99999 MHz is not on the card's list"),
        ({"persistence": False, "gpu_clocks": {"reset": False}}, "give clocks"),
    ],
)
def test_bad_input_is_one_line(call, gpus, settings, words):
    result = call("nvidia_gpu_state", gpus=[{"id": gpus[0].uuid, **settings}])
    assert result["failed"]
    assert words in result["msg"]
    assert "\n" not in result["msg"]


def test_a_gpu_that_is_not_there_is_an_error_that_lists_those_that_are(call, gpus):
    result = call("nvidia_gpu_state", gpus=[{"id": "GPU-00000000-0000-0000-0000-000000000000", "persistence": True}])
    assert result["failed"]
    assert gpus[0].uuid in result["msg"]
