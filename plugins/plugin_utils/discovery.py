# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What programs on a workstation need to find its services: one file as JSON and one for shells. Pure, no secrets."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..module_utils.errors import InputError
from ..module_utils.values import integer
from .fields import boolean, known_fields, texts

VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FIELDS = ("name", "engine", "address", "port", "openai", "models", "gpu", "key", "tls", "metrics_port")


def discovery(services: Any, project: str, gateway: Any = None) -> dict[str, str]:
    """The texts of services.json and services.env, {"json": ..., "shell": ...}.

    A service: name, engine, address and port on the machine (null where it has none), openai (whether it speaks
    OpenAI's protocol), models, gpu (whether it uses one), key (whether it wants one), tls, metrics_port (on 127.0.0.1).
    gateway: the name of the service that is the gateway.
    """
    if not isinstance(services, Sequence) or isinstance(services, str):
        raise InputError(f"services: {services!r} is not a list of services")
    found = sorted((_service(f"services[{index}]", entry) for index, entry in enumerate(services)), key=_by_name)
    if gateway is not None and gateway not in {one["name"] for one in found}:
        raise InputError(f"gateway: {gateway!r} is none of the services")
    front = next((one for one in found if one["name"] == gateway), None)
    content = {
        "version": VERSION,
        "project": project,
        "gateway": None if front is None else {"url": front["openai_url"], "key": front["key"]},
        "services": {one["name"]: {key: value for key, value in one.items() if key != "name"} for one in found},
    }
    shell = "".join(f"{name}={shlex.quote(text)}\n" for name, text in _variables(found, project, front))
    return {"json": json.dumps(content, indent=1) + "\n", "shell": shell}


def _by_name(one: Mapping[str, Any]) -> str:
    return str(one["name"])


def _service(where: str, entry: Any) -> dict[str, Any]:
    known = known_fields(where, entry, _FIELDS)
    name = known.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}.name: {name!r} is not a name; write letters, digits, dashes, underscores")
    where = f"service {name}"
    url = None
    if "port" in known:
        # Who listens everywhere is reached here as well.
        address = str(known.get("address", "127.0.0.1")).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        scheme = "https" if boolean(f"{where}: tls", known.get("tls", False)) else "http"
        url = f"{scheme}://{address}:{integer(f'{where}: port', known['port'], 1, 65535)}"
    speaks = boolean(f"{where}: openai", known.get("openai", False))
    return {
        "name": name,
        "engine": str(known.get("engine", "custom")),
        "url": url,
        "openai_url": f"{url}/v1" if url and speaks else None,
        "models": sorted(texts(f"{where}: models", known.get("models", []))),
        "gpu": boolean(f"{where}: gpu", known.get("gpu", False)),
        "key": boolean(f"{where}: key", known.get("key", False)),
        "metrics_url": f"http://127.0.0.1:{known['metrics_port']}/metrics" if known.get("metrics_port") else None,
    }


def _variables(
    found: Sequence[Mapping[str, Any]], project: str, front: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    """Variables of the shell. Lists are words, as names and models have no spaces."""
    yield "AI_PROJECT", project
    yield "AI_SERVICES", " ".join(one["name"] for one in found)
    yield "AI_GPU_SERVICES", " ".join(one["name"] for one in found if one["gpu"])
    yield "AI_CPU_SERVICES", " ".join(one["name"] for one in found if not one["gpu"])
    yield "AI_GATEWAY_URL", (front or {}).get("openai_url") or ""
    for one in found:
        prefix = f"AI_{one['name'].upper().replace('-', '_')}"
        yield f"{prefix}_URL", one["openai_url"] or one["url"] or ""
        yield f"{prefix}_MODELS", " ".join(one["models"])
