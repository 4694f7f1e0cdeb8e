# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes back to its original, and what of the ledger does not: the one answer for a call that wants less than
before, and for a rollback."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from . import knobs
from .change import Change, Place, Value
from .ledger import Entry
from .machine import Machine

# Places that go with their device or file system, and the value with them: there is nothing to take back then.
_GO_WITH_DEVICE = ("irq", "nvml", "mount", "mount_options")

# Kinds for which nothing there is a value like others.
_ABSENT = ("file", "dir", "mount_point", "program")

# What cannot go back at once and does no harm where it stays, by kind of knob. It is asked again after a reboot.
_KEPT = "the kernel keeps the interrupt where it is: it places it itself, or the CPUs of before are offline"
MAY_STAY: dict[str, dict[int, str]] = {
    "irq": {errno.EINVAL: _KEPT, errno.EIO: _KEPT, errno.EPERM: _KEPT},
    "mount": {errno.EIO: "it cannot be unmounted (files in it are in use) and stays until a reboot"},
    "mount_point": {errno.EBUSY: "something is mounted there", errno.ENOTEMPTY: "it holds files of others and stays"},
    "dir": {errno.ENOTEMPTY: "it holds files of others and stays"},
    "module": {errno.EBUSY: "the module is in use and stays until it is not, or until a reboot"},
}
_IRQBALANCE = Place("", "unit_active", "irqbalance.service")


@dataclass
class Releases:
    """changes: what is written, in order. back: as it was already. gone: the place went, and the value with it.

    foreign: what someone else has changed since, with the value it has now. stays: what cannot go back now, and why.
    """

    changes: list[Change] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    foreign: dict[str, Value] = field(default_factory=dict)
    stays: dict[str, str] = field(default_factory=dict)


def judge(
    machine: Machine, entries: Mapping[str, Entry], ahead: Collection[Change] = (), force: bool = False
) -> Releases:
    """Judge the entries, the last written first. ahead: what the same call changes besides. force: what someone else
    has changed goes back as well."""
    found = Releases()
    for key, entry in sorted(entries.items(), key=lambda item: -item[1].order):
        place = Place(key, entry.kind, entry.address)
        try:
            live = knobs.read(machine, place) if knobs.has_getter(place) else entry.ours
        except OSError as error:
            found.stays[key] = f"it cannot be read now: {error.strerror or error}"
            continue
        if live == entry.original:
            found.back.append(key)  # a reboot, a driver reload or its owner has brought it back already
        elif live is None and _went(machine, entry):
            found.gone.append(key)
        elif live is None and entry.kind not in _ABSENT:
            found.stays[key] = "it is not there now (its device, module or CPU is gone or offline)"
        elif not _is_ours(entry, live) and not force:
            if _belongs_to_irqbalance(machine, entry):
                found.gone.append(key)
            else:
                found.foreign[key] = live
        elif reason := _why_it_stays(place, machine, [*ahead, *found.changes]):
            found.stays[key] = reason
        else:
            found.changes.append(_back(place, entry, live))
    found.changes = _in_order(found.changes)
    return found


def _back(place: Place, entry: Entry, live: Value) -> Change:
    return Change(
        place,
        live,
        entry.original,
        entry.scope,
        entry.reboot,
        tolerate=MAY_STAY.get(entry.kind, {}),
        actions=tuple(entry.actions),
        reason="no longer wanted: back to the value before us",
        brings={line: tuple(keys) for line, keys in entry.brings.items()},
        release=True,
    )


def _went(machine: Machine, entry: Entry) -> bool:
    """Whether a place that is not there took our value along. What a card keeps without power comes back with it."""
    return entry.scope == "runtime" and (entry.kind in _GO_WITH_DEVICE or entry.boot_id != machine.ledger.boot_id)


def _is_ours(entry: Entry, live: Value) -> bool:
    if entry.kind == "unit_links" and entry.intent and None not in entry.intent:
        # A run that took them back was killed when it had made some of the links.
        return {link for links in (entry.original, entry.ours, *entry.intent) for link in links or ()}.issuperset(live)
    return entry.is_ours(live)


def _belongs_to_irqbalance(machine: Machine, entry: Entry) -> bool:
    """irqbalance moves every interrupt that it is not kept away from: where it put one is its own affair."""
    return entry.kind == "irq" and knobs.read(machine, _IRQBALANCE) == "active"


def _why_it_stays(place: Place, machine: Machine, changes: Collection[Change]) -> str:
    """Why what is ours cannot go back now: known before the write, so that every run does not try it again."""
    if place.kind == "dir":
        going = {change.place.address for change in changes if change.after is None}
        inside = {f"{place.address}/{name}" for name in machine.host.names(place.address)}
        return MAY_STAY["dir"][errno.ENOTEMPTY] if inside - going else ""
    known = place.kind in MAY_STAY
    return (machine.ledger.refusal(f"release of {place.key}") or "") if known else ""


def _in_order(changes: list[Change]) -> list[Change]:
    """Units stop as long as systemd knows them; then their links and enablement, and systemd is told once, so that what
    was masked can start."""
    stops = [change for change in changes if change.place.kind == "unit_active" and change.after == "inactive"]
    files = [change for kind in ("unit_links", "unit_file") for change in changes if change.place.kind == kind]
    rest = [change for change in changes if change not in stops and change not in files]
    if files:
        files[-1] = dataclasses.replace(files[-1], actions=("daemon-reload",), at_once=True)
    return stops + files + rest
