# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the network: opens an address (http, https, file) from a byte on, and says what the server told.

Sources: RFC 9110 (Range, If-Range, Content-Range, 206, 416), RFC 6585 (429). A hub that keeps large files elsewhere
tells their SHA-256 as X-Linked-Etag with its redirect.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError, WorkstationError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_LATER = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0


class TransferError(WorkstationError):
    """A transfer that may go better later. wait: seconds that the server asked for, else 0."""

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class RangeRefusedError(TransferError):
    """The source does not have the bytes that were asked for: it is not the file any more that was begun."""


@dataclass(frozen=True)
class Answer:
    """An open source. start: the first byte that comes. total: bytes of the whole file, None where it is not told.

    validator: a strong ETag or a date, for If-Range; empty where a later request cannot prove that it is the same file.
    told_sha256: the hash that the server claims, else empty. framed: whether a cut is noticed without a total.
    """

    stream: Any
    start: int
    total: int | None
    validator: str
    told_sha256: str
    framed: bool

    def read(self, count: int) -> bytes:
        try:
            found: bytes = self.stream.read(count)
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(f"cut off ({_words(error)})") from error
        return found


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything weaker, and with the token for its own origin only."""

    def __init__(self, token: str, origin: str) -> None:
        self._token, self._origin = token, origin
        # What the answers to the last request said on the way.
        self.told_sha256 = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("https", urllib.parse.urlsplit(req.full_url).scheme):
            raise RefusedError(f"{_plain(req.full_url)} redirects to the weaker address {_plain(newurl)}")
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is None:
            return None
        request = _request(found.full_url, dict(found.headers), req.get_method())
        self.told_sha256 = _hash(headers.get("X-Linked-Etag")) or self.told_sha256
        _authorize(request, self._token, self._origin)
        return request


class Downloads:
    """Opens sources. The token goes to its origin (scheme, host, port) only, and nowhere by a redirect."""

    def __init__(self, token: str = "", token_url: str = "", timeout: float = 60) -> None:
        self._token, self._origin, self._timeout = token, origin_of(token_url), timeout
        self._redirects = _Redirects(token, self._origin)
        self._opener = urllib.request.build_opener(self._redirects)

    def size(self, url: str) -> int | None:
        """The bytes of the file, asked without fetching it; None where the server does not say."""
        if url.startswith("file:"):
            return os.stat(_local(url)).st_size
        with self._ask(url, "HEAD", {}) as answer:
            text = answer.headers.get("Content-Length") or ""
            return int(text) if text.isdigit() else None

    @contextlib.contextmanager
    def open(self, url: str, offset: int, validator: str) -> Iterator[Answer]:
        """Open the source at a byte, if it still is the file of the validator; else at its beginning."""
        if url.startswith("file:"):
            with _open_local(url, offset, validator) as local:
                yield local
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        with self._ask(url, "GET", headers) as answer:
            yield _answer(url, answer, self._redirects.told_sha256)

    @contextlib.contextmanager
    def _ask(self, url: str, method: str, headers: dict[str, str]) -> Iterator[Any]:
        self._redirects.told_sha256 = ""
        request = _request(url, {**headers, "User-Agent": "ai-workstation", "Accept": "*/*"}, method)
        _authorize(request, self._token, self._origin)
        try:
            answer = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(url, error.code, error.headers, bool(self._token)) from None
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(f"{_plain(url)}: {_words(error)}") from error
        with answer:
            yield answer


def _request(url: str, headers: dict[str, str], method: str) -> urllib.request.Request:
    if not url.startswith(("http:", "https:")):
        raise RefusedError(f"{_plain(url)}: not an address of the web")
    return urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 -- checked above


def origin_of(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _authorize(request: urllib.request.Request, token: str, origin: str) -> None:
    if token and origin_of(request.full_url) == origin:
        # Unredirected: urllib would carry it to any other host.
        request.add_unredirected_header("Authorization", f"Bearer {token}")


def _refusal(url: str, code: int, headers: Any, with_token: bool) -> WorkstationError:
    """What an HTTP status means for the user."""
    where = f"{_plain(url)}: the server answers {code}"
    if code in _LATER:
        wait = str(headers.get("Retry-After") or "")
        return TransferError(where, min(float(wait), _LONGEST_WAIT) if wait.isdigit() else 0)
    if code == 416:
        return RangeRefusedError(f"{where}: the file has changed there")
    if code in (401, 403):
        hint = "the token is not accepted, or has no access" if with_token else "it wants a token"
        return RefusedError(f"{where}: {hint}")
    return RefusedError(f"{where}: " + ("no such file" if code in (404, 410) else http.client.responses.get(code, "")))


def _answer(url: str, answer: Any, told: str) -> Answer:
    headers, start = answer.headers, 0
    length = headers.get("Content-Length") or ""
    total = int(length) if length.isdigit() else None
    if headers.get("Content-Encoding", "identity") != "identity":
        raise RefusedError(f"{_plain(url)}: the server encodes the file ({headers['Content-Encoding']}), unasked")
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        if not match:
            raise TransferError(f"{_plain(url)}: the server sends a part without saying which")
        start, total = int(match[1]), None if match[2] == "*" else int(match[2])
    tag = headers.get("ETag") or ""
    # Only a strong tag can be used with If-Range (RFC 9110, 13.1.5).
    validator = tag if tag.startswith('"') else headers.get("Last-Modified") or ""
    told = told or _hash(headers.get("X-Linked-Etag"))
    return Answer(answer, start, total, validator, told, framed=headers.get("Transfer-Encoding") == "chunked")


def _hash(text: str | None) -> str:
    match = _SHA256.fullmatch(text or "")
    return match[1] if match else ""


def _local(url: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path)


@contextlib.contextmanager
def _open_local(url: str, offset: int, validator: str) -> Iterator[Answer]:
    try:
        stream: io.RawIOBase = open(_local(url), "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise RefusedError(f"{_plain(url)}: {error.strerror}") from error
    with stream:
        found = os.fstat(stream.fileno())
        now = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
        start = offset if validator in ("", now) and offset <= found.st_size else 0
        stream.seek(start)
        yield Answer(stream, start, found.st_size, now, "", framed=True)


def _plain(url: str) -> str:
    """The address without its query, which may hold a signature."""
    return url.split("?", 1)[0].split("#", 1)[0]


def _words(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    text = str(getattr(inner, "strerror", None) or inner)
    return text or type(inner).__name__
