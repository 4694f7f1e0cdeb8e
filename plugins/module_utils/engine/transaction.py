# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Applying a plan: journal, write, read back, run the actions; or put everything back and say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..doors.host import Host
from ..errors import ApplyError
from . import knobs
from .actions import run_actions
from .change import Change, Draft, Place, Value, public_value
from .ledger import PATH
from .machine import Machine

_ROUNDS = 3  # a restored value may push a neighbour once more (THP and min_free_kbytes): settle in rounds


@dataclass
class Applied:
    """What a transaction did: the changes as they really came out, and what the kernel refused."""

    changes: list[Change] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)


def apply(machine: Machine, owner: str, changes: list[Change], draft: Draft, again: bool = False) -> Applied:
    """Write the changes of a draft and its releases in order. Raises ApplyError after putting them back.

    A draft whose keys stand each for itself is never put back: what cannot be written is skipped.
    again: what was lost is brought back. Nobody's keys change hands, and what an unfinished run left to do
    (an image rebuild takes minutes) waits for the next run.
    """
    ledger = machine.ledger
    _clean_up(machine.host, changes)
    touched = _read_touched(machine, changes)
    earlier = set(ledger.pending_actions)
    if machine.switch:
        machine.switch.before_writes(machine, changes, touched, any(change.risk for change in changes))
    put_off = earlier if again else set()
    ledger.begin(owner, changes, touched, joins=again or draft.shared)
    applied, trouble = Applied(), None
    written: list[Change] = []
    try:
        applied.actions += _tell_systemd(machine, changes, earlier - put_off)
        _write_all(machine, changes, applied, written, draft.key_by_key)
        _settle(machine, applied, draft)
        done = run_actions(machine.host, ledger.pending_actions - put_off)
        applied.actions = list(dict.fromkeys(applied.actions + done))
    except (OSError, ApplyError) as error:
        if not draft.key_by_key:
            raise _take_back(machine, changes, written, touched, earlier, error) from error
        trouble = ApplyError(f"the values are as asked for, but {_words(error)}; mend that and run again")
    else:
        ledger.pending_actions &= put_off
    for key in [*draft.gone, *_stayed_back(machine, draft)]:
        ledger.forget(key)
    try:
        _close(machine, applied, changes, touched)
    except OSError as error:
        raise ApplyError(f"the changes are made, but {_in_flight(error)}") from error
    if machine.switch:
        machine.switch.after_writes(machine)
    if trouble:
        raise trouble
    return applied


def _tell_systemd(machine: Machine, changes: list[Change], earlier: set[str]) -> list[str]:
    """The files that a killed run has left on disk must be known before a unit of theirs can start."""
    done = run_actions(machine.host, {"daemon-reload"} & earlier)
    machine.ledger.pending_actions -= set(done) - {name for change in changes for name in change.actions}
    return done


def _stayed_back(machine: Machine, draft: Draft) -> list[str]:
    """Keys that had their original again before this call, and still have it."""
    entries = machine.ledger.entries
    return [
        key for key, place in draft.back.items() if key in entries and _holds(machine, place, entries[key].original)
    ]


def _write_all(
    machine: Machine, changes: list[Change], applied: Applied, written: list[Change], key_by_key: bool
) -> None:
    """Write in order; key by key, what was refused is tried again after the others, which may have been in its way."""
    left, refused = changes, dict[str, str]()
    for _round in range(_ROUNDS if key_by_key else 1):
        refused = {}
        for change in left:
            written.append(change)
            outcome = _write(machine, change, key_by_key)
            if isinstance(outcome, str):
                written.pop()
                refused[change.key] = outcome
            elif outcome is not None:
                applied.changes.append(outcome)
            if change.at_once:
                applied.actions += _at_once(machine, change, changes, key_by_key)
        if len(refused) in (0, len(left)):
            break
        left = [change for change in left if change.key in refused]
    order = {change.key: number for number, change in enumerate(changes)}
    applied.changes.sort(key=lambda change: order[change.key])
    applied.skipped += [{"key": key, "reason": reason} for key, reason in refused.items()]


def _at_once(machine: Machine, change: Change, changes: list[Change], key_by_key: bool) -> list[str]:
    try:
        done = run_actions(machine.host, change.actions)
    except ApplyError:
        if key_by_key:
            return []  # it stays noted, and is run again after the last write
        raise
    later = (name for item in changes[changes.index(change) + 1 :] for name in item.actions)
    machine.ledger.pending_actions -= set(change.actions) - set(later)
    return done


def finish_actions(machine: Machine) -> list[str]:
    """Run what a killed run left to do; returns the names of the actions."""
    done = run_actions(machine.host, machine.ledger.pending_actions)
    machine.ledger.pending_actions.clear()
    try:
        machine.ledger.save()
    except OSError as error:
        raise ApplyError(f"{', '.join(done)} ran, but {_in_flight(error)}") from error
    return done


def restore(machine: Machine, wanted: Iterable[tuple[Place, Value]]) -> list[tuple[Place, Value, str]]:
    """Bring places back to given values, in rounds, and return those that resist with the reason."""
    left = list(wanted)
    units = [(place, value) for kind in ("unit_links", "unit_file") for place, value in left if place.kind == kind]
    moved = [place for place, value in left if place.kind.startswith("unit_") and not _holds(machine, place, value)]
    for place, value in units:
        _restore_one(machine, place, value)
    if units and moved:
        # Or a unit that was masked could not start; also where a killed run had mended its files and no more.
        run_actions(machine.host, {"daemon-reload"})
    failed: list[tuple[Place, Value, str]] = []
    for _round in range(_ROUNDS):
        failed = []
        for place, value in left:
            reason = _restore_one(machine, place, value)
            if reason:
                failed.append((place, value, reason))
        if not failed and all(_holds(machine, place, value) for place, value in left):
            break
    return failed


def _restore_one(machine: Machine, place: Place, value: Value) -> str:
    try:
        if not knobs.has_getter(place) or knobs.read(machine, place) != value:
            knobs.write(machine, place, value)
        return "" if _holds(machine, place, value) else "the value did not stay"
    except OSError as error:
        return _words(error)


def _holds(machine: Machine, place: Place, value: Value) -> bool:
    try:
        return not knobs.has_getter(place) or bool(knobs.read(machine, place) == value)
    except OSError:
        return False


def _clean_up(host: Host, changes: list[Change]) -> None:
    for change in changes:
        if change.place.kind == "file":
            host.drop_temporary(change.place.address)


def _read_touched(machine: Machine, changes: list[Change]) -> list[tuple[Place, Value, str]]:
    """The values the kernel will change along with ours, where this call does not set them itself."""
    named = {change.key for change in changes}
    found: dict[str, tuple[Place, Value, str]] = {}
    for change in changes:
        for place in change.touches:
            value = knobs.read(machine, place)
            if place.key not in named and value is not None:
                found.setdefault(place.key, (place, value, change.key))
    return list(found.values())


def _write(machine: Machine, change: Change, key_by_key: bool) -> Change | str | None:
    """Write and read back one change. A text is the reason of a skip, None is nothing to do."""
    try:
        outcome = _write_one(machine, change)
    except (OSError, ApplyError) as error:
        if not key_by_key:
            raise
        return _words(error).removeprefix(f"{change.key}: ")
    if key_by_key and not isinstance(outcome, str):
        machine.ledger.drop_refusal(change.refusal_key)
    return outcome


def _write_one(machine: Machine, change: Change) -> Change | str | None:
    if change.presence == "appears":
        change = _as_found(machine, change)
        if change.before == change.after:
            return None
    if knobs.has_getter(change.place) and knobs.read(machine, change.place) == change.after:
        return change  # an earlier change of this call brought it about
    try:
        knobs.write(machine, change.place, change.after)
    except OSError as error:
        reason = change.tolerate.get(error.errno or 0)
        if reason is None:
            raise ApplyError(f"{change.key}: writing {public_value(change.after)!r} failed: {_words(error)}") from error
        machine.ledger.remember_refusal(change.refusal_key, reason)
        return reason
    if not knobs.has_getter(change.place):
        return change
    live = knobs.read(machine, change.place)
    if live == change.after or change.presence == "leaves":
        return change
    if change.partial:
        # Asking again in this boot would bring no more: the subject may say so instead of trying.
        machine.ledger.remember_refusal(change.key, granted(change.after, live))
        return None if live == change.before else replace(change, after=live)
    if change.explain:
        raise ApplyError(f"{change.key}: {change.explain.format(got=public_value(live))}")
    raise ApplyError(f"{change.key}: asked for {public_value(change.after)!r}, read back {public_value(live)!r}")


def _as_found(machine: Machine, change: Change) -> Change:
    """A change whose place has just come, with the value that it came with; the journal gets it as well."""
    live, entry = knobs.read(machine, change.place), machine.ledger.entries[change.key]
    if live is None or live == change.before:
        return change
    if entry.original == entry.ours == change.before:
        entry.original = entry.ours = live
        machine.ledger.save()
    return replace(change, before=live)


def granted(asked: Value, live: Value) -> str:
    """How the ledger remembers that the kernel granted a part only."""
    return f"asked for {asked}, granted {live}"


def _settle(machine: Machine, applied: Applied, draft: Draft) -> None:
    """Prove that every value still holds after the last write; one that a neighbour moved is written again."""
    places = [(change.place, change.after) for change in applied.changes if change.presence != "leaves"]
    if any(change.touches or change.release for change in applied.changes):
        places += draft.holds
    if all(_holds(machine, place, value) for place, value in places):
        return
    for place, value, reason in restore(machine, places):
        if not draft.key_by_key:
            raise ApplyError(
                f"{place.key}: {public_value(value)!r} does not hold beside the other values of this call: {reason}"
            )
        applied.changes = [change for change in applied.changes if change.key != place.key]
        applied.skipped.append({"key": place.key, "reason": f"{public_value(value)!r} does not hold: {reason}"})


def _take_back(
    machine: Machine,
    planned: list[Change],
    written: list[Change],
    touched: list[tuple[Place, Value, str]],
    earlier: set[str],
    error: Exception,
) -> ApplyError:
    """Undo this call's writes, last first, and return the error to raise. `earlier`: actions of runs before it."""
    ledger = machine.ledger
    # What appeared with this call goes back first: it is gone again with the rest.
    came = [(change.place, _unwritten(machine, change)) for change in reversed(written) if change.presence == "appears"]
    failed = restore(machine, came)
    places = [(place, value) for place, value, _cause in touched]
    places += [(change.place, change.before) for change in reversed(written) if change.presence != "appears"]
    failed += restore(machine, places)
    places = came + places
    kept = {place.key for place, _value, _reason in failed}
    begun = {change.key for change in written}
    untouched = [(change.place, change.before) for change in planned if change.key not in begun]
    identities = {change.key: change.identity for change in planned}
    for place, value in places + untouched:
        if place.key not in kept:
            _record(machine, place, value, identities.get(place.key, ""))
    leftover = [f"{place.key} (should be {public_value(value)!r}: {reason})" for place, value, reason in failed]
    if not leftover:
        try:
            done = run_actions(machine.host, {name for change in written for name in change.actions})
            ledger.pending_actions = earlier - set(done)
        except ApplyError as second:
            leftover.append(str(second))
    end = f"; NOT restored: {'; '.join(leftover)}" if leftover else "; nothing of this call remains"
    try:
        ledger.save()
    except OSError as third:
        end += f", but {_in_flight(third)}"
    restored = [place.key for place, _value in places if place.key not in kept]
    what = f"{written[-1].key}: {_words(error)}" if isinstance(error, OSError) and written else str(error)
    return ApplyError(f"{what}{end}", restored=restored, not_restored=leftover)


def _unwritten(machine: Machine, change: Change) -> Value:
    """The value of a place that our write did not change: what was planned from, or what it appeared with."""
    entry = machine.ledger.entries.get(change.key)
    return entry.ours if entry and change.presence == "appears" else change.before


def _close(machine: Machine, applied: Applied, planned: list[Change], touched: list[tuple[Place, Value, str]]) -> None:
    ledger = machine.ledger
    done = {change.key: change for change in applied.changes}
    skipped = {skip["key"] for skip in applied.skipped}
    for change in planned:
        real = done.get(change.key)
        value = real.after if real else _unwritten(machine, change)
        if change.release and change.key in skipped and knobs.has_getter(change.place):
            value = _live(machine, change)
        if change.presence == "leaves":
            value = knobs.read(machine, change.place)
        _record(machine, change.place, value, change.identity if real else "")
        if change.until_reboot:
            ledger.remember_waiting(change.key, change.until_reboot)
        if change.release and real:
            ledger.forget(change.key)
    for place, _before, _cause in touched:
        _record(machine, place, knobs.read(machine, place))
    ledger.save()


def _live(machine: Machine, change: Change) -> Value:
    try:
        return knobs.read(machine, change.place)
    except OSError:
        return change.before  # its device does not answer


def _record(machine: Machine, place: Place, value: Value, identity: str = "") -> None:
    ledger = machine.ledger
    if place.key not in ledger.entries:
        return
    ledger.written(place.key, value, identity)
    if value == ledger.entries[place.key].original and knobs.has_getter(place):
        ledger.forget(place.key)  # as it was before us: nothing to take back


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _in_flight(error: OSError) -> str:
    """What to say where the machine is as the message says and only the ledger could not follow."""
    return f"{PATH} still says that they are in flight ({_words(error)}); mend that and run again"
