# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take an archive apart: every member hashed while it is staged, none put in place before all are checked."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from ..doors.big_files import BLOCK, Access, BigFiles, FileLook
from ..errors import RefusedError
from .manifest import Record
from .transfer import check_space
from .wishes import WantedFile, plain_path


@dataclass(frozen=True)
class Member:
    """One file of an archive, staged."""

    path: str
    staged: str
    sha256: str


def unpack(
    files: BigFiles, wanted: WantedFile, staged: str, known: Mapping[str, Record], access: Access, reserve: int
) -> dict[str, tuple[str, FileLook]]:
    """Put the members of a staged archive in place: SHA-256 and directory entry by path.

    known: the files of the manifest, which may be replaced. Any other file in the way must have the same content.
    """
    try:
        with tarfile.open(files.at(staged), "r:*") as archive:
            members = _members(wanted, archive)
            check_space(files, wanted.path, sum(info.size for info in members.values()), reserve)
            ready = [
                Member(path, f"{staged}.{number}", _stage(files, archive, info, f"{staged}.{number}"))
                for number, (path, info) in enumerate(members.items())
            ]
    except (tarfile.TarError, EOFError) as error:
        raise RefusedError(f"{wanted.origin}: not an archive that can be unpacked: {error}") from error
    for member in ready:
        _check_place(files, wanted, member, known)
    found = {}
    for member in ready:
        found[member.path] = (member.sha256, files.publish(member.staged, member.path, access))
    return found


def _members(wanted: WantedFile, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    found = {}
    for info in archive.getmembers():
        if info.isdir():
            continue
        inside = posixpath.normpath(info.name)
        if not info.isreg() or not plain_path(inside):
            raise RefusedError(
                f"{wanted.origin}: the member {info.name!r} is a link, a device or outside of the archive; "
                "only plain files are unpacked"
            )
        found[f"{wanted.path}/{inside}"] = info
    if not found:
        raise RefusedError(f"{wanted.origin}: the archive holds no files")
    return found


def _stage(files: BigFiles, archive: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> str:
    digest, source = hashlib.sha256(), archive.extractfile(info)
    with files.appending(path, 0) as handle:
        while source is not None:
            block = source.read(BLOCK)
            if not block:
                break
            files.write(path, handle, block)
            digest.update(block)
    return digest.hexdigest()


def _check_place(files: BigFiles, wanted: WantedFile, member: Member, known: Mapping[str, Record]) -> None:
    look = files.look(member.path)
    if look is None or member.path in known:
        return
    if not look.regular or files.sha256(member.path).hexdigest() != member.sha256:
        raise RefusedError(
            f"{wanted.origin}: {member.path} is there, not ours and not the member of that name; move it away"
        )
