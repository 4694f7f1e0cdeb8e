# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open WebUI asks the other services of the stack: their addresses, and their keys in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...module_utils.errors import InputError
from .wishes import Service


def connect(services: Sequence[Service]) -> tuple[list[Service], list[str]]:
    """The services, each Open WebUI with what it needs to reach its backends; and what is wrong."""
    found, problems = [], []
    for one in services:
        try:
            found.append(_connected(one, services) if one.engine == "open_webui" else one)
        except InputError as error:
            problems.append(str(error))
            found.append(one)
    return found, problems


def _connected(service: Service, services: Sequence[Service]) -> Service:
    known = {one.name: one for one in services}
    names = service.settings.get("backends")
    if names is None:
        names = [one.name for one in services if one.kind.answers]
    where = f"service {service.name}"
    for name in names:
        if name not in known or name == service.name or not known[name].container_port:
            raise InputError(f"{where}: settings.backends: {name!r} is no service of the stack that answers requests")
    if "WEBUI_SECRET_KEY" not in service.secret_environment:
        raise InputError(
            f"{where}: secret_environment: WEBUI_SECRET_KEY is missing, which signs sessions; name a secret for it "
            "(generate: true in service_stack_secrets makes one)"
        )
    backends = [known[name] for name in names]
    urls = ";".join(f"http://{one.name}:{one.container_port}/v1" for one in backends)
    secrets = dict(service.secret_environment)
    if any(one.api_key for one in backends) and "OPENAI_API_KEYS" not in secrets:
        secrets["OPENAI_API_KEYS"] = tuple(one.api_key for one in backends)
    environment = {"OPENAI_API_BASE_URLS": urls, **service.environment}
    return replace(service, environment=environment, secret_environment=secrets)
