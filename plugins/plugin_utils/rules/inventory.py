# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about the inventory itself: names, choices, what is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.shapes import SINGLE, misfits
from ...module_utils.specs import SPECS
from ..profiles import NAMES, settings
from ..variables import misspelt, specifications
from .base import ERROR, Finding, nearest, registered, rule, said
from .context import Context


@rule(ERROR, acceptable=False)
def unknown_variable(ctx: Context) -> Iterator[Finding]:
    """A variable that looks like one of ours and is none."""
    for name, near in misspelt(ctx.names):
        yield Finding(
            f"variable {name} is not one of ours",
            "Ansible takes a misspelt variable without a word, and what it was meant to set keeps its other value",
            (name,),
            f"did you mean {near}?" if near else "see the roles' README for the names there are",
        )


# Variables whose entries a module takes as they are: its option says what they have to hold.
_OPTIONS = {
    "os_tuning_hugepages": ("hugepages", "pools"),
    "os_tuning_hugepage_mounts": ("hugepages", "mounts"),
    "os_tuning_interrupts": ("irq_affinity", "rules"),
    "os_tuning_irqbalance": ("irq_affinity", "irqbalance"),
    "os_tuning_block_devices": ("block_device_settings", "devices"),
    "os_tuning_mounts": ("block_device_settings", "mounts"),
    "os_tuning_files": ("managed_files", "files"),
    "os_tuning_units": ("unit_state", "units"),
    "gpu_tuning_gpu_clocks": ("nvidia_gpu_state", "gpu_clocks"),
    "gpu_tuning_memory_clocks": ("nvidia_gpu_state", "memory_clocks"),
    "gpu_tuning_application_clocks": ("nvidia_gpu_state", "application_clocks"),
    "gpu_tuning_gpus": ("nvidia_gpu_state", "gpus"),
}


def unusable(variables: Mapping[str, Any]) -> set[str]:
    """Variables with values that no plan can be made of. Each is a finding of one of the rules here."""
    words = {setting.variable: setting.choices for setting in settings() if setting.choices}
    wrong = {name for name, choices in words.items() if variables.get(name) not in (None, *choices)}
    return wrong | wrongly_typed(variables).keys()


def wrongly_typed(variables: Mapping[str, Any]) -> dict[str, list[str]]:
    """Variables of another shape than is needed: name -> what is wrong with it."""
    found = {}
    for name, value in variables.items():
        if value is not None and name != "workstation_services":
            found[name] = list(_wrong(name, value, specifications().get(name, {})))
    return {name: wrong for name, wrong in found.items() if wrong}


def _wrong(name: str, value: Any, option: Mapping[str, Any]) -> Iterator[str]:
    kind, shown = option.get("type"), f"{name}: {str(value)[:60]!r}"
    if kind == "dict" and not isinstance(value, Mapping):
        yield f"{shown} is not a dictionary"
    elif kind == "list" and not isinstance(value, (list, tuple)):
        yield f"{shown} is not a list"
    elif option.get("elements") == "dict" and not all(isinstance(item, Mapping) for item in value):
        yield f"{shown} is not a list of dictionaries"
    elif kind in SINGLE and isinstance(value, (Mapping, list, tuple)):
        yield f"{shown} is not a single value"
    else:
        part, parameter = _OPTIONS.get(name, ("", ""))
        yield from misfits(name, value, SPECS[part][parameter] if part else option)


@rule(ERROR, acceptable=False)
def wrong_type(ctx: Context) -> Iterator[Finding]:
    """A variable that is a text for a list, a list for a text and the like."""
    for name, wrong in sorted(wrongly_typed(ctx.given).items()):
        for what in wrong:
            yield Finding(
                what,
                "the plan puts profile and inventory together entry by entry",
                (name,),
                "write it as the role's README shows",
            )


@rule(ERROR, acceptable=False)
def unknown_profile(ctx: Context) -> Iterator[Finding]:
    """A profile that does not exist."""
    if ctx.profile not in NAMES:
        yield Finding(
            f"workstation_profile: {ctx.profile!r} is not one of {', '.join(NAMES)}",
            "every value that the inventory does not name comes from the profile",
            ("workstation_profile",),
            f"did you mean {nearest(str(ctx.profile), NAMES) or 'balanced'}?",
        )


@rule(ERROR, acceptable=False)
def unknown_choice(ctx: Context) -> Iterator[Finding]:
    """A word that its variable does not take."""
    for setting in settings():
        value = ctx.given.get(setting.variable)
        if setting.choices and value not in (None, *setting.choices):
            near = nearest(str(value), setting.choices)
            word = {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else ""
            fix = f"did you mean {near}?" if near else "take one of these words"
            yield Finding(
                f"{setting.variable}: {value!r} is not one of {', '.join(setting.choices)}, or null",
                "the kernel and the driver take these words only",
                (setting.variable,),
                f"quote the word, '{word}': without quotes YAML reads it as {value}"
                if word in setting.choices
                else fix,
            )


@rule(ERROR, acceptable=False)
def not_possible_here(ctx: Context) -> Iterator[Finding]:
    """The inventory asks for something of the operating system that this machine cannot have."""
    for obstacle in ctx.parts.obstacles:
        yield Finding(
            obstacle.reason,
            "the inventory asks for it by name; what only a profile wants is skipped instead",
            (obstacle.variable,),
            f"change {obstacle.variable}, or set it to null for this machine",
        )


@rule(ERROR, acceptable=False)
def unknown_accept(ctx: Context) -> Iterator[Finding]:
    """workstation_plan_accept names a rule that does not exist, or one that cannot be accepted."""
    rules = {one.name: one for one in registered()}
    names = [name for name, one in rules.items() if one.acceptable]
    for name in ctx.accept:
        if name in rules and not rules[name].acceptable:
            yield Finding(
                f"workstation_plan_accept: {name} cannot be accepted",
                "no plan can be made with it, or a module refuses the same; docs/rules.md says for which this is so",
                ("workstation_plan_accept",),
                "take it out of the list and solve what the rule says",
            )
        elif name not in rules:
            near = nearest(name, names)
            yield Finding(
                f"workstation_plan_accept: {name!r} is not a rule",
                "a name that accepts nothing leaves the reader believing that something was accepted",
                ("workstation_plan_accept",),
                f"did you mean {near}?" if near else f"the rules that can be accepted are {said(sorted(names))}",
            )
