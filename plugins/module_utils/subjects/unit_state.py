# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Enablement and activity of systemd units, as one set. Source: systemctl(1), systemd.unit(5)."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..engine import knobs
from ..engine.change import Change, Draft, Place
from ..engine.machine import Machine
from ..errors import InputError

NAME = "unit_state"

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|timer|socket|mount|path|target|slice|swap)")
_RUNS = ("active", "reloading", "activating")
_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_MASKED = "the administrator has masked it, and it stays so; name it in the inventory to unmask it"
_UNMET = "a condition in the unit does not hold on this machine"
_SETTABLE = ("enabled", "disabled", "masked")


@dataclass(frozen=True)
class Wanted:
    name: str
    unit_file: str | None
    active: str | None
    ours: bool


@dataclass(frozen=True)
class Desired:
    units: tuple[Wanted, ...]
    optional: frozenset[str]


@dataclass(frozen=True)
class Unit:
    """What `systemctl show` and `systemctl is-enabled` say.

    unmet: why systemd would not start it. also: other units that are enabled and disabled with it. masked_by_us: it may
    be unmasked as well.
    """

    load: str
    unit_file: str
    active: str
    unmet: str = ""
    also: tuple[str, ...] = ()
    masked_by_us: bool = False


@dataclass(frozen=True)
class Snapshot:
    systemd: bool
    units: dict[str, Unit]


def unit_name(parameter: str, name: Any) -> str:
    """Check the form of a unit's name."""
    if not _UNIT.fullmatch(str(name)):
        raise InputError(f"{parameter}: {name!r} is not a unit name with its suffix; write one like 'fstrim.timer'")
    return str(name)


def parse(params: Mapping[str, Any]) -> Desired:
    units: dict[str, Wanted] = {}
    for item in params.get("units") or ():
        name = unit_name("units", item["name"])
        if name in units:
            raise InputError(f"units: {name} is named twice; one call describes each unit once")
        if item.get("unit_file") is None and item.get("active") is None:
            raise InputError(f"units {name}: says nothing; give unit_file ({', '.join(_SETTABLE)}) or active")
        if item.get("unit_file") == "masked" and item.get("active"):
            raise InputError(f"units {name}: a masked unit cannot be active; remove one of the two")
        active = item.get("active")
        activity = None if active is None else "active" if active else "inactive"
        units[name] = Wanted(name, item.get("unit_file"), activity, bool(item.get("ours")))
    return Desired(tuple(units.values()), frozenset(params.get("optional") or ()))


def look(machine: Machine, desired: Desired) -> Snapshot:
    if not machine.host.is_dir("/run/systemd/system") or not desired.units:
        return Snapshot(machine.host.is_dir("/run/systemd/system"), {})
    names = [wanted.name for wanted in desired.units]
    shown = machine.host.run(("systemctl", "show", "--property=LoadState,ActiveState", "--", *names))
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.out.split("\n\n")]
    known = [name for name, block in zip(names, blocks) if block.get("LoadState") != "not-found"]
    unit_files = _unit_files(machine, known)
    found = {}
    for wanted, block in zip(desired.units, blocks):
        unit = Unit(block.get("LoadState", ""), unit_files.get(wanted.name, ""), block.get("ActiveState", ""))
        if wanted.active == "active" and unit.load == "loaded" and unit.active not in _RUNS:
            unit = replace(unit, unmet=_unmet(machine, wanted.name))
        entry = machine.ledger.entries.get(f"unit_file:{wanted.name}")
        by_us = entry is not None and entry.original != "masked"
        unit = replace(unit, also=_also(machine, wanted.name) if wanted.unit_file else (), masked_by_us=by_us)
        found[wanted.name] = unit
    return Snapshot(True, found)


def _unit_files(machine: Machine, names: list[str]) -> dict[str, str]:
    """Enablement as it is on the disk; `systemctl show` says how it was when systemd last read its files."""
    if not names:
        return {}
    states = machine.host.run(("systemctl", "is-enabled", "--", *names)).out.split()
    # A file may have gone without a word to systemd: older releases end there, newer ones say not-found.
    if len(states) != len(names) or "not-found" in states:
        states = [str(knobs.read(machine, Place("", "unit_file", name)) or "") for name in names]
    return dict(zip(names, states))


def _also(machine: Machine, name: str) -> tuple[str, ...]:
    """The units of Also= in the unit's [Install] section (systemd.unit(5))."""
    stem, _at, rest = name.partition("@")
    file = f"{stem}@.{rest.rpartition('.')[2]}" if rest else name
    texts = (machine.host.text(f"{folder}/{file}") for folder in _FOLDERS)
    lines = re.findall(r"^Also=(.*)$", next((text for text in texts if text), ""), re.MULTILINE)
    return tuple(dict.fromkeys(word for line in lines for word in line.split() if _UNIT.fullmatch(word)))


def _unmet(machine: Machine, name: str) -> str:
    """The conditions that keep a unit from starting (systemd.unit(5), Conditions), or ""."""
    tested = machine.host.run(("systemd-analyze", "condition", f"--unit={name}"))
    failed = re.findall(r"^\S+: (.+) failed\.$", tested.out + tested.err, re.MULTILINE)
    # systemd before 250 cannot test a unit's conditions; then the refusal of an earlier start says it.
    return f"{failed[0]} does not hold" if failed else machine.ledger.refusal(f"unit_active:{name}") or ""


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    keys = ("unit_file:{}", "unit_active:{}")
    draft = Draft(optional=frozenset(key.format(name) for name in desired.optional for key in keys))
    for wanted in desired.units:
        unit = snapshot.units.get(wanted.name, Unit("not-found", "", ""))
        if _stays_masked(wanted, unit) and f"unit_file:{wanted.name}" in draft.optional:
            for kind in ("unit_file", "unit_active") if wanted.active else ("unit_file",):
                draft.skip(f"{kind}:{wanted.name}", _MASKED)
            continue
        _want_unit_file(draft, wanted, unit, snapshot.systemd)
        _want_active(draft, wanted, unit, snapshot.systemd)
    draft.changes = _in_order(draft.changes)
    return draft


def _in_order(changes: list[Change]) -> list[Change]:
    """What stops, what is enabled, disabled or masked, and what starts: a masked unit cannot start, and a unit that
    is about to be masked is stopped as long as it is known. systemd reads its files once, before the first start."""
    stops = [change for change in changes if change.after == "inactive"]
    files = [change for change in changes if change.place.kind == "unit_file"]
    starts = [change for change in changes if change.after == "active"]
    if files:
        files[-1] = replace(files[-1], at_once=True)
    return stops + files + starts


def _stays_masked(wanted: Wanted, unit: Unit) -> bool:
    """Whether the unit is masked, and not by us, and would have to be unmasked."""
    unmask = wanted.unit_file != "masked" and (wanted.unit_file or wanted.active == "active")
    return unit.unit_file == "masked" and bool(unmask) and not unit.masked_by_us


def _want_active(draft: Draft, wanted: Wanted, unit: Unit, systemd: bool) -> None:
    if not wanted.active:
        return
    key = f"unit_active:{wanted.name}"
    reason = _missing(unit, wanted, systemd) or unit.unmet
    if reason:
        draft.cannot(key, reason)
    else:
        live = "active" if unit.active in _RUNS else "inactive"
        draft.want(key, "unit_active", wanted.name, live, wanted.active, tolerate={errno.ENOTSUP: _UNMET})


def _want_unit_file(draft: Draft, wanted: Wanted, unit: Unit, systemd: bool) -> None:
    if not wanted.unit_file:
        return
    key = f"unit_file:{wanted.name}"
    reason = _missing(unit, wanted, systemd)
    live = unit.unit_file or "disabled"
    if reason:
        draft.cannot(key, reason)
    elif live not in _SETTABLE and wanted.unit_file != "masked":
        # static, indirect, generated, alias: something else pulls it in, there is nothing to enable.
        draft.cannot(key, f"the unit is {live}: it has no enablement of its own")
    else:
        # systemctl makes and removes links; unmasking does not bring back those that were there before.
        names = (wanted.name, *unit.also)
        links = tuple(Place(f"unit_links:{name}", "unit_links", name) for name in names)
        brings = {"": (f"unit_active:{wanted.name}",)}
        more: dict[str, Any] = {"actions": ("daemon-reload",), "touches": links, "brings": brings}
        draft.want(key, "unit_file", wanted.name, live, wanted.unit_file, scope="persistent", **more)


def _missing(unit: Unit, wanted: Wanted, systemd: bool) -> str:
    if not systemd:
        return "systemd does not run here"
    if unit.load == "not-found" and not wanted.ours:
        return "this machine has no such unit"
    return ""
