# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llm_endpoint_probe against servers that misbehave, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.module_utils.stack.probe import Endpoint, ask, endpoint


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def chunk(text: str, **more: Any) -> bytes:
    return event({"model": "tiny", "choices": [{"text": text}], **more})


GOOD = [chunk("a"), chunk("b", timings={"predicted_n": 2}), event("[DONE]")]


class Server:
    """What it answers, by path: (status, type, pieces). health: what /health says."""

    def __init__(self) -> None:
        self.health = 200
        self.models: Any = (200, {"data": [{"id": "tiny"}]})
        self.completion: Any = (200, "text/event-stream", GOOD)
        self.chat: Any = (404, "application/json", [b"{}"])
        self.key = ""
        self.delay = 0.0
        self.bodies: list[dict[str, Any]] = []

    def answer(self, path: str, key: str) -> tuple[int, str, list[bytes]]:
        if path == "/health":
            return self.health, "text/plain", [b"ok"]
        if path == "/v1/models":
            return self.models[0], "application/json", [json.dumps(self.models[1]).encode()]
        if self.key and key != f"Bearer {self.key}":
            return 401, "application/json", [b'{"error": {"message": "Invalid API Key"}}']
        return self.chat if path.endswith("chat/completions") else self.completion


@contextmanager
def serving(server: Server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*server.answer(self.path, self.headers.get("Authorization", "")))

        def do_POST(self) -> None:
            server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(server.delay)
            self._send(*server.answer(self.path, self.headers.get("Authorization", "")))

        def _send(self, status: int, kind: str, pieces: list[bytes]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

        def log_message(self, *_words: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def state(server: Server, **more: Any) -> tuple[str, str]:
    with serving(server) as url:
        found = ask(Endpoint(url, **{"timeout": 5, **more}))
    return found["state"], found["message"]


def test_a_streamed_token_is_an_answer_with_its_figures() -> None:
    server = Server()
    with serving(server) as url:
        found = ask(Endpoint(url))
    assert found["state"] == "answers"
    assert (found["model"], found["models"], found["tokens"], found["text"]) == ("tiny", ["tiny"], 2, "ab")
    assert found["streamed"] is True
    assert 0 <= found["first_token_ms"] <= found["total_ms"]
    assert found["api"] == "completions"
    assert server.bodies[0]["model"] == "tiny"


def test_a_token_without_text_counts_when_the_server_counts_it() -> None:
    server = Server()
    usage = event({"choices": [], "usage": {"completion_tokens": 1}})
    server.completion = (200, "text/event-stream", [chunk(""), usage, event("[DONE]")])
    assert state(server)[0] == "answers"


def test_a_server_that_chats_only_is_asked_to_chat() -> None:
    server = Server()
    delta = event({"choices": [{"delta": {"role": "assistant"}}]})
    word = event({"choices": [{"delta": {"content": "yes"}}]})
    server.completion = (404, "application/json", [b"{}"])
    server.chat = (200, "text/event-stream", [delta, word, event("[DONE]")])
    with serving(server) as url:
        found = ask(Endpoint(url))
    assert (found["state"], found["api"], found["tokens"]) == ("answers", "chat", 1)


def test_an_answer_in_one_piece_is_one_only_where_streaming_is_not_asked_for() -> None:
    server = Server()
    body = json.dumps({"model": "tiny", "choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}).encode()
    server.completion = (200, "application/json", [body])
    found = state(server)
    assert found[0] == "not_streaming"
    assert "in one piece (application/json)" in found[1]
    assert state(server, stream=False)[0] == "answers"


@pytest.mark.parametrize(
    ("change", "wanted", "words"),
    [
        ({"key": "right"}, "unauthorized", "the API key is wrong or missing (it answers 401: Invalid API Key)"),
        ({"models": (503, {"error": {"message": "Loading model"}})}, "loading", "it answers 503: Loading model"),
        ({"completion": (503, "text/html", [b"no server"])}, "loading", "it answers 503: no server"),
        ({"completion": (500, "text/html", [b"broken"])}, "dead", "/health says well, but it answers 500: broken"),
        ({"completion": (200, "text/event-stream", [event("[DONE]")])}, "dead", "it answers without a single token"),
        ({"completion": (200, "text/event-stream", [chunk("a")])}, "dead", "the answer breaks off after 1 tokens"),
        ({"completion": (200, "text/event-stream", [event("x{")])}, "dead", "an event of the answer is no JSON"),
        (
            {"completion": (200, "text/event-stream", [event({"error": {"message": "CUDA error"}})])},
            "dead",
            "the answer breaks off: CUDA error",
        ),
        ({"completion": (500, "text/html", [b"broken"]), "health": 500}, "error", "it answers 500: broken"),
        ({"completion": (404, "application/json", [b"{}"])}, "no_model", "no such model or no such path"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], wanted: str, words: str) -> None:
    server = Server()
    for name, value in change.items():
        setattr(server, name, value)
    found = state(server)
    assert found[0] == wanted
    assert words in found[1]


def test_a_model_that_is_not_there_is_named_with_those_that_are() -> None:
    found = state(Server(), model="large")
    assert found[0] == "no_model"
    assert "it has no model 'large'; there are tiny" in found[1]


def test_the_right_key_opens() -> None:
    server = Server()
    server.key = "right"
    assert state(server, key="right")[0] == "answers"


def test_an_engine_that_hangs_behind_a_healthy_path_is_dead() -> None:
    server = Server()
    server.delay = 1.0
    found = state(server, timeout=0.2)
    assert found[0] == "dead"
    assert "/health says well, but no answer within 0.2 s" in found[1]


def test_nothing_listens() -> None:
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        found = ask(Endpoint(f"http://127.0.0.1:{spare.getsockname()[1]}"))
    assert found["state"] == "refused"
    assert "connection refused" in found["message"]


def test_something_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            for _connection in range(2):
                connection, _address = listener.accept()
                connection.sendall(b"SSH-2.0-x\r\n")
                connection.close()

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        found = ask(Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
    assert found["state"] == "error"


def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    server = Server()
    server.models = (503, {})
    timer = threading.Timer(0.3, lambda: setattr(server, "models", (200, {"data": [{"id": "tiny"}]})))
    timer.start()
    assert state(server, wait=20)[0] == "answers"
    timer.join()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="url: 'ftp://x' is not an address like http"):
        ask(Endpoint("ftp://x"))
    params = {"timeout_seconds": 0, "max_tokens": 1}
    with pytest.raises(InputError, match="timeout_seconds: 0 is less than 1"):
        endpoint(params, "")
