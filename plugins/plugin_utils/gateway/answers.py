# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gateway answers itself: OpenAI's list of models, and errors in the shape that client libraries read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .endpoints import Endpoint

RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True)
class Answer:
    """An error. `message` may hold sample expressions of HAProxy when it is written with a log format."""

    status: int
    kind: str
    code: str
    message: str
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def words(self, form: str = "string") -> str:
        """The words of http-error and of http-request return that give this answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        body = json.dumps({"error": error})
        headers = "".join(f" hdr {name} {value}" for name, value in self.headers)
        return f"status {self.status} content-type application/json{headers} {form} {quoted(body)}"


def quoted(text: str) -> str:
    """A text as HAProxy's strong quotes hold it: nothing in them is special but their end."""
    return "'" + text.replace("'", "'\\''") + "'"


def model_list(endpoints: Sequence[Endpoint]) -> str:
    """OpenAI's answer to /v1/models: every model once, owned by the engines that serve it."""
    owners: dict[str, list[str]] = {}
    for endpoint in endpoints:
        for model in endpoint.models:
            owners.setdefault(model, []).append(endpoint.name)
    data = [
        {"id": model, "object": "model", "created": 0, "owned_by": ",".join(names)}
        for model, names in sorted(owners.items())
    ]
    return json.dumps({"object": "list", "data": data})


_RETRY = (("Retry-After", str(RETRY_AFTER_SECONDS)),)
_REQUEST = "invalid_request_error"

WRONG_KEY = Answer(401, _REQUEST, "invalid_api_key", "No such API key.", headers=(("WWW-Authenticate", "Bearer"),))
UNKNOWN_PATH = Answer(404, _REQUEST, "unknown_url", "There is no such path here.")
NO_MODEL = Answer(400, _REQUEST, "missing_model", "The request names no model.", "model")
# The name comes from the request: json() escapes it.
UNKNOWN_MODEL = Answer(
    404, _REQUEST, "model_not_found", "The model %[var(txn.model),json(utf8s)] does not exist.", "model"
)
TOO_LARGE = Answer(413, _REQUEST, "request_too_large", "The request body is too large.")
CUT = Answer(
    413, _REQUEST, "request_too_large", "The model is not in the first part of this large body; name it in X-Model."
)


def too_many(seconds: int) -> Answer:
    """More requests than the client may send in this time."""
    headers = (("Retry-After", str(max(1, seconds // 4))),)
    return Answer(429, "rate_limit_error", "rate_limit_exceeded", "Too many requests with this API key.", None, headers)


def own_errors() -> Iterable[Answer]:
    """What HAProxy answers on its own when something fails."""
    yield Answer(400, _REQUEST, "bad_request", "The request cannot be read.")
    yield Answer(408, _REQUEST, "request_timeout", "The request did not come in time.")
    yield Answer(500, "server_error", "gateway_error", "The gateway failed.")
    yield Answer(502, "server_error", "bad_gateway", "The engine ended without a whole answer.")
    yield Answer(503, "server_error", "no_engine", "No engine can take this request now.", None, _RETRY)
    yield Answer(504, "server_error", "timeout", "The engine did not answer in time.")
