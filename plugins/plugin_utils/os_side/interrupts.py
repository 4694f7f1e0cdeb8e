# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What irqbalance leaves alone. Source: irqbalance(1), IRQBALANCE_BANNED_CPULIST."""

from __future__ import annotations

from ...module_utils.values import cpu_list, cpus
from .parts import Parts, Wishes


def irqbalance(wishes: Wishes) -> Parts:
    """os_tuning_irqbalance as it is written; else the CPUs of inference threads are banned for all interrupts."""
    given = wishes.value("os_tuning_irqbalance")
    if given is not None:
        return Parts(irqbalance=dict(given))
    inference = wishes.value("os_tuning_inference_cpus")
    if inference is None:
        return Parts()
    return Parts(irqbalance={"banned_cpus": cpu_list(cpus("os_tuning_inference_cpus", inference))})
