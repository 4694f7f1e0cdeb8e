# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a subject and its parameters to a result: the one path that every state module takes.

    parse -> look -> decide -> releases -> expect -> (check mode ends here) -> apply -> result

`changed`, `diff` and `changes` come from the same list of changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

from ..errors import ApplyError, RefusedError
from ..values import words
from .actions import due
from .change import Change, Draft, Place, Value, public_value
from .ledger import LOCK, PATH
from .machine import Machine
from .reboots import reboot_reasons
from .record import PATH as RECORD
from .record import Record
from .releases import judge
from .switch import finish_earlier, foresee_earlier
from .transaction import apply, finish_actions

Elsewhere = Collection[tuple[str, str]]  # places as (kind, address)


class Subject(Protocol):
    """A knob family. parse and decide are pure; look only reads, and only through the doors."""

    NAME: str

    def parse(self, params: Mapping[str, Any]) -> Any:
        """Typed desired state. Raises InputError naming parameter, value and what is allowed."""

    def look(self, machine: Machine, desired: Any) -> Any:
        """A snapshot of all that the decision needs."""

    def decide(self, desired: Any, snapshot: Any) -> Draft:
        """The changes from the snapshot to the desired state, in the order of writing."""

    # A subject may also have report(machine, desired) -> dict: what is read anew after the writes and
    # replaces what decide() foretold in Draft.report.


def converge(
    subject: Subject,
    params: Mapping[str, Any],
    check_mode: bool,
    machine: Machine,
    elsewhere: Elsewhere = frozenset(),
    said: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Bring the machine to what `params` describe, or say what would be done in check mode.

    `params` may hold `owner` (whose set this is) and `expect` (fingerprint of a saved plan). `elsewhere`: places
    that another part of the same call speaks about, so that this one does not take them back. `said`: what to record,
    where the caller has added to the parameters what only this moment knows.
    Raises InputError and RefusedError before any write, ApplyError after taking the writes back.
    """
    desired = subject.parse(params)
    if check_mode:
        draft = _decide(subject, params, desired, machine)
        draft.warnings += foresee_earlier(machine.host)
        outcome = foretell(subject, params, draft, machine, elsewhere)
        _fail(draft)
        return outcome
    with locked(machine):
        earlier = finish_earlier(machine)
        machine.reload_ledger()
        draft = _decide(subject, params, desired, machine)
        draft.warnings += earlier
        covered = set(draft.covered)  # releases that cannot go back join later
        outcome = _bring(subject, params, desired, draft, machine, elsewhere)
        _fail(draft)
        record(machine, [(subject.NAME, said or params, covered)])
        return outcome


def _fail(draft: Draft) -> None:
    if draft.failure:
        raise RefusedError(draft.failure)


def _bring(
    subject: Subject, params: Mapping[str, Any], desired: Any, draft: Draft, machine: Machine, elsewhere: Elsewhere
) -> dict[str, Any]:
    owner = owner_of(subject, params)
    changes = _plan(subject, params, draft, machine, elsewhere)
    machine.ledger.pending_actions |= set(due(machine.host, draft.actions))
    if not changes and not machine.ledger.pending_actions:
        if machine.ledger.moved and machine.host.is_root():
            machine.ledger.save()
        return result(machine, owner, draft, [], [], changes)
    if not machine.host.is_root():
        what = f"changing {_some(changes)}" if changes else ", ".join(sorted(machine.ledger.pending_actions))
        raise RefusedError(f"{subject.NAME}: {what} needs root; run the task with become: true")
    try:
        if not changes:
            return result(machine, owner, draft, finish_actions(machine), [], [])
        done = apply(machine, owner, changes, draft)
    except OSError as error:
        raise ApplyError(
            f"{subject.NAME}: {error.strerror or error}: {error.filename or PATH}; nothing was changed"
        ) from error
    draft.skipped += done.skipped
    if hasattr(subject, "report"):
        draft.report.update(subject.report(machine, desired))
    return result(machine, owner, draft, done.actions, done.skipped, done.changes, fingerprint(changes))


def record(machine: Machine, parts: Iterable[tuple[str, Mapping[str, Any], Collection[str]]]) -> None:
    """Keep what was asked for: part, parameters, keys spoken about. An ordinary user has changed nothing."""
    if not machine.host.is_root():
        return
    kept = Record(machine.host)
    for part, params, covered in parts:
        kept.note(part, params, covered)
    try:
        kept.save()
    except OSError as error:
        raise ApplyError(
            f"all is as asked for, but {RECORD} could not be written ({error.strerror or error}): boot and verify "
            "would not know of it; mend that and run again"
        ) from error


def owner_of(subject: Subject, params: Mapping[str, Any]) -> str:
    return f"{params.get('owner') or 'default'}/{subject.NAME}"


def fingerprint(changes: list[Change]) -> str:
    """Hash of every key, the value it has now and the one it gets: what a saved plan expects to find again.

    The new values are part of it, so that a plan is never applied with another inventory than it was made from.
    """
    steps = sorted(
        ([change.key, change.before, change.after] for change in changes),
        key=lambda step: json.dumps(step, sort_keys=True, default=str),
    )
    text = json.dumps(steps, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def draft_of(subject: Subject, params: Mapping[str, Any], machine: Machine) -> Draft:
    """What a subject says about these parameters on this machine. Raises RefusedError with all that cannot be."""
    return _decide(subject, params, subject.parse(params), machine)


def foretell(
    subject: Subject, params: Mapping[str, Any], draft: Draft, machine: Machine, elsewhere: Elsewhere = frozenset()
) -> dict[str, Any]:
    """The result that a draft would come to; nothing is written."""
    changes = _plan(subject, params, draft, machine, elsewhere)
    actions = machine.ledger.pending_actions.union(draft.actions, *(change.actions for change in changes))
    return result(machine, owner_of(subject, params), draft, due(machine.host, actions), [], changes)


def locked(machine: Machine) -> Any:
    """Runs on one machine take turns."""
    return machine.host.lock(LOCK) if machine.host.is_root() else nullcontext()


def _decide(subject: Subject, params: Mapping[str, Any], desired: Any, machine: Machine) -> Draft:
    draft = subject.decide(desired, subject.look(machine, desired))
    draft.refusals += _of_others(owner_of(subject, params), draft, machine)
    if draft.refusals:
        raise RefusedError("; ".join(draft.refusals), refusals=draft.refusals)
    return draft


def _plan(
    subject: Subject, params: Mapping[str, Any], draft: Draft, machine: Machine, elsewhere: Elsewhere
) -> list[Change]:
    owner = owner_of(subject, params)
    if machine.ledger.unreadable:
        draft.warnings.append(f"{PATH} can be read by root only: what an earlier run set is not known to this one")
    machine.ledger.share(owner, draft.holds, draft.covered)
    releases = _releases(owner, draft, machine, elsewhere)
    if not releases and not draft.changes:  # else one of them may move what is back
        machine.ledger.forget_what_is_back(owner, draft.holds)
    changes = releases + draft.changes if draft.releases_first else draft.changes + releases
    if machine.switch:
        machine.switch.foresee(changes)
    expect = params.get("expect")
    if expect and expect != fingerprint(changes):
        raise RefusedError(
            f"{subject.NAME}: this is not what was planned: {_steps(changes)}; nothing was changed by this call, "
            f"make a new plan (expect {expect[:12]}, found {fingerprint(changes)[:12]})"
        )
    return changes


def _of_others(owner: str, draft: Draft, machine: Machine) -> list[str]:
    """Files that another owner has written and that this call would write otherwise: each would undo the other."""
    entries = [(change, machine.ledger.entries.get(change.key)) for change in draft.changes if not change.release]
    family = owner.rpartition("/")[2]
    return [
        f"{change.key}: written for owner {entry.owner.partition('/')[0]} ({entry.owner}), and this call, for {owner}, "
        "wants another text; ask for both in one place, take another name, or let that owner give it back first"
        for change, entry in entries
        if entry and entry.kind == "file" and entry.owner != owner and change.before != entry.original
        if not (draft.shared and entry.owner.endswith(f"/{family}"))
    ]


def _releases(owner: str, draft: Draft, machine: Machine, elsewhere: Elsewhere) -> list[Change]:
    """What the same owner set before and does not name any more goes back to its original."""
    dropped = {
        key: entry
        for key, entry in machine.ledger.owned_by(owner)
        if key not in draft.covered and (entry.kind, entry.address) not in elsewhere
    }
    others = machine.ledger.entries.keys() - dropped.keys()
    dropped = {key: entry for key, entry in dropped.items() if entry.touched_by not in others}
    found = judge(machine, dropped, draft.changes)
    for key in found.gone:
        draft.warnings.append(f"{key} is not managed any more and is gone from this machine; it is forgotten")
        machine.ledger.forget(key)
    for key, live in found.foreign.items():
        shown = line(public_value(live))
        draft.warnings.append(f"{key} is not managed any more and was changed by someone else to {shown}; left alone")
    for key, reason in found.stays.items():
        draft.skip(key, reason)
    if found.changes or draft.changes:
        # One of them may move it yet: it is held, and forgotten when all is written.
        draft.back = {key: Place(key, dropped[key].kind, dropped[key].address) for key in found.back}
        draft.holds += [(place, dropped[key].original) for key, place in draft.back.items()]
    else:
        for key in found.back:
            machine.ledger.forget(key)
    return found.changes


def result(
    machine: Machine,
    owner: str,
    draft: Draft,
    actions: list[str],
    skipped_late: list[dict[str, str]],
    changes: list[Change],
    expect: str | None = None,
) -> dict[str, Any]:
    """What a module returns."""
    late = {skip["key"] for skip in skipped_late}
    shown = [change for change in changes if change.key not in late]
    reasons = reboot_reasons(machine, owner, draft, shown)
    return {
        "changed": bool(shown or actions),
        "changes": [change.public() for change in shown],
        "diff": diff(shown),
        "skipped_keys": draft.skipped,
        "reboot_required": bool(reasons),
        "reboot_reasons": reasons,
        "warnings": draft.warnings,
        "actions": actions,
        "expect": expect or fingerprint(changes),
        **draft.report,
    }


def diff(changes: list[Change]) -> list[dict[str, str]]:
    """Ansible's diff: one entry per file, one for all the single values."""
    files = [change for change in changes if change.place.kind == "file"]
    others = [change for change in changes if change.place.kind != "file"]
    shown = [
        {
            "before_header": change.place.address,
            "after_header": change.place.address,
            "before": _content(change.before),
            "after": _content(change.after),
        }
        for change in files
    ]
    if others:
        shown.insert(
            0,
            {
                "before_header": "live values",
                "after_header": "live values",
                "before": "".join(f"{change.key} = {line(change.before)}\n" for change in others),
                "after": "".join(f"{change.key} = {line(change.after)}\n" for change in others),
            },
        )
    return shown


def _content(value: Value) -> str:
    return (
        "" if value is None else f"# mode {value['mode']:04o} owner {value['uid']}:{value['gid']}\n{value['content']}"
    )


def line(value: Value) -> str:
    """A value as diff and warnings show it."""
    return "(none)" if value is None else words(value)


def _steps(changes: list[Change]) -> str:
    if not changes:
        return "nothing is left to change"
    shown = [
        f"{change.key} is {line(public_value(change.before))} and would become {line(public_value(change.after))}"
        for change in changes[:3]
    ]
    return ", ".join(shown) + (f", and {len(changes) - 3} more" if len(changes) > 3 else "")


def _some(changes: list[Change]) -> str:
    names = [change.key for change in changes[:3]]
    return ", ".join(names) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
