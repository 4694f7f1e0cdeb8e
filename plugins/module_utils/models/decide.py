# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to happen to each file of the store. Pure: wishes, manifest and what was seen in; steps out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..doors.big_files import Access, FileLook
from ..errors import RefusedError
from .manifest import Entry, Record
from .wishes import WantedFile

KEEP, ADOPT, RECORD, FETCH = "keep", "adopt", "record", "fetch"


@dataclass(frozen=True)
class Seen:
    """A file as it was found. sha256 is filled in where the manifest could not vouch for it, else empty."""

    look: FileLook | None
    sha256: str = ""


@dataclass(frozen=True)
class Step:
    """One thing to do. before and after: SHA-256 or what stands for it. access: owner and mode change as well."""

    action: str
    wanted: WantedFile
    before: str | None
    after: str | None
    reason: str
    access: bool = False

    @property
    def changes(self) -> bool:
        return self.action != KEEP or self.access


PINNED_LATER = "pinned by the first download"
_MOVED = "its source or its directory entry is another, its content is the same"


def decide_file(model: str, wanted: WantedFile, record: Record | None, seen: Seen, access: Access) -> Step:
    """The step for one file. RefusedError where a file that is not ours is in the way."""
    where = f"models {model}: {wanted.path}"
    if seen.look is not None and not seen.look.regular:
        raise RefusedError(f"{where} is a link or no file; models are plain files, move it away")
    pinned = wanted.sha256
    if not pinned and record and (not wanted.source or record.source in (wanted.origin, "")):
        pinned = record.sha256
    before = record.sha256 if record else None
    if seen.look is None:
        if not wanted.source:
            raise RefusedError(f"{where} is not there, and no source says where to get it")
        return _fetch(wanted, before, pinned, "it is gone" if record else "it is not here")
    return _decide_present(where, wanted, record, seen, access, pinned)


def _fetch(wanted: WantedFile, before: str | None, pinned: str, reason: str) -> Step:
    """Fetch what has the pinned hash, or pin the hash of what comes."""
    return Step(FETCH, replace(wanted, sha256=pinned), before, pinned or PINNED_LATER, reason)


def _decide_present(
    where: str, wanted: WantedFile, record: Record | None, seen: Seen, access: Access, pinned: str
) -> Step:
    """The step where there is a file."""
    found = seen.sha256 or (record.sha256 if record else "")
    strange = seen.look is not None and not access.fits(seen.look)
    if record is None:
        if pinned and found != pinned:
            raise RefusedError(
                f"{where} is there and not ours, with the SHA-256 {found} and not {pinned}; "
                "move it away, or give its hash"
            )
        reason = "it is what is wanted" if pinned else "it is there; its hash is the wanted one from now on"
        return Step(ADOPT, wanted, None, found, reason, strange)
    if pinned and found == pinned:
        same = not seen.sha256 and (not wanted.source or record.source == wanted.origin)
        reason = "" if same else _MOVED
        return Step(KEEP if same else RECORD, wanted, record.sha256, found, reason, strange)
    if not wanted.source:
        raise RefusedError(f"{where}: its content has changed to {found}, and no source says where to get {pinned}")
    changed = found != record.sha256
    reason = "its content was changed by someone else" if changed else "another version is wanted"
    return _fetch(wanted, record.sha256, pinned, reason)


def decide_archive(wanted: WantedFile, entry: Entry, seen: Mapping[str, Seen], access: Access) -> Step:
    """The step for an archive: its members are all as they were unpacked, or it is fetched again."""
    old, members = entry.archives.get(wanted.path), entry.members(wanted.path)
    if old is None:
        return _fetch(wanted, None, wanted.sha256, "it is not here")
    pinned = wanted.sha256 or (old.sha256 if old.source == wanted.origin else "")
    if pinned != old.sha256:
        return _fetch(wanted, old.sha256, pinned, "another version is wanted")
    for path, record in members.items():
        if not may_remove(record, seen[path]):
            return _fetch(wanted, pinned, pinned, f"{path} is not as it was unpacked")
    strange = any(not access.fits(look) for look in (seen[path].look for path in members) if look is not None)
    same = old.source == wanted.origin and not any(seen[path].sha256 for path in members)
    return Step(KEEP if same else RECORD, wanted, pinned, pinned, "" if same else _MOVED, strange)


def may_remove(record: Record, seen: Seen) -> bool:
    """Whether the file is still as we left it: only then it is ours to remove."""
    return seen.look is not None and seen.look.regular and (seen.sha256 or record.sha256) == record.sha256
