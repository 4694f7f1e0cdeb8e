# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about CPUs: sets, placement, governors, interrupts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import cpu_list
from ...module_utils.values import cpus as parse_cpus
from .base import ERROR, WARNING, Finding, rule, said
from .context import Context

# Writers of governor and energy preference that write again and again. tuned-ppd is a part of tuned.
_WRITERS = ("tuned", "power_profiles_daemon", "tlp", "auto_cpufreq")
_CPU_VALUES = ("os_tuning_governor", "os_tuning_epp")


def _cpu_sets(ctx: Context) -> Iterator[tuple[str, Any]]:
    """Every CPU list of the inventory: (where, value)."""
    for number, item in enumerate(ctx.entries("os_tuning_interrupts")):
        yield f"os_tuning_interrupts[{number}].cpus", item.get("cpus")
    yield "os_tuning_default_interrupt_cpus", ctx.value("os_tuning_default_interrupt_cpus")
    yield "os_tuning_irqbalance.banned_cpus", ctx.table("os_tuning_irqbalance").get("banned_cpus")
    yield "os_tuning_inference_cpus", ctx.value("os_tuning_inference_cpus")
    yield "os_tuning_cpus", ctx.value("os_tuning_cpus")
    yield from _nested("os_tuning_slices", ctx.value("os_tuning_slices"))


def _nested(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """CPU lists inside a variable, by the names that hold one."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if str(name).lower() in ("cpus", "allowed_cpus", "allowedcpus"):
                yield f"{where}.{name}", item
            else:
                yield from _nested(f"{where}.{name}", item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _nested(f"{where}[{number}]", item)


@rule(ERROR, "T08")
def cpu_not_online(ctx: Context) -> Iterator[Finding]:
    """A CPU list names CPUs that will not be online."""
    online = ctx.planned_cpus
    for where, value in _cpu_sets(ctx) if online else ():
        if value in (None, "all"):
            continue
        try:
            missing = set(parse_cpus(where, value)) - online
        except InputError:
            continue
        if missing:
            after = " after SMT is switched off by the same plan" if ctx.smt in ("off", "forceoff") else ""
            yield Finding(
                f"{where}: CPUs {cpu_list(missing)} are not online{after}",
                "what is bound to a CPU that is not there does not start, or runs somewhere else",
                (where, "os_tuning_smt"),
                f"name CPUs among {cpu_list(online)}, or declare workstation_services and leave the choice to the plan",
            )


@rule(ERROR, "T09")
def cpu_placement(ctx: Context) -> Iterator[Finding]:
    """The CPU wishes of the services cannot be met together."""
    placed = ctx.placement
    for conflict in placed["conflicts"] if isinstance(placed, Mapping) else ():
        if conflict["resource"] == "cpus":
            what, _semicolon, fix = conflict["message"].partition("; ")
            yield Finding(
                what,
                "exclusive services have whole cores for themselves, and the system keeps its housekeeping CPUs",
                tuple(f"workstation_services: {wish}" for wish in conflict["wishes"]),
                fix,
            )


@rule(WARNING, "T09")
def cpu_placement_costs(ctx: Context) -> Iterator[Finding]:
    """The services have a place, at a cost."""
    placed = ctx.placement
    for text in placed["warnings"] if isinstance(placed, Mapping) else ():
        yield Finding(
            str(text),
            "the placement is the best that these wishes and this machine allow",
            ("workstation_services",),
            "ask for fewer CPUs or another locality, if it matters",
        )


@rule(ERROR, "T20")
def governor_writers(ctx: Context) -> Iterator[Finding]:
    """Another service writes the governor or the energy preference as well."""
    if not ctx.section("cpu", "cpufreq", "policies"):
        return
    active = [
        owner
        for owner in (ctx.owner(name) for name in _WRITERS)
        if owner.get("active") and not ctx.unit_stops(str(owner.get("unit")))
    ]
    ours = [name for name in _CPU_VALUES if ctx.value(name) is not None]
    if active and (ours or len(active) > 1):
        units = [str(owner.get("unit")) for owner in active]
        stops = ", ".join(f"{{name: {unit}, unit_file: masked, active: false}}" for unit in units)
        yield Finding(
            f"{said(units)} {'write' if len(units) > 1 else 'writes'} the governor or the energy preference"
            + (" too" if ours else ""),
            "each writes at its own time and the values flap; whatever is set does not last",
            (*ours, "os_tuning_units"),
            f"stop it with os_tuning_units: [{stops}], or leave both to it: {said(f'{name}: null' for name in ours)}"
            if ours
            else f"keep one; stop the others with os_tuning_units: [{stops}]",
        )


@rule(ERROR, "T20", acceptable=False)
def preference_with_performance(ctx: Context) -> Iterator[Finding]:
    """An energy preference beside the governor performance."""
    governor, epp = ctx.value("os_tuning_governor"), ctx.value("os_tuning_epp")
    if governor == "performance" and ctx.explicit("os_tuning_epp") and str(epp) not in ("performance", "0"):
        policies = ctx.section("cpu", "cpufreq", "policies") or ()
        if any(policy.get("epps") for policy in policies):
            yield Finding(
                f"os_tuning_epp {epp} cannot be set with governor performance",
                "the driver holds the preference at performance then, and answers another value with EBUSY",
                ("os_tuning_governor", "os_tuning_epp"),
                "set os_tuning_governor: powersave, the dynamic mode of these drivers, or leave os_tuning_epp out",
            )


@rule(ERROR, "T21", acceptable=False)
def interrupts_with_irqbalance(ctx: Context) -> Iterator[Finding]:
    """Interrupts of a GPU are pinned, and irqbalance would move them again."""
    owner, wish = ctx.owner("irqbalance"), ctx.table("os_tuning_irqbalance")
    stopped = ctx.unit_stops("irqbalance.service") and wish.get("stopped")
    banned = wish.get("banned_modules") or ()
    if not owner.get("active") or stopped or "nvidia" in banned:
        return
    addresses = {str(gpu.get("pci_address")).lower() for gpu in ctx.gpus}
    for number, item in enumerate(ctx.entries("os_tuning_interrupts")):
        address = str(item.get("pci") or "").lower()
        on_gpu = item.get("driver") == "nvidia" or (address and {address, f"0000:{address}"} & addresses)
        if on_gpu:
            yield Finding(
                f"os_tuning_interrupts[{number}] places GPU interrupts while irqbalance is active",
                "irqbalance moves them to CPUs of its own choice within ten seconds",
                ("os_tuning_interrupts", "os_tuning_irqbalance"),
                "set os_tuning_irqbalance: {banned_modules: [nvidia]}",
            )
