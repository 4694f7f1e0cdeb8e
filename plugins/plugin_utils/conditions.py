# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The conditions that a row of settings.yml may name: one question each about facts and inventory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .os_side.parts import fact
from .os_side.swap import foreign_swap, swap_can_go, zram_obstacle

Condition = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]


def _energy_preference(facts: Mapping[str, Any], _variables: Mapping[str, Any]) -> bool:
    policies = fact(facts, "cpu", "cpufreq", "policies") or []
    return any(policy.get("epps") for policy in policies)


def _psu_attested(_facts: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    return variables.get("gpu_tuning_psu_attested") is True


def _no_swap(facts: Mapping[str, Any], _variables: Mapping[str, Any]) -> bool:
    """No swap but, perhaps, ours. Where the facts do not tell, there may be some."""
    return foreign_swap(facts) == []


def _swap_can_go(facts: Mapping[str, Any], _variables: Mapping[str, Any]) -> bool:
    return swap_can_go(facts)


def _zram_swap(facts: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Whether the aggressive profile ends with our zram swap: asked for, or because swap has to stay."""
    wanted = variables["os_tuning_zram"] if "os_tuning_zram" in variables else not swap_can_go(facts)
    return bool(wanted) and not zram_obstacle(facts)


def _numa_pinned(facts: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Several nodes, and somebody says that every service is pinned to one."""
    return len(fact(facts, "memory", "nodes") or []) > 1 and variables.get("os_tuning_numa_pinned") is True


def _ai_slice_cpus(_facts: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    return bool(fact(variables, "os_tuning_slices", "ai", "allowed_cpus"))


CONDITIONS: dict[str, Condition] = {
    "energy_preference": _energy_preference,
    "psu_attested": _psu_attested,
    "no_swap": _no_swap,
    "swap_can_go": _swap_can_go,
    "zram_swap": _zram_swap,
    "numa_pinned": _numa_pinned,
    "ai_slice_cpus": _ai_slice_cpus,
}
