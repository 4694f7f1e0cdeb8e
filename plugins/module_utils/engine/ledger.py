# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger: what every key was before us, what we made of it, and what is in flight.

One JSON file, replaced atomically and fsynced. It is written before the first write of a call (each
key with its `original` and its `intent`) and once after the last one (`ours`). Whatever kills the
run, the file on disk names every key that may have been touched and its original value.

The original is the first value seen and never overwritten, with one exception: a runtime value that
a reboot set anew, without us, becomes the original of that boot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ..doors.host import Host
from ..errors import RefusedError
from .change import Change, Place, Value

PATH = "/var/lib/ai-workstation/ledger.json"
LOCK = "/var/lib/ai-workstation/lock"
_VERSION = 1
# What a value of ours becomes by itself, by kind of knob: GRUB empties next_entry when it boots that.
_BECOMES = {"grub_next_entry": ""}


@dataclass
class Entry:
    """One key. `intent` holds the values of writes in flight, more than one after several killed runs, else nothing.

    What the kernel moves along (`touched_by`) is in flight with its cause: None stands for whatever becomes of it.

    also: other owners who want the value as it is; it goes back with the last of them. reboot: it acts after a reboot.
    brings: what it brings back at boot (Change.brings).
    """

    kind: str
    address: str
    owner: str
    scope: str
    original: Value
    boot_id: str
    ours: Value
    intent: list[Value] = field(default_factory=list)
    identity: str = ""
    actions: list[str] = field(default_factory=list)
    touched_by: str = ""
    order: int = 0
    also: list[str] = field(default_factory=list)
    reboot: bool = False
    brings: dict[str, list[str]] = field(default_factory=dict)

    def is_ours(self, live: Value) -> bool:
        """Whether the live value is one that we brought about, perhaps just before the run was killed."""
        moved_on = self.kind in _BECOMES and live == _BECOMES[self.kind]
        return live in (self.ours, *self.intent) or (bool(self.touched_by) and None in self.intent) or moved_on


class Ledger:
    """The entries of one machine. Reading never writes: check mode may use it freely."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.boot_id = host.boot_id()
        self.entries: dict[str, Entry] = {}
        self.pending_actions: set[str] = set()
        # Whether owners changed or an entry went, and that is not on disk yet.
        self.moved = False
        self._refused: dict[str, str] = {}
        self._waiting: dict[str, list[str]] = {}
        # What acts after a reboot: key -> owner, kind, address, and the value with which this boot began.
        self.reboots: dict[str, dict[str, Any]] = {}
        text = host.text(PATH)
        # Without root a prediction does not know what we set before; the plan says so.
        self.unreadable = text is None and host.exists(PATH)
        if self.unreadable and host.is_root():
            raise _damaged("cannot be read")
        if text is not None:
            self._load(text)

    def _load(self, text: str) -> None:
        if not text:
            raise _damaged("is empty")
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise RefusedError(
                    f"{PATH} has version {data['version']}, known is {_VERSION}; use the release that wrote it"
                )
            self.entries = {key: Entry(**entry) for key, entry in data["entries"].items()}
            self.pending_actions = set(data["pending_actions"])
            if data["refused_boot_id"] == self.boot_id:
                self._refused, self._waiting = data["refused"], data.get("waiting", {})
                self.reboots = data.get("reboots", {})
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(f"cannot be read ({error})") from None

    def save(self) -> None:
        self.host.save_json(
            PATH,
            {
                "version": _VERSION,
                "entries": {key: asdict(entry) for key, entry in self.entries.items()},
                "pending_actions": sorted(self.pending_actions),
                "refused": self._refused,
                "waiting": self._waiting,
                "reboots": self.reboots,
                "refused_boot_id": self.boot_id,
            },
        )
        self.moved = False

    def rewind(self, text: str | None, keep: Collection[str]) -> None:
        """Be on disk again what an earlier ledger was (its text; None: there was none), but for entries to keep."""
        kept = {key: self.entries[key] for key in keep if key in self.entries}
        self.entries, self.pending_actions = {}, set()
        self._refused, self._waiting, self.reboots = {}, {}, {}
        if text is not None:
            self._load(text)
        self.entries.update(kept)
        if text is None and not kept:
            self.host.remove_file(PATH)
        else:
            self.save()

    def share(self, owner: str, holds: Iterable[tuple[Place, Value]], covered: Collection[str]) -> None:
        """Note that an owner wants, or wants no more, what others have set. holds: what is as it wants it."""
        places = {(entry.kind, entry.address): key for key, entry in self.entries.items()}
        for place, value in holds:
            key = place.key if place.key in self.entries else places.get((place.kind, place.address), "")
            entry = self.entries.get(key)
            if entry is not None and entry.is_ours(value):
                if key != place.key:
                    self._rename(key, place.key)
                self._join(owner, entry)
        for key in covered:
            if key in self.entries and self.entries[key].kind == "dir":
                self._join(owner, self.entries[key])
        for key, entry in self.entries.items():
            if entry.also and key not in covered and owner in (entry.owner, *entry.also):
                self._leave(owner, key, entry)

    def _join(self, owner: str, entry: Entry) -> None:
        if owner not in (entry.owner, *entry.also):
            entry.also.append(owner)
            entry.touched_by = ""  # wanted by name from now on
            self.moved = True

    def _leave(self, owner: str, key: str, entry: Entry) -> None:
        left = [name for name in (entry.owner, *entry.also) if name != owner]
        entry.owner, entry.also = left[0], left[1:]
        for neighbour in self.entries.values():
            if neighbour.touched_by == key and neighbour.owner == owner:
                neighbour.owner = entry.owner
        self.moved = True

    def _rename(self, old: str, new: str) -> None:
        """The same place under the key of another family."""
        self.entries[new] = self.entries.pop(old)
        for neighbour in self.entries.values():
            if neighbour.touched_by == old:
                neighbour.touched_by = new
        self.moved = True

    def forget_what_is_back(self, owner: str, holds: Iterable[tuple[Place, Value]]) -> None:
        """Forget what is as it was before us, as this owner alone wants it: a run that was killed had got that far."""
        causes = {entry.touched_by for entry in self.entries.values()}
        for place, value in holds:
            entry = self.entries.get(place.key)
            if (
                entry
                and entry.original == value
                and place.key not in causes
                and (entry.owner, entry.also) == (owner, [])
            ):
                self.forget(place.key)

    def owned_by(self, owner: str) -> Iterator[tuple[str, Entry]]:
        """Entries that one owner alone wants, the last written first: the order in which to take them back."""
        mine = [(key, entry) for key, entry in self.entries.items() if entry.owner == owner and not entry.also]
        return iter(sorted(mine, key=lambda item: -item[1].order))

    def recorded(self, key: str, identity: str) -> Value:
        """What we last set where there is no getter; None unless the identity still holds.

        A write in flight, of a run that was killed or could not be undone, leaves nothing to rely on.
        """
        entry = self.entries.get(key)
        known = entry is not None and identity and entry.identity == identity and not entry.intent
        return entry.ours if entry is not None and known else None

    def refusal(self, key: str) -> str | None:
        """Why the kernel refused this key at a write earlier in this boot; None when it did not."""
        return self._refused.get(key)

    def remember_refusal(self, key: str, reason: str) -> None:
        self._refused[key] = reason

    def drop_refusal(self, key: str) -> None:
        """The kernel has taken it after all."""
        self._refused.pop(key, None)

    def waiting(self, key: str) -> list[str]:
        """What this key had named earlier in this boot and what stays in force until a reboot."""
        return self._waiting.get(key, [])

    def remember_waiting(self, key: str, names: Iterable[str]) -> None:
        self._waiting[key] = sorted({*self.waiting(key), *names})

    def leave(self, owners: Collection[str], key: str) -> None:
        """Note that these owners want a key no more that others still want."""
        entry = self.entries[key]
        for owner in owners:
            if entry.also and owner in (entry.owner, *entry.also):
                self._leave(owner, key, entry)

    def has_notes(self) -> bool:
        """Whether it remembers of this boot what is no entry: refusals, and what waits for a reboot."""
        return bool(self._refused or self._waiting or self.reboots)

    def begin(
        self,
        owner: str,
        changes: Iterable[Change],
        touched: Iterable[tuple[Place, Value, str]],
        joins: bool = False,
    ) -> None:
        """Journal everything a call is about to write; on disk when this returns.

        owner "": each key keeps its own. joins: the owner stands beside those who want the same, instead of taking
        their keys over.
        """
        order = max([entry.order for entry in self.entries.values()], default=0)
        for change in changes:
            order += 1
            known = self.entries.get(change.key)
            # A release that is killed is planned once more: in the same order, not in the one it was written in.
            kept = known if change.release or not owner else None
            entry = self._open(change.place, change.before, owner, change.scope, kept.order if kept else order, joins)
            if known is None and change.original is not None:
                entry.original = change.original
            entry.intent = [*entry.intent, change.after]
            entry.touched_by = change.moved_by or (kept.touched_by if kept else "")
            entry.actions, entry.reboot = list(change.actions), change.reboot_required
            if change.reboot_required:
                self._note_reboot(change, owner)
            entry.brings = {line: list(keys) for line, keys in change.brings.items()}
            self.pending_actions.update(change.actions)
        for place, before, cause in touched:
            known = self.entries.get(place.key)
            if known and not known.touched_by:
                continue  # someone manages it by name: it stays his to take back
            order += 1
            entry = self._open(place, before, owner, "runtime", order, joins)
            entry.touched_by, entry.intent = cause, [None]
        self.save()

    def _note_reboot(self, change: Change, owner: str) -> None:
        place = change.place
        began = {"kind": place.kind, "address": place.address, "at_boot": change.before}
        known = self.reboots.get(change.key, began)
        self.reboots[change.key] = {**known, "owner": owner or self.entries[change.key].owner}

    def _open(self, place: Place, before: Value, owner: str, scope: str, order: int, joins: bool) -> Entry:
        entry = self.entries.get(place.key)
        known = entry is not None
        if entry is None:
            entry = Entry(place.kind, place.address, owner, scope, before, self.boot_id, before)
            self.entries[place.key] = entry
        elif entry.scope == "runtime" and entry.boot_id != self.boot_id:
            if not entry.is_ours(before):
                entry.original = before
            entry.boot_id, entry.intent = self.boot_id, []
        if known and joins:
            self._join(owner, entry)
            return entry
        entry.order = order
        if owner:
            entry.owner, entry.also = owner, []
        return entry

    def written(self, key: str, value: Value, identity: str = "") -> None:
        """The read-back value of a key that we wrote; without a difference from the original it is forgotten."""
        entry = self.entries[key]
        entry.ours, entry.intent, entry.identity = value, [], identity

    def forget(self, key: str) -> None:
        self.entries.pop(key, None)
        self.moved = True

    def export(self) -> dict[str, Any]:
        """The entries as plain data, for verify and rollback."""
        return {key: asdict(entry) for key, entry in self.entries.items()}


def _damaged(what: str) -> RefusedError:
    return RefusedError(f"{PATH} {what}; it holds the original values: restore a backup, or move it away")
