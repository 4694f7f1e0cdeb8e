# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The services of an inventory (workstation_services): what the placement takes, and what only the rules ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, integer, size
from ..placement.wishes import Wish
from .base import nearest

PLACEMENT_FIELDS = tuple(item.name for item in dataclasses.fields(Wish))
IPC = ("private", "shareable", "host")
GPU_ACCESS = ("cdi", "hook")


@dataclass(frozen=True)
class Service:
    """What the rules know of a service beside its wishes.

    uid: the user it runs as, None where it is not said. model_bytes: the weights that it reads into memory.
    volumes: "source:target[:options]" as Docker writes them. gpu_access: how its container gets the GPU, by the
    container device interface or by the older runtime hook. cuda: the version its image was built for, version: that
    of the engine.
    """

    name: str
    engine: str = "custom"
    cpus: int = 0
    uses_gpu: bool = False
    gpu_uuids: tuple[str, ...] = ()
    memory_bytes: int | None = None
    hugepages_bytes: int = 0
    model_bytes: int | None = None
    mlock: bool = False
    uses_hugetlb: bool = False
    uses_thp: bool = False
    mps: bool = False
    uid: int | None = None
    ipc: str = "private"
    gpu_access: str | None = None
    cuda: str | None = None
    version: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[Mapping[str, Any], ...] = ()

    @property
    def locked_bytes(self) -> int:
        """The most memory that it can lock, as far as it is known."""
        if not self.mlock:
            return 0
        return self.memory_bytes if self.memory_bytes is not None else self.model_bytes or 0


# Fields of our own, beside those of the placement.
OWN_FIELDS = (
    "mlock",
    "uses_hugetlb",
    "uses_thp",
    "mps",
    "uid",
    "ipc",
    "gpu_access",
    "cuda",
    "version",
    "model_bytes",
    "environment",
    "flags",
    "volumes",
    "ports",
)
FIELDS = (*PLACEMENT_FIELDS, *OWN_FIELDS)


def wishes(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The part of each service that the placement takes. gpu.fraction, vLLM's word, is gpu.share."""
    found = []
    for entry in entries:
        wish = {str(key): value for key, value in entry.items() if key in PLACEMENT_FIELDS}
        if isinstance(wish.get("gpu"), Mapping):
            wish["gpu"] = {("share" if key == "fraction" else key): one for key, one in wish["gpu"].items()}
        found.append(wish)
    return found


def parse(value: Any) -> tuple[tuple[Service, ...], list[str]]:
    """The services, and in words what is wrong with those that are none. Wishes are judged by the placement."""
    if value is None:
        return (), []
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (), ["workstation_services is not a list; each service is a dictionary with a name"]
    services, problems = [], []
    for index, entry in enumerate(value):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(name, str) or not name:
            problems.append(f"workstation_services[{index}] is not a dictionary with a name")
            continue
        unknown = [str(key) for key in entry if key not in FIELDS]
        for key in unknown:
            near = nearest(key, FIELDS)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(FIELDS)}"
            problems.append(f"service {name}: {key!r} is not a field of a service; {hint}")
        try:
            services.append(_service(f"service {name}", {key: one for key, one in entry.items() if one is not None}))
        except InputError as error:
            problems.append(str(error))
    return tuple(services), problems


def _service(where: str, entry: Mapping[str, Any]) -> Service:
    gpu = entry.get("gpu")
    gpu = gpu if isinstance(gpu, Mapping) else {}
    uuids = gpu.get("uuid") or ()
    cpus = entry.get("cpus", 0)
    return Service(
        name=str(entry["name"]),
        engine=str(entry.get("engine", "custom")),
        cpus=int(cpus) if str(cpus).isdigit() else 0,
        uses_gpu="gpu" in entry,
        gpu_uuids=(uuids,) if isinstance(uuids, str) else tuple(str(uuid) for uuid in uuids),
        memory_bytes=_size(where, entry, "memory_bytes"),
        hugepages_bytes=_size(where, entry, "hugepages_bytes") or 0,
        model_bytes=_size(where, entry, "model_bytes"),
        mlock=_flag(where, entry, "mlock"),
        uses_hugetlb=_flag(where, entry, "uses_hugetlb"),
        uses_thp=_flag(where, entry, "uses_thp"),
        mps=_flag(where, entry, "mps"),
        uid=integer(f"{where}: uid", entry["uid"], 0, 2**32 - 2) if "uid" in entry else None,
        ipc=choice(f"{where}: ipc", entry.get("ipc", "private"), IPC),
        gpu_access=choice(f"{where}: gpu_access", entry["gpu_access"], GPU_ACCESS) if "gpu_access" in entry else None,
        cuda=str(entry["cuda"]) if "cuda" in entry else None,
        version=str(entry["version"]) if "version" in entry else None,
        environment=_environment(where, entry.get("environment", {})),
        flags=tuple(_texts(where, entry, "flags")),
        volumes=tuple(_texts(where, entry, "volumes")),
        ports=tuple(_ports(where, entry.get("ports", ()))),
    )


def _size(where: str, entry: Mapping[str, Any], name: str) -> int | None:
    return size(f"{where}: {name}", entry[name]) if name in entry else None


def _flag(where: str, entry: Mapping[str, Any], name: str) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {name}: {value!r} is not true or false")
    return value


def _environment(where: str, value: Any) -> dict[str, str]:
    """A dictionary, or a list of NAME=value as compose has it."""
    if isinstance(value, Mapping):
        return {str(name): "" if one is None else str(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {str(item).partition("=")[0]: str(item).partition("=")[2] for item in value}
    raise InputError(f"{where}: environment: {value!r} is not a dictionary of names and values")


def _texts(where: str, entry: Mapping[str, Any], name: str) -> list[str]:
    value = entry.get(name, ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{where}: {name}: {value!r} is not a list of texts")
    return [str(item) for item in value]


def _ports(where: str, value: Any) -> list[Mapping[str, Any]]:
    """Each {host, container, bind}."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{where}: ports: {value!r} is not a list; each port is a dictionary with host and bind")
    for port in value:
        if not isinstance(port, Mapping) or "host" not in port:
            raise InputError(f"{where}: ports: {port!r} is not a dictionary with host, and bind where it matters")
        integer(f"{where}: ports: host", port["host"], 1, 65535)
    return list(value)
