# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real HAProxy with the configuration of the filter, engines behind it, and a client that tells what happened."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway import haproxy_config

HERE = Path(__file__).resolve().parent
LIMIT_S = 20
CLIENTS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT_S) -> Any:
    """Wait for a condition; what it gave."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.02)
    return found


@dataclass
class Reply:
    """What a client got: status 0 when there was no whole head; `whole` is False when the body broke off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, path: str = "/v1/chat/completions", content: Any = None, method: str = "", **headers: str) -> Reply:
    """One request on a connection of its own. Underscores in the names of headers are dashes."""
    reply = Reply()
    started = time.monotonic()
    body = content if isinstance(content, (bytes, type(None))) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method or ("POST" if body is not None else "GET"), path, body, named)
        answer = connection.getresponse()
        reply.status, reply.headers = answer.status, {name.lower(): value for name, value in answer.getheaders()}
        while piece := answer.read1(65536):
            reply.body += piece
        reply.whole = True
    reply.seconds = time.monotonic() - started
    return reply


def chat(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


class Engine:
    """A process that can be killed and started again on its port."""

    def __init__(self, name: str, command: list[str] | None = None, port: int = 0) -> None:
        self.name, self.port = name, port or free_port()
        self.command = command or [sys.executable, str(HERE / "fake_engine.py"), str(self.port), name]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Engine:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: ask(self.port, "/health").status == 200, f"{self.name} answers")
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def told(self, **behaviour: Any) -> None:
        assert ask(self.port, "/control", behaviour).status == 200

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.port, "/seen").json
        return found


class Gateway:
    """HAProxy as a child of this process."""

    def __init__(self, folder: Path, endpoints: list[dict[str, Any]], **options: Any) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.folder, self.socket = folder, folder / "admin.sock"
        self.options = {
            "bind": f"127.0.0.1:{self.port}",
            "metrics_bind": f"127.0.0.1:{self.metrics_port}",
            "admin_socket": str(self.socket),
            "check_interval_ms": 100,
            **options,
        }
        self.path = folder / "haproxy.cfg"
        self.path.write_text(haproxy_config(endpoints, self.options))
        self.log = (folder / "haproxy.log").open("wb")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(self.path)], stdout=self.log, stderr=self.log)

    def ready(self, **servers: str) -> Gateway:
        """Wait until it answers and all servers are up, or as named."""

        def settled() -> bool:
            assert self.process.poll() is None, self.text()
            found = self.states() if self.socket.exists() else {}
            return bool(found) and all(
                state.startswith(servers.get(name, "UP")) for (_pool, name), state in found.items()
            )

        until(settled, "all engines are up")
        return self

    def admin(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as talk:
            try:
                talk.connect(str(self.socket))
            except OSError:
                return ""
            talk.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: talk.recv(65536), b"")).decode()

    def states(self) -> dict[tuple[str, str], str]:
        """(pool, server): the status as `show stat` has it."""
        head, *rows = self.admin("show stat -1 4 -1").splitlines() or [""]
        names = head.lstrip("# ").split(",")
        found = [dict(zip(names, row.split(","), strict=False)) for row in rows if row]
        return {(row["pxname"], row["svname"]): row["status"] for row in found}

    def text(self) -> str:
        return (self.folder / "haproxy.log").read_text()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@contextlib.contextmanager
def running(*engines: Engine) -> Iterator[tuple[Engine, ...]]:
    try:
        for engine in engines:
            engine.start()
        yield engines
    finally:
        for engine in engines:
            engine.kill()


@contextlib.contextmanager
def gateway(folder: Path, endpoints: list[dict[str, Any]], **options: Any) -> Iterator[Gateway]:
    found = Gateway(folder, endpoints, **options)
    try:
        yield found.ready()
    finally:
        found.stop()


def endpoint(engine: Engine, *models: str, kind: str = "llama.cpp", **more: Any) -> dict[str, Any]:
    address = f"127.0.0.1:{engine.port}"
    return {"name": engine.name, "address": address, "kind": kind, "models": list(models or ("m",)), **more}


class Load:
    """Clients that ask without a pause until told to end."""

    def __init__(
        self, port: int, clients: int = CLIENTS, headers: dict[str, str] | None = None, **content: Any
    ) -> None:
        self.port, self.content, self.headers = port, chat(**content), headers or {}
        self.replies: list[Reply] = []
        self.over = threading.Event()
        self.pool = ThreadPoolExecutor(clients)
        self.clients = [self.pool.submit(self._client) for _client in range(clients)]

    def _client(self) -> None:
        while not self.over.is_set():
            self.replies.append(ask(self.port, content=self.content, **self.headers))

    def until_more(self, count: int) -> None:
        wanted = len(self.replies) + count
        until(lambda: len(self.replies) >= wanted, f"{count} more answers")

    def end(self) -> list[Reply]:
        self.over.set()
        for client in self.clients:
            client.result()
        self.pool.shutdown()
        return self.replies
