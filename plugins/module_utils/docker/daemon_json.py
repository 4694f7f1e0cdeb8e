# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our keys in a daemon.json that others write as well. Pure: texts and values in, texts and values out.

The unit of ownership is a leaf: anything that is not a JSON object with something in it. A list is one leaf, because
nobody can tell which of its elements are whose. The record holds per leaf what was there before us, so that taking
ours out leaves the file as it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, RefusedError

FILE = "/etc/docker/daemon.json"

Path = tuple[str, ...]
Config = dict[str, Any]

# What dockerd takes over at SIGHUP, without a restart (docs.docker.com, dockerd, "Configuration reload behavior").
# Not `features`, which is in that list: the CDI driver is registered when the engine starts.
RELOADED = frozenset(
    {
        "authorization-plugins",
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)


class _Absent:
    """Nothing at this place, which is not the same as null."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass
class Leaf:
    """A value of ours: what was there before, and every value that we may have written (two after a killed run)."""

    path: Path
    before: Any
    ours: list[Any]


@dataclass
class Record:
    """What we keep beside the file. original: the text before us, while nobody else has written since; None: no file.

    written: hashes of the texts that we may have left. made: objects that were not there. loaded: our leaves as the
    engine `engine` has read them.
    """

    leaves: dict[Path, Leaf] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)
    original: str | None = None
    exact: bool = False
    written: list[str] = field(default_factory=list)
    engine: str = ""
    loaded: list[Any] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "leaves": [
                {
                    "path": list(leaf.path),
                    "ours": leaf.ours,
                    **({} if leaf.before is ABSENT else {"before": leaf.before}),
                }
                for leaf in self.leaves.values()
            ],
            "made": [list(path) for path in self.made],
            "original": self.original,
            "exact": self.exact,
            "written": self.written,
            "engine": self.engine,
            "loaded": self.loaded,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        leaves = [Leaf(tuple(leaf["path"]), leaf.get("before", ABSENT), leaf["ours"]) for leaf in data["leaves"]]
        return cls(
            {leaf.path: leaf for leaf in leaves},
            [tuple(path) for path in data["made"]],
            data["original"],
            data["exact"],
            data["written"],
            data["engine"],
            data["loaded"],
        )


@dataclass(frozen=True)
class Change:
    """One leaf, before and after."""

    path: Path
    before: Any
    after: Any


@dataclass(frozen=True)
class Merge:
    """What the file becomes. text: None for no file."""

    text: str | None
    config: Config
    record: Record
    changes: list[Change]
    warnings: list[str]


def parse(text: str | None) -> Config:
    """The configuration in the file. RefusedError with line and column when it is not what dockerd reads."""
    if not (text or "").strip():
        return {}
    try:
        found = json.loads(text or "", object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise RefusedError(
            f"{FILE}: line {error.lineno} column {error.colno}: {error.msg}; it is not JSON, repair it first"
        ) from None
    if not isinstance(found, dict):
        raise RefusedError(f"{FILE}: a JSON object is needed, found {shown(found)}; repair it first")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> Config:
    found: Config = {}
    for key, value in pairs:
        if key in found:
            raise RefusedError(f"{FILE}: the key '{key}' is there twice; remove one, or it would be lost")
        found[key] = value
    return found


def check(config: Mapping[str, Any]) -> None:
    """Refuse what dockerd cannot read, by its place in the parameter `config`."""
    for path, value in leaves(config):
        name = ".".join(path)
        if value is None:
            raise InputError(f"config.{name}: null is no value for dockerd; leave the key out to leave it alone")
        if path[0] == "log-opts" and not isinstance(value, str):
            raise InputError(f"config.{name}: {shown(value)} must be a string for dockerd; quote it")


def leaves(config: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf with its path."""
    for key, value in config.items():
        path = (*above, str(key))
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def merge(text: str | None, wanted: Mapping[str, Any], record: Record, accept: Iterable[str]) -> Merge:
    """Ours into the file; what we wanted before and do not any more goes out. RefusedError names every conflict."""
    current = parse(text)
    config, wishes = copy.deepcopy(current), dict(leaves(wanted))
    work = _Work(config, record, frozenset(accept))
    for leaf in [leaf for leaf in record.leaves.values() if leaf.path not in wishes]:
        work.release(leaf)
    for path, value in wishes.items():
        work.want(path, value)
    if work.conflicts:
        raise RefusedError("; ".join(work.conflicts))
    work.warnings += [
        f"accept: '{name}' is not in conflict with {FILE}; take it out" for name in sorted(work.accept - work.accepted)
    ]
    # Nothing of ours is left in a text that nobody else has written: the file goes back to the byte.
    exact = record.exact and _hash(text) in record.written and not work.leaves
    if same(config, current) and not exact:
        return Merge(text, current, work.after(record, text, text), [], work.warnings)
    result = record.original if exact else _render(config, text)
    if not config and record.leaves and record.original is None:
        result = None
    return Merge(result, config, work.after(record, text, result), work.changes(current), work.warnings)


class _Work:
    """A merge in progress."""

    def __init__(self, config: Config, record: Record, accept: frozenset[str]) -> None:
        self.config = config
        self.known = record.leaves
        self.accept = accept
        self.accepted: set[str] = set()
        self.leaves: dict[Path, Leaf] = {}
        self.made = list(record.made)
        self.conflicts: list[str] = []
        self.warnings: list[str] = []

    def release(self, leaf: Leaf) -> None:
        live = get(self.config, leaf.path)
        if not _among(live, leaf.ours):
            if not same(live, leaf.before):
                self.warnings.append(f"{FILE}: {_name(leaf.path)} was changed since to {shown(live)}; left alone")
        elif leaf.before is not ABSENT:
            _put(self.config, leaf.path, leaf.before)
        else:
            _drop(self.config, leaf.path)
            for above in (leaf.path[:depth] for depth in range(len(leaf.path) - 1, 0, -1)):
                if above in self.made and get(self.config, above) == {}:
                    _drop(self.config, above)
                    self.made.remove(above)

    def want(self, path: Path, value: Any) -> None:
        live, leaf = get(self.config, path), self.known.get(path)
        before = live if leaf is None else leaf.before
        if same(live, value) or (value == {} and isinstance(live, dict)):
            if leaf is not None:
                self.leaves[path] = Leaf(path, leaf.before, [value])
            return
        blocked = _blocked(self.config, path)
        if blocked or not (live is ABSENT or (leaf is not None and _among(live, leaf.ours))):
            if not self._accepts(path):
                self._conflict(blocked or path, path, value)
                return
            before = live
        self.leaves[path] = Leaf(path, before, [*(leaf.ours if leaf else []), value])
        self.made += _put(self.config, path, value)

    def _accepts(self, path: Path) -> bool:
        names = {_name(path[:depth]) for depth in range(1, len(path) + 1)} & self.accept
        self.accepted |= names
        return bool(names)

    def _conflict(self, place: Path, path: Path, value: Any) -> None:
        name = _name(place)
        self.conflicts.append(
            f"{_name(path)}: config says {shown(value)}, {FILE} says {shown(get(self.config, place))}"
            + (f" at {name}" if place != path else "")
            + f", and that stays; name '{name}' in accept to let config win, or take it out of config"
        )

    def after(self, record: Record, old: str | None, new: str | None) -> Record:
        """The record as it is while the new text is on its way: both texts may be there."""
        first = not record.leaves and not record.written
        ours = _hash(old) in record.written
        return Record(
            self.leaves,
            self.made,
            old if first else record.original,
            first or (record.exact and ours),
            [_hash(new)] if old == new else [_hash(old), _hash(new)],
            record.engine,
            record.loaded,
        )

    def changes(self, current: Config) -> list[Change]:
        old, new = dict(leaves(current)), dict(leaves(self.config))
        paths = [*old, *(path for path in new if path not in old)]
        pairs = [(path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in paths]
        return [Change(path, before, after) for path, before, after in pairs if not same(before, after)]


def settled(record: Record, text: str | None, engine: str, loaded: Mapping[str, Any] | list[Any]) -> Record:
    """The record once the text is in place. engine: the process that has read it; loaded: our part of what it read."""
    kept = {path: Leaf(path, leaf.before, leaf.ours[-1:]) for path, leaf in record.leaves.items()}
    if not kept:
        return Record()
    read = loaded if isinstance(loaded, list) else listed(loaded)
    return Record(kept, record.made, record.original, record.exact, [_hash(text)], engine, read)


def listed(config: Mapping[str, Any]) -> list[Any]:
    """The leaves as JSON can keep them."""
    return [[list(path), value] for path, value in leaves(config)]


def has_loaded(record: Record, engine: str, wanted: Mapping[str, Any]) -> bool:
    """Whether this very engine is known to have read what we want."""
    return bool(engine) and record.engine == engine and same(record.loaded, listed(wanted))


def get(config: Mapping[str, Any], path: Path) -> Any:
    """The value at a path, or ABSENT."""
    found: Any = config
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return ABSENT
        found = found[key]
    return found


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is neither true nor 1.0."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _among(value: Any, values: Iterable[Any]) -> bool:
    return any(same(value, one) for one in values)


def _blocked(config: Mapping[str, Any], path: Path) -> Path:
    """The first place on the way to a path that holds no object; empty where the way is free."""
    for depth in range(1, len(path)):
        live = get(config, path[:depth])
        if live is not ABSENT and not isinstance(live, dict):
            return path[:depth]
    return ()


def _put(config: Config, path: Path, value: Any) -> list[Path]:
    """Set a value; return the objects that had to be made."""
    made, place = [], config
    for depth, key in enumerate(path[:-1], 1):
        if not isinstance(place.get(key), dict):
            place[key] = {}
            made.append(path[:depth])
        place = place[key]
    place[path[-1]] = copy.deepcopy(value)
    return made


def _drop(config: Config, path: Path) -> None:
    place = get(config, path[:-1]) if path[:-1] else config
    del place[path[-1]]


def _render(config: Config, text: str | None) -> str:
    """As JSON, indented as the file was."""
    found = re.search(r"^([ \t]+)\S", text or "", re.MULTILINE)
    return json.dumps(config, indent=found.group(1) if found else "  ", ensure_ascii=False) + "\n"


def _hash(text: str | None) -> str:
    return "absent" if text is None else hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _name(path: Path) -> str:
    return ".".join(path)


def shown(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
