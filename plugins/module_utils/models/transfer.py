# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring one file into the staging folder: resumed, retried, checked. What is returned is complete and on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Callable

from ..doors.big_files import BLOCK, BigFiles
from ..doors.download import Answer, Downloads, RangeRefusedError, TransferError
from ..errors import ApplyError, RefusedError
from .wishes import STATE_DIR, WantedFile

PARTIAL = f"{STATE_DIR}/partial"
# Progress that proves that the next attempt is not in vain: the count of attempts begins anew.
_PROGRESS = 16 << 20
_LONGEST_PAUSE = 30


@dataclass(frozen=True)
class Note:
    """What is known of a partial file: its source with its validator, size and hash as told, the boot that wrote it."""

    source: str
    validator: str
    total: int | None
    told_sha256: str
    boot: str

    @classmethod
    def read(cls, files: BigFiles, path: str) -> Note | None:
        try:
            return cls(**json.loads(files.text(path) or ""))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Limits:
    """reserve: bytes that stay free on the file system. retries: further attempts without progress."""

    reserve: int
    retries: int


class _Digest:
    """The running SHA-256 of a staged file. It is hashed again from its beginning only where that is needed."""

    def __init__(self, files: BigFiles, path: str) -> None:
        self._files, self._path = files, path
        self._value, self._count = hashlib.sha256(), 0

    def seek(self, offset: int) -> None:
        """Stand for the first `offset` bytes."""
        if self._count != offset:
            self._value = self._files.sha256(self._path, offset) if offset else hashlib.sha256()
            self._count = offset

    def add(self, block: bytes) -> None:
        self._value.update(block)
        self._count += len(block)

    def hex(self) -> str:
        return str(self._value.hexdigest())


class Transfer:
    """Fetches for one store."""

    def __init__(self, files: BigFiles, downloads: Downloads, limits: Limits, log: Callable[[str], None]) -> None:
        self._files, self._downloads, self._limits, self._log = files, downloads, limits, log
        self._boot = files.host.boot_id()

    def have(self, wanted: WantedFile) -> int:
        """Bytes of it that are here already and can be used."""
        return self._resume(wanted)[0]

    def drop(self, wanted: WantedFile) -> None:
        """Remove what is left in the staging folder after the file was put in place, or was wrong."""
        for path in leftovers(self._files, wanted):
            self._files.remove(path)

    def bring(self, wanted: WantedFile) -> str:
        """Fetch the file; return its SHA-256. Raises ApplyError when it cannot be had, or is not what is wanted."""
        resumed = self.have(wanted) > 0
        found, expected = self._fetch(wanted), self._expected(wanted)
        if expected and found != expected and resumed:
            # The piece of an earlier run may be what is wrong.
            self.drop(wanted)
            found, expected = self._fetch(wanted), self._expected(wanted)
        if expected and found != expected:
            self.drop(wanted)
            whose = "wanted" if wanted.sha256 else "the server promised"
            raise ApplyError(
                f"{wanted.origin}: the SHA-256 of what came is {found}, {whose} {expected}; nothing was put in place"
            )
        return found

    def _note(self, wanted: WantedFile) -> Note | None:
        return Note.read(self._files, f"{staged(wanted)}.json")

    def _expected(self, wanted: WantedFile) -> str:
        note = self._note(wanted)
        return wanted.sha256 or (note.told_sha256 if note else "")

    def _resume(self, wanted: WantedFile) -> tuple[int, Note | None]:
        """How many bytes can be kept, and the note of them."""
        look = self._files.look(staged(wanted))
        note = self._note(wanted)
        if look is None or note is None or note.source != wanted.origin:
            return 0, None
        # A power cut may have left holes, which only a known hash can find.
        proven = bool(wanted.sha256) or (note.boot == self._boot and note.validator != "")
        return (look.size, note) if proven and (note.total is None or look.size <= note.total) else (0, None)

    def _fetch(self, wanted: WantedFile) -> str:
        """The SHA-256 of the file, staged whole."""
        failures, digest = 0, _Digest(self._files, staged(wanted))
        while True:
            offset, note = self._resume(wanted)
            if note is not None and note.total == offset:
                digest.seek(offset)
                return digest.hex()
            try:
                self._attempt(wanted, offset, note.validator if note else "", digest)
                return digest.hex()
            except TransferError as error:
                came = self.have(wanted) - offset
                failures = 1 if came >= _PROGRESS else failures + 1
                if failures > self._limits.retries:
                    raise ApplyError(f"{error}; given up after {failures} attempts; {self._kept(wanted)}") from error
                self._log(f"{wanted.path}: {error}; attempt {failures + 1} of {self._limits.retries + 1}")
                self._files.host.pause(error.wait or min(2 ** (failures - 1), _LONGEST_PAUSE))

    def _attempt(self, wanted: WantedFile, offset: int, validator: str, digest: _Digest) -> None:
        path = staged(wanted)
        try:
            with self._downloads.open(wanted.source, offset, validator) as answer:
                if answer.start not in (0, offset):
                    raise TransferError(f"{wanted.origin}: the server sends from byte {answer.start}, not {offset}")
                if answer.total is not None:
                    self._check_space(wanted, answer.total - answer.start)
                elif not (answer.framed or wanted.sha256):
                    raise RefusedError(
                        f"{wanted.origin}: the server does not say how long the file is, so that a cut could not be "
                        "noticed; give its sha256"
                    )
                digest.seek(answer.start)
                note = Note(wanted.origin, answer.validator, answer.total, answer.told_sha256, self._boot)
                with self._files.appending(path, answer.start) as handle:
                    self._files.write_text(f"{path}.json", json.dumps(vars(note)), 0o600)
                    self._pour(wanted, answer, handle, digest)
        except RangeRefusedError:
            # The file has changed at its source: what is here is of no use.
            self.drop(wanted)
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ApplyError(f"{wanted.path}: {error.strerror}; {self._kept(wanted)}") from error
            raise

    def _pour(self, wanted: WantedFile, answer: Answer, handle: int, digest: _Digest) -> None:
        at, told, started, first = answer.start, 0, time.monotonic(), answer.start
        while True:
            block = answer.read(BLOCK)
            if not block:
                break
            self._check_space(wanted, len(block))
            self._files.write(staged(wanted), handle, block)
            digest.add(block)
            at += len(block)
            if answer.total and at * 10 // answer.total > told:
                told = at * 10 // answer.total
                rate = (at - first) / max(time.monotonic() - started, 1e-6) / (1 << 20)
                self._log(f"{wanted.path}: {told * 10}% of {answer.total >> 20} MiB, {rate:.0f} MiB/s")
        if answer.total is not None and at != answer.total:
            raise TransferError(f"{wanted.origin}: cut off after {at} of {answer.total} bytes")

    def _check_space(self, wanted: WantedFile, more: int) -> None:
        check_space(self._files, wanted.path, more, self._limits.reserve)

    def _kept(self, wanted: WantedFile) -> str:
        return f"{mib(self.have(wanted))} of it are kept, and the next run goes on from there"


def staged(wanted: WantedFile) -> str:
    """Where a file is built. The same download has the same name in every run."""
    return f"{PARTIAL}/{hashlib.sha256(f'{wanted.path} {wanted.origin}'.encode()).hexdigest()[:24]}.part"


def leftovers(files: BigFiles, wanted: WantedFile) -> list[str]:
    """What the staging folder holds of a file."""
    name = staged(wanted)[len(PARTIAL) + 1 :]
    return [f"{PARTIAL}/{left}" for left in files.names(PARTIAL) if left.startswith(name)]


def check_space(files: BigFiles, what: str, more: int, reserve: int) -> None:
    """Refuse what would leave less than the reserve (all in bytes)."""
    free = files.free()
    if free - more < reserve:
        raise RefusedError(
            f"{what}: needs {mib(more)} more, {files.root} has {mib(free)} free of which {mib(reserve)} are a reserve; "
            "make room there, or lower the reserve"
        )


def mib(number: int) -> str:
    """Bytes for a reader: "12.5 MiB"."""
    return f"{number / (1 << 20):.1f} MiB"
