# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Memory: NUMA nodes, huge page pools, swap, transparent huge pages and the DIMMs.

Sources: Documentation/filesystems/proc.rst, admin-guide/mm/{hugetlbpage,transhuge,zswap}.rst,
admin-guide/blockdev/zram.rst, ABI/stable/sysfs-devices-node; DIMMs from SMBIOS (smbios.py).
"""

from __future__ import annotations

from ..doors.host import Host
from ..values import cpu_list, selected
from .reading import Facts, cpu_numbers, flag, kib, number, numbered, table

_NODES = "/sys/devices/system/node"
_POOLS = "/sys/kernel/mm/hugepages"
_THP = "/sys/kernel/mm/transparent_hugepage"


def gather(host: Host, dimms: list[Facts]) -> Facts:
    """The `memory` section."""
    meminfo = table(host.text("/proc/meminfo"))
    thp = host.many(f"{_THP}/{name}" for name in ("enabled", "defrag", "shmem_enabled"))
    return {
        "total_bytes": kib(meminfo.get("MemTotal")),
        "available_bytes": kib(meminfo.get("MemAvailable")),
        "nodes": _nodes(host),
        "huge_pages": _pools(host, _POOLS, with_reserved=True),
        "swap": _swap(host),
        "zram": _zram(host),
        "zswap": flag(host.text("/sys/module/zswap/parameters/enabled")),
        "thp": dict(zip(("enabled", "defrag", "shmem"), (text and selected(text) for text in thp))),
        "dimms": dimms,
    }


def _pools(host: Host, folder: str, with_reserved: bool) -> list[Facts]:
    """Huge page pools by size. Nodes do not count reservations, only the whole machine does."""
    pools = []
    for size in numbered([name.rstrip("kB") for name in host.names(folder)], "hugepages-"):
        base = f"{folder}/hugepages-{size}kB"
        total, free, surplus, reserved = host.many(
            f"{base}/{name}" for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages", "resv_hugepages")
        )
        pool: Facts = {"size_bytes": size * 1024, "total": number(total), "free": number(free)}
        if with_reserved:
            pool["reserved"] = number(reserved)
        pools.append({**pool, "surplus": number(surplus)})
    return pools


def _nodes(host: Host) -> list[Facts]:
    nodes = []
    for node in numbered(host.names(_NODES), "node"):
        base = f"{_NODES}/node{node}"
        cpus, meminfo, distances = host.many((f"{base}/cpulist", f"{base}/meminfo", f"{base}/distance"))
        # Each key has the node in front, like Node 0 MemTotal.
        values = {key.split()[-1]: value for key, value in table(meminfo).items() if key}
        nodes.append(
            {
                "node": node,
                "cpus": cpu_list(cpu_numbers(cpus)),
                "total_bytes": kib(values.get("MemTotal")),
                "free_bytes": kib(values.get("MemFree")),
                "distances": [number(word) for word in (distances or "").split()],
                "huge_pages": _pools(host, f"{base}/hugepages", with_reserved=False),
            }
        )
    return nodes


def _swap(host: Host) -> list[Facts]:
    swaps = []
    for line in (host.text("/proc/swaps") or "").splitlines()[1:]:
        words = line.split()
        if len(words) >= 5:
            swaps.append(
                {
                    "device": words[0],
                    "type": words[1],
                    "size_bytes": kib(words[2]),
                    "used_bytes": kib(words[3]),
                    "priority": number(words[4]),
                }
            )
    return swaps


def _zram(host: Host) -> list[Facts]:
    """Compressed RAM disks that have a size (the module makes an empty one when it loads)."""
    found = []
    for index in numbered(host.names("/sys/block"), "zram"):
        base = f"/sys/block/zram{index}"
        size, algorithm, use = host.many(f"{base}/{name}" for name in ("disksize", "comp_algorithm", "mm_stat"))
        if number(size):
            words = (use or "").split()
            found.append(
                {
                    "device": f"/dev/zram{index}",
                    "size_bytes": number(size),
                    "algorithm": algorithm and selected(algorithm),
                    "used_bytes": number(words[2]) if len(words) > 2 else None,
                }
            )
    return found
