# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One service of the compose file. What is not asked for is closed: root, capabilities, privileges, ports, memory."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import cpus
from . import flags, mps
from .options import Options
from .wishes import KEY_FILE, Health, Service

MODELS = "/models"
# In the images of docker/: it asks for a token, or for whatever the program is there for.
HEALTHY = "/usr/local/bin/healthy"


def definition(service: Service, options: Options) -> dict[str, Any]:
    """The compose definition of one service. Raises InputError where a wish cannot be met."""
    found: dict[str, Any] = {
        "image": service.image,
        "pull_policy": "never" if service.local_image else "missing",
        "user": f"{service.uid}:{service.gid}",
        "read_only": not service.writable_root,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "networks": ["stack"],
        "pids_limit": service.pids,
        "stop_grace_period": f"{service.stop_seconds}s",
        "tmpfs": [_tmpfs(service)],
        "logging": {
            "driver": "local",
            "options": {"max-size": options.log_size, "max-file": str(options.log_files)},
        },
        "environment": {**service.kind.environment, **mps.environment(service, options), **service.environment},
        "volumes": _volumes(service, options),
    }
    found.update(_start(service))
    found.update(_limits(service))
    if service.health:
        found["healthcheck"] = _health(service.health, service.container_port)
    if service.port is not None:
        more = [f"127.0.0.1:{outside}:{inside}" for outside, inside in sorted(service.more_ports.items())]
        found["ports"] = [f"{service.bind}:{service.port}:{service.container_port}", *more]
    if service.files:
        found["configs"] = [
            {"source": f"{service.name}_{name}", "target": target}
            for name, (target, _content) in sorted(service.files.items())
        ]
    if service.secret_names:
        found["secrets"] = [
            {"source": f"{service.name}_{name}", "target": target}
            for target, name in sorted(service.secret_targets.items())
        ]
    if service.gpus:
        # Compose wants a capability named; the engine does not look at it for CDI devices.
        devices = [f"nvidia.com/gpu={uuid}" for uuid in service.gpus]
        request = {"driver": "cdi", "device_ids": devices, "capabilities": ["gpu"]}
        found["deploy"] = {"resources": {"reservations": {"devices": [request]}}}
    result = {key: value for key, value in found.items() if value not in ({}, [], None)}
    escaped: dict[str, Any] = escape(result)
    return escaped


def escape(value: Any) -> Any:
    """Compose replaces $NAME in every text; a doubled dollar is one that stays."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: escape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [escape(one) for one in value]
    return value


def _tmpfs(service: Service) -> str:
    run = "exec" if service.tmp_exec else "noexec"
    return f"/tmp:rw,{run},nosuid,nodev,size={service.tmp_size},mode=1777"  # noqa: S108 inside the container


def _limits(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.memory_bytes is not None:
        # The same number for both: no swap beside it.
        found.update(mem_limit=service.memory_bytes, memswap_limit=service.memory_bytes)
    if service.cpu_set:
        found["cpuset"] = service.cpu_set
    if service.shm_size and service.ipc == "private":
        found["shm_size"] = int(service.shm_size)
    if service.ipc != "private":
        found["ipc"] = service.ipc
    if service.capabilities:
        found["cap_add"] = list(service.capabilities)
    memlock = service.memlock or ("-1" if service.mlock else None)
    if memlock:
        found["ulimits"] = {"memlock": {"soft": int(memlock), "hard": int(memlock)}}
    return found


def _volumes(service: Service, options: Options) -> list[Any]:
    found: list[Any] = []
    if service.model_path:
        source, target = _model_mount(service, options)
        found.append(_bind(source, target))
    for name, path in sorted({**service.caches, **service.data}.items()):
        found.append({"type": "volume", "source": f"{service.name}_{name}", "target": path})
    for text in service.volumes:
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(part.startswith("/") for part in parts[:2]):
            raise InputError(
                f"service {service.name}: volumes: {text!r} is not /on/the/machine:/inside[:rw]; volumes that Docker "
                "keeps belong into data or caches"
            )
        if parts[2:] not in ([], ["ro"], ["rw"]):
            raise InputError(f"service {service.name}: volumes: {text!r} ends in neither ro nor rw")
        found.append(_bind(parts[0], parts[1], read_only=parts[2:] != ["rw"]))
    if service.mps:
        found.append(_bind(options.mps_path, options.mps_path, read_only=False))
    return found


def _bind(source: str, target: str, *, read_only: bool = True) -> dict[str, Any]:
    # A folder that is missing is an error, not something for the engine to create.
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": read_only,
        "bind": {"create_host_path": False},
    }


def _model_mount(service: Service, options: Options) -> tuple[str, str]:
    """A folder, not the file: a model that is replaced in one step is then found by a service that starts again."""
    path = service.model_path
    if path == options.models_path or path.startswith(options.models_path.rstrip("/") + "/"):
        return options.models_path, MODELS
    return path.rpartition("/")[0] or "/", MODELS


def _health(health: Health, port: int) -> dict[str, Any]:
    test = list(health.test) or ["CMD-SHELL", _ask(port, health.path)]
    return {
        "test": test if test[0] in ("CMD", "CMD-SHELL", "NONE") else ["CMD", *test],
        "interval": f"{health.interval_seconds}s",
        "timeout": f"{health.timeout_seconds}s",
        "retries": health.retries,
        "start_period": f"{health.start_seconds}s",
    }


def _ask(port: int, path: str) -> str:
    """A command inside that asks the program, the way of its image or by HTTP."""
    ask = f"exec curl -fsS -o /dev/null http://127.0.0.1:{port}{path}"
    return f"if [ -x {HEALTHY} ]; then PORT={port} exec {HEALTHY}; fi; {ask}"


# -- what is run -------------------------------------------------------------------------------------


def arguments(service: Service, inside: str) -> list[str]:
    """The command line behind the program. inside: where the model is in the container."""
    where = f"service {service.name}"
    if service.engine == "custom":
        return list(service.command)
    found = list(service.kind.arguments)
    if service.engine == "llama_cpp":
        settings = {"threads": len(cpus(where, service.cpu_set)), **service.settings}
        if not settings["threads"]:
            del settings["threads"]
        if service.gpus and "gpu_layers" not in settings:
            settings["gpu_layers"] = 999
        found = ["--model", inside, *found]
        found += flags.render(where, "llama_cpp", service.version, settings)
        if service.api_key:
            found += ["--api-key-file", f"/run/secrets/{KEY_FILE}"]
    elif service.engine == "vllm":
        settings = dict(service.settings)
        if len(service.gpus) > 1 and "tensor_parallel" not in settings:
            settings["tensor_parallel"] = len(service.gpus)
        found = [inside, *found, *flags.render(where, "vllm", service.version, settings)]
    return [*found, *service.flags]


def _start(service: Service) -> dict[str, Any]:
    """entrypoint and command. Secrets that a program reads from a variable are put there as it starts, inside."""
    variables = dict(service.secret_environment)
    if service.engine == "vllm" and service.api_key:
        variables["VLLM_API_KEY"] = (KEY_FILE,)
    words = arguments(service, inside(service))
    program = list(service.entrypoint or service.kind.program)
    if not variables:
        return {"entrypoint": program, "command": words}
    if not program and (service.engine != "custom" or not words):
        raise InputError(
            f"service {service.name}: secret_environment: the program must be known to give it variables; write it as "
            "entrypoint, like [/app/llama-server]"
        )
    return {"entrypoint": ["/bin/sh", "-c", _script(variables), "sh"], "command": [*program, *words]}


def _script(variables: Mapping[str, Sequence[str]]) -> str:
    lines = ["set -eu"]
    for name, secrets in sorted(variables.items()):
        text = ";".join(f"$(cat {shlex.quote(f'/run/secrets/{secret}')})" if secret else "" for secret in secrets)
        lines.append(f'{name}="{text}"')
        lines.append(f"export {name}")
    lines.append('exec "$@"')
    return "; ".join(lines)


def inside(service: Service) -> str:
    """Where the model is in the container."""
    if not service.model_path:
        return ""
    if service.model.startswith("/"):
        return f"{MODELS}/{service.model_path.rpartition('/')[2]}"
    return f"{MODELS}/{service.model}"
