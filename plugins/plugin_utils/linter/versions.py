# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which name exists in which version of an engine.

A table holds the first and the last version that has a name, out of the versions that were read. Between two of
those nobody looked: a name that comes or goes there is taken for good, so that nothing real is accused.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Key = tuple[int, ...]


def version_key(version: str) -> Key:
    """0.14.1 is (0, 14, 1), b9294 is (9294,). Trailing zeros do not count; what is no version is ()."""
    if not re.fullmatch(r"[vb]?\d+(\.\d+)*([.+-]?[A-Za-z]\w*)*", version):
        return ()
    digits = re.match(r"[vb]?(\d+(?:\.\d+)*)", version)
    parts = [int(part) for part in digits[1].split(".")] if digits else []
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


@dataclass(frozen=True)
class Presence:
    """state: present, removed, not_yet or unknown. version: the last that had it, or the first that has it."""

    state: str
    version: str = ""


@dataclass(frozen=True)
class Table:
    """The names of one engine. versions: those that were read, oldest first."""

    engine: str
    versions: tuple[str, ...]
    environment: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    flag: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)

    @cached_property
    def _keys(self) -> list[Key]:
        return [version_key(version) for version in self.versions]

    @property
    def newest(self) -> str:
        return self.versions[-1]

    def understands(self, version: str | None) -> bool:
        """Whether `version` is one that can be compared: written as this engine's versions are."""
        return bool(version) and len(version_key(version or "")) > 0 and self._same_scheme(version_key(version or ""))

    def _same_scheme(self, key: Key) -> bool:
        # llama.cpp counts builds (b9294); a release such as 0.7.0 does not say which build it is.
        return (len(self._keys[0]) == 1) == (len(key) == 1)

    def was_read(self, version: str | None) -> bool:
        """Whether this very version was read: only then absence is proven."""
        return version_key(version or "") in self._keys

    def presence(self, kind: str, name: str, version: str | None) -> Presence:
        """Where `name` stands in `version`; without a version, in the newest one."""
        names: Mapping[str, tuple[str, str | None]] = getattr(self, kind)
        if name not in names:
            return Presence("unknown")
        since, until = names[name]
        if not self.understands(version):
            return Presence("present") if until is None else Presence("removed", until)
        key = version_key(version or "")
        first = self._keys.index(version_key(since))
        if first > 0 and key <= self._keys[first - 1]:
            return Presence("not_yet", since)
        if until is not None:
            gone = bisect_right(self._keys, version_key(until))
            if key >= self._keys[gone]:
                return Presence("removed", until)
        return Presence("present")

    def next_after(self, version: str) -> str:
        """The first version that was read after `version`."""
        place = bisect_right(self._keys, version_key(version))
        return self.versions[min(place, len(self.versions) - 1)]

    def covers(self, version: str) -> bool:
        """Whether `version` lies between the oldest and the newest version that were read."""
        place = bisect_left(self._keys, version_key(version))
        return place < len(self._keys) and version_key(version) >= self._keys[0]


def near(name: str, names: Iterable[str]) -> str:
    """The known name that is most like `name`, or an empty text."""
    import difflib  # noqa: PLC0415 only needed where something is wrong

    matches = difflib.get_close_matches(name, list(names), 1, 0.72)
    return matches[0] if matches else ""
