# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The machine that services are placed on: facts, as they will be after the SMT change of the same plan.

Sources: ansible_facts.workstation (facts/gather.py). A CPU that is offline, or will be, does not exist here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import cpus as parse_cpus

VRAM_SLACK_BYTES = 1 << 30  # of each GPU stays free: driver, display, fragmentation


@dataclass(frozen=True)
class Core:
    """A physical core. `number`: its lowest CPU; `cell` groups cores that are alike for counting."""

    number: int
    cpus: tuple[int, ...]
    domain: int
    node: int
    kind: str
    mhz: int
    isolated: bool
    cell: int = 0


@dataclass(frozen=True)
class Cell:
    """Where a core is and how many threads it has: cores of one cell can stand in for each other."""

    domain: int
    node: int
    threads: int


@dataclass(frozen=True)
class Domain:
    """CPUs that share a level 3 cache. Not `known`: it shows none, and each node is one."""

    number: int
    size_bytes: int
    mhz: int
    known: bool


@dataclass(frozen=True)
class Node:
    """A NUMA node; either part may be missing."""

    number: int
    memory_bytes: int
    distances: Mapping[int, int]


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver answers for. `vram_bytes` 0: not known."""

    uuid: str
    name: str
    address: str
    node: int | None
    vram_bytes: int
    display: bool

    @property
    def usable_bytes(self) -> int:
        """VRAM less the slack. 1 where the size is not known: such a GPU is taken whole or not at all."""
        return max(self.vram_bytes - VRAM_SLACK_BYTES, 1) if self.vram_bytes else 1


@dataclass(frozen=True)
class Machine:
    """What services can be placed on."""

    cores: tuple[Core, ...]
    cells: tuple[Cell, ...]
    domains: tuple[Domain, ...]
    nodes: tuple[Node, ...]
    gpus: tuple[Gpu, ...]
    memory_bytes: int | None
    devices: Mapping[str, int | None]  # PCI address -> node, of GPUs and network cards
    warnings: tuple[str, ...] = ()

    @cached_property
    def core_of(self) -> dict[int, Core]:
        """CPU number -> core."""
        return {cpu: core for core in self.cores for cpu in core.cpus}

    @cached_property
    def by_domain(self) -> dict[int, tuple[Core, ...]]:
        """The cores of each L3 domain."""
        return {
            domain.number: tuple(core for core in self.cores if core.domain == domain.number) for domain in self.domains
        }

    @cached_property
    def cpu_nodes(self) -> tuple[int, ...]:
        """Nodes that have CPUs."""
        return tuple(sorted({core.node for core in self.cores}))

    @cached_property
    def boot_core(self) -> Core:
        """The core with the lowest CPU: the kernel's own work gathers there, so services get it last."""
        return self.cores[0]

    @cached_property
    def top_mhz(self) -> int:
        """The highest clock of any core; 0 where none is known."""
        return max(core.mhz for core in self.cores)

    @cached_property
    def node_of(self) -> dict[int, Node]:
        """Node number -> node."""
        return {node.number: node for node in self.nodes}

    def distance(self, one: int, other: int) -> int:
        """The firmware's distance of two nodes (10: the same)."""
        told = self.node_of[one].distances.get(other) if one in self.node_of else None
        return told if told is not None else 10 if one == other else 255

    @cached_property
    def near(self) -> dict[str, tuple[int, ...]]:
        """UUID -> nodes whose CPUs are near the GPU: its own, or the nearest with CPUs; all where it has none."""
        return {gpu.uuid: self.cpu_nodes if gpu.node is None else self._nearest(gpu.node) for gpu in self.gpus}

    def _nearest(self, home: int) -> tuple[int, ...]:
        return (min(self.cpu_nodes, key=lambda node: (self.distance(home, node), node)),)

    @cached_property
    def cells_of_domain(self) -> dict[int, tuple[int, ...]]:
        """The cells of each L3 domain."""
        return {
            domain.number: tuple(index for index, cell in enumerate(self.cells) if cell.domain == domain.number)
            for domain in self.domains
        }

    @cached_property
    def cells_of_node(self) -> dict[int, tuple[int, ...]]:
        """The cells of each node that has CPUs."""
        return {
            node: tuple(index for index, cell in enumerate(self.cells) if cell.node == node) for node in self.cpu_nodes
        }

    @cached_property
    def nodes_in_domains(self) -> bool:
        """Whether an L3 domain spans nodes (sub-NUMA clustering); else every domain is in one node."""
        return any(len({self.cells[cell].node for cell in cells}) > 1 for cells in self.cells_of_domain.values())


def read(facts: Mapping[str, Any], smt: str | None) -> Machine:
    """The machine of these facts, with SMT as planned (on, off, or None: as it is)."""
    cpu = facts.get("cpu")
    entries = [entry for entry in (cpu or {}).get("cpus") or [] if entry.get("online")]
    if not cpu or not entries:
        raise InputError("facts: they hold no CPU; gather ai_infra.workstation.workstation_facts with its section cpu")
    usable = _usable(cpu, entries, smt)
    cores, domains = _cores(cpu, entries, usable)
    cells = tuple(dict.fromkeys(Cell(core.domain, core.node, len(core.cpus)) for core in cores))
    number = {cell: index for index, cell in enumerate(cells)}
    cores = [replace(core, cell=number[Cell(core.domain, core.node, len(core.cpus))]) for core in cores]
    memory = facts.get("memory") or {}
    gpus, silent = _gpus(facts.get("gpus") or [])
    return Machine(
        tuple(cores),
        cells,
        tuple(domains),
        _nodes(memory.get("nodes") or [], cores),
        tuple(gpus),
        memory.get("total_bytes"),
        _devices(facts),
        (*silent, *_smt_warnings(cpu, smt)),
    )


def _usable(cpu: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], smt: str | None) -> set[int]:
    """The CPUs online after the SMT change. `off` leaves each core its first thread."""
    online = {int(entry["cpu"]) for entry in entries}
    if smt != "off":
        return online
    groups = {parse_cpus("siblings", entry.get("siblings") or entry["cpu"]) for entry in entries}
    steps = {group[1] - group[0] for group in groups if len(group) > 1}
    gone = set(parse_cpus("present", cpu.get("present") or "")) - online
    # A thread without its sibling may be the second one, which goes offline: its first is then one step below.
    second = {group[0] for group in groups if len(group) == 1 and any(group[0] - step in gone for step in steps)}
    first = {group[0] for group in groups} - second
    if not first:
        raise InputError("smt: no CPU would stay online, by the facts; bring the first threads of the cores online")
    return first


def _smt_warnings(cpu: Mapping[str, Any], smt: str | None) -> list[str]:
    told = cpu.get("smt") or {}
    if smt == "on" and told.get("control") == "off":
        return ["SMT is off now: second threads are placed in the run after they came online"]
    return []


def _cores(
    cpu: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], usable: set[int]
) -> tuple[list[Core], list[Domain]]:
    isolated = set(parse_cpus("isolated", cpu.get("isolated") or ""))
    names: dict[str, int] = {}
    sizes: dict[int, int] = {}
    cores: list[Core] = []
    for entry in sorted(entries, key=lambda entry: int(entry["cpu"])):
        siblings = parse_cpus("siblings", entry.get("siblings") or entry["cpu"])
        threads = tuple(sibling for sibling in siblings if sibling in usable)
        if not threads or threads[0] != entry["cpu"]:
            continue
        node = entry.get("node") or 0
        domain = names.setdefault(entry.get("l3") or f"none {entry.get('package')} {node}", len(names))
        sizes[domain] = entry.get("l3_size_bytes") or 0 if entry.get("l3") else -1
        kind, mhz = entry.get("core_type") or "", entry.get("max_mhz") or 0
        cores.append(Core(threads[0], threads, domain, node, kind, mhz, not isolated.isdisjoint(threads)))
    return cores, [
        Domain(
            domain, max(size, 0), max((core.mhz for core in cores if core.domain == domain), default=0), known=size >= 0
        )
        for domain, size in sorted(sizes.items())
    ]


def _nodes(told: Sequence[Mapping[str, Any]], cores: Sequence[Core]) -> tuple[Node, ...]:
    # The kernel lists distances in the order of the nodes, whose numbers may have gaps.
    order = [int(entry["node"]) for entry in told]
    known = {
        int(entry["node"]): Node(
            int(entry["node"]),
            entry.get("total_bytes") or 0,
            dict(zip(order, entry.get("distances") or (), strict=False)),
        )
        for entry in told
    }
    for core in cores:
        known.setdefault(core.node, Node(core.node, 0, {}))
    return tuple(known[number] for number in sorted(known))


def _gpus(told: Sequence[Mapping[str, Any]]) -> tuple[list[Gpu], list[str]]:
    usable, silent = [], []
    for entry in sorted(told, key=lambda entry: str(entry.get("pci_address"))):
        address, uuid = str(entry.get("pci_address")), entry.get("uuid")
        if not uuid or entry.get("problem"):
            silent.append(f"GPU {address} is not used: {entry.get('problem') or 'the driver does not answer for it'}")
            continue
        name, vram = entry.get("name") or "", entry.get("vram_bytes") or 0
        usable.append(Gpu(uuid, name, address, entry.get("numa_node"), vram, bool(entry.get("display_active"))))
    return usable, silent


def _devices(facts: Mapping[str, Any]) -> dict[str, int | None]:
    found = {str(gpu.get("pci_address")): gpu.get("numa_node") for gpu in facts.get("gpus") or []}
    for device in facts.get("pci") or []:
        if device.get("kind") == "network":
            found[str(device["address"])] = device.get("numa_node")
    return dict(sorted(found.items()))
