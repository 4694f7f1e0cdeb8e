# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Idle states: a bound on the wake-up latency, or the states above it disabled (cpuidle.rst)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from ..engine.change import Place
from .cpu_look import CPU, Idle
from .cpu_plan import Plan

_NO_IDLE = "no cpuidle states here (a virtual machine gives the choice to its host, or the firmware hides them)"
_POLLING = "only the polling state would be left: heat, and less boost for the other cores"


def decide_idle(plan: Plan) -> None:
    snapshot, bound = plan.snapshot, plan.desired.idle_latency_us
    if bound is None:
        return
    if not any(idle.states for idle in snapshot.idle.values()):
        plan.cannot("idle_latency_us", "cpuidle:states", _NO_IDLE)
        return
    chosen = set(plan.online if plan.desired.policies is None else plan.desired.policies) & set(plan.online)
    model = _model(plan)
    for cpu in sorted(chosen):
        idle, appears = snapshot.idle.get(cpu, model), cpu not in snapshot.online
        _one(plan, cpu, appears, replace(idle, states=model.states) if appears else idle, bound)


def _model(plan: Plan) -> Idle:
    """The idle states of a CPU that comes online with this call: those of the first CPU, without our changes."""
    first = min(plan.snapshot.online)
    states = []
    for state in plan.snapshot.idle[first].states:
        owned = plan.snapshot.owned.get(f"cpuidle:cpu{first}/{state.folder}/disable")
        states.append(replace(state, disable=str(owned.original)) if owned and owned.ours else state)
    return replace(plan.snapshot.idle[first], states=tuple(states))


def _one(plan: Plan, cpu: int, appears: bool, idle: Idle, bound: int) -> None:
    first_sleep = min((state.latency_us for state in idle.states if state.latency_us), default=0)
    if bound < first_sleep and not plan.desired.accept_polling:
        reason = f"{bound} us is below the first sleep state ({first_sleep} us): {_POLLING}; accept_polling allows it"
        plan.cannot_on("idle_latency_us", "cpu", cpu, "idle", reason)
        return
    more: dict[str, Any] = {}
    if appears:
        gone = "the CPU did not come online with idle states of its own"
        more = {"presence": "appears", "tolerate": {errno.ENOENT: gone}}
    if plan.desired.idle_mechanism == "disable":
        for state in idle.states:
            place = Place(
                f"cpuidle:cpu{cpu}/{state.folder}/disable",
                "text",
                f"{CPU}/cpu{cpu}/cpuidle/{state.folder}/disable",
            )
            if state.latency_us > bound and state.writable:
                plan.put(place, state.disable, "1", False, **more)
            elif state.latency_us > bound:
                plan.cannot_on("idle_latency_us", "cpuidle:cpu", cpu, "disable", "read-only here (a container)")
        return
    place = Place(f"pm_qos:cpu{cpu}", "text", f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us")
    if idle.pm_qos is None or not idle.writable:
        plan.cannot_on(
            "idle_latency_us",
            "pm_qos:cpu",
            cpu,
            "bound",
            "no writable power/pm_qos_resume_latency_us here (a container)",
        )
    else:
        # "0" is the kernel's word for no bound; a bound of zero is written "n/a".
        plan.put(place, idle.pm_qos, str(bound) if bound else "n/a", False)
