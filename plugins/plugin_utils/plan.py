# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of one machine: the parameters of every module call of os_tuning and gpu_tuning.

Pure: facts and variables in, a dictionary out. The roles hand its parts to the modules as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .os_side import collect
from .os_side.parts import Parts
from .placed import from_placement
from .profiles import NAMES, Wanted, settings, wanted
from .rules.base import Finding
from .rules.context import Context
from .rules.engine import errors, evaluate, one_line
from .rules.inventory import unusable
from .variables import defaults

PERSISTENCE_UNIT = "nvidia-persistenced.service"


class PlanError(ValueError):
    """The plan must not be made; every conflict in one line, and all findings beside it."""

    def __init__(self, findings: list[dict[str, Any]], message: str) -> None:
        super().__init__(message)
        self.findings = findings


def make(facts: Mapping[str, Any], variables: Mapping[str, Any], all_names: list[str]) -> dict[str, Any]:
    """Make the plan. `variables` holds our variables as far as the inventory defines them, `all_names` every name.

    Raises PlanError with all that is wrong at once.
    """
    variables = {**defaults(), **variables}
    context, findings = review(facts, variables, all_names)
    rows = [finding.as_dict() for finding in findings]
    if wrong := errors(findings):
        raise PlanError(rows, one_line(wrong))
    values = context.values
    return {
        "profile": context.profile,
        "os_tuning": _os_tuning(values, variables, context.parts),
        "gpu_tuning": _gpu_tuning(values, variables, facts),
        "placement": context.placement if isinstance(context.placement, Mapping) else None,
        "findings": rows,
        "from_profile": {name: entry.from_profile for name, entry in sorted(values.items()) if entry.from_profile},
    }


def review(
    facts: Mapping[str, Any], variables: Mapping[str, Any], all_names: list[str]
) -> tuple[Context, list[Finding]]:
    """Profile and inventory put together, and what the conflict rules find in it.

    What cannot be put together, a profile that does not exist or a text for a list, is left out of the values
    and is among the findings, so that all others are found as well.
    """
    profile = variables.get("workstation_profile", "balanced")
    wrong = unusable(variables)
    usable = {name: value for name, value in variables.items() if name not in wrong}
    values = wanted(profile if profile in NAMES else "balanced", facts, usable)
    accept = tuple(map(str, usable.get("workstation_plan_accept") or ()))
    placement = Context(facts, values, usable).placement
    if isinstance(placement, Mapping):
        exclusive = [one["name"] for one in usable["workstation_services"] if one.get("exclusive")]
        for name, value in from_placement(profile, placement, exclusive).items():
            if name not in usable:
                values[name] = Wanted(value, [name])
    parts = collect(values, usable, facts)
    context = Context(facts, values, usable, tuple(all_names), profile, accept, parts, variables)
    return context, evaluate(context)


def _os_tuning(values: Mapping[str, Wanted], variables: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """The parameters of the calls. What the inventory names itself wins over what a family derives from a wish."""
    sysctl, thp, defrag = values["os_tuning_sysctl"], values["os_tuning_thp"], values["os_tuning_thp_defrag"]
    disks, units = values["os_tuning_block_devices"], values["os_tuning_units"]
    cpu = {name: values[f"os_tuning_{name}"] for name in ("governor", "epp", "boost", "idle_latency_us", "smt")}
    all_sysctl = {**parts.sysctl, **sysctl.value}
    bounds = [setting.key for setting in settings() if setting.at_least and setting.key]
    bounds += [*parts.at_least, *(variables.get("os_tuning_sysctl_at_least") or [])]
    return {
        "sysctl": all_sysctl,
        "sysfs": {**parts.sysfs, **(variables.get("os_tuning_sysfs") or {})},
        "at_least": [key for key in dict.fromkeys(bounds) if key in all_sysctl],
        "modules": parts.modules,
        "kernel_settings_optional": [*sysctl.from_profile, *(path for path in parts.sysfs if path in parts.optional)],
        "cpu": {name: entry.value for name, entry in cpu.items()},
        "cpu_optional": [name for name, entry in cpu.items() if entry.from_profile],
        "hugepages": values["os_tuning_hugepages"].value or [],
        "thp": thp.value,
        "thp_defrag": defrag.value,
        "thp_optional": [name for name, entry in (("thp_enabled", thp), ("thp_defrag", defrag)) if entry.from_profile],
        "interrupts": values["os_tuning_interrupts"].value or [],
        "irqbalance": parts.irqbalance,
        "block_devices": disks.value or [],
        "mounts": parts.mounts,
        "block_devices_optional": _names(disks, "device", "path"),
        "mounts_optional": _optional(parts, parts.mounts, "path"),
        "kernel_parameters": values["os_tuning_kernel_parameters"].value or {},
        "files": _joined(variables.get("os_tuning_files") or [], parts.files, "path"),
        "own_units": parts.own_units,
        "files_optional": [*_optional(parts, parts.files, "path"), *_optional(parts, parts.own_units, "name")],
        "units": _joined(units.value or [], parts.units, "name"),
        "units_optional": [*_names(units, "name"), *_optional(parts, parts.units, "name")],
        "services_running": parts.running,
        "services_not_needed": parts.not_needed,
        "skipped": parts.skipped,
    }


def _joined(first: list[dict[str, Any]], more: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """Both lists, without those of the second that the first names already."""
    named = {item.get(field) for item in first}
    return [*first, *(item for item in more if item[field] not in named)]


def _optional(parts: Parts, items: list[dict[str, Any]], field: str) -> list[str]:
    return [str(item[field]) for item in items if item[field] in parts.optional]


def _gpu_tuning(values: Mapping[str, Wanted], variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "persistence",
        "power_limit",
        "gpu_clocks",
        "memory_clocks",
        "compute_mode",
        "application_clocks",
        "ecc",
        "mig",
    )
    entries = {name: values[f"gpu_tuning_{name}"] for name in names}
    manage = variables.get("gpu_tuning_manage_persistenced", True)
    driver = facts.get("gpu_driver") or {}
    usable = driver.get("state") == "ok"
    daemon = _persistence_daemon(facts, usable) if manage else None
    reason = driver.get("reason") or "the driver lists no GPU"
    return {
        "settings": {name: entry.value for name, entry in entries.items() if entry.value is not None},
        "optional": [name for name, entry in entries.items() if entry.from_profile],
        "files": [daemon] if daemon else [],
        "units": [{"name": PERSISTENCE_UNIT, "active": True}] if daemon and usable else [],
        "skipped": [{"key": f"unit_active:{PERSISTENCE_UNIT}", "reason": reason}] if daemon and not usable else [],
    }


def _persistence_daemon(facts: Mapping[str, Any], usable: bool) -> dict[str, Any] | None:
    """A drop-in that keeps the packaged daemon running, with persistence on and before Docker.

    Without a driver that lists a GPU the daemon cannot start, so nothing starts it then. The drop-in stays, or a
    driver that fails for a while would take it away and bring it back.

    Ubuntu's unit runs with --no-persistence-mode and stops when unneeded. The command is the packaged one, so
    that the user it runs as stays the distribution's choice.
    """
    owner = next((one for one in facts.get("owners") or () if one["name"] == "nvidia_persistenced"), None)
    if not owner or not owner["installed"] or not owner["command"]:
        return None
    words = [word for word in owner["command"].split() if word not in ("--no-persistence-mode", "--persistence-mode")]
    content = f"""[Unit]
StopWhenUnneeded=no
Before=docker.service

[Service]
ExecStart=
ExecStart={" ".join(words)} --persistence-mode
"""
    path = f"/etc/systemd/system/{PERSISTENCE_UNIT}.d/50-ai-workstation.conf"
    restart = [PERSISTENCE_UNIT] if usable else []
    return {"path": path, "content": content, "actions": ["daemon-reload"], "restart": restart}


def _names(entry: Wanted, *fields: str) -> list[str]:
    """What the entries of a list that came from a profile are called."""
    if not entry.from_profile:
        return []
    return [str(next(item[field] for field in fields if field in item)) for item in entry.value]
