# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A program that speaks enough of OpenAI's protocol to be put behind the gateway, and fails when told to.

    fake_engine.py PORT NAME

It answers POST /v1/... with {"engine": NAME, ...}, in pieces when the request says "stream": true. POST /control sets
how it behaves from then on:

    status      the status of every answer (200); /health stays 200
    health      the status of /health (200)
    wait_s      seconds before an answer begins (0)
    tokens      pieces of a streamed answer (5)
    token_s     seconds between two of them (0)
    hang_up     whether the connection is closed in place of an answer (false)

GET /seen says how many requests came and what the last one was.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEHAVIOUR: dict[str, Any] = {"status": 200, "health": 200, "wait_s": 0, "tokens": 5, "token_s": 0, "hang_up": False}
SEEN: dict[str, Any] = {"requests": 0, "last": None}
LOCK = threading.Lock()


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    name = ""

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/seen":
            self.answer(200, SEEN)
        elif self.path in ("/health", "/v1/models"):
            self.answer(BEHAVIOUR["health"], {"engine": self.name})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/control":
            BEHAVIOUR.update(json.loads(body))
            self.answer(200, BEHAVIOUR)
            return
        with LOCK:
            SEEN["requests"] += 1
            SEEN["last"] = {"path": self.path, "headers": dict(self.headers), "bytes": len(body)}
        time.sleep(BEHAVIOUR["wait_s"])
        if BEHAVIOUR["hang_up"]:
            self.close_connection = True
        elif BEHAVIOUR["status"] != 200:
            self.answer(BEHAVIOUR["status"], {"error": {"message": "told to"}})
        elif body[:1] == b"{" and json.loads(body).get("stream"):
            self.stream()
        else:
            self.answer(200, {"engine": self.name, "path": self.path})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        words = [json.dumps({"engine": self.name, "token": number}) for number in range(BEHAVIOUR["tokens"])]
        for word in [*words, "[DONE]"]:
            data = f"data: {word}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(BEHAVIOUR["token_s"])
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that hangs up is no news."""


if __name__ == "__main__":
    Engine.name = sys.argv[2]
    Server(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
