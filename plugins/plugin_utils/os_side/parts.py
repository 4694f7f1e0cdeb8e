# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a family of settings asks of the module calls, and how it sees values and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...module_utils.errors import InputError

CONF = "50-ai-workstation.conf"


@dataclass(frozen=True)
class Obstacle:
    """Why something that the inventory asks for is not possible on this machine."""

    variable: str
    reason: str


@dataclass
class Parts:
    """Parameters for the module calls of os_tuning, by call.

    sysctl, sysfs, at_least, modules: kernel_settings. files, own_units: managed_files (the file of an own unit is in
    files). units: unit_state. mounts: block_device_settings. irqbalance: irq_affinity. optional: names in any of them
    that may be missing. skipped: what this machine cannot have and only a profile wanted. running, not_needed: a report
    of active services, and of those that could be in os_tuning_services_disabled.
    """

    sysctl: dict[str, Any] = field(default_factory=dict)
    sysfs: dict[str, Any] = field(default_factory=dict)
    at_least: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    own_units: list[dict[str, Any]] = field(default_factory=list)
    units: list[dict[str, Any]] = field(default_factory=list)
    irqbalance: dict[str, Any] = field(default_factory=dict)
    optional: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    not_needed: list[str] = field(default_factory=list)

    def add(self, other: Parts) -> None:
        """Take in what another family asks for."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            mine.update(theirs) if isinstance(mine, dict) else mine.extend(theirs)

    def drop_in(self, path: str, *lines: str, **more: Any) -> None:
        """A file of ours that systemd reads."""
        self.files.append({"path": path, "content": "\n".join(lines) + "\n", "actions": ["daemon-reload"], **more})


@dataclass(frozen=True)
class Wishes:
    """Values of profile and inventory, and the facts. What the facts do not tell is taken as fine."""

    values: Mapping[str, Any]
    variables: Mapping[str, Any]
    facts: Mapping[str, Any]

    def value(self, name: str, default: Any = None) -> Any:
        found = self.values[name].value if name in self.values else self.variables.get(name)
        return default if found is None else found

    def flag(self, name: str) -> bool | None:
        """A value that is true, false or null."""
        found = self.value(name)
        if found is not None and not isinstance(found, bool):
            raise InputError(f"{name}: {found!r} is not true, false or null")
        return found

    def names(self, name: str) -> list[str]:
        """A list of words."""
        found = self.value(name, [])
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
            raise InputError(f"{name}: {found!r} is not a list of names")
        return list(found)

    def from_profile(self, name: str) -> bool:
        """Whether the inventory does not name the variable at all."""
        return name not in self.variables

    def fact(self, *path: str) -> Any:
        return fact(self.facts, *path)

    def owner(self, name: str) -> Mapping[str, Any]:
        return owner(self.facts, name)

    @property
    def container(self) -> bool:
        return bool(self.fact("kernel", "container"))

    def impossible(self, variable: str, key: str, reason: str) -> Parts:
        """A skip where a profile wanted it, an obstacle where the inventory did."""
        if self.from_profile(variable):
            return Parts(skipped=[{"key": key, "reason": reason}])
        return Parts(obstacles=[Obstacle(variable, f"{key}: {reason}")])


def fact(facts: Any, *path: str) -> Any:
    """A value of the facts; None where something on the way is missing."""
    for name in path:
        facts = facts.get(name) if isinstance(facts, Mapping) else None
    return facts


def owner(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One of the services that write what we write; empty where the facts do not tell."""
    return next((one for one in facts.get("owners") or () if one.get("name") == name), {})
