# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page cache: how much of a file is in memory, reading it in, holding it there, and copies on huge pages.

This file imports nothing of its own tree: the role model_store installs it as the program of the boot units as well.

    page_cache.py preload ROOT            read in what the manifest of the store names, say how much is resident
    page_cache.py lock ROOT               the same, and hold it until stopped (mlock), where the manifest says lock
    page_cache.py hugepages ROOT MOUNT    copy what the manifest says to a hugetlbfs mount

Sources: mincore(2), mlock(2), posix_fadvise(2), sd_notify(3), Documentation/admin-guide/mm/hugetlbpage.rst (a
hugetlbfs file cannot be written with write(), only through a mapping).
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

PAGE = mmap.PAGESIZE
# Mapped at a time when residency is counted: 1 GiB needs a vector of 256 KiB.
_WINDOW = 1 << 30
_BLOCK = 8 << 20
_MANIFEST = ".ai-workstation/manifest.json"
_HUGETLBFS = 0x958458F6  # HUGETLBFS_MAGIC, linux/magic.h
# Only the lowest bit of mincore's bytes says something.
_LOWEST = bytes(value & 1 for value in range(256))

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def resident(path: str) -> tuple[int, int]:
    """Bytes of the file that are in memory, and all of its bytes. The owner of the file or root is told the truth.

    Any other user is told that all of it is there (mincore(2) since Linux 5.2).
    """
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        pages = sum(
            _pages_in_memory(stream.fileno(), offset, min(_WINDOW, size - offset)) for offset in range(0, size, _WINDOW)
        )
    return min(pages * PAGE, size), size


def _pages_in_memory(handle: int, offset: int, length: int) -> int:
    with _mapped(handle, offset, length) as address:
        vector = ctypes.create_string_buffer((length + PAGE - 1) // PAGE)
        if _libc.mincore(address, length, vector) != 0:
            raise _error("mincore")
        return vector.raw[: (length + PAGE - 1) // PAGE].translate(_LOWEST).count(1)


def read_in(path: str) -> float:
    """Read the file once, so that the kernel keeps it; seconds that took. The data itself goes nowhere."""
    buffer, started = bytearray(_BLOCK), time.monotonic()
    with open(path, "rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while stream.readinto(buffer):
            pass
    return time.monotonic() - started


def drop(path: str) -> None:
    """Ask the kernel to forget what it holds of this one file. It keeps what is mapped, locked or not on disk yet."""
    with open(path, "rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def hold(path: str) -> int:
    """Map the file and lock all of it in memory for as long as this process lives; its size."""
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size and _libc.mlock(_map(stream.fileno(), 0, size), size) != 0:
            raise _error(f"mlock {path}")
    return size


def copy_to_huge_pages(source: str, target: str) -> bool:
    """Make the same file on a hugetlbfs mount, by mapping it. False when one of its size and time is there already.

    It gets its name when it is complete. Sizes are rounded up to whole pages, with zeros.
    """
    found, mount = os.stat(source), os.path.dirname(target)
    page = os.statvfs(mount).f_bsize
    size = -(-found.st_size // page) * page
    if os.path.exists(target):
        there = os.stat(target)
        if (there.st_size, there.st_mtime_ns) == (size, found.st_mtime_ns):
            return False
    temporary = f"{target}.part"
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(handle, size)
        with open(source, "rb", buffering=0) as stream, mmap.mmap(handle, size) as mapping, memoryview(mapping) as view:
            at = 0
            while at < found.st_size:
                at += stream.readinto(view[at : at + _BLOCK]) or 0
        os.fchmod(handle, found.st_mode & 0o444)
        os.fchown(handle, found.st_uid, found.st_gid)
        os.utime(handle, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(handle)
    return True


def is_hugetlbfs(path: str) -> bool:
    buffer = ctypes.create_string_buffer(256)  # struct statfs; its first field is f_type
    if _libc.statfs(path.encode(), buffer) != 0:
        raise _error(f"statfs {path}")
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == _HUGETLBFS


@contextmanager
def _mapped(handle: int, offset: int, length: int) -> Iterator[int]:
    address = _map(handle, offset, length)
    try:
        yield address
    finally:
        _libc.munmap(address, length)


def _map(handle: int, offset: int, length: int) -> int:
    address: int | None = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, handle, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        raise _error("mmap")
    return int(address or 0)


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


# -- the program ------------------------------------------------------------------------------------


def _models(root: str, purpose: str) -> Iterator[tuple[str, list[str]]]:
    with open(os.path.join(root, _MANIFEST), encoding="utf-8") as stream:
        manifest = json.load(stream)
    for name, entry in sorted(manifest["models"].items()):
        if entry[purpose]:
            yield name, [os.path.join(root, path) for path in sorted(entry["files"])]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _report(name: str, paths: Sequence[str], seconds: float) -> None:
    pairs = [resident(path) for path in paths]
    here, whole = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    share = 100 * here / whole if whole else 100
    rate = whole / max(seconds, 1e-6) / (1 << 20)
    took = f"read in {seconds:.1f} s, {rate:.0f} MiB/s"
    _say(f"{name}: {here >> 20} of {whole >> 20} MiB resident ({share:.0f} %); {took}")


def preload(root: str) -> int:
    """Read in all models that the manifest says; the number of those that could not be read."""
    return [_preload_one(name, paths) for name, paths in _models(root, "preload")].count(False)


def _preload_one(name: str, paths: Sequence[str]) -> bool:
    try:
        _report(name, paths, sum(read_in(path) for path in paths))
    except OSError as error:
        _say(f"{name}: {error.filename}: {error.strerror}")
        return False
    return True


def lock(root: str) -> int:
    """Hold all models that the manifest says, tell systemd, and wait for the end."""
    ends = [signal.SIGTERM, signal.SIGINT]
    # Blocked, so that one that comes early is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    for name, paths in _models(root, "lock"):
        _say(f"{name}: {sum(hold(path) for path in paths) >> 20} MiB locked")
    _tell_systemd(b"READY=1")
    signal.sigwait(ends)
    return 0


def hugepages(root: str, target: str) -> int:
    """Copy all models that the manifest says to a hugetlbfs mount."""
    if not is_hugetlbfs(target):
        _say(f"{target}: not a hugetlbfs mount; os_tuning_hugepage_mounts makes one")
        return 1
    for name, paths in _models(root, "hugepages"):
        for path in paths:
            copy = os.path.join(target, os.path.relpath(path, root))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            made = copy_to_huge_pages(path, copy)
            _say(f"{name}: {copy} {'copied' if made else 'is there'}")
    return 0


def _tell_systemd(message: bytes) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(message, "\0" + address[1:] if address.startswith("@") else address)


def main(arguments: Sequence[str]) -> int:
    known: dict[str, tuple[Any, int]] = {"preload": (preload, 1), "lock": (lock, 1), "hugepages": (hugepages, 2)}
    if not arguments or arguments[0] not in known or len(arguments) - 1 != known[arguments[0]][1]:
        sys.stderr.write("usage: page_cache.py preload ROOT | lock ROOT | hugepages ROOT MOUNT\n")
        return 2
    try:
        return 1 if known[arguments[0]][0](*arguments[1:]) else 0
    except (OSError, ValueError, KeyError) as error:
        _say(f"page_cache: {error}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
