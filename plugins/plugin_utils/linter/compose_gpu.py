# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a service gets its GPU: one way, by UUID, with options that something reads."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from . import nodes
from .compose_service import Service
from .context import Context
from .findings import Finding

_VARIABLES = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def check_gpu(service: Service, context: Context) -> Iterator[Finding]:
    """Everything that is wrong with the ways by which a service gets cards."""
    requests = _requests(service)
    ways = _ways(service, requests)
    if len(ways) > 1:
        names = ", ".join(name for name, _line in ways)
        text = f"cards are handed over in {len(ways)} ways: {names}"
        yield context.finding(
            ways[-1][1], "compose-gpu-selectors", service.name, text, "one of them, by UUID; CDI is the lasting one"
        )
    for variable in service.environment:
        beside = variable.name in _VARIABLES and ways and variable.value not in ("all", "void", "none")
        if beside and not (variable.name == _VARIABLES[0] and [name for name, _line in ways] == ["runtime: nvidia"]):
            text = f"chooses cards a second time, beside {ways[0][0]}"
            yield context.finding(
                variable.line, "compose-gpu-variable", variable.name, text, "device_ids with the UUID"
            )
    for request in requests:
        yield from _request(request, service, context)


def _requests(service: Service) -> list[yaml.Node]:
    """Device requests: deploy...devices and the items of gpus."""
    devices = nodes.get(service.root, "deploy", "resources", "reservations", "devices")
    return [
        *nodes.items(devices),
        *(one for one in nodes.items(service.node("gpus")) if isinstance(one, yaml.MappingNode)),
    ]


def _ways(service: Service, requests: list[yaml.Node]) -> list[tuple[str, int]]:
    found = []
    devices = nodes.get(service.root, "deploy", "resources", "reservations", "devices")
    if devices is not None and any(_is_gpu(one) for one in requests):
        found.append(("deploy.resources.reservations.devices", nodes.line(devices)))
    if service.text("runtime") == "nvidia":
        found.append(("runtime: nvidia", service.line("runtime")))
    if service.node("gpus") is not None:
        found.append(("gpus", service.line("gpus")))
    plain = [number for text, number in nodes.scalars(service.node("devices")) if _is_device(text)]
    if plain:
        found.append(("devices", plain[0]))
    return found


def _is_device(text: str) -> bool:
    return text.startswith(("nvidia.com/gpu", "/dev/nvidia"))


def _is_gpu(request: yaml.Node) -> bool:
    names = {text for text, _line in nodes.scalars(nodes.get(request, "capabilities"))}
    driver = nodes.scalar(nodes.get(request, "driver"))
    return driver in ("nvidia", "cdi") or "gpu" in names


def _request(request: yaml.Node, service: Service, context: Context) -> Iterator[Finding]:
    keys = nodes.entries(request)
    if "count" in keys and "device_ids" in keys:
        text = "count and device_ids exclude each other"
        yield context.finding(nodes.line(keys["count"][0]), "compose-device-count", service.name, text, "device_ids")
    for text, number in nodes.scalars(nodes.get(request, "device_ids")):
        if text.isdigit():
            message = f"device {text} is an index, and the order of cards is not guaranteed between boots"
            yield context.finding(
                number, "env-device-index", f"{service.name}.device_ids", message, "the UUID that nvidia-smi -L prints"
            )
    if "options" in keys and (nodes.scalar(nodes.get(request, "driver")) or "nvidia") == "nvidia":
        node = keys["options"][1]
        names = [text.partition("=")[0] for text, _line in nodes.scalars(node)] or list(nodes.entries(node))
        for name in names:
            message = f"Docker's nvidia driver never reads the option {name}; compose accepts it and nothing happens"
            fix = "gpu_tuning_compute_mode on the host" if name == "compute-mode" else ""
            yield context.finding(nodes.line(keys["options"][0]), "compose-device-option", service.name, message, fix)
