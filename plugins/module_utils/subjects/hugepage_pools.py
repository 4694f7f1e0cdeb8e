# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Huge page pools: what the kernel has per size and NUMA node, and how a count is spread over the nodes.

Source: Documentation/admin-guide/mm/hugetlbpage.rst. A write to nr_hugepages never fails: what could not
be reserved shows only when the file is read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..engine.change import READ_ONLY, Draft
from ..engine.machine import Machine
from ..engine.transaction import granted
from ..values import print_size

_ROOT = "/sys/kernel/mm/hugepages"
_NODES = "/sys/devices/system/node"


@dataclass(frozen=True)
class Asked:
    """One entry of the parameter `pools`. size in bytes; node None: the machine as a whole."""

    size: int
    count: int
    node: int | None

    @property
    def label(self) -> str:
        return print_size(self.size) + ("" if self.node is None else f"/node{self.node}")


@dataclass(frozen=True)
class Pool:
    """One nr_hugepages file. room: how many pages more the memory behind it could hold at best."""

    key: str
    path: str
    pages: int
    free: int
    room: int
    writable: bool

    @property
    def in_use(self) -> int:
        return self.pages - self.free


@dataclass(frozen=True)
class Size:
    """All pools of one page size. reserved: free pages that a mapping has been promised (resv_hugepages)."""

    total: Pool
    nodes: dict[int, Pool]
    reserved: int

    def pools(self) -> list[Pool]:
        """The pools that hold the pages: those of the nodes, or the only one there is."""
        return list(self.nodes.values()) or [self.total]


@dataclass(frozen=True)
class Memory:
    """Bytes, from /proc/meminfo. default_size is what vm.nr_hugepages counts in (Hugepagesize)."""

    total: int
    available: int
    default_size: int


def look_memory(machine: Machine) -> Memory:
    found = _meminfo(machine.host.text("/proc/meminfo"))
    total = found.get("MemTotal", 0)
    return Memory(total, found.get("MemAvailable", found.get("MemFree", 0)), found.get("Hugepagesize", 2 << 20))


def look_sizes(machine: Machine, memory: Memory) -> dict[int, Size]:
    """Every size that the kernel offers. On a machine with one node its pool is the machine's pool."""
    numbers = (re.match(r"^node(\d+)$", name) for name in machine.host.names(_NODES))
    nodes = sorted(int(match.group(1)) for match in numbers if match)
    spare = {node: _spare(machine, node) for node in nodes}
    found: dict[int, Size] = {}
    for folder in machine.host.names(_ROOT):
        match = re.match(r"^hugepages-(\d+)kB$", folder)
        if not match:
            continue
        size = int(match.group(1)) << 10
        key = f"hugepages:{print_size(size)}"
        total = _pool(machine, key, f"{_ROOT}/{folder}", memory.available // size)
        # A node without memory of its own has no such folder.
        paths = {node: f"{_NODES}/node{node}/hugepages/{folder}" for node in nodes}
        paths = {node: path for node, path in paths.items() if machine.host.is_dir(path)}
        pools = {
            node: _pool(machine, f"{key}/node{node}", path, spare[node] // size) if len(paths) > 1 else total
            for node, path in paths.items()
        }
        found[size] = Size(total, pools, machine.host.number(f"{_ROOT}/{folder}/resv_hugepages") or 0)
    return dict(sorted(found.items()))


def _pool(machine: Machine, key: str, folder: str, room: int) -> Pool:
    path = f"{folder}/nr_hugepages"
    pages = machine.host.number(path) or 0
    free = machine.host.number(f"{folder}/free_hugepages") or 0
    return Pool(key, path, pages, free, max(room, 0), machine.host.writable(path))


def _spare(machine: Machine, node: int) -> int:
    """Bytes of a node that are free or only hold files."""
    found = _meminfo(machine.host.text(f"{_NODES}/node{node}/meminfo"))
    return found.get("MemFree", 0) + found.get("FilePages", 0) - found.get("Shmem", 0)


def _meminfo(text: str | None) -> dict[str, int]:
    rows = re.findall(r"^(?:Node \d+ )?(\w+):\s+(\d+) kB$", text or "", re.MULTILINE)
    return {name: int(number) << 10 for name, number in rows}


def spread(count: int, pools: Iterable[Pool]) -> dict[str, int]:
    """Pages per pool that add up to `count`, as level as can be without taking pages in use away.

    A pool that holds enough is not shrunk to fill another one, so that as little as possible moves. What
    no node has room for is spread evenly all the same: the kernel has the last word on it.
    """
    ordered = list(pools)
    missing = count - sum(pool.pages for pool in ordered)
    if missing >= 0:
        limits = {pool.key: (pool.pages, pool.pages + pool.room) for pool in ordered}
        if count > sum(high for _low, high in limits.values()):
            limits = {key: (low, count) for key, (low, _high) in limits.items()}
    else:
        limits = {pool.key: (min(pool.in_use, pool.pages), pool.pages) for pool in ordered}

    def at(level: int) -> dict[str, int]:
        return {key: min(max(level, low), high) for key, (low, high) in limits.items()}

    low, high = 0, max(count, max((top for _low, top in limits.values()), default=0))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(at(middle).values()) <= count:
            low = middle
        else:
            high = middle - 1
    found, above = at(low), at(low + 1)
    for key in found:
        if sum(found.values()) < count:
            found[key] = above[key]
    return found


def plan_pools(
    draft: Draft, asked: Iterable[Asked], sizes: Mapping[int, Size], partial: bool, refused: Mapping[str, str]
) -> list[Asked]:
    """State the wanted counts, those that shrink first; returns the entries that this machine can have."""
    wanted: list[tuple[Pool, int, Asked]] = []
    possible = []
    for entry in asked:
        targets = _targets(draft, entry, sizes)
        if targets:
            possible.append(entry)
            wanted += [(pool, count, entry) for pool, count in targets]
    for pool, count, entry in sorted(wanted, key=lambda item: item[1] - item[0].pages):
        if refused.get(pool.key) == granted(str(count), str(pool.pages)):
            draft.skip(pool.key, f"{refused[pool.key]} earlier in this boot; partial: allow takes that")
            continue
        draft.want(
            pool.key,
            "text",
            pool.path,
            str(pool.pages),
            str(count),
            partial=partial,
            explain=_explain(entry, pool, count),
        )
    return possible


def _targets(draft: Draft, entry: Asked, sizes: Mapping[int, Size]) -> list[tuple[Pool, int]]:
    key = f"hugepages:{entry.label}"
    size = sizes.get(entry.size)
    if size is None:
        there = ", ".join(map(print_size, sizes))
        words = f"it offers {there}" if there else "it offers no huge pages at all"
        draft.cannot(key, f"this kernel has no huge pages of {print_size(entry.size)}; {words}")
        return []
    if entry.node is not None and entry.node not in size.nodes:
        there = ", ".join(map(str, size.nodes)) or "none"
        draft.cannot(key, f"there is no NUMA node {entry.node} with memory; the nodes are {there}")
        return []
    pools = size.pools() if entry.node is None else [size.nodes[entry.node]]
    if key in draft.optional:
        draft.optional |= {pool.key for pool in pools}
    read_only = next((pool for pool in pools if not pool.writable), None)
    if read_only:
        draft.cannot(key, READ_ONLY)
        return []
    in_use = sum(pool.in_use for pool in pools) + (size.reserved if entry.node is None else 0)
    if entry.count < min(in_use, sum(pool.pages for pool in pools)):
        draft.cannot(
            key,
            f"asked for {entry.count} pages, but {in_use} are in use or promised; "
            "stop what uses them first, or ask for at least as many",
        )
        return []
    counts = spread(entry.count, pools)
    return [(pool, counts[pool.key]) for pool in pools]


def _explain(entry: Asked, pool: Pool, count: int) -> str:
    size = print_size(entry.size)
    if count < pool.pages:
        return f"asked for {count} pages of {size}, {{got}} are left: pages are in use; stop what uses them"
    whole = f" (a part of {entry.count} for all nodes)" if count != entry.count else ""
    return (
        f"asked for {count} pages of {size}{whole}, the kernel could reserve {{got}} (memory is fragmented or full): "
        "reboot, or ask on the kernel command line (module kernel_command_line), or set partial: allow"
    )


def check_reserve(
    draft: Draft, sizes: Mapping[int, Size], memory: Memory, reserve: int, back: Mapping[str, int]
) -> None:
    """Refuse what leaves less than `reserve` bytes available. back: pages that releases of this call change, by key."""
    unit = {pool.key: size for size, look in sizes.items() for pool in look.pools()}
    planned = [change for change in draft.changes if change.key in unit]
    deltas = [(int(change.after) - int(change.before)) * unit[change.key] for change in planned]
    deltas += [pages * unit[key] for key, pages in back.items() if key in unit and key not in draft.covered]
    left = memory.available - sum(deltas)
    if any(delta > 0 for delta in deltas) and left < reserve:
        draft.refusals.append(
            f"pools: {', '.join(change.key for change in planned)}: these pages would leave {_mib(left)} of "
            f"{_mib(memory.available)} available memory, the reserve is {_mib(reserve)}; ask for less, or lower reserve"
        )


def _mib(number: int) -> str:
    return f"{number >> 20} MiB"


def rows(
    asked: Iterable[Asked], sizes: Mapping[int, Size], planned: Mapping[str, int]
) -> list[dict[str, int | str | None]]:
    """What a module returns about the pools it was asked for; `planned` counts replace live ones."""
    found: list[dict[str, int | str | None]] = []
    for entry in asked:
        size = sizes.get(entry.size)
        if size is None or (entry.node is not None and entry.node not in size.nodes):
            continue
        pools = size.pools() if entry.node is None else [size.nodes[entry.node]]
        pages = sum(planned.get(pool.key, pool.pages) for pool in pools)
        in_use = sum(pool.in_use for pool in pools)
        found.append(
            {
                "size": print_size(entry.size),
                "node": entry.node,
                "asked": entry.count,
                "pages": pages,
                "free": pages - in_use,
                "in_use": in_use,
            }
        )
    return found
