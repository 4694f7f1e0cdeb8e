# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user can say about the gateway itself, parsed, with the defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import integer, size
from ..fields import boolean, known_fields, texts
from .endpoints import Endpoint, address, loopback

_PATH = re.compile(r"/[A-Za-z0-9._/-]{0,1000}")
_ENGINE_PATH = re.compile(r"/v1(/[A-Za-z0-9._-]+)+")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")


@dataclass(frozen=True)
class Options:
    """All of them; the documentation of the filter says what each is for."""

    bind: str = "127.0.0.1:8080"
    published_address: str = ""
    metrics_bind: str = "127.0.0.1:8405"
    admin_socket: str = "/run/gateway/admin.sock"
    docker_dns: bool = False
    log: str = "stdout"
    keys_file: str = ""
    rate_limit_requests: int = 0
    rate_limit_seconds: int = 60
    client_rate_limits: Mapping[str, int] = field(default_factory=dict)
    tls_certificate: str = ""
    hsts_seconds: int = 31_536_000
    default_model: str = ""
    session_header: str = "X-Session-Id"
    paths: tuple[str, ...] = ()
    body_buffer_bytes: int = 131_072
    max_body_bytes: int = 64 << 20
    max_connections: int = 1024
    answer_timeout_seconds: int = 600
    check_interval_ms: int = 500
    breaker_errors: int = 1
    breaker_checks: int = 4


# Lowest, highest, unit.
_NUMBERS = {
    "rate_limit_requests": (0, 1_000_000, "(0: no limit)"),
    "rate_limit_seconds": (1, 86_400, "seconds"),
    "hsts_seconds": (0, 10 * 31_536_000, "seconds (0: no such header)"),
    "max_connections": (10, 1_000_000, "connections"),
    "answer_timeout_seconds": (1, 86_400, "seconds"),
    "check_interval_ms": (50, 600_000, "milliseconds"),
    "breaker_errors": (0, 100, "(0: no breaker)"),
    "breaker_checks": (1, 100, "checks"),
}


def parse(entry: Any, endpoints: Sequence[Endpoint]) -> Options:
    """The options, each checked, and those that depend on each other."""
    known = known_fields("gateway", entry, [one.name for one in fields(Options)])
    values: dict[str, Any] = {}
    for name, value in known.items():
        where = f"gateway: {name}"
        if name in _NUMBERS:
            values[name] = integer(where, value, *_NUMBERS[name])
        elif name in ("keys_file", "tls_certificate", "admin_socket"):
            values[name] = _matching(where, value, _PATH, "an absolute path of letters, digits and . _ / -")
        elif name in ("bind", "metrics_bind"):
            values[name] = ":".join(map(str, address(where, value)))
        else:
            values[name] = _PARSERS[name](where, value)
    options = Options(**values)
    _check(options, endpoints)
    return options


def _matching(where: str, value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InputError(f"{where}: {value!r} is not {what}")
    return str(value)


def _buffer(where: str, value: Any) -> int:
    """HAProxy takes two of these for every connection."""
    return integer(where, size(where, value), 16_384, 16 << 20, "bytes")


def _body(where: str, value: Any) -> int:
    return integer(where, size(where, value), 1024, 1 << 31, "bytes")


def _engine_paths(where: str, value: Any) -> tuple[str, ...]:
    return tuple(_matching(where, path, _ENGINE_PATH, "a path below /v1/") for path in texts(where, value))


def _rates(where: str, value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r} is not a dictionary; write CLIENT: REQUESTS")
    for client in value:
        _matching(where, client, CLIENT, "a client; write letters, digits and . _ @ -")
    return {str(client): integer(f"{where}: {client}", rate, 1, 1_000_000) for client, rate in sorted(value.items())}


def _address(where: str, value: Any) -> str:
    return address(where, f"{value}:1")[0]


def _log(where: str, value: Any) -> str:
    if value == "stdout":
        return "stdout"
    return _matching(where, value, _PATH, "'stdout' or the path of a syslog socket, like /dev/log")


_PARSERS: dict[str, Any] = {
    "published_address": _address,
    "docker_dns": boolean,
    "log": _log,
    "client_rate_limits": _rates,
    "default_model": lambda _where, value: str(value),
    "session_header": lambda where, value: _matching(where, value, _HEADER, "a header; write letters, digits and -"),
    "paths": _engine_paths,
    "body_buffer_bytes": _buffer,
    "max_body_bytes": _body,
}


def _check(options: Options, endpoints: Sequence[Endpoint]) -> None:
    """Options that depend on each other or on the engines."""
    host = options.published_address or address("gateway: bind", options.bind)[0]
    if not loopback(host) and not options.keys_file:
        name = "published_address" if options.published_address else "bind"
        raise InputError(
            f"gateway: {name}: {host!r} is open to other machines and there is no keys_file; "
            "set keys_file, or listen on 127.0.0.1"
        )
    if options.client_rate_limits and not options.keys_file:
        raise InputError("gateway: client_rate_limits: without keys_file nobody knows the clients; set keys_file")
    if options.bind == options.metrics_bind:
        raise InputError(f"gateway: metrics_bind: {options.metrics_bind!r} is the address of bind; choose another")
    models = sorted({model for endpoint in endpoints for model in endpoint.models})
    if options.default_model and options.default_model not in models:
        raise InputError(f"gateway: default_model: {options.default_model!r} is not one of {', '.join(models)}")
