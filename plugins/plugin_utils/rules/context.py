# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything a rule may look at: facts, values, services and where they would be placed. Read only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...module_utils.errors import InputError, WorkstationError
from ...module_utils.values import cpus as parse_cpus
from ..os_side.parts import Parts
from ..placement import place
from ..profiles import Wanted
from .declared import Service, parse, wishes

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """One machine. names: every variable that the inventory defines; given: ours among them, as they are written.

    variables: those of ours that a plan can be made of. parts: what the families of the operating system's side make
    of it.
    """

    facts: Facts
    values: Mapping[str, Wanted]
    variables: Mapping[str, Any]
    names: Sequence[str] = ()
    profile: str = "balanced"
    accept: tuple[str, ...] = ()
    parts: Parts = field(default_factory=Parts)
    given: Mapping[str, Any] = field(default_factory=dict)

    # -- values ----------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        """What counts: the inventory over the profile."""
        return self.values[name].value if name in self.values else self.variables.get(name)

    def explicit(self, name: str) -> bool:
        """Whether the inventory itself asks for it."""
        return self.variables.get(name) not in (None, [], {})

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """The dictionaries of a list. Anything else in it is for the module's argument check."""
        value = self.value(name)
        return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []

    def table(self, name: str) -> Mapping[str, Any]:
        """A dictionary; empty where the value is none."""
        value = self.value(name)
        return value if isinstance(value, Mapping) else {}

    @cached_property
    def sysctl(self) -> dict[str, Any]:
        """Wanted sysctls by name with dots, as the inventory may also write slashes."""
        return {str(key).replace("/", "."): value for key, value in self.table("os_tuning_sysctl").items()}

    @cached_property
    def kernel_parameters(self) -> dict[str, list[str | None]]:
        """Wanted kernel parameters: name -> values."""
        found: dict[str, list[str | None]] = {}
        for name, value in self.table("os_tuning_kernel_parameters").items():
            items = value if isinstance(value, (list, tuple)) else [value]
            found[str(name).replace("-", "_")] = [None if item is None else str(item) for item in items]
        return found

    def unit_stops(self, unit: str) -> bool:
        """Whether the same plan stops this unit."""
        return any(
            str(item.get("name")) == unit and (item.get("active") is False or item.get("unit_file") == "masked")
            for item in self.entries("os_tuning_units")
        )

    # -- facts -----------------------------------------------------------------------------------

    def section(self, *path: str) -> Any:
        """A value of the facts, None where something on the way is missing."""
        found: Any = self.facts
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    @cached_property
    def gpus(self) -> list[Facts]:
        return list(self.facts.get("gpus") or ())

    @cached_property
    def memory_bytes(self) -> int | None:
        total: int | None = self.section("memory", "total_bytes")
        return total

    def owner(self, name: str) -> Facts:
        """One of the services that write what we write; empty where the facts do not tell."""
        return next((one for one in self.facts.get("owners") or () if one.get("name") == name), {})

    @cached_property
    def guest(self) -> str:
        """What kind of guest this is, "" for real hardware."""
        kind = self.section("kernel", "virtualization")
        if kind not in (None, "", "none"):
            return str(kind)
        return "container" if self.section("kernel", "container") else ""

    @cached_property
    def planned_cpus(self) -> frozenset[int]:
        """The CPUs that are online after the SMT change of the same plan. Empty: the facts do not tell."""
        try:
            online = frozenset(parse_cpus("online", self.section("cpu", "online") or ""))
            present = frozenset(parse_cpus("present", self.section("cpu", "present") or ""))
        except InputError:
            return frozenset()
        smt = self.smt
        if smt == "on" and self.section("cpu", "smt", "control") in ("off", "forceoff"):
            return online | present
        if smt not in ("off", "forceoff"):
            return online
        rows = self.section("cpu", "cpus") or ()
        second = {row["cpu"] for row in rows if row["siblings"] and row["cpu"] != parse_cpus("", row["siblings"])[0]}
        return online - second

    @property
    def smt(self) -> str | None:
        """What SMT is to be, in the kernel's word. YAML reads on and off without quotes as booleans."""
        value = self.value("os_tuning_smt")
        return {True: "on", False: "off"}.get(value) if isinstance(value, bool) else value

    # -- services --------------------------------------------------------------------------------

    @cached_property
    def _declared(self) -> tuple[tuple[Service, ...], list[str]]:
        return parse(self.variables.get("workstation_services"))

    @property
    def services(self) -> tuple[Service, ...]:
        return self._declared[0]

    @property
    def service_problems(self) -> list[str]:
        return self._declared[1]

    @cached_property
    def placement(self) -> Mapping[str, Any] | str | None:
        """The result of the placement, or in words why there is none. None: nothing to place."""
        declared = self.variables.get("workstation_services")
        if not self.services or not self.section("cpu", "cpus"):
            return None
        names = [service.name for service in self.services]
        entries = [one for one in declared or () if isinstance(one, Mapping) and one.get("name") in names]
        smt = "off" if self.smt == "forceoff" else self.smt
        try:
            return place(self.facts, wishes(entries), smt if smt in ("on", "off") else None)
        except WorkstationError as error:
            return str(error)

    def on_gpus(self) -> dict[str, list[Service]]:
        """The services of each GPU by its UUID: as placed, else as the inventory names them, else the only GPU."""
        placed = self.placement
        chosen = placed.get("services", {}) if isinstance(placed, Mapping) else {}
        known = [str(gpu["uuid"]) for gpu in self.gpus if gpu.get("uuid")]
        found: dict[str, list[Service]] = {}
        for service in self.services:
            if service.uses_gpu:
                uuids = (
                    chosen.get(service.name, {}).get("gpus")
                    or service.gpu_uuids
                    or (known[:1] if len(known) == 1 else ())
                )
                for uuid in uuids:
                    found.setdefault(uuid, []).append(service)
        return found
