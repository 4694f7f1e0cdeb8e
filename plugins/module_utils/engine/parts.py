# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several subjects in one call: all of them are planned before the first one writes.

A refusal in the last part is known before the first part changes anything, and the machine is reached once
instead of once for each part. Each part is a transaction of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ApplyError, RefusedError, WorkstationError
from .change import Draft, Value, public_value
from .machine import Machine
from .plan import Subject, converge, draft_of, foretell, locked, record
from .switch import finish_earlier, foresee_earlier

Part = tuple[Subject, Mapping[str, Any]]
Spoken = Mapping[str, Mapping[tuple[str, str], Value]]  # part -> (kind, address) -> the value wanted there

# What one part foretells and another must plan with: (part, report) -> (part, parameter). Interrupts are
# placed on the CPUs that are left once SMT is as wanted.
_PROJECTED = {("cpu_governor", "planned_online_cpus"): ("irq_affinity", "online_cpus")}


def converge_parts(
    parts: Sequence[Part], check_mode: bool, machine: Machine, problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Bring all parts to what they describe, in the order given, or say what would be done.

    Raises RefusedError with every problem of every part (and the `problems` that the caller has found)
    before any write, ApplyError naming the part that failed and the parts that were done before it.
    """
    if check_mode:
        earlier = foresee_earlier(machine.host)
    else:
        with locked(machine):
            earlier = finish_earlier(machine)
    outcome = _converge_parts(parts, check_mode, machine, problems)
    return {**outcome, "warnings": earlier + outcome["warnings"]}


def _converge_parts(
    parts: Sequence[Part], check_mode: bool, machine: Machine, problems: Sequence[str]
) -> dict[str, Any]:
    foretold, spoken, covered, failing = _predict(parts, machine, list(problems))
    for subject, params, failure in failing:
        # What it clears away is all that this call does.
        machine.memo.clear()
        if not check_mode:
            with contextlib.suppress(RefusedError):
                converge(subject, {**params, "expect": None}, False, machine, _others(spoken, subject))
        raise RefusedError(f"{subject.NAME}: {failure}")
    if check_mode:
        return _merged(foretold)
    # Where keys move from one owner to another, every part has a word in it.
    first = (
        0
        if machine.ledger.moved
        else next((index for index, (_name, outcome) in enumerate(foretold) if outcome["changed"]), len(parts))
    )
    done = foretold[:first]
    with locked(machine):
        record(machine, [(subject.NAME, params, covered[subject.NAME]) for subject, params in parts[:first]])
    for (subject, params), (_subject, said) in zip(with_projections(parts[first:], dict(foretold)), parts[first:]):
        machine.memo.clear()
        try:
            # What was expected was compared when all was planned; parts move each other's values.
            alone = {**params, "expect": None}
            done.append((subject.NAME, converge(subject, alone, False, machine, _others(spoken, subject), said)))
        except WorkstationError as error:
            before = ", ".join(name for name, outcome in done if outcome["changed"]) or "none"
            details = {**error.details, **_unconfirmed(machine)}
            raise ApplyError(f"{subject.NAME}: {error}; parts changed before: {before}", **details) from error
    return {**_merged(done), **_unconfirmed(machine)}


def _unconfirmed(machine: Machine) -> dict[str, Any]:
    """What the controller has to confirm, where a change of this call may cost the connection."""
    if not machine.switch or not machine.switch.armed:
        return {}
    with locked(machine):
        machine.switch.complete(machine)
    waits = machine.switch.public()
    return {"unconfirmed": waits} if waits else {}


def _predict(
    parts: Sequence[Part], machine: Machine, problems: list[str]
) -> tuple[list[tuple[str, dict[str, Any]]], Spoken, dict[str, set[str]], list[tuple[Subject, Any, str]]]:
    """What each part would come to, the places and the keys that each speaks about, and the parts that will fail."""
    drafts: list[tuple[Part, Draft]] = []
    for part in parts:
        ((subject, params),) = with_projections([part], {one.NAME: draft.report for (one, _params), draft in drafts})
        machine.memo.clear()
        with _noted(problems, subject):
            drafts.append(((subject, params), draft_of(subject, params, machine)))
    spoken = {subject.NAME: _places(draft) for (subject, _params), draft in drafts}
    covered = {subject.NAME: set(draft.covered) for (subject, _params), draft in drafts}
    problems += _conflicts(spoken)
    foretold: list[tuple[str, dict[str, Any]]] = []
    for (subject, params), draft in drafts:
        machine.memo.clear()
        with _noted(problems, subject):
            others = _others(spoken, subject)
            foretold.append((subject.NAME, foretell(subject, params, draft, machine, others)))
    if machine.switch and (obstacle := machine.switch.obstacle(machine.host)):
        problems.append(obstacle)
    if problems:
        raise RefusedError("; ".join(problems), refusals=problems)
    failing = [(subject, params, draft.failure) for (subject, params), draft in drafts if draft.failure]
    return foretold, spoken, covered, failing


@contextlib.contextmanager
def _noted(problems: list[str], subject: Subject) -> Iterator[None]:
    try:
        yield
    except WorkstationError as error:
        texts = [str(text) for text in error.details.get("refusals", [error])]
        problems += [text if text.startswith(f"{subject.NAME}: ") else f"{subject.NAME}: {text}" for text in texts]
    except OSError as error:
        problems.append(f"{subject.NAME}: {error.strerror or error}")


def _places(draft: Draft) -> dict[tuple[str, str], Value]:
    """The places that a part speaks about, with the values it wants there."""
    wanted = [(change.place, change.after) for change in draft.changes if not change.release] + draft.holds
    return {(place.kind, place.address): value for place, value in wanted}


# Total of the pools of the default size and of all nodes (Documentation/admin-guide/mm/hugetlbpage.rst): it moves them.
_ALL_POOLS = ("/proc/sys/vm/nr_hugepages", "/proc/sys/vm/nr_hugepages_mempolicy")
_ONE_FILE = ("text", "choice", "cpulist", "cpumask")  # kinds that differ in how one and the same file is read


def _conflicts(spoken: Spoken) -> list[str]:
    """Places for which two parts want different values: each run would write both, one after the other."""
    found: list[str] = []
    wanted: dict[tuple[str, str], tuple[str, Value]] = {}
    for part, places in spoken.items():
        for (kind, address), value in places.items():
            place = ("value" if kind in _ONE_FILE else kind, address)
            other, first = wanted.setdefault(place, (part, value))
            if first != value:
                values = f"{public_value(first)!r} and {part} {public_value(value)!r}"
                found.append(f"{address}: {other} wants {values}; ask for one of them only")
    pools = [
        (part, address) for part, places in spoken.items() for _kind, address in places if "/nr_hugepages" in address
    ]
    found += [
        f"{total}: {part} sets it, and {other} sets the pool {address}, which it is the sum of; leave one of them out"
        for part, total in pools
        if total in _ALL_POOLS
        for other, address in pools
        if address not in _ALL_POOLS
    ][:1]
    return found


def _others(spoken: Spoken, subject: Subject) -> set[tuple[str, str]]:
    return {place for name, places in spoken.items() if name != subject.NAME for place in places}


def with_projections(parts: Sequence[Part], foretold: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    """The parts, with what other parts foretell added to their parameters."""
    found: list[Part] = []
    for subject, params in parts:
        more = {
            parameter: foretold[source][report]
            for (source, report), (target, parameter) in _PROJECTED.items()
            if target == subject.NAME and params.get(parameter) is None and report in foretold.get(source, {})
        }
        found.append((subject, {**params, **more}))
    return found


_LISTS = ("diff", "reboot_reasons", "warnings", "actions")


def _merged(outcomes: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One result of all parts; what each part said stands whole in `parts`, but for diff and warnings."""
    merged: dict[str, Any] = {name: [item for _part, one in outcomes for item in one[name]] for name in _LISTS}
    for name in ("changes", "skipped_keys"):
        merged[name] = [{**item, "part": part} for part, one in outcomes for item in one[name]]
    return {
        **merged,
        "changed": any(one["changed"] for _part, one in outcomes),
        "reboot_required": any(one["reboot_required"] for _part, one in outcomes),
        "expect": {part: one["expect"] for part, one in outcomes},
        "parts": {
            part: {key: value for key, value in one.items() if key not in ("diff", "warnings")}
            for part, one in outcomes
        },
    }
