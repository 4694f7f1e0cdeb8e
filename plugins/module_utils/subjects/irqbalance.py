# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""irqbalance kept away from what we place: a systemd drop-in of ours with a second EnvironmentFile.

Sources: irqbalance(1), its unit file, systemd.exec(5) (a later EnvironmentFile wins per variable). irqbalance moves
interrupts every ten seconds; --banmod makes it leave those of a PCI driver alone (interrupt numbers would not last).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import knobs
from ..engine.change import Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import cpu_list, cpu_mask, cpus, print_cpu_mask
from .drop_in import HEADER, FileLook, look_file, want_file

UNIT = "irqbalance.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/50-ai-workstation.conf"
ENVIRONMENT = "/etc/default/ai-workstation-irqbalance"
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_LIST, _MASK = "IRQBALANCE_BANNED_CPULIST", "IRQBALANCE_BANNED_CPUS"


@dataclass(frozen=True)
class Wanted:
    """What irqbalance is to leave alone. stopped: another task of the same plan stops it."""

    banned_cpus: tuple[int, ...]
    banned_modules: tuple[str, ...]
    stopped: bool


@dataclass(frozen=True)
class Look:
    """installed, active: as systemd says. arguments: the variable its command line takes. foreign: what others set."""

    installed: bool
    active: bool
    arguments: str
    foreign: Mapping[str, str]
    drop_in: FileLook
    environment: FileLook

    def banned_modules(self) -> set[str]:
        """Drivers that the distribution's or the administrator's own arguments ban."""
        words = self.foreign.get(self.arguments, "")
        return set(re.findall(r"(?:--banmod[= ]|-m\s*)([\w.-]+)", words))


def parse_irqbalance(value: Mapping[str, Any] | None) -> Wanted | None:
    if value is None:
        return None
    modules = tuple(str(name) for name in value.get("banned_modules") or ())
    for name in modules:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise InputError(f"irqbalance: banned_modules: {name!r} is not a driver name like 'nvidia'")
    banned = cpus("irqbalance: banned_cpus", value.get("banned_cpus") or "")
    return Wanted(banned, tuple(dict.fromkeys(modules)), bool(value.get("stopped")))


def look_irqbalance(machine: Machine) -> Look:
    host = machine.host
    systemd = host.is_dir("/run/systemd/system")
    texts = (host.text(f"{folder}/{UNIT}") for folder in _UNIT_FOLDERS)
    unit = next((text for text in texts if text), "")
    variable = re.search(r"^ExecStart=.*\$\{?(\w+)", unit, re.MULTILINE)
    foreign: dict[str, str] = {}
    for path in re.findall(r"^EnvironmentFile=-?(/\S+)", unit, re.MULTILINE):
        foreign.update(_variables(host.text(path) or ""))
    return Look(
        systemd and bool(unit),
        systemd and bool(unit) and knobs.read(machine, Place("", "unit_active", UNIT)) == "active",
        variable.group(1) if variable else "IRQBALANCE_ARGS",
        foreign,
        look_file(machine, DROP_IN),
        look_file(machine, ENVIRONMENT),
    )


def _variables(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and re.fullmatch(r"\w+", name):
            found[name] = value.strip().strip("\"'")
    return found


def want_irqbalance(draft: Draft, wanted: Wanted, look: Look, online: frozenset[int], possible: frozenset[int]) -> None:
    """State our two files; irqbalance is restarted with them before the first interrupt is placed."""
    key = "irqbalance"
    if not wanted.banned_cpus and not wanted.banned_modules:
        return
    unknown = set(wanted.banned_cpus) - possible
    if unknown:
        draft.cannot(key, f"banned_cpus {cpu_list(unknown)} do not exist; there are {cpu_list(possible)}")
    elif online <= set(wanted.banned_cpus):
        draft.cannot(key, f"banned_cpus {cpu_list(wanted.banned_cpus)} leaves no online CPU for interrupts")
    elif not look.installed:
        draft.skip(key, "irqbalance is not installed, or systemd does not run here: there is nothing to keep away")
    else:
        if key in draft.optional:
            draft.optional |= {f"file:{ENVIRONMENT}", f"file:{DROP_IN}"}
        first = len(draft.changes)
        want_file(draft, look.environment, HEADER + _environment(wanted, look))
        want_file(draft, look.drop_in, f"{HEADER}[Service]\nEnvironmentFile=-{ENVIRONMENT}\n")
        files = [index for index in range(first, len(draft.changes)) if draft.changes[index].place.kind == "file"]
        for index in files:
            draft.changes[index] = dataclasses.replace(
                draft.changes[index], actions=("daemon-reload", "restart-irqbalance"), at_once=index == files[-1]
            )


def _environment(wanted: Wanted, look: Look) -> str:
    """Our variables win over those of the files read before ours, so what those say is taken along."""
    lines = ""
    if wanted.banned_cpus:
        banned = {*wanted.banned_cpus, *cpus(_LIST, look.foreign.get(_LIST, ""))}
        if look.foreign.get(_MASK):
            # The old form would win over the list in the releases that still read it.
            banned |= set(cpu_mask(look.foreign[_MASK]))
            lines += f"{_MASK}={print_cpu_mask(banned)}\n"
        lines += f"{_LIST}={cpu_list(banned)}\n"
    if wanted.banned_modules:
        there = look.banned_modules()
        words = [look.foreign.get(look.arguments, "")]
        words += [f"--banmod={name}" for name in wanted.banned_modules if name not in there]
        value = " ".join(word for word in words if word).replace("\\", "\\\\").replace('"', '\\"')
        lines += f'{look.arguments}="{value}"\n'
    return lines


def check_pins(draft: Draft, wanted: Wanted | None, look: Look, drivers: Iterable[str]) -> None:
    """Refuse to place what irqbalance would move again within ten seconds."""
    banned = look.banned_modules() | set(wanted.banned_modules if wanted else ())
    loose = sorted({driver or "(no PCI driver)" for driver in drivers} - banned)
    if look.active and loose and not (wanted and wanted.stopped):
        draft.refusals.append(
            f"irqbalance is active and would move the interrupts of {', '.join(loose)} again; add these drivers to "
            "irqbalance: banned_modules, or stop irqbalance (unit_state) and say irqbalance: stopped"
        )
