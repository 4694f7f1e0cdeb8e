# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway as a service of a stack: from the engines beside it to the declaration of one more service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import integer
from ..fields import known_fields
from . import haproxy_config
from .endpoints import loopback

NAME = "gateway"
PORT, METRICS_PORT = 8080, 8405  # inside the container
CONFIG = "/etc/haproxy/haproxy.cfg"
# On the machine, so that gateway_backend can talk to it; the folder is the gateway user's.
SOCKET_FOLDER = "/var/lib/ai-workstation/gateway"
_INSIDE = "/run/gateway"
_KINDS = {"llama_cpp": "llama.cpp", "vllm": "vllm"}
_FIELDS = (
    "image", "local_image", "accept_tag", "port", "bind", "metrics_port", "keys", "certificate", "options",
    "backups", "memory",
)  # fmt: skip
# Decided by the stack.
_FIXED = (
    "bind",
    "published_address",
    "metrics_bind",
    "admin_socket",
    "docker_dns",
    "keys_file",
    "tls_certificate",
    "log",
)


@dataclass(frozen=True)
class Member:
    """An engine of the stack. model: the name it offers, if it says one. slots: its requests at a time, or 0."""

    name: str
    engine: str
    port: int
    model: str = ""
    slots: int = 0
    key: bool = False


def gateway_service(wish: Any, members: Sequence[Member]) -> dict[str, Any]:
    """The declaration of the service, as service_stack_services has them. Raises InputError for wrong input."""
    where = "service_stack_gateway"
    known = known_fields(where, wish, _FIELDS)
    if not members:
        raise InputError(f"{where}: no service of the stack speaks OpenAI's protocol; the gateway has nothing to do")
    options = known.get("options", {})
    if isinstance(options, Mapping) and (fixed := sorted(set(options) & set(_FIXED))):
        raise InputError(f"{where}: options: {fixed[0]!r} is decided by the stack; use port, bind, keys, certificate")
    bind, keys, certificate = str(known.get("bind", "127.0.0.1")), known.get("keys"), known.get("certificate")
    if not loopback(bind) and not keys:
        raise InputError(
            f"{where}: bind: {bind!r} is open to other machines and there are no keys; name a secret in keys"
        )
    backups = known.get("backups", [])
    names = [member.name for member in members]
    for name in backups if isinstance(backups, Sequence) and not isinstance(backups, str) else [backups]:
        if name not in names:
            raise InputError(f"{where}: backups: {name!r} is not one of {', '.join(names)}")
    text = haproxy_config(
        [_endpoint(where, member, member.name in backups) for member in members],
        {
            **options,
            "bind": f"0.0.0.0:{PORT}",
            "published_address": bind,
            "metrics_bind": f"0.0.0.0:{METRICS_PORT}",
            "admin_socket": f"{_INSIDE}/admin.sock",
            "docker_dns": True,
            "keys_file": f"/run/secrets/{keys}" if keys else None,
            "tls_certificate": f"/run/secrets/{certificate}" if certificate else None,
        },
    )
    return {
        "name": NAME,
        "engine": "custom",
        "image": known.get("image"),
        "local_image": known.get("local_image", False),
        "accept_tag": known.get("accept_tag", False),
        "port": integer(f"{where}: port", known.get("port", PORT), 1, 65535),
        "bind": bind,
        "container_port": PORT,
        "more_ports": {
            integer(f"{where}: metrics_port", known.get("metrics_port", METRICS_PORT), 1, 65535): METRICS_PORT
        },
        "files": {CONFIG: text},
        "secret_files": [secret for secret in (keys, certificate) if secret],
        "environment": {"GATEWAY_URL": f"{'https' if certificate else 'http'}://127.0.0.1:{PORT}"},
        "volumes": [f"{SOCKET_FOLDER}:{_INSIDE}:rw"],
        "memory": known.get("memory", "1G"),
        "health": {
            "test": ["/usr/local/bin/healthy"],
            "start_seconds": 10,
            "interval_seconds": 10,
            "timeout_seconds": 5,
        },
    }


def _endpoint(where: str, member: Member, backup: bool) -> dict[str, Any]:
    if member.key:
        raise InputError(
            f"{where}: service {member.name} has an api_key of its own, which the gateway does not know; leave api_key "
            "out and let the gateway ask for keys"
        )
    if member.engine == "vllm" and not member.model:
        raise InputError(f"{where}: service {member.name} does not name its model; set settings.alias")
    return {
        "name": member.name,
        "address": f"{member.name}:{member.port}",
        "kind": _KINDS.get(member.engine, "openai"),
        "models": [member.model or member.name],
        "max_requests": member.slots,
        "backup": backup,
    }
