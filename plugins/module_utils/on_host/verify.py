# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the live machine is as recorded: what a next run would change, and who could have moved it.

A value without a getter is never called right: it is `not verifiable`, or drift where its record has lost its hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine import knobs
from ..engine.change import Change, Draft, Place, public_value
from ..engine.machine import Machine
from ..engine.parts import Part, with_projections
from ..engine.record import Record
from ..errors import WorkstationError
from ..facts import writers
from ..specs import SPECS
from .subject import subject_of

_UNVERIFIABLE = "the driver has no getter for it; our record says that it was set"

Report = dict[str, Any]


def against_record(machine: Machine) -> Report:
    """The machine beside its own record. Raises RefusedError where there is no record to go by."""
    record = Record(machine.host)
    report: Report = {"drift": [], "not_verifiable": [], "not_checked": [], "matching": 0}
    found: list[tuple[str, str, Change]] = []
    for owner, parts in _by_owner(record):
        reports: dict[str, Mapping[str, Any]] = {}
        for part in parts:
            ((subject, params),) = with_projections([part], reports)
            machine.memo.clear()
            try:
                desired = subject.parse(params)
                draft = subject.decide(desired, subject.look(machine, desired))
            except (WorkstationError, OSError) as error:
                report["not_checked"].append(_row(owner, subject.NAME, reason=_words(error)))
                continue
            reports[subject.NAME] = draft.report
            report["not_checked"] += [_row(owner, subject.NAME, reason=text) for text in draft.refusals]
            found += [(owner, subject.NAME, item) for item in _moved(draft) if item.key not in record.left_alone]
            _count(report, owner, subject.NAME, draft)
    changes = [{**change.public(), "part": part, "owner": owner} for owner, part, change in found]
    report["drift"] = _once(drifted(machine, changes))
    return report


def of_changes(machine: Machine, changes: Iterable[Mapping[str, Any]]) -> Report:
    """A report from what roles foretold in check mode; the ledger knows what cannot be read back."""
    changes = list(changes)
    moved = {change["key"] for change in changes}
    blind = [
        {"key": key, "owner": entry.owner, "wanted": public_value(entry.ours), "reason": _UNVERIFIABLE}
        for key, entry in machine.ledger.entries.items()
        if key not in moved and not knobs.has_getter(Place(key, entry.kind, entry.address))
    ]
    return {"drift": _once(drifted(machine, changes)), "not_verifiable": blind, "not_checked": [], "matching": None}


def drifted(machine: Machine, changes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each change that a run would make: key, wanted, live, and who sets it besides us."""
    rows = list(changes)
    sources = writers.look(machine.host) if rows else None
    return [
        {
            **{name: change[name] for name in ("owner", "part", "scope", "reason") if name in change},
            "key": change["key"],
            "wanted": change["after"],
            "live": change["before"],
            "writers": writers.who(change["key"], change["before"], sources),
        }
        for change in rows
        if sources is not None
    ]


def lines(report: Report) -> list[str]:
    """The report for people: one line for each key that is not as wanted, then what nobody can say."""
    found = [
        f"{row['key']}: wanted {_shown(row, 'wanted')}, live {_shown(row, 'live')}; {'; '.join(row['writers'])}"
        for row in report["drift"]
    ]
    found += [f"{row['key']}: not verifiable, {row['reason']}" for row in report["not_verifiable"]]
    found += [f"{row['part']} of {row['owner']}: not checked, {row['reason']}" for row in report["not_checked"]]
    counts = [f"{len(report['drift'])} drifted"]
    if report["matching"] is not None:
        counts.insert(0, f"{report['matching']} as recorded")
    counts += [f"{len(report['not_verifiable'])} not verifiable", f"{len(report['not_checked'])} not checked"]
    return [*found, ", ".join(counts)]


def status(report: Report) -> int:
    """The exit status: 0 as wanted, 1 drift, 2 could not be checked."""
    return 1 if report["drift"] else 2 if report["not_checked"] else 0


def _by_owner(record: Record) -> list[tuple[str, list[Part]]]:
    order = list(SPECS)
    owners: dict[str, list[Part]] = {}
    for owner, part, params in sorted(record.parts(), key=lambda found: order.index(found[1])):
        owners.setdefault(owner, []).append((subject_of(part), params))
    return list(owners.items())


def _moved(draft: Draft) -> list[Change]:
    """What a run would change. Where it would refuse, its files would lack what is refused: they say nothing."""
    return [change for change in draft.changes if not (draft.refusals and change.place.kind in ("file", "dir"))]


def _count(report: Report, owner: str, part: str, draft: Draft) -> None:
    for place, value in draft.holds:
        if knobs.has_getter(place):
            report["matching"] += 1
        else:
            row = {"key": place.key, "owner": owner, "wanted": public_value(value), "reason": _UNVERIFIABLE}
            report["not_verifiable"].append({**row, "part": part})


def _row(owner: str, part: str, reason: str) -> dict[str, str]:
    return {"owner": owner, "part": part, "reason": reason}


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What two owners want is one row."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["key"], row)
    return list(found.values())


def _shown(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "(none)"
    return f"mode {value:04o}" if row["key"].startswith("dir:") else str(value)


def _words(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
