# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one call of workstation_state takes for its parts: the shape of every option, said by where it is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.specs import SPECS
from ansible_collections.ai_infra.workstation.plugins.modules.workstation_state import typed
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("part", "options", "says"),
    [
        ("nvidia_gpu_state", {"gpus": [{"id": "0", "gpu_clocks": True}]}, "gpus[0]: gpu_clocks: True is not"),
        ("nvidia_gpu_state", {"gpu_clocks": 5}, "gpu_clocks: 5 is not a dictionary"),
        ("irq_affinity", {"irqbalance": True}, "irqbalance: True is not a dictionary"),
        ("irq_affinity", {"irqbalance": [1]}, "irqbalance: [1] is not a dictionary"),
        ("irq_affinity", {"irqbalance": {1: 2}}, "irqbalance: 1 is not the name of an option"),
        ("unit_state", {"units": [{"name": ["a"]}]}, "units[0]: name: ['a'] is not a single value"),
        ("unit_state", {"units": [{"active": True}]}, "units[0]: name is missing"),
        ("unit_state", {"units": [None]}, "units[0] is empty"),
        ("unit_state", {"units": {"name": "a"}}, "units: {'name': 'a'} is not a list"),
        ("managed_files", {"files": [{"path": "/etc/x", "size": 1}]}, "unknown option files.size"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_where_it_is(part: str, options: dict[str, Any], says: str) -> None:
    _params, problems = typed(part, options)
    assert says in problems[0]
    assert all(problem.startswith(f"{part}: ") and "\n" not in problem for problem in problems)


def test_what_is_right_has_its_types_and_defaults() -> None:
    params, problems = typed("nvidia_gpu_state", {"gpus": [{"id": 0, "gpu_clocks": {"max_mhz": "1500"}}], "ecc": ""})
    assert problems == []
    assert params["gpus"][0]["id"] == "0"
    assert params["gpus"][0]["gpu_clocks"] == {"min_mhz": None, "max_mhz": 1500, "reset": False}
    assert typed("irq_affinity", {"irqbalance": {"banned_modules": "nvidia,nvme"}})[0]["irqbalance"] == {
        "banned_cpus": None, "banned_modules": ["nvidia", "nvme"], "stopped": False}  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name", "path", "gpu_clocks"]), inner)
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from([(part, option) for part in SPECS for option in SPECS[part]]), JSON)
def test_whatever_is_written_has_types_or_a_reason(place: tuple[str, str], value: Any) -> None:
    part, option = place
    params, problems = typed(part, {option: value})
    assert problems or option in params or value in (None, "") or "aliases" in SPECS[part][option]
