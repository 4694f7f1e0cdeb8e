# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines to place services on, from real facts of fake trees; and a check that trusts only the facts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpus
from topologies import (
    GIB,
    MIB,
    NODE,
    Core,
    Topology,
    epyc,
    intel_hybrid,
    put,
    ryzen_9950x,
    ryzen_9950x3d,
    small_vm,
    write_tree,
)

Facts = dict[str, Any]
VRAM = 32 * GIB


def threadripper() -> Topology:
    """32 cores on four chiplets, one node."""
    cores = tuple(Core((core, core + 32), l3=core // 8, max_mhz=5300) for core in range(32))
    return Topology(
        "AMD Ryzen Threadripper PRO 7975WX",
        "AuthenticAMD",
        cores,
        dict.fromkeys(range(4), 32 * MIB),
        node_bytes=256 * GIB,
    )


def two_sockets() -> Topology:
    """Two sockets with 16 cores on two chiplets each, one node per socket."""
    return epyc(2, 16, 1)


def snc() -> Topology:
    """One L3 over two nodes, as sub-NUMA clustering shows it."""
    cores = tuple(Core((core, core + 16), node=core // 8) for core in range(16))
    return Topology("Intel(R) Xeon(R) w9", "GenuineIntel", cores, {0: 64 * MIB})


def gpu(number: int, node: int | None = 0, vram: int = VRAM, name: str = "NVIDIA GeForce RTX 5090") -> Facts:
    """A GPU as the facts have it, as far as placement reads it."""
    return {
        "uuid": f"GPU-{number}",
        "name": name,
        "pci_address": f"0000:{number + 1:02x}:00.0",
        "numa_node": node,
        "vram_bytes": vram,
        "problem": None,
        "display_active": False,
    }


@cache
def gathered(make: Callable[[], Topology], cpu_less: bool = False, memory_less: int | None = None) -> Facts:
    """Facts of a machine; with a memory-only node behind the others, or a node without memory."""
    with tempfile.TemporaryDirectory() as root:
        topology = make()
        write_tree(topology, root)
        if memory_less is not None:
            put(root, {f"{NODE}/node{memory_less}/meminfo": f"Node {memory_less} MemTotal: 0 kB"})
        if cpu_less:
            _memory_node(topology, root)
        return gather(Host(root), ["cpu", "memory"])


def _memory_node(topology: Topology, root: str) -> None:
    number = max(topology.nodes) + 1
    put(
        root,
        {
            f"{NODE}/node{number}/cpulist": "",
            f"{NODE}/node{number}/meminfo": f"Node {number} MemTotal: {64 * GIB // 1024} kB",
            f"{NODE}/node{number}/distance": " ".join(["20"] * number + ["10"]),
        },
    )
    for node in topology.nodes:
        near = ["10" if other == node else "12" for other in topology.nodes]
        put(root, {f"{NODE}/node{node}/distance": " ".join([*near, "20"])})


def machine(make: Callable[[], Topology], *gpus: Facts, **odd: Any) -> Facts:
    """Facts with these GPUs."""
    return {**gathered(make, **odd), "gpus": list(gpus), "pci": []}


def with_another_domain(topology: Topology) -> Topology:
    """The same machine with one more L3 domain of eight cores on its last node."""
    first = max(topology.present) + 1
    l3 = max(topology.l3_bytes) + 1
    node = max(topology.nodes)
    cores = tuple(Core((first + i, first + 8 + i), l3=l3, node=node, max_mhz=5752) for i in range(8))
    return replace(topology, cores=(*topology.cores, *cores), l3_bytes={**topology.l3_bytes, l3: 32 * MIB})


@cache
def grown(make: Callable[[], Topology]) -> Facts:
    """Facts of the machine with another domain."""
    return gathered(lambda: with_another_domain(make()))


def offline() -> Topology:
    """A 9950X with a core off, a second thread off and a first thread off."""
    return ryzen_9950x().without(3, 19, 20, 9)


MACHINES: dict[str, Facts] = {
    "9950x": machine(ryzen_9950x, gpu(0)),
    "9950x3d": machine(ryzen_9950x3d, gpu(0), gpu(1, name="NVIDIA GeForce RTX 3090", vram=24 * GIB)),
    "threadripper": machine(threadripper, gpu(0), gpu(1)),
    "epyc": machine(two_sockets, gpu(0, 0), gpu(1, 1), gpu(2, 1)),
    "hybrid": machine(intel_hybrid, gpu(0, None)),
    "vm": machine(small_vm),
    "offline": machine(offline, gpu(0)),
    "no memory": machine(two_sockets, gpu(0, 0), gpu(1, 1), memory_less=1),
    "no cpus": machine(two_sockets, gpu(0, 2), gpu(1, 1), cpu_less=True),
    "snc": machine(snc, gpu(0, 0), gpu(1, 1)),
}


# -- the check -------------------------------------------------------------------------------------


def siblings(facts: Facts) -> dict[int, frozenset[int]]:
    """CPU -> the threads of its core, of CPUs that are online."""
    return {one["cpu"]: frozenset(cpus("", one["siblings"])) for one in facts["cpu"]["cpus"] if one["online"]}


def allowed_cpus(facts: Facts, smt: str | None) -> set[int]:
    """CPUs online after the SMT change. `offline` above lost CPU 9, so 25 is a second thread without its first."""
    groups = set(siblings(facts).values())
    if smt != "off":
        return {cpu for group in groups for cpu in group}
    present = cpus("", facts["cpu"]["present"])
    step = next((max(group) - min(group) for group in groups if len(group) > 1), 0)
    gone = set(present) - set(siblings(facts))
    return {min(group) for group in groups if len(group) > 1 or min(group) - step not in gone}


def check(
    facts: Facts, services: Sequence[Facts], result: Mapping[str, Any], smt: str | None, housekeeping: int
) -> None:
    """Everything a feasible placement promises, from the facts alone."""
    core, allowed = siblings(facts), allowed_cpus(facts, smt)
    sets = {name: set(cpus("", one["cpus"])) for name, one in result["services"].items()}
    kept = set(cpus("", result["housekeeping_cpus"]))
    assert set(sets) == {service["name"] for service in services}
    assert all(mine and mine <= allowed for mine in sets.values()), "an offline CPU, or none"
    assert len(kept) >= housekeeping
    assert kept <= allowed
    for service in services:
        _check_cpus(facts, service, sets[service["name"]], result["services"][service["name"]]["gpus"], allowed)
        if service.get("exclusive"):
            own = set().union(*(core[cpu] for cpu in sets[service["name"]]))
            others = [kept, set(cpus("", result["interrupt_cpus"])), set(cpus("", result["left"]["cpus"]))]
            others += [mine for name, mine in sets.items() if name != service["name"]]
            assert all(own.isdisjoint(other) for other in others), f"{service['name']} is not alone on its cores"
    _check_gpus(facts, services, result)
    wanted = sum(service.get("memory_bytes") or 0 for service in services)
    wanted += sum(service.get("hugepages_bytes") or 0 for service in services)
    assert not wanted or wanted + 8 * GIB <= facts["memory"]["total_bytes"]


def _check_cpus(facts: Facts, service: Facts, mine: set[int], uuids: Sequence[str], allowed: set[int]) -> None:
    if not service.get("cpus"):
        return
    core = {cpu: group & allowed for cpu, group in siblings(facts).items()}
    cores = {core[cpu] for cpu in mine}
    unit = service.get("cpus_unit", "cores")
    smt = service.get("smt") or ("siblings" if unit == "threads" else "one_per_core")
    assert (len(mine) if unit == "threads" else len(cores)) == service["cpus"]
    if smt == "one_per_core":
        assert len(mine) == len(cores)
    elif unit == "cores":
        assert mine == set().union(*cores)
    place = {one["cpu"]: one for one in facts["cpu"]["cpus"]}
    nodes = {place[cpu]["node"] for cpu in mine}
    if service.get("locality") == "same_l3":
        assert len({place[cpu]["l3"] for cpu in mine}) == 1
    if service.get("locality") in {"same_node", "gpu_node"}:
        assert len(nodes) == 1
    if service.get("locality") == "gpu_node":
        homes = {one["numa_node"] for one in facts["gpus"] if one["uuid"] in uuids}
        with_cpus = {one["node"] for one in place.values() if one["online"]}
        if homes <= with_cpus:
            assert nodes <= homes


def _check_gpus(facts: Facts, services: Sequence[Facts], result: Mapping[str, Any]) -> None:
    used: dict[str, float] = {}
    whole: list[str] = []
    for service in services:
        wish, given = service.get("gpu"), result["services"][service["name"]]["gpus"]
        assert len(given) == (wish or {}).get("count", 1 if wish else 0)
        for uuid in given:
            card = next(one for one in facts["gpus"] if one["uuid"] == uuid)
            share = wish.get("share")
            size = wish.get("vram_bytes")
            if share is None and size is None:
                whole.append(uuid)
            used[uuid] = used.get(uuid, 0) + max(
                (share or 0) * card["vram_bytes"], (size or 0) + (512 << 20) * (size is not None)
            )
    for uuid, size in used.items():
        assert round(size) <= next(one["vram_bytes"] for one in facts["gpus"] if one["uuid"] == uuid) - GIB
    assert len(whole) == len(set(whole))
    assert all(used[uuid] == 0 for uuid in whole)
