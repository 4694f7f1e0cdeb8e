# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What os_tuning does beyond single knobs: swap, guards, limits, network, mounts, services, slices. Pure.

   collect(values, variables, facts) -> Parts

Every family is one file with pure functions (Wishes) -> Parts. The parts are parameters of the module calls that the
role makes anyway, so that a further family costs no further call to the machine. What a machine cannot have is said by
the family: a skip where a profile wanted it, an obstacle where the inventory did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...module_utils.errors import InputError
from . import interrupts, limits, modules, mounts, network, oom, services, slices, swap
from .parts import Obstacle, Parts, Wishes

# Each with the variable that is to blame where a value cannot be read.
_FAMILIES: tuple[tuple[str, Callable[[Wishes], Parts]], ...] = (
    ("os_tuning_swap", swap.swap),
    ("os_tuning_zram", swap.zram),
    ("os_tuning_zswap", swap.zswap),
    ("os_tuning_oom_guard", oom.guard),
    ("os_tuning_memlock", limits.limits),
    ("os_tuning_journal_max", limits.journal),
    ("os_tuning_serves_wan", network.wan),
    ("os_tuning_modules", modules.modules),
    ("os_tuning_mounts", mounts.mounts),
    ("os_tuning_tmp_size", mounts.tmp),
    ("os_tuning_services_disabled", services.disabled),
    ("os_tuning_ksm_units", services.ksm),
    ("os_tuning_slices", slices.slices),
    ("os_tuning_cpu_partition", slices.partition),
    ("os_tuning_inference_cpus", interrupts.irqbalance),
)


def collect(values: Mapping[str, Any], variables: Mapping[str, Any], facts: Mapping[str, Any]) -> Parts:
    """The parts of all families. `values` holds what profile and inventory make together (profiles.wanted)."""
    wishes = Wishes(values, variables, facts)
    whole = Parts()
    for variable, family in _FAMILIES:
        try:
            whole.add(family(wishes))
        except InputError as error:
            whole.obstacles.append(Obstacle(variable, str(error)))
    return whole
