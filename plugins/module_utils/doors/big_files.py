# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to files too large to hold in memory: looked at, hashed, staged, put in place and removed.

All paths are relative to one root. What is put in place was complete and on disk before, and is renamed: a process
that has the old file open or mapped keeps the old file, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError
from .host import FileState, Host

BLOCK = 1 << 20


@dataclass(frozen=True)
class FileLook:
    """A directory entry. Sizes in bytes, times in nanoseconds since 1970."""

    size: int
    mtime_ns: int
    inode: int
    mode: int
    uid: int
    gid: int
    regular: bool


@dataclass(frozen=True)
class Access:
    """Who may read what we put in place."""

    mode: int
    uid: int
    gid: int

    @property
    def folder(self) -> int:
        """The mode of a folder: entered by all who may read the files, written by its owner alone."""
        return 0o700 | (self.mode & 0o444) | (self.mode & 0o444) >> 2

    def fits(self, look: FileLook) -> bool:
        return (look.mode, look.uid, look.gid) == (self.mode, self.uid, self.gid)


class BigFiles:
    """Files below one root of one machine."""

    def __init__(self, host: Host, root: str) -> None:
        self.host = host
        self.root = root.rstrip("/")

    def at(self, path: str) -> str:
        """The path as this process must open it."""
        return self.host.at(f"{self.root}/{path}" if path else self.root)

    # -- reading -----------------------------------------------------------------------------------

    def look(self, path: str) -> FileLook | None:
        """The directory entry, links not followed; None where there is none."""
        try:
            found = os.lstat(self.at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        regular = stat.S_ISREG(found.st_mode)
        mode = stat.S_IMODE(found.st_mode)
        return FileLook(found.st_size, found.st_mtime_ns, found.st_ino, mode, found.st_uid, found.st_gid, regular)

    def escapes(self, path: str) -> bool:
        """Whether a link on the way leads out of the root."""
        folder, root = os.path.realpath(os.path.dirname(self.at(path))), os.path.realpath(self.at(""))
        return folder != root and not folder.startswith(f"{root}/")

    def sha256(self, path: str, size: int | None = None) -> Any:
        """The running SHA-256 (hashlib) of the file's first `size` bytes, or of all of it."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(BLOCK))
        left = float("inf") if size is None else size
        handle = os.open(self.at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while left > 0:
                got = stream.readinto(buffer[: int(min(left, BLOCK))])
                if not got:
                    break
                digest.update(buffer[:got])
                left -= got
        return digest

    def walk(self, skip: str) -> list[str]:
        """All entries that are no folders, sorted, but for the top folder `skip`."""
        found = []
        for folder, folders, names in os.walk(self.at("")):
            below = os.path.relpath(folder, self.at(""))
            if below == ".":
                folders[:] = [name for name in folders if name not in (skip, "lost+found")]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            found += [os.path.normpath(os.path.join(below, name)) for name in [*names, *links]]
        return sorted(found)

    def free(self) -> int:
        """Bytes that users may still write on the file system of the root, or of its nearest folder that exists."""
        return self.space()[1]

    def space(self) -> tuple[int, int]:
        """Bytes of that file system: all, free."""
        path = self.root or "/"
        while not self.host.exists(path):
            path = os.path.dirname(path)
        return self.host.space(path) or (0, 0)

    def names(self, path: str) -> list[str]:
        return self.host.names(f"{self.root}/{path}")

    def text(self, path: str) -> str | None:
        return self.host.text(f"{self.root}/{path}")

    # -- writing -----------------------------------------------------------------------------------

    def make_folders(self, path: str, access: Access) -> None:
        """Make the folders on the way to a path, each with the mode that fits its readers."""
        missing = []
        folder = os.path.dirname(f"{self.root}/{path}")
        while not self.host.is_dir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for one in reversed(missing):
            with contextlib.suppress(FileExistsError):
                # Another run, which has no lock yet either, may be faster.
                self.host.make_dir(one, access.folder)
            if (os.geteuid(), os.getegid()) != (access.uid, access.gid):
                os.chown(self.host.at(one), access.uid, access.gid)

    def make_state_folder(self, path: str, access: Access, mode: int) -> None:
        self.make_folders(f"{path}/x", access)
        if self.host.dir_mode(f"{self.root}/{path}") != mode:
            self.host.before_write(f"{self.root}/{path}")
            os.chmod(self.at(path), mode)

    def write_text(self, path: str, text: str, mode: int) -> None:
        self.host.write_file(f"{self.root}/{path}", FileState(text, mode, os.geteuid(), os.getegid()))

    @contextlib.contextmanager
    def appending(self, path: str, offset: int) -> Iterator[int]:
        """A descriptor of the file, cut at `offset` and written from there; on disk when the block ends well."""
        self.host.before_write(f"{self.root}/{path}")
        handle = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, offset)
            os.lseek(handle, offset, os.SEEK_SET)
            yield handle
            os.fsync(handle)
        finally:
            os.close(handle)

    def write(self, path: str, handle: int, block: bytes) -> None:
        """Write the whole block to a descriptor of appending()."""
        self.host.before_write(f"{self.root}/{path}")
        view = memoryview(block)
        while view:
            view = view[os.write(handle, view) :]

    def publish(self, staged: str, path: str, access: Access) -> FileLook:
        """Put a staged file, complete and on disk, in its place."""
        if self.escapes(path):
            raise RefusedError(f"{self.root}/{path}: a link on the way leads out of {self.root}; remove the link")
        self.make_folders(path, access)
        self.set_access(staged, access)
        self.host.before_write(f"{self.root}/{path}")
        os.rename(self.at(staged), self.at(path))
        self._sync_folder(path)
        found = self.look(path)
        if found is None:
            raise OSError(f"{self.root}/{path} is gone right after it was put in place; something else removes it")
        return found

    def set_access(self, path: str, access: Access) -> None:
        self.host.before_write(f"{self.root}/{path}")
        os.chown(self.at(path), access.uid, access.gid, follow_symlinks=False)
        os.chmod(self.at(path), access.mode)

    def remove(self, path: str) -> None:
        """Remove a file; nothing to do where there is none."""
        self.host.before_write(f"{self.root}/{path}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(path))
            self._sync_folder(path)

    def prune(self, path: str) -> None:
        """Remove the folders on the way to a path that are empty."""
        folder = os.path.dirname(path)
        while folder:
            try:
                os.rmdir(self.at(folder))
            except OSError:
                return
            folder = os.path.dirname(folder)

    def _sync_folder(self, path: str) -> None:
        handle = os.open(os.path.dirname(self.at(path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
