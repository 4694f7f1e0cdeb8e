# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker_gpu_containers: which running containers can lose their GPUs when systemd reloads, and which have.

A container that got its GPUs from the prestart hook of the NVIDIA toolkit has device rules that nobody told systemd
of. With systemd as the cgroup driver, `systemctl daemon-reload` writes the rules anew, without the GPU: "Failed to
initialize NVML: Unknown Error" (NVIDIA/nvidia-container-toolkit#48). With CDI the devices are in the container's
specification, and stay. From 1.18 on the toolkit's own runtime works by CDI as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..doors.host import Host
from ..errors import ApplyError
from ..values import version
from . import engine as docker

_CDI_TOOLKIT = (1, 18)


def converge(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    """One call of the module."""
    answer = docker.info(host)
    if answer is None:
        state = docker.look(host).state
        return {
            "changed": False,
            "containers": [],
            "lost": [],
            "exposed": [],
            "restarted": [],
            "reason": f"engine {state}",
            "warnings": [],
        }
    by_hook = answer.get("CgroupDriver") == "systemd"
    old_toolkit = version(params["toolkit_version"]) < _CDI_TOOLKIT
    found = [_look(host, one, by_hook, old_toolkit) for one in _running(host)]
    lost = [one for one in found if one["gpu"] == "lost"]
    if params["restart"] and not check_mode:
        for one in lost:
            _restart(host, one)
    restarted = lost if params["restart"] else []
    return {
        "changed": bool(restarted),
        "containers": [one for one in found if one["how"]],
        "lost": [one["name"] for one in lost if one not in restarted],
        "exposed": [one["name"] for one in found if one["exposed"]],
        "restarted": [one["name"] for one in restarted],
        "reason": "",
        "warnings": [*_warnings(lost if not params["restart"] else [], found)],
    }


def _running(host: Host) -> list[dict[str, Any]]:
    ids = host.run(["docker", "ps", "--quiet", "--no-trunc"]).out.split()
    answer = host.run(["docker", "inspect", *ids]) if ids else None
    # One that ended meanwhile makes inspect fail, and the rest is printed all the same.
    return list(json.loads(answer.out or "[]")) if answer else []


def how(container: Mapping[str, Any]) -> str:
    """By what a container has its GPUs: cdi, request (--gpus), runtime, or nothing."""
    settings = container.get("HostConfig") or {}
    for request in settings.get("DeviceRequests") or ():
        if request.get("Driver") == "cdi":
            return "cdi"
        if request.get("Driver") == "nvidia" or any("gpu" in words for words in request.get("Capabilities") or ()):
            return "request"
    return "runtime" if "nvidia" in (settings.get("Runtime") or "") else ""


def _look(host: Host, container: Mapping[str, Any], systemd: bool, old_toolkit: bool) -> dict[str, Any]:
    way = how(container)
    exposed = systemd and (way == "request" or (way == "runtime" and old_toolkit))
    name = str(container["Name"]).lstrip("/")
    gpu = _probe(host, str(container["Id"])) if way in ("request", "runtime") else "not asked"
    return {"name": name, "id": container["Id"], "how": way, "exposed": exposed, "gpu": gpu}


def _probe(host: Host, container: str) -> str:
    """ok, lost, or unknown where the container has no nvidia-smi to ask."""
    done = host.run(["docker", "exec", container, "nvidia-smi", "-L"], timeout=30)
    if done.code == 0:
        return "ok"
    return "lost" if "Failed to initialize NVML" in done.out + done.err else "unknown"


def _restart(host: Host, container: dict[str, Any]) -> None:
    done = host.act(["docker", "restart", container["id"]])
    container["gpu"] = _probe(host, container["id"]) if done.code == 0 else "lost"
    if container["gpu"] == "lost":
        said = (done.err.strip().splitlines() or ["no GPU after the restart either"])[-1]
        raise ApplyError(f"container {container['name']} lost its GPUs and a restart did not help: {said}")


def _warnings(lost: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    said = []
    if lost:
        names = ", ".join(one["name"] for one in lost)
        said.append(f"containers without their GPUs since a reload of systemd: {names}; restart them, or allow it here")
    exposed = [one["name"] for one in found if one["exposed"] and one["gpu"] != "lost"]
    if exposed:
        said.append(
            f"containers that lose their GPUs at the next reload of systemd: {', '.join(exposed)}; start them with CDI "
            "(--device nvidia.com/gpu=..., driver: cdi)"
        )
    return said
