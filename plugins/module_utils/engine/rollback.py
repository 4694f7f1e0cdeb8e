# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Back to what was before us, straight from the ledger, over all owners in the reverse order of writing.

    select -> releases -> (check mode ends here) -> record forgets -> apply -> the ledger is archived

Judging and writing are those of every other call (releases.py, transaction.py), but each key stands for itself: one
that cannot go back now is named and stays in the ledger, and the others go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..doors.host import FileState
from ..errors import ApplyError, RefusedError
from . import knobs
from .actions import due, run_actions
from .change import Change, Draft, Place, public_value
from .ledger import PATH
from .machine import Machine
from .plan import line, locked, result
from .record import Record
from .releases import judge
from .selection import Selection, Wish, select
from .switch import finish_earlier, foresee_earlier
from .transaction import apply, finish_actions

ARCHIVE = "/var/lib/ai-workstation/archive"
_KEPT = 20  # ledgers in the archive


@dataclass
class _Plan:
    draft: Draft
    changes: list[Change]
    selection: Selection
    owners: dict[str, str]
    left_alone: list[dict[str, Any]] = field(default_factory=list)
    # Whether nothing of ours is left when all of it has been done.
    whole: bool = False


def roll_back(wish: Wish, check_mode: bool, machine: Machine) -> dict[str, Any]:
    """Take back what the wish names, or say what would be done in check mode.

    Returns what a state module returns, with `left_alone` (what someone else has changed since) and `archived`.
    Raises RefusedError before any write, ApplyError where a command that belongs to the changes fails.
    """
    if check_mode:
        plan = _plan(wish, machine)
        plan.draft.warnings += foresee_earlier(machine.host)
        actions = machine.ledger.pending_actions.union(*(change.actions for change in plan.changes))
        return _result(machine, plan, due(machine.host, actions), [], plan.changes, plan.whole and _anything(machine))
    with locked(machine):
        earlier = finish_earlier(machine)
        machine.reload_ledger()
        plan = _plan(wish, machine)
        plan.draft.warnings += earlier
        if (_anything(machine) or plan.selection.asked) and not machine.host.is_root():
            raise RefusedError("tuning_rollback: going back needs root; run the task with become: true")
        try:
            return _go_back(wish, plan, machine)
        except OSError as error:
            raise ApplyError(
                f"tuning_rollback: {error.strerror or error}: {error.filename or PATH}; mend that and run again"
            ) from error


def _plan(wish: Wish, machine: Machine) -> _Plan:
    ledger = machine.ledger
    selection = select(ledger, wish)
    draft = Draft(key_by_key=True, warnings=selection.unknown)
    if ledger.unreadable:
        draft.warnings.append(f"{PATH} can be read by root only: what was set is not known to this run")
    found = judge(machine, selection.entries, force=wish.force)
    plan = _Plan(draft, found.changes, selection, {key: entry.owner for key, entry in ledger.entries.items()})
    draft.gone = {*found.back, *found.gone}
    for key in found.back:
        place = Place(key, ledger.entries[key].kind, ledger.entries[key].address)
        draft.holds += [(place, ledger.entries[key].original)] if knobs.has_getter(place) else []
    draft.warnings += [f"{key} is gone from this machine, or is another's to place; forgotten" for key in found.gone]
    for key, reason in {**selection.held, **found.stays}.items():
        draft.skip(key, reason)
    for key, owners in selection.left.items():
        others = sorted({ledger.entries[key].owner, *ledger.entries[key].also} - set(owners))
        draft.skip(key, f"{', '.join(others)} wants it as it is")
    foreign = {**found.foreign, **_without_lines(machine, plan, wish.force)}
    for key, live in foreign.items():
        shown = line(public_value(live))
        plan.left_alone.append({"key": key, "value": public_value(live)})
        draft.warnings.append(f"{key} was changed by someone else to {shown}; left alone (force: true takes it back)")
    plan.whole = not draft.skipped and not foreign and not ledger.entries.keys() - selection.entries.keys()
    return plan


def _without_lines(machine: Machine, plan: _Plan, force: bool) -> dict[str, Any]:
    """Plan our files that stay without some of their lines; returns those that someone else has changed."""
    foreign: dict[str, Any] = {}
    for key, lines in plan.selection.lines.items():
        entry = machine.ledger.entries[key]
        place = Place(key, entry.kind, entry.address)
        live = knobs.read(machine, place)
        if live is None or not (entry.is_ours(live) or force):
            foreign[key] = live
            continue
        kept = [text for text in live["content"].splitlines(keepends=True) if text.rstrip("\n") not in lines]
        plan.changes.append(
            Change(
                place,
                live,
                {**live, "content": "".join(kept)},
                entry.scope,
                entry.reboot,
                actions=tuple(entry.actions),
                reason="without what goes back",
                brings={line: tuple(keys) for line, keys in entry.brings.items() if line not in lines},
            )
        )
    return foreign


def _anything(machine: Machine) -> bool:
    return bool(machine.ledger.entries or machine.ledger.pending_actions)


def _go_back(wish: Wish, plan: _Plan, machine: Machine) -> dict[str, Any]:
    ledger, host = machine.ledger, machine.host
    _forget_wishes(wish, plan, machine)
    archive = _archive(machine) if plan.whole and _anything(machine) else ""
    # systemd may not have heard yet of what a run that was killed did to its files.
    run_actions(host, ledger.pending_actions & {"daemon-reload"})
    actions, skipped, changes = [], [], plan.changes
    for key, owners in plan.selection.left.items():
        ledger.leave(owners, key)
    if plan.changes:
        done = apply(machine, "", plan.changes, plan.draft)
        actions, skipped, changes = done.actions, done.skipped, done.changes
    else:
        for key in plan.draft.gone:
            ledger.forget(key)
        if ledger.pending_actions:
            actions = finish_actions(machine)
        elif ledger.moved:
            ledger.save()
    if archive and _anything(machine):
        host.remove_file(archive)
        archive = ""
    if not _anything(machine) and host.exists(PATH) and not ledger.has_notes():
        host.remove_file(PATH)
    plan.draft.skipped += skipped
    return _result(machine, plan, actions, skipped, changes, bool(archive))


def _result(
    machine: Machine,
    plan: _Plan,
    actions: list[str],
    skipped: list[dict[str, str]],
    changes: list[Change],
    archived: bool,
) -> dict[str, Any]:
    found = result(machine, "", plan.draft, actions, skipped, changes)
    del found["expect"]
    for change in found["changes"]:
        change["owner"] = plan.owners[change["key"]]
    return {**found, "changed": found["changed"] or archived, "left_alone": plan.left_alone, "archived": archived}


def _forget_wishes(wish: Wish, plan: _Plan, machine: Machine) -> None:
    """First of all, so that no boot brings back what is going: a run that is killed is finished by the next one."""
    record = Record(machine.host)
    if wish.keys:
        record.leave_alone({*plan.selection.asked, *plan.selection.entries} - plan.selection.held.keys())
    else:
        record.forget(wish.means_owner)
    record.save()


def _archive(machine: Machine) -> str:
    """Keep the ledger as it is now, the last few of them; returns the path."""
    host = machine.host
    text = host.text(PATH)
    if text is None:
        return ""
    host.make_private_dir(ARCHIVE)
    path = f"{ARCHIVE}/ledger-{host.utc()}.json"
    # Two within one second: the later one has all that the earlier had.
    host.write_file(path, FileState(text + "\n", 0o600, *host.ids()))
    for name in [name for name in host.names(ARCHIVE) if name.startswith("ledger-")][:-_KEPT]:
        host.remove_file(f"{ARCHIVE}/{name}")
    return path
