# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What follows for the operating system from where the services are placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.values import cpu_list, cpus


def from_placement(profile: str, placement: Mapping[str, Any], exclusive: Sequence[str]) -> dict[str, Any]:
    """Values of variables that the inventory may leave out once it declares services.

    Interrupts stay away from CPUs that a service has for itself (balanced); the vectors of the GPUs go to the
    interrupt CPUs of the placement, and irqbalance leaves them there (aggressive).
    """
    if placement["conflicts"]:
        return {}
    taken = {number for name in exclusive for number in cpus(name, placement["services"][name]["cpus"])}
    if profile == "conservative" or not taken:
        return {}
    values: dict[str, Any] = {"os_tuning_inference_cpus": cpu_list(taken)}
    if profile == "aggressive":
        values["os_tuning_interrupts"] = [{"driver": "nvidia", "cpus": placement["interrupt_cpus"], "optional": True}]
        values["os_tuning_irqbalance"] = {"banned_cpus": cpu_list(taken), "banned_modules": ["nvidia"]}
    return values
