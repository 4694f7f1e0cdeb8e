# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a subject says: one Change per key that is not as wanted, gathered in a Draft."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The reason of a skip that every family knows. The key beside it says which file.
READ_ONLY = "read-only here (a container, or the kernel offers no write)"

Value = Any  # what JSON can hold: text, number, None, or a file as {content, mode, uid, gid}


@dataclass(frozen=True)
class Place:
    """Where a value lives: a kind of knob (see knobs.py) and its address there."""

    key: str
    kind: str
    address: str


@dataclass(frozen=True)
class Change:
    """One value to write, with all that is needed to prove it and to take it back.

    scope: `runtime` is gone at reboot, `persistent` is a file or unit state, `boot` acts from the
    next boot on. touches: places that the kernel changes along; they are journaled with this one and
    put back with it. tolerate: errno -> reason; such an answer at the write is a skip. actions: names
    in actions.py that must run after the write. identity: for values without a getter, what must
    stay the same for our record to stay true. partial: the kernel may grant less than asked. explain:
    what to say, with {got} for the value read back, where the kernel took the write and did not do it.
    presence: `leaves` where a later change of the call takes the place away or moves the value (its CPU goes
    offline): what it reads until then proves nothing; `appears` where an earlier change of the call brings the
    place (`before` is then foreseen).
    until_reboot: names that stay in force until a reboot; the ledger remembers them for this boot.
    at_once: the actions run right after this write, before the next one, and not at the end.
    moved_by: the key of a neighbour that keeps this value from where it goes back to: it counts as touched by that.
    original: what the value would be without us, where a neighbour of ours hides that from `before`.
    brings: which keys come back with this one at boot, by the line of the file that does it ("": all of it does). One
    of these keys cannot go back for good without its line.
    risk: how the connection or the host may be lost by it, in a few words; such a change waits for a confirmation.
    """

    place: Place
    before: Value
    after: Value
    scope: str = "runtime"
    reboot_required: bool = False
    reason: str = ""
    touches: tuple[Place, ...] = ()
    tolerate: Mapping[int, str] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    identity: str = ""
    partial: bool = False
    explain: str = ""
    release: bool = False
    presence: str = ""
    until_reboot: tuple[str, ...] = ()
    at_once: bool = False
    moved_by: str = ""
    original: Value = None
    brings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    risk: str = ""

    @property
    def key(self) -> str:
        return self.place.key

    @property
    def refusal_key(self) -> str:
        """Under which the ledger remembers a refusal: what cannot go back may still be set."""
        return f"release of {self.key}" if self.release else self.key

    def public(self) -> dict[str, Any]:
        """The change as a module returns it."""
        return {
            "key": self.key,
            "before": public_value(self.before),
            "after": public_value(self.after),
            "scope": self.scope,
            "reboot_required": self.reboot_required,
            "reason": self.reason,
        }


@dataclass
class Draft:
    """The outcome of a subject's decision about one call.

    `covered` holds every key that the call speaks about, changed or not: what the same owner managed
    before and does not name now goes back to its original. `refusals` end the call before any write,
    `failure` after its changes: they clear away what has failed since an earlier call.
    `actions` must run even where nothing changes: what an earlier run left to do.
    `releases_first`: what goes back must be free before the new values can be had (memory).
    `gone`: keys whose place goes with this call and comes back as the kernel makes it: nothing to take back.
    `knows_reboot`: keys whose need of a reboot the subject reads from the machine, into `reboot_reasons`: the ledger
    is not asked about them.
    `back`: places of this owner that had their original again before this call wrote: to forget once they keep it.
    `holds`: what is as wanted already and must still be so where a change moves its neighbours.
    `key_by_key`: each change stands for itself: what cannot be written is skipped with the reason, and the others stay.
    `shared`: what is wanted follows from our code alone: any of its owners brings it up to date, for all of them.
    """

    optional: frozenset[str] = frozenset()
    changes: list[Change] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    failure: str = ""
    covered: set[str] = field(default_factory=set)
    reboot_reasons: list[str] = field(default_factory=list)
    knows_reboot: set[str] = field(default_factory=set)
    report: dict[str, Any] = field(default_factory=dict)
    releases_first: bool = False
    actions: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    back: dict[str, Place] = field(default_factory=dict)
    holds: list[tuple[Place, Value]] = field(default_factory=list)
    key_by_key: bool = False
    shared: bool = False

    def want(self, key: str, kind: str, address: str, before: Value, after: Value, **more: Any) -> None:
        """State the wanted value of one key; it becomes a change only where it differs."""
        self.covered.add(key)
        if before != after:
            self.changes.append(Change(Place(key, kind, address), before, after, **more))
        elif not more.get("presence"):
            self.holds.append((Place(key, kind, address), after))

    def cannot(self, key: str, reason: str) -> None:
        """This machine does not have the key: a skip where it is optional, else a refusal."""
        if key in self.optional:
            self.skip(key, reason)
        else:
            self.covered.add(key)
            self.refusals.append(f"{key}: {reason}")

    def skip(self, key: str, reason: str) -> None:
        self.covered.add(key)
        self.skipped.append({"key": key, "reason": reason})


def public_value(value: Value) -> Value:
    """A file is shown by hash and mode: its text is in the diff."""
    if isinstance(value, dict) and "content" in value:
        digest = hashlib.sha256(value["content"].encode("utf-8", "surrogateescape")).hexdigest()
        return f"sha256:{digest[:16]} mode {value['mode']:04o}"
    return value
