# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPU frequency policies, boost, idle states and SMT: one call, in the order in which the kernel accepts it.

    boost where it comes -> what leaves with its CPU goes back -> SMT
        -> per policy boost, governor, EPP, limits -> boost where it goes -> idle

What an earlier call of the same owner set and this one does not name goes back within the same
order, because the kernel's rules (governor before EPP, minimum below maximum, the whole range of
limits only with boost) hold for it as well.
Sources: Documentation/admin-guide/pm/{cpufreq,intel_pstate,amd-pstate,cpuidle}.rst and the kernel's
Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from ..engine.change import Draft
from ..engine.machine import Machine
from .cpu_boost import Boost
from .cpu_frequency import decide_frequencies
from .cpu_idle import decide_idle
from .cpu_look import Snapshot, look_cpus
from .cpu_plan import Plan
from .cpu_smt import smt_switches, switch_smt
from .cpu_wishes import NAME, Desired, parse

__all__ = ["NAME", "decide", "look", "parse"]


def look(machine: Machine, desired: Desired) -> Snapshot:
    return look_cpus(machine, desired.owner, desired.idle_latency_us is not None)


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    plan = Plan(desired, snapshot)
    switches = smt_switches(plan)
    boost = Boost(plan)
    if not boost.off_after:
        boost.switch()
    if switches:
        switch_smt(plan, boost)
    decide_frequencies(plan, boost)
    if boost.off_after:
        boost.switch()
    decide_idle(plan)
    plan.finish()
    return plan.draft
