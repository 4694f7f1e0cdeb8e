# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engines behind the gateway, parsed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, integer
from ..fields import boolean, known_fields, texts

# Where each kind says that it can work. llama.cpp answers 503 there while it loads the model.
HEALTH = {"llama.cpp": "/health", "vllm": "/health", "openai": "/v1/models"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?")
# No quote, backslash or white space: a model's name stands in the configuration and in JSON as it is.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")
_FIELDS = ("name", "address", "kind", "models", "max_requests", "backup")


@dataclass(frozen=True)
class Endpoint:
    """One engine. max_requests 0: it gets as many at a time as come."""

    name: str
    address: str
    kind: str
    models: tuple[str, ...]
    max_requests: int = 0
    backup: bool = False


def parse(entries: Any) -> list[Endpoint]:
    """The engines by name."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise InputError(f"endpoints: {entries!r} is not a list of engines; each has name, address, kind, models")
    found = [_endpoint(f"endpoints[{index}]", entry) for index, entry in enumerate(entries)]
    for field in ("name", "address"):
        values = [str(getattr(endpoint, field)) for endpoint in found]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise InputError(f"endpoints: the {field} {twice[0]!r} is there more than once; name each engine once")
    return sorted(found, key=lambda endpoint: endpoint.name)


def _endpoint(where: str, entry: Any) -> Endpoint:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if isinstance(entry, Mapping) and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise InputError(f"{where}.name: {name!r} is not a name; write letters, digits, dashes, underscores")
    if name == "v1":
        raise InputError(f"{where}.name: 'v1' is the path of all engines; choose another name")
    where = f"endpoint {name}" if name else where
    known = known_fields(where, entry, _FIELDS)
    models = texts(f"{where}: models", known.get("models", []))
    if not models:
        raise InputError(f"{where}: models: none; name what requests ask this engine for")
    for model in models:
        if not _MODEL.fullmatch(model):
            raise InputError(f"{where}: models: {model!r} is not a model; write letters, digits and . _ : / @ + -")
    host, port = address(f"{where}: address", known.get("address"))
    return Endpoint(
        name=str(name),
        address=f"{host}:{port}",
        kind=choice(f"{where}: kind", known.get("kind", "openai"), HEALTH),
        models=tuple(sorted(set(models))),
        max_requests=integer(f"{where}: max_requests", known.get("max_requests", 0), 0, 100_000, "(0: no limit)"),
        backup=boolean(f"{where}: backup", known.get("backup", False)),
    )


def address(where: str, value: Any) -> tuple[str, int]:
    """A host and a port. An IPv6 address stands in brackets and keeps them."""
    host, colon, port = str(value).rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (
        not colon
        or not (_is_address(plain) or (plain == host and _HOST.fullmatch(host)))
        or (":" in host) == (plain == host)
    ):
        raise InputError(f"{where}: {value!r} is not an address; write HOST:PORT, like '127.0.0.1:8001' or 'engine:80'")
    return host, integer(f"{where}: port", port, 1, 65535)


def loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    return host == "localhost" or (_is_address(host.strip("[]")) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
