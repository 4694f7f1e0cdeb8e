# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is in front of the services: the gateway, and the files that tell programs of the machine where all of it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.errors import InputError
from ..discovery import discovery
from ..gateway.front import NAME, Member, gateway_service
from .options import Options
from .wishes import Service


def declared(services: Sequence[Service], wish: Any) -> dict[str, Any]:
    """The gateway as a declared service, in front of all that speak OpenAI's protocol. Raises InputError."""
    if any(one.name == NAME for one in services):
        raise InputError(f"service_stack_services: the name {NAME!r} is that of service_stack_gateway; choose another")
    members = [
        Member(
            name=one.name,
            engine=one.engine,
            port=one.container_port,
            model=one.alias,
            # vLLM takes as many as come into its batch; llama.cpp has slots.
            slots=int(one.settings.get("parallel") or 0) if one.engine == "llama_cpp" else 0,
            key=bool(one.api_key),
        )
        for one in services
        if one.kind.answers and one.container_port
    ]
    return gateway_service(wish, members)


def told(services: Sequence[Service], options: Options, gateway: Mapping[str, Any] | None) -> dict[str, str]:
    """The texts of services.json and services.env."""
    rows = [_row(one, gateway if one.name == NAME else None) for one in services]
    return discovery(rows, options.project, NAME if gateway else None)


def _row(one: Service, gateway: Mapping[str, Any] | None) -> dict[str, Any]:
    """One service as discovery() takes it; gateway: the wish, where it is the gateway."""
    if gateway:
        return {
            "name": one.name,
            "engine": "haproxy",
            "address": one.bind,
            "port": one.port,
            "openai": True,
            "key": bool(gateway.get("keys")),
            "tls": bool(gateway.get("certificate")),
            "metrics_port": next(iter(one.more_ports)),
        }
    return {
        "name": one.name,
        "engine": one.engine,
        "address": one.bind,
        "port": one.port,
        "openai": one.kind.answers,
        "models": [one.alias or one.name] if one.kind.answers else [],
        "gpu": bool(one.gpus),
        "key": bool(one.api_key),
        "metrics_port": one.port if one.kind.answers else None,
    }
