# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the operating system: the only code that touches files and runs commands.

`Host(root)` sees another tree than "/" in tests and in the lab. Paths given to it are always
absolute paths of the target. `before_write` is called with the path ahead of every single write, so that
a test can stop the world at each of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import RefusedError

# How long a run waits for another one on the same machine: image rebuilds take minutes.
_LOCK_LOOKS, _LOCK_PAUSE = 1200, 0.5
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class FileState:
    """A regular file as far as we promise to restore it: bytes, mode and owner."""

    content: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"content": self.content, "mode": self.mode, "uid": self.uid, "gid": self.gid}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FileState:
        return cls(data["content"], data["mode"], data["uid"], data["gid"])


@dataclass(frozen=True)
class Completed:
    """A finished command."""

    code: int
    out: str
    err: str


class Host:
    """Files and commands of one machine."""

    def __init__(self, root: str = "/", before_write: Callable[[str], None] | None = None) -> None:
        self.root = root.rstrip("/")
        self.before_write = before_write or (lambda _path: None)

    def at(self, path: str) -> str:
        """The path as this process must open it."""
        return self.root + path

    # -- reading -----------------------------------------------------------------------------------

    def text(self, path: str) -> str | None:
        """Content without surrounding white space; None where it cannot be read."""
        data = self.raw(path)
        return None if data is None else data.decode("utf-8", "surrogateescape").strip()

    def raw(self, path: str) -> bytes | None:
        """Content as bytes; None where there is no such file or the kernel refuses the read."""
        try:
            with open(self.at(path), "rb", buffering=0) as handle:
                return handle.read()
        except OSError:
            return None

    def lines(self, path: str) -> list[str]:
        """Lines of a text file, the first one first; none where it cannot be read."""
        return (self.raw(path) or b"").decode("utf-8", "surrogateescape").splitlines()

    def number(self, path: str) -> int | None:
        """Content as a decimal number; None where there is none."""
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def many(self, paths: Iterable[str]) -> list[str | None]:
        """text() of many small kernel files (up to 64 KiB each) with the fewest calls: facts read thousands."""
        found: list[str | None] = []
        for path in paths:
            try:
                handle = os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                found.append(None)
                continue
            try:
                found.append(os.read(handle, 65536).decode("utf-8", "surrogateescape").strip())
            except OSError:
                found.append(None)
            finally:
                os.close(handle)
        return found

    def space(self, path: str) -> tuple[int, int] | None:
        """Bytes of a mounted file system: (all, free to users); None where it cannot be asked."""
        try:
            found = os.statvfs(self.at(path))
        except OSError:
            return None
        return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail

    def names(self, path: str) -> list[str]:
        """Sorted names in a directory; empty where there is none."""
        try:
            return sorted(os.listdir(self.at(path)))
        except OSError:
            return []

    def glob(self, pattern: str) -> list[str]:
        """Sorted target paths that match."""
        return sorted(found[len(self.root) :] for found in glob.glob(self.at(pattern)))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.at(path))

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(self.at(path))

    def link(self, path: str) -> str | None:
        """Where a symbolic link points; None where there is no link."""
        try:
            return os.readlink(self.at(path))
        except OSError:
            return None

    def resolve(self, path: str) -> str:
        """The path with all links followed, as a target path."""
        found = os.path.realpath(self.at(path))
        return found[len(self.root) :] if self.root and found.startswith(self.root) else found

    def inode(self, path: str) -> int | None:
        """The inode number: it changes when the kernel removes and creates the entry again."""
        try:
            return os.stat(self.at(path)).st_ino
        except OSError:
            return None

    def modified(self, path: str) -> float:
        """When the content was last changed, in seconds since 1970; 0 where there is nothing."""
        try:
            return os.stat(self.at(path)).st_mtime
        except OSError:
            return 0.0

    def writable(self, path: str) -> bool:
        """Whether root could write here: False on a read-only mount (a container's /sys) or without a write bit."""
        try:
            read_only = os.statvfs(self.at(path)).f_flag & os.ST_RDONLY
            return not read_only and bool(os.stat(self.at(path)).st_mode & 0o222)
        except OSError:
            return False

    def file(self, path: str) -> FileState | None:
        """The regular file, or None where nothing is there. Raises OSError for anything else."""
        try:
            found = os.lstat(self.at(path))
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file; move it away, this file must be ours")
        with open(self.at(path), "rb") as handle:
            content = handle.read().decode("utf-8", "surrogateescape")
        return FileState(content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def stat(self, path: str) -> os.stat_result | None:
        """Mode, owner and size, links followed; None where nothing is there."""
        try:
            return os.stat(self.at(path))
        except OSError:
            return None

    def dir_mode(self, path: str) -> int | None:
        """The mode of a directory; None where there is none."""
        try:
            found = os.lstat(self.at(path))
        except OSError:
            return None
        return stat.S_IMODE(found.st_mode) if stat.S_ISDIR(found.st_mode) else None

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def uid(self) -> int:
        return os.geteuid()

    def ids(self) -> tuple[int, int]:
        """User and group of this process: those of the files that it keeps for itself."""
        return os.geteuid(), os.getegid()

    def token(self) -> str:
        """A name that nobody else has chosen."""
        return secrets.token_hex(8)

    def utc(self) -> str:
        """The time now, as file names have it."""
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def process(self) -> str:
        """This process, named as no other of this boot is: its number and its start (proc_pid_stat(5), starttime)."""
        return self._named(os.getpid())

    def runs(self, process: str) -> bool:
        """Whether a process that process() named is still there."""
        number = process.partition(" ")[0]
        return bool(number) and self._named(int(number)) == process

    def _named(self, number: int) -> str:
        fields = (self.text(f"/proc/{number}/stat") or "").rpartition(")")[2].split()
        return f"{number} {fields[19]}" if len(fields) > 19 else ""

    def boot_id(self) -> str:
        """Identity of this boot (Documentation/admin-guide/sysctl/kernel.rst, random/boot_id)."""
        return self.text("/proc/sys/kernel/random/boot_id") or "unknown"

    # -- commands ----------------------------------------------------------------------------------

    def which(self, name: str) -> str | None:
        return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")

    def run(self, argv: Sequence[str], timeout: float = 120, text: str = "") -> Completed:
        """Run a command, in the C locale, with a text on its input. Code 127: no such program."""
        program = self.which(argv[0])
        if program is None:
            return Completed(127, "", f"{argv[0]}: not found")
        environment = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"}
        try:
            # There is no run_command here: this tree runs without Ansible as well.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                [program, *argv[1:]],
                env=environment,
                input=text,
                capture_output=True,
                timeout=timeout,
                check=False,
                **_TEXT,
            )  # type: ignore[call-overload]
        except subprocess.TimeoutExpired:
            return Completed(124, "", f"{argv[0]}: no answer within {timeout:g} s")
        return Completed(done.returncode, done.stdout, done.stderr)

    def pause(self, seconds: float) -> None:
        """Give the kernel the time for what it does after a write."""
        time.sleep(seconds)

    # -- writing -----------------------------------------------------------------------------------

    def write_value(self, path: str, text: str) -> None:
        """One write(2) of one value to an existing kernel file. Raises OSError as the kernel answers."""
        self.before_write(path)
        handle = os.open(self.at(path), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, (text + "\n").encode("utf-8", "surrogateescape"))
        finally:
            os.close(handle)

    def write_file(self, path: str, state: FileState) -> None:
        """Put a file in place atomically and durably: a reader sees the old or the new one, whole."""
        self.before_write(path)
        folder, temporary = os.path.dirname(self.at(path)), self._temporary(path)
        self.drop_temporary(path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(state.content.encode("utf-8", "surrogateescape"))
                os.fchmod(stream.fileno(), state.mode)
                found = os.fstat(stream.fileno())
                if (found.st_uid, found.st_gid) != (state.uid, state.gid):
                    os.fchown(stream.fileno(), state.uid, state.gid)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, self.at(path))
        except OSError:
            self.drop_temporary(path)
            raise
        self._sync_folder(folder)

    def remove_file(self, path: str) -> None:
        """Remove a file durably; nothing to do where there is none."""
        self.before_write(path)
        self.drop_temporary(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(path))
            self._sync_folder(os.path.dirname(self.at(path)))

    def drop_temporary(self, path: str) -> None:
        """Remove what a write_file() that was killed may have left beside the file."""
        with contextlib.suppress(OSError):
            os.unlink(self._temporary(path))

    def make_link(self, path: str, target: str) -> None:
        """Make a symbolic link, durably. OSError where something is there already."""
        self.before_write(path)
        os.symlink(target, self.at(path))
        self._sync_folder(os.path.dirname(self.at(path)))

    def make_dir(self, path: str, mode: int) -> None:
        """Make one directory, with exactly this mode."""
        self.before_write(path)
        os.mkdir(self.at(path))
        os.chmod(self.at(path), mode)
        self._sync_folder(os.path.dirname(self.at(path)))

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory; OSError when it is not empty."""
        self.before_write(path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.at(path))

    def give(self, path: str, uid: int, gid: int) -> None:
        """Make a file or folder belong to a user."""
        self.before_write(path)
        os.chown(self.at(path), uid, gid)

    def act(self, argv: Sequence[str], timeout: float = 600) -> Completed:
        """Run a command that changes the machine: a write point like any other."""
        self.before_write(" ".join(argv))
        return self.run(argv, timeout)

    # -- the ledger's needs ------------------------------------------------------------------------

    def json_text(self, data: Any) -> str:
        """JSON as save_json() writes it."""
        return json.dumps(data, indent=1, sort_keys=True) + "\n"

    def save_json(self, path: str, data: Any) -> None:
        """Write JSON atomically and durably, readable by root alone, making its folder when missing."""
        os.makedirs(os.path.dirname(self.at(path)), mode=0o755, exist_ok=True)
        self.write_file(path, FileState(self.json_text(data), 0o600, *self.ids()))

    def make_private_dir(self, path: str) -> None:
        """Make a folder for root alone, where it is missing."""
        os.makedirs(self.at(path), mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[None]:
        """Hold an exclusive lock, so that two runs on one machine take turns. RefusedError when the other does not end.

        Nobody but root may open the file: whoever can read it can hold the lock.
        """
        os.makedirs(os.path.dirname(self.at(path)), mode=0o755, exist_ok=True)
        handle = os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(handle, 0o600)
            self._take_turns(handle, path)
            yield
        finally:
            os.close(handle)

    def _take_turns(self, handle: int, path: str) -> None:
        for _look in range(_LOCK_LOOKS):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            self.pause(_LOCK_PAUSE)
        wait = _LOCK_LOOKS * _LOCK_PAUSE
        raise RefusedError(
            f"{path}: another run has held it for {wait:g} s; wait for its end (fuser -v {path} names it)"
        )

    def _temporary(self, path: str) -> str:
        # One name per file, so that the next run finds and removes what a killed one left. The
        # ledger's lock keeps two writers apart.
        folder, name = os.path.split(self.at(path))
        return os.path.join(folder, f".{name}.ai-workstation")

    def _sync_folder(self, folder: str) -> None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
