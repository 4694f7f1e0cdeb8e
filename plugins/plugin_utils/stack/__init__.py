# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service stack: declared services become one compose file. Pure, on the controller.

   render(services, options, placement, facts, gateway)

wishes      what is declared, parsed, with the defaults of its engine
engines     what each engine is: port, health, caches, and its settings as flags
flags       a wish becomes the flag of that version of the engine, or is refused with the alternative
container   one service of the compose file, hardened
front       the gateway before them, and the files that say where they are
webui       Open WebUI and the services that it asks
mps         two services on one GPU through NVIDIA's multi-process service
checks      what cannot be together
network     the private network
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.errors import InputError
from . import checks, front, mps, webui
from .container import definition
from .network import network
from .options import Options
from .wishes import Service, parse


def render(
    services: Any,
    options: Mapping[str, Any] | None = None,
    placement: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything the module service_stack and the role need, JSON-able. Raises InputError with all that is wrong.

    compose: the compose file as data, without any secret. services: how each is brought up, in order. files: contents
    of configuration files by service. secrets: names of secrets by service. mps: the unit of the control daemon, or
    None. findings: what is allowed and worth knowing. discovery: the texts of services.json and services.env.
    """
    chosen = Options.parse(options or {})
    found, problems = parse(services, chosen, placement or {}, facts or {})
    if gateway and not problems:
        try:
            before, problems = parse([front.declared(found, gateway)], chosen, {}, {})
            found += before
        except InputError as error:
            problems.append(str(error))
    found, more = webui.connect(found)
    problems += more
    problems += checks.problems(found, placement or {}, facts or {})
    definitions: dict[str, Any] = {}
    for service in found:
        try:
            definitions[service.name] = definition(service, chosen)
        except InputError as error:
            problems += str(error).split("; also ")
    if problems:
        raise InputError("service_stack: " + "; also ".join(dict.fromkeys(problems)))
    return {
        "compose": _compose(definitions, found, chosen),
        "services": [_bring_up(service) for service in found],
        "files": [
            {"service": one.name, "name": name, "content": content}
            for one in found
            for name, (_target, content) in sorted(one.files.items())
        ],
        "secrets": [
            {"service": one.name, "name": name, "uid": one.uid, "gid": one.gid}
            for one in found
            for name in sorted(one.secret_names)
        ],
        "mps": mps.unit(found, chosen),
        "findings": checks.findings(found),
        "discovery": front.told(found, chosen, gateway),
    }


def _compose(definitions: Mapping[str, Any], services: Sequence[Service], options: Options) -> dict[str, Any]:
    volumes: dict[str, Any] = {f"{one.name}_{volume}": {} for one in services for volume in {**one.caches, **one.data}}
    found: dict[str, Any] = {"name": options.project, "services": dict(definitions)}
    if definitions:
        found["networks"] = {"stack": network(options)}
    if volumes:
        found["volumes"] = volumes
    return found


def _bring_up(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "local_image": service.local_image,
        "health_seconds": service.health_limit,
        "caches": [f"{service.name}_{volume}" for volume in sorted(service.caches)],
        "models": [service.model_path] if service.model_path else [],
        "probe": service.probe_options,
    }
