# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to an OpenAI-compatible server: one request, and the events of a streamed answer as they arrive."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError

_LARGEST = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A whole answer. data: its JSON, None where it is none."""

    status: int
    kind: str
    text: str

    @property
    def data(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Server:
    """One base address, like http://127.0.0.1:8004. key: sent as a bearer token. Raises OSError as the network does."""

    def __init__(self, url: str, key: str = "", timeout: float = 30, verify: bool = True) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"url: {url!r} is not an address like http://127.0.0.1:8004")
        self._parts, self._timeout, self._verify = parts, timeout, verify
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str) -> Answer:
        with self._request("GET", path, None) as response:
            return whole(response)

    @contextlib.contextmanager
    def post(self, path: str, body: Mapping[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the response is read by events() or whole()."""
        with self._request("POST", path, json.dumps(body).encode()) as response:
            yield response

    @contextlib.contextmanager
    def _request(self, method: str, path: str, body: bytes | None) -> Iterator[http.client.HTTPResponse]:
        link = self._connect()
        try:
            headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
            link.request(method, self._parts.path.rstrip("/") + path, body, headers)
            yield link.getresponse()
        except http.client.HTTPException as error:
            raise OSError(f"it does not speak HTTP: {type(error).__name__}") from error
        finally:
            link.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        context = ssl.create_default_context()
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)


def whole(response: http.client.HTTPResponse) -> Answer:
    """All of a response."""
    text = response.read(_LARGEST).decode("utf-8", "replace")
    return Answer(response.status, response.headers.get_content_type(), text)


def events(response: http.client.HTTPResponse, deadline: float) -> Iterator[str]:
    """The data of server-sent events, as they arrive. Raises TimeoutError at the deadline (time.monotonic)."""
    while time.monotonic() < deadline:
        line = response.readline(_LARGEST)
        if not line:
            return
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("data:"):
            yield text[5:].strip()
    raise TimeoutError("the answer does not end")
