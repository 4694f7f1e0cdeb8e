# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a service asks for: parsing of the declared services, with errors that name service, field and value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, integer, size
from ..fields import boolean, known_fields
from .machine import Core, Gpu

ENGINES = ("llama_cpp", "ollama", "vllm", "sglang", "tensorrt_llm", "custom")
UNITS = ("cores", "threads")
SMT = ("siblings", "one_per_core")
LOCALITIES = ("same_l3", "same_node", "gpu_node", "any")
PREFERENCES = ("cache", "clock")
# Engines that compute on the CPU when they have no GPU.
_ON_CPU = {"llama_cpp", "ollama", "vllm", "sglang"}
CUDA_CONTEXT_BYTES = 512 << 20  # on top of model and KV cache, for each process on a GPU
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MOST_CPUS, _MOST_GPUS = 8192, 64


@dataclass(frozen=True)
class GpuWish:
    """GPUs of one service: whole ones, or on each a share of its VRAM or a number of bytes (the larger counts)."""

    count: int = 1
    share: float | None = None
    vram_bytes: int | None = None
    uuids: tuple[str, ...] = ()
    name: str = ""

    @property
    def whole(self) -> bool:
        return self.share is None and self.vram_bytes is None

    def accepts(self, gpu: Gpu) -> bool:
        """Whether it is one of those the wish selects, and its VRAM is known where that matters."""
        selected = (not self.uuids or gpu.uuid in self.uuids) and self.name.lower() in gpu.name.lower()
        return selected and (self.whole or gpu.vram_bytes > 0)

    def need(self, gpu: Gpu) -> int:
        """VRAM bytes on this GPU. A share includes the CUDA context, as vLLM counts; bytes do not."""
        if self.whole:
            return gpu.usable_bytes
        share = round((self.share or 0) * gpu.vram_bytes)
        return max(share, self.vram_bytes + CUDA_CONTEXT_BYTES if self.vram_bytes is not None else 0)


@dataclass(frozen=True)
class Wish:
    """One service. cpus 0: no set of its own, it runs where nobody is exclusive."""

    name: str
    engine: str = "custom"
    cpus: int = 0
    cpus_unit: str = "cores"
    smt: str = "one_per_core"
    exclusive: bool = False
    locality: str = "any"
    memory_bytes: int | None = None
    hugepages_bytes: int = 0
    gpu: GpuWish | None = None
    priority: int = 50
    prefers: str = "clock"

    @property
    def by_threads(self) -> bool:
        """Whether `cpus` counts threads that may share a core; else it counts cores."""
        return self.cpus_unit == "threads" and self.smt == "siblings"

    @property
    def all_memory_bytes(self) -> int:
        """Memory and huge pages: the kernel does not count huge pages into memory.max, so they come on top."""
        return (self.memory_bytes or 0) + self.hugepages_bytes

    def worth(self, core: Core) -> int:
        """What one core counts towards `cpus`."""
        return len(core.cpus) if self.by_threads else 1

    def expand(self, cores: Sequence[Core]) -> tuple[int, ...]:
        """The CPUs of the service on these cores."""
        if self.smt == "one_per_core":
            return tuple(sorted(core.cpus[0] for core in cores))
        ordered = sorted(cores, key=lambda core: (-len(core.cpus), core.number))
        threads = [cpu for core in ordered for cpu in core.cpus]
        return tuple(sorted(threads[: self.cpus] if self.by_threads else threads))

    def sentence(self) -> str:
        """The CPU wish in words."""
        unit = "threads" if self.cpus_unit == "threads" else "cores"
        unit = unit[:-1] if self.cpus == 1 else unit
        one = ", one thread per core" if self.cpus_unit == "threads" and not self.by_threads else ""
        places = {
            "same_l3": " in one L3",
            "same_node": " on one NUMA node",
            "gpu_node": " on the NUMA node of its GPU",
            "any": "",
        }
        return f"{self.cpus} {'exclusive' if self.exclusive else 'shared'} {unit}{one}{places[self.locality]}"


def parse(services: Any) -> list[Wish]:
    """The services in the order in which they choose: highest priority first, then by name."""
    if not isinstance(services, Sequence) or isinstance(services, str):
        raise InputError(f"services: {services!r} is not a list of services; each is a dictionary with a name")
    wishes = [_service(f"services[{index}]", entry) for index, entry in enumerate(services)]
    names = [wish.name for wish in wishes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"services: the name {twice[0]!r} is there more than once; give each service its own")
    return sorted(wishes, key=lambda wish: (-wish.priority, wish.name))


_SERVICE = (
    "name", "engine", "cpus", "cpus_unit", "smt", "exclusive", "locality", "prefers", "memory_bytes",
    "hugepages_bytes", "gpu", "priority",
)  # fmt: skip


def _service(where: str, entry: Any) -> Wish:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if isinstance(entry, Mapping) and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise InputError(f"{where}.name: {name!r} is not a name; write letters, digits, dots, dashes, underscores")
    where = f"service {name}"
    fields = known_fields(where, entry, _SERVICE)
    unit = choice(f"{where}: cpus_unit", fields.get("cpus_unit", "cores"), UNITS)
    wish = Wish(
        name=str(name),
        engine=choice(f"{where}: engine", fields.get("engine", "custom"), ENGINES),
        cpus=integer(f"{where}: cpus", fields.get("cpus", 0), 0, _MOST_CPUS, unit),
        cpus_unit=unit,
        smt=choice(f"{where}: smt", fields.get("smt", "siblings" if unit == "threads" else "one_per_core"), SMT),
        exclusive=boolean(f"{where}: exclusive", fields.get("exclusive", False)),
        locality=choice(f"{where}: locality", fields.get("locality", "any"), LOCALITIES),
        memory_bytes=size(f"{where}: memory_bytes", fields["memory_bytes"]) if "memory_bytes" in fields else None,
        hugepages_bytes=size(f"{where}: hugepages_bytes", fields.get("hugepages_bytes", 0)),
        gpu=_gpu(f"{where}: gpu", fields["gpu"]) if "gpu" in fields else None,
        priority=integer(f"{where}: priority", fields.get("priority", 50), 0, 100),
    )
    default = "cache" if wish.engine in _ON_CPU and wish.gpu is None else "clock"
    wish = replace(wish, prefers=choice(f"{where}: prefers", fields.get("prefers", default), PREFERENCES))
    _check(where, wish)
    return wish


def _check(where: str, wish: Wish) -> None:
    """Fields that make no sense together."""
    if wish.locality == "gpu_node" and wish.gpu is None:
        raise InputError(f"{where}: locality: 'gpu_node' needs a gpu; add one or take same_l3, same_node or any")
    if wish.exclusive and wish.cpus == 0:
        raise InputError(f"{where}: exclusive: True needs cpus, a number from 1; set it or leave exclusive out")


def _gpu(where: str, entry: Any) -> GpuWish:
    fields = known_fields(where, entry, ("count", "share", "vram_bytes", "uuid", "name"))
    uuids = fields.get("uuid", [])
    uuids = [uuids] if isinstance(uuids, str) else uuids
    if not isinstance(uuids, Sequence) or not all(isinstance(uuid, str) and uuid for uuid in uuids):
        raise InputError(f"{where}.uuid: {uuids!r} is not a UUID or a list of them, as nvidia-smi -L prints them")
    count = integer(f"{where}.count", fields.get("count", 1), 1, _MOST_GPUS)
    if uuids and len(set(uuids)) < count:
        raise InputError(f"{where}.uuid: {len(set(uuids))} UUIDs are fewer than count, {count}; name at least as many")
    return GpuWish(
        count,
        _share(f"{where}.share", fields["share"]) if "share" in fields else None,
        size(f"{where}.vram_bytes", fields["vram_bytes"]) if "vram_bytes" in fields else None,
        tuple(sorted(set(uuids))),
        str(fields.get("name", "")),
    )


def _share(where: str, value: Any) -> float:
    try:
        number = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number <= 1:
        raise InputError(f"{where}: {value!r} is not a fraction of a GPU's VRAM above 0 and up to 1")
    return number
