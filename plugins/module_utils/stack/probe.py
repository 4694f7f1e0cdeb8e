# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an OpenAI-compatible server really generates: ask it for a token. /health says well of a dead engine too.

States: answers; refused (nothing listens), timeout, loading (503), unauthorized (401, 403), no_model (404 and such),
not_streaming (the answer came in one piece), dead (/health says well and no token comes), error (anything else).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..doors.endpoint import Answer, Server, events, whole
from ..errors import InputError

STATES = (
    "answers",
    "refused",
    "timeout",
    "loading",
    "unauthorized",
    "no_model",
    "not_streaming",
    "dead",
    "error",
)
_PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_DONE = "[DONE]"
_PAUSE = 0.5


@dataclass(frozen=True)
class Endpoint:
    """What is asked, and how. timeout: seconds for the whole answer. wait: seconds to go on asking while it loads."""

    url: str
    model: str = ""
    key: str = ""
    api: str = "auto"
    prompt: str = "Say yes."
    max_tokens: int = 4
    stream: bool = True
    timeout: float = 60
    wait: float = 0
    verify: bool = True


class _NotWell(Exception):  # noqa: N818 a state, not an error
    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


def ask(endpoint: Endpoint) -> dict[str, Any]:
    """Ask once, or until it has loaded. The result always has state and message; figures where a token came."""
    deadline = time.monotonic() + endpoint.wait
    while True:
        result = _once(endpoint)
        if result["state"] not in ("refused", "loading") or time.monotonic() >= deadline:
            return result
        time.sleep(_PAUSE)


def _once(endpoint: Endpoint) -> dict[str, Any]:
    server = Server(endpoint.url, endpoint.key, endpoint.timeout, endpoint.verify)
    started = time.monotonic()
    try:
        found = _generate(server, endpoint)
    except _NotWell as problem:
        return _failed(server, endpoint, problem)
    found["total_ms"] = round((time.monotonic() - started) * 1000, 1)
    rate = f", first after {found['first_token_ms']} ms" if found["streamed"] else ""
    message = f"{endpoint.url} answers: {found['tokens']} tokens of {found['model']} in {found['total_ms']} ms{rate}"
    return {"state": "answers", "message": message, **found}


def _failed(server: Server, endpoint: Endpoint, problem: _NotWell) -> dict[str, Any]:
    state, message = problem.state, str(problem)
    if state in ("timeout", "error") and _says_well(server):
        state, message = "dead", f"/health says well, but {message}"
    return {"state": state, "message": f"{endpoint.url}: {message}"}


def _says_well(server: Server) -> bool:
    try:
        return server.get("/health").status == 200
    except OSError:
        return False


def _generate(server: Server, endpoint: Endpoint) -> dict[str, Any]:
    try:
        models = _models(server)
        model = endpoint.model or (models[0] if models else "default")
        if endpoint.model and models and endpoint.model not in models:
            raise _NotWell("no_model", f"it has no model {endpoint.model!r}; there are {', '.join(models)}")
        first = "completions" if endpoint.api == "auto" else endpoint.api
        try:
            found = _completion(server, endpoint, model, first)
        except _NotWell as problem:
            if endpoint.api != "auto" or problem.state != "no_model":
                raise
            found = _completion(server, endpoint, model, "chat")
    except ConnectionRefusedError:
        raise _NotWell("refused", "nothing listens there (connection refused)") from None
    except (TimeoutError, socket.timeout):  # two types up to Python 3.9
        raise _NotWell("timeout", f"no answer within {endpoint.timeout:g} s") from None
    except OSError as error:
        raise _NotWell("error", f"the connection fails: {error.strerror or error}") from None
    return {"models": models, **found}


def _models(server: Server) -> list[str]:
    """Names of the models that it offers; empty where it does not say."""
    answer = server.get("/v1/models")
    if answer.status in (401, 403, 503):
        _refuse(answer)
    rows = answer.data.get("data") if isinstance(answer.data, Mapping) else None
    return [str(row["id"]) for row in rows or () if isinstance(row, Mapping) and row.get("id")]


def _completion(server: Server, endpoint: Endpoint, model: str, api: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "max_tokens": endpoint.max_tokens, "stream": endpoint.stream}
    if api == "chat":
        body["messages"] = [{"role": "user", "content": endpoint.prompt}]
    else:
        body["prompt"] = endpoint.prompt
    if endpoint.stream:
        body["stream_options"] = {"include_usage": True}
    sent = time.monotonic()
    with server.post(_PATHS[api], body) as response:
        kind = response.headers.get_content_type()
        if response.status != 200:
            _refuse(whole(response))
        if not endpoint.stream:
            return _piece(whole(response), model, api)
        if kind != "text/event-stream":
            raise _NotWell("not_streaming", f"the answer comes in one piece ({kind}), not as server-sent events")
        return _stream(events(response, sent + endpoint.timeout), model, api, sent)


def _stream(found: Iterator[str], model: str, api: str, sent: float) -> dict[str, Any]:
    pieces, counted, first, named, done, text = 0, 0, 0.0, model, False, ""
    for data in found:
        if data == _DONE:
            done = True
            break
        event = Answer(200, "", data).data
        if not isinstance(event, Mapping):
            raise _NotWell("error", f"an event of the answer is no JSON: {data[:80]!r}")
        if event.get("error"):
            raise _NotWell("error", f"the answer breaks off: {_words(event)}")
        named = str(event.get("model") or named)
        counted = max(counted, _counted(event))
        piece = _text(event)
        text += piece
        if piece or (api == "completions" and event.get("choices")):
            pieces += 1
            first = first or time.monotonic()
    tokens = counted or (pieces if text else 0)
    if not tokens:
        raise _NotWell("error", "it answers without a single token")
    if not done:
        raise _NotWell("error", f"the answer breaks off after {tokens} tokens")
    waited = round(((first or time.monotonic()) - sent) * 1000, 1)
    return {"model": named, "api": api, "tokens": tokens, "streamed": True, "first_token_ms": waited, "text": text}


def _piece(answer: Answer, model: str, api: str) -> dict[str, Any]:
    data = answer.data if isinstance(answer.data, Mapping) else {}
    text = _text(data)
    tokens = _counted(data) or int(bool(text))
    if not tokens:
        raise _NotWell("error", "it answers without a single token")
    named = str(data.get("model") or model)
    return {"model": named, "api": api, "tokens": tokens, "streamed": False, "first_token_ms": None, "text": text}


def _text(event: Mapping[str, Any]) -> str:
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    part = choice.get("delta") or choice.get("message") or choice
    return str(part.get("content") or part.get("reasoning_content") or part.get("text") or "")


def _counted(event: Mapping[str, Any]) -> int:
    """Tokens as the server counts them: OpenAI's usage, or the timings of llama.cpp."""
    for part, name in (("usage", "completion_tokens"), ("timings", "predicted_n")):
        section = event.get(part)
        if isinstance(section, Mapping) and isinstance(section.get(name), int):
            return int(section[name])
    return 0


def _refuse(answer: Answer) -> None:
    """Raise what an answer other than 200 means."""
    words = _words(answer.data if isinstance(answer.data, Mapping) else {}) or answer.text.strip()[:120]
    said = f"it answers {answer.status}" + (f": {words}" if words else "")
    if answer.status in (401, 403):
        raise _NotWell("unauthorized", f"the API key is wrong or missing ({said})")
    if answer.status == 503:
        raise _NotWell("loading", f"the model is not loaded ({said})")
    if answer.status in (404, 405):
        raise _NotWell("no_model", f"no such model or no such path ({said})")
    raise _NotWell("error", said)


def _words(data: Mapping[str, Any]) -> str:
    error = data.get("error") or data.get("message") or data.get("detail") or ""
    return str(error.get("message") if isinstance(error, Mapping) else error)[:200]


def endpoint(params: Mapping[str, Any], key: str) -> Endpoint:
    """What the module was asked for. Raises InputError."""
    for name in ("timeout_seconds", "max_tokens"):
        if params[name] < 1:
            raise InputError(f"{name}: {params[name]!r} is less than 1")
    return Endpoint(
        url=params["url"],
        model=params["model"] or "",
        key=key,
        api=params["api"],
        prompt=params["prompt"],
        max_tokens=params["max_tokens"],
        stream=params["stream"],
        timeout=params["timeout_seconds"],
        wait=params["wait_seconds"],
        verify=params["validate_certs"],
    )
