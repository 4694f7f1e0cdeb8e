# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask both engines through the gateway, then through Open WebUI as a person does.

talk.py KEY signup | signin      prints what came as JSON; ends with a line where something did not
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

GATEWAY, METRICS, WEBUI, LLAMA, VLLM = 8080, 8405, 3000, 8001, 8005
# The model that each engine offers.
ENGINES = {"llama_cpu": "tiny-gguf", "vllm_gpu": "tiny-llama"}
TOKENS, LIMIT_S = 12, 180
PERSON = {"name": "Molecule", "email": "molecule@example.org", "password": "nonsense-Speaker-1"}


@dataclass
class Reply:
    """One answer. first: seconds until the first piece of text; pieces: the events of a stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: list[dict[str, Any]] = field(default_factory=list)
    first: float = 0.0
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return "".join(str(_choice(piece).get("delta", {}).get("content") or "") for piece in self.pieces)


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    return next(iter(event.get("choices") or ()), {})


def ask(port: int, path: str, content: Any = None, key: str = "") -> Reply:
    """One request on a connection of its own."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    started = time.monotonic()
    connection.request("GET" if content is None else "POST", path, json.dumps(content) if content else None, headers)
    answer = connection.getresponse()
    reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()})
    while line := answer.readline():
        reply.body += line
        if line.startswith(b"data: {"):
            reply.pieces.append(json.loads(line[6:]))
            if not reply.first and _choice(reply.pieces[-1]).get("delta", {}).get("content"):
                reply.first = time.monotonic() - started
    reply.seconds = time.monotonic() - started
    connection.close()
    return reply


def must(true: object, what: str, reply: Reply) -> None:
    if not true:
        raise SystemExit(f"{what}: status {reply.status}, {reply.body[:600]!r}")


def talk(port: int, path: str, model: str, key: str) -> dict[str, Any]:
    """A whole answer and a streamed one; their figures."""
    question = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS}
    question["temperature"] = 0
    whole = ask(port, path, question, key)
    must(whole.status == 200, f"{model} at port {port}", whole)
    must(isinstance(_choice(whole.json)["message"]["content"], str), f"{model} at port {port} says something", whole)
    usage = whole.json.get("usage") or {}
    must(0 < int(usage.get("completion_tokens") or 0) <= TOKENS, f"{model} at port {port} counts tokens", whole)
    streamed = ask(port, path, {**question, "stream": True}, key)
    must(streamed.status == 200, f"{model} at port {port}, streamed", streamed)
    must(streamed.body.rstrip().endswith(b"data: [DONE]"), f"the stream of {model} at port {port} ends well", streamed)
    must(streamed.text and len(streamed.pieces) > 2, f"{model} at port {port} comes in pieces", streamed)
    return {
        "tokens": usage["completion_tokens"],
        "seconds": round(whole.seconds, 2),
        "events": len(streamed.pieces),
        "first_token_seconds": round(streamed.first, 3),
        "engine": streamed.headers.get("x-gateway-server", ""),
    }


def through_gateway(key: str) -> dict[str, Any]:
    path = "/v1/chat/completions"
    refused = ask(GATEWAY, path, {"model": ENGINES["vllm_gpu"], "messages": []})
    must(refused.status == 401, "the gateway asks for a key", refused)
    offered = ask(GATEWAY, "/v1/models", key=key)
    names = sorted(one["id"] for one in offered.json["data"])
    must(names == sorted(ENGINES.values()), "the gateway offers both models", offered)
    found = {engine: talk(GATEWAY, path, model, key) for engine, model in ENGINES.items()}
    for engine, figures in found.items():
        must(figures["engine"] == engine, f"{engine} answered by {figures['engine']}", offered)
    return found


def through_webui(first: bool) -> dict[str, Any]:
    """The first person signs up, and nobody after; signs in, and asks the same questions."""
    nobody = ask(WEBUI, "/api/models")
    must(nobody.status in (401, 403), "Open WebUI wants somebody", nobody)
    if first:
        signed_up = ask(WEBUI, "/api/v1/auths/signup", PERSON)
        must(signed_up.status == 200 and signed_up.json["role"] == "admin", "sign up", signed_up)
    second = ask(WEBUI, "/api/v1/auths/signup", {**PERSON, "email": "second@example.org"})
    must(second.status == 403, "a second person is refused", second)
    wrong = ask(WEBUI, "/api/v1/auths/signin", {**PERSON, "password": "wrong"})
    must(wrong.status == 400, "a wrong password is refused", wrong)
    signed_in = ask(WEBUI, "/api/v1/auths/signin", PERSON)
    must(signed_in.status == 200, "sign in", signed_in)
    token = str(signed_in.json["token"])
    offered = ask(WEBUI, "/api/models", key=token)
    names = {one["id"] for one in offered.json["data"]}
    must(names >= set(ENGINES.values()), "Open WebUI offers both models", offered)
    return {engine: talk(WEBUI, "/api/chat/completions", model, token) for engine, model in ENGINES.items()}


def versions() -> dict[str, str]:
    """What the programs say that they are."""
    build = re.search(r'process_build_info\{version="([^"]*)"', ask(METRICS, "/metrics").body.decode())
    return {
        "llama_cpu": str(ask(LLAMA, "/props").json["build_info"]),
        "vllm_gpu": str(ask(VLLM, "/version").json["version"]),
        "open_webui": str(ask(WEBUI, "/api/version").json["version"]),
        "gateway": build[1] if build else "",
    }


def start_seconds() -> dict[str, float]:
    """How long each took to be well. The role brings them up one after the other: until the next one was started."""
    names = [*ENGINES, "open_webui", "gateway"]
    words = ["docker", "inspect", "--format", "{{.State.StartedAt}}", *(f"ai-stack-{name}-1" for name in names)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    times = [datetime.fromisoformat(f"{line[:19]}+00:00") for line in done.stdout.split()]
    return {name: (times[place + 1] - times[place]).total_seconds() for place, name in enumerate(names[:-1])}


def main(key: str, what: str) -> None:
    found = {
        "versions": versions(),
        "start_seconds": start_seconds(),
        "through_gateway": through_gateway(key),
        "through_open_webui": through_webui(what == "signup"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
