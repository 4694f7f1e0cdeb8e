# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the driver answers questions: what the door takes for granted, asked of a real card."""

from __future__ import annotations

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors import nvml_binding
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml_binding import NvmlError


def refused(nvml, function, *arguments):
    with pytest.raises(NvmlError) as caught:
        nvml.call(function, *arguments)
    return caught.value.code


def test_a_gpu_that_is_not_there(nvml):
    assert refused(nvml, "nvmlDeviceGetHandleByIndex", 999) == 2
    assert refused(nvml, "nvmlDeviceGetHandleByUUID", "GPU-00000000-0000-0000-0000-000000000000") in (2, 6)


def test_a_clock_list_exists_for_rungs_alone(nvml, gpus):
    for gpu in gpus:
        rungs = nvml.memory_clocks(gpu.uuid)
        if rungs:
            assert nvml.graphics_clocks(gpu.uuid, rungs[-1])
            assert refused(nvml, "nvmlDeviceGetSupportedGraphicsClocks", nvml.handle(gpu.uuid), 3) in (2, 6)


def test_the_highest_rung_has_the_whole_ladder(nvml, gpus):
    for gpu in gpus:
        rungs = nvml.memory_clocks(gpu.uuid)
        if rungs:
            assert nvml.graphics_clocks(gpu.uuid, rungs[-1]) == nvml.graphics_clocks(gpu.uuid)


def test_limits_are_in_order(nvml, gpus):
    for gpu in gpus:
        values = nvml.settings(gpu.uuid)
        if values["power_range_mw"]:
            low, high = values["power_range_mw"]
            assert 0 < low <= values["power_default_mw"] <= high
            assert low <= values["power_limit_mw"] <= high


def test_a_getter_answers_or_says_that_the_card_has_none(nvml, gpus):
    for gpu in gpus:
        assert nvml.settings(gpu.uuid).errors == {}
        assert nvml.hardware(gpu.uuid).errors == {}


def test_every_answer_has_a_name_in_our_table(nvml):
    for code in nvml_binding._ERRORS:
        assert nvml._binding.nvmlErrorString(code)
