# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A web server on the loopback address that serves files with ranges, and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, and how. `requests` is what came: method, path, headers."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    tags: bool = True
    lengths: bool = True
    # Path to numbers of bytes after which the next answers are cut, one for each answer.
    cuts: dict[str, list[int]] = field(default_factory=dict)
    # Path to statuses of the next answers, one for each GET.
    statuses: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    redirect_headers: dict[str, str] = field(default_factory=dict)
    # Set: an answer waits after its first half until the event is set; `waiting` says that one does.
    gate: threading.Event | None = None
    waiting: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def asked(self, method: str) -> list[str]:
        return [path for way, path, _headers in self.requests if way == method]

    def header(self, name: str) -> list[str | None]:
        return [headers.get(name) for way, _path, headers in self.requests if way == "GET"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def site(self) -> Site:
        return self.server.site

    def log_message(self, *_arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, get = self.path.partition("?")[0], self.command == "GET"
        self.site.requests.append((self.command, path, dict(self.headers)))
        self.close_connection = True
        if path in self.site.redirects:
            self.send_response(302)
            self.send_header("Location", self.site.redirects[path])
            for name, value in self.site.redirect_headers.items():
                self.send_header(name, value)
            self._plain(b"")
        elif get and self.site.statuses.get(path):
            self.send_response(self.site.statuses[path].pop(0))
            self._plain(b"no")
        elif path not in self.site.files:
            self.send_response(404)
            self._plain(b"no")
        else:
            self._file(path, self.site.files[path], get)

    def _plain(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, path: str, data: bytes, get: bool) -> None:
        tag, start = f'"{sha256(data)[:16]}"', 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, tag)
        if get and self.site.ranges and match and same:
            start = int(match[1])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self._plain(b"")
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if self.site.tags:
            self.send_header("ETag", tag)
        if self.site.lengths:
            self.send_header("Content-Length", str(len(data) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if get:
            self._body(path, data[start:])

    def _body(self, path: str, body: bytes) -> None:
        if self.site.cuts.get(path):
            self.wfile.write(body[: self.site.cuts[path].pop(0)])
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.site.gate is not None:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.site.waiting.set()
                self.site.gate.wait(60)
                body = body[len(body) // 2 :]
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        site.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    site = Site()
    server = _Server(site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        if site.gate is not None:
            site.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
