# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest: which files of the store are ours, what they must contain and how they looked when that was proven."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..doors.big_files import FileLook
from ..errors import RefusedError
from .wishes import STATE_DIR

MANIFEST = f"{STATE_DIR}/manifest.json"
LOCK = f"{STATE_DIR}/lock"
_VERSION = 1


@dataclass(frozen=True)
class Record:
    """One file of ours. sha256 was proven for the file with this size, time of change and inode.

    source: where it came from, without its query. how: downloaded or adopted. time: when, in UTC.
    archive: the folder of the archive that it was unpacked from, else empty.
    """

    sha256: str
    size: int
    source: str
    how: str
    time: str
    mtime_ns: int
    inode: int
    archive: str = ""

    def holds(self, look: FileLook | None) -> bool:
        """Whether the file is still the one that was hashed, as far as its directory entry tells."""
        return look is not None and (look.size, look.mtime_ns, look.inode) == (self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True)
class Archive:
    """What was unpacked into a folder."""

    sha256: str
    source: str


@dataclass(frozen=True)
class Entry:
    """One model: its files by path, its archives by folder, what the boot units do with it."""

    files: dict[str, Record] = field(default_factory=dict)
    archives: dict[str, Archive] = field(default_factory=dict)
    preload: bool = False
    lock: bool = False
    hugepages: bool = False

    def with_file(self, path: str, record: Record) -> Entry:
        return replace(self, files={**self.files, path: record})

    def with_archive(self, folder: str, archive: Archive, files: Mapping[str, Record]) -> Entry:
        """The archive with exactly these files of it."""
        others = {path: record for path, record in self.files.items() if record.archive != folder}
        return replace(self, files={**others, **files}, archives={**self.archives, folder: archive})

    def without(self, path: str) -> Entry:
        """Without the file; an archive goes with the last of its files."""
        files = {name: record for name, record in self.files.items() if name != path}
        folders = {record.archive for record in files.values()}
        gone = self.files[path].archive if path in self.files else ""
        kept = {name: archive for name, archive in self.archives.items() if name != gone or name in folders}
        return replace(self, files=files, archives=kept)

    def members(self, folder: str) -> dict[str, Record]:
        """The files that came with an archive."""
        return {path: record for path, record in self.files.items() if record.archive == folder}

    def serving(self, preload: bool, lock: bool, hugepages: bool) -> Entry:
        """For what the boot units do with it."""
        return replace(self, preload=preload, lock=lock, hugepages=hugepages)

    def purpose(self) -> dict[str, bool]:
        return {"preload": self.preload, "lock": self.lock, "hugepages": self.hugepages}


Models = dict[str, Entry]


def load(text: str | None, path: str) -> Models:
    """The models of a manifest; none where there is no file. RefusedError when it cannot be read as one."""
    if text is None:
        return {}
    try:
        data = json.loads(text)
        if data["version"] != _VERSION:
            raise RefusedError(f"{path}: version {data['version']} is not {_VERSION}; another release wrote it")
        return {name: _entry(entry) for name, entry in data["models"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{path} is not a manifest ({type(error).__name__}: {error}); restore it, or move it away: the next run "
            "then adopts the files that are there"
        ) from error


def _entry(data: Mapping[str, Any]) -> Entry:
    files = {path: Record(**record) for path, record in data["files"].items()}
    archives = {folder: Archive(**archive) for folder, archive in data["archives"].items()}
    return Entry(files, archives, data["preload"], data["lock"], data["hugepages"])


def dump(models: Mapping[str, Entry]) -> str:
    """The text of the manifest."""
    data = {"version": _VERSION, "models": {name: asdict(entry) for name, entry in models.items()}}
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
