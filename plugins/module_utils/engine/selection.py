# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which entries of the ledger a rollback means, with what must go along. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass, field

from .ledger import Entry, Ledger


@dataclass(frozen=True)
class Wish:
    """owners: a role, or one part of it (role/part). keys: patterns. Nothing named means all."""

    owners: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    force: bool = False

    def means_owner(self, owner: str) -> bool:
        return not self.owners or owner in self.owners or owner.partition("/")[0] in self.owners

    def means_key(self, key: str) -> bool:
        """A pattern is compared with the whole key and with its name behind the family."""
        names = (key, key.partition(":")[2])
        return not self.keys or any(fnmatch.fnmatchcase(name, glob) for glob in self.keys for name in names)


@dataclass
class Selection:
    """entries: what goes back. lines: by file that stays, the lines in it that go. held: what cannot go back alone.

    left: what others want still, with the owners who let go of it. unknown: words of the wish that mean nothing here.
    asked: keys that the wish names, in the ledger or brought at boot by a file of ours.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)


def select(ledger: Ledger, wish: Wish) -> Selection:
    found = Selection()
    mine: dict[str, Entry] = {}
    for key, entry in ledger.entries.items():
        everyone = [entry.owner, *entry.also]
        leaving = [owner for owner in everyone if wish.means_owner(owner)]
        if len(leaving) == len(everyone):
            mine[key] = entry
        elif leaving and wish.means_key(key):
            found.left[key] = leaving
    found.asked = {key for key in _names(mine) if wish.means_key(key)}
    hit = set(found.asked)
    _go_along(mine, hit)
    _held_by_lines(ledger, mine, hit, found)
    for key in [key for key in hit if key in mine and _moved_by_others(ledger, mine[key], hit)]:
        hit.discard(key)
        if wish.keys:
            found.held[key] = f"it moves along with {mine[key].touched_by}; that one must go back as well"
    found.entries = {key: mine[key] for key in hit if key in mine}
    found.unknown = _unknown(ledger, wish)
    return found


def _names(entries: dict[str, Entry]) -> set[str]:
    brought = {key for entry in entries.values() for keys in entry.brings.values() for key in keys}
    return brought.union(entries)


def _go_along(mine: dict[str, Entry], hit: set[str]) -> None:
    """Add what brings a chosen key back at boot, the units whose file goes, and what the kernel moves along."""
    before = -1
    while before != len(hit):
        before = len(hit)
        for key, entry in mine.items():
            unit = entry.address.rpartition("/")[2]
            if hit & set(entry.brings.get("", ())) or entry.touched_by in hit:
                hit.add(key)
            elif key in hit and entry.kind == "file" and entry.original is None:
                hit |= {f"{kind}:{unit}" for kind in ("unit_file", "unit_active")} & mine.keys()


def _held_by_lines(ledger: Ledger, mine: dict[str, Entry], hit: set[str], found: Selection) -> None:
    """The lines that go; a key whose line serves others as well cannot go alone, or the next boot would bring it."""
    for path, entry in mine.items():
        if path in hit:
            continue
        going = []
        for line, keys in entry.brings.items():
            chosen = hit & set(keys)
            others = [key for key in keys if key in ledger.entries and key not in hit]
            if chosen and others:
                found.held.update({key: _shared(path, others) for key in chosen})
                hit -= chosen
            elif chosen:
                going.append(line)
        if going and len(going) == len(entry.brings):
            hit.add(path)
        elif going:
            found.lines[path] = going


def _shared(path: str, others: Collection[str]) -> str:
    return f"the line of {path} that sets it at boot also sets {', '.join(sorted(others)[:3])}; give these back as well"


def _moved_by_others(ledger: Ledger, entry: Entry, hit: Collection[str]) -> bool:
    return entry.touched_by in ledger.entries and entry.touched_by not in hit


def _unknown(ledger: Ledger, wish: Wish) -> list[str]:
    """One line for each word that means nothing, where anything is recorded at all."""
    if not ledger.entries:
        return []
    owners = {owner for entry in ledger.entries.values() for owner in (entry.owner, *entry.also)}
    owners |= {owner.partition("/")[0] for owner in owners}
    keys = _names(ledger.entries)
    lines = [
        f"owners: nothing is recorded of {name!r}; there is {', '.join(sorted(owners))}"
        for name in wish.owners
        if name not in owners
    ]
    lines += [
        f"keys: {glob!r} matches nothing that we changed; a key looks like {min(keys)!r}"
        for glob in wish.keys
        if not any(Wish(keys=(glob,)).means_key(key) for key in keys)
    ]
    return lines
