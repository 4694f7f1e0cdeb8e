# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Huge page pools, hugetlbfs mounts, transparent huge pages and the shared-memory group, as one set.

Sources: Documentation/admin-guide/mm/hugetlbpage.rst and transhuge.rst, Documentation/admin-guide/sysctl/vm.rst
(hugetlb_shm_group, nr_hugepages), tmpfiles.d(5), sysctl.d(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.change import READ_ONLY, Draft
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice, integer, offered, print_size, selected, size
from .accounts import Account, parse_account
from .drop_in import FileLook, look_file, sysctl_overrides, want_lines
from .hugepage_pools import Asked, Memory, Size, check_reserve, look_memory, look_sizes, plan_pools, rows
from .hugetlb_mounts import Mount, MountLook, look_mount, parse_mounts, want_mount
from .kernel_settings import moved_along

NAME = "hugepages"

SYSCTL_FILE = "/etc/sysctl.d/99-zz-ai-workstation-hugepages.conf"
TMPFILES_FILE = "/etc/tmpfiles.d/99-zz-ai-workstation-hugepages.conf"
_THP = "/sys/kernel/mm/transparent_hugepage"
THP_FILES = {
    "thp_enabled": f"{_THP}/enabled",
    "thp_defrag": f"{_THP}/defrag",
    "thp_shmem": f"{_THP}/shmem_enabled",
}
_SHM_GROUP = "/proc/sys/vm/hugetlb_shm_group"


@dataclass(frozen=True)
class Desired:
    """reserve: bytes, or with reserve_percent a share of all memory."""

    pools: tuple[Asked, ...]
    partial: bool
    reserve: int
    reserve_percent: bool
    mounts: tuple[Mount, ...]
    thp: dict[str, str]
    shm_group: Account | None
    persist: bool
    owner: str
    optional: frozenset[str]

    def names(self) -> set[str]:
        """What the user may list in `optional`."""
        return {
            *(pool.label for pool in self.pools),
            *(mount.path for mount in self.mounts),
            *self.thp,
            *(["shm_group"] if self.shm_group else []),
        }


@dataclass(frozen=True)
class Group:
    """vm.hugetlb_shm_group as it is, and the group that was asked for."""

    live: str | None
    writable: bool
    wanted: int | None
    nearest: str


@dataclass(frozen=True)
class Snapshot:
    """refused: what the kernel granted of an earlier call's ask; back: pages that releases would change, by key."""

    memory: Memory
    sizes: dict[int, Size]
    refused: dict[str, str]
    back: dict[str, int]
    thp: dict[str, tuple[str | None, bool]]
    group: Group | None
    mounts: dict[str, MountLook]
    sysctl_file: FileLook
    tmpfiles_file: FileLook
    overrides: dict[str, str]


def parse(params: Mapping[str, Any]) -> Desired:
    reserve, percent = _parse_reserve(params.get("reserve") or "10%")
    return Desired(
        _parse_pools(params.get("pools") or []),
        choice("partial", params.get("partial") or "refuse", ("refuse", "allow")) == "allow",
        reserve,
        percent,
        parse_mounts(params.get("mounts") or []),
        {name: str(params[name]) for name in THP_FILES if params.get(name) is not None},
        None if params.get("shm_group") is None else parse_account("shm_group", params["shm_group"], "group"),
        bool(params.get("persist", True)),
        f"{params.get('owner') or 'default'}/{NAME}",
        frozenset(params.get("optional") or ()),
    )


def _parse_pools(items: list[Mapping[str, Any]]) -> tuple[Asked, ...]:
    found: dict[tuple[int, int | None], Asked] = {}
    for item in items:
        bytes_ = size("pools: size", item["size"])
        if not bytes_:
            raise InputError(f"pools: size {item['size']!r} is no page size; write one like '2M' or '1G'")
        count = integer(f"pools {print_size(bytes_)}: count", item["count"], 0, (1 << 48) // bytes_, "pages")
        node = item.get("node")
        if node is not None:
            node = integer(f"pools {print_size(bytes_)}: node", node, 0, 1023)
        pool = Asked(bytes_, count, node)
        if (bytes_, node) in found:
            raise InputError(f"pools: {pool.label} is named twice; one call describes each pool once")
        found[bytes_, node] = pool
    for bytes_, node in found:
        if node is not None and (bytes_, None) in found:
            raise InputError(
                f"pools: {print_size(bytes_)} is asked for with a node and without; "
                "give it either once for the whole machine, or per node"
            )
    return tuple(found.values())


def _parse_reserve(value: Any) -> tuple[int, bool]:
    match = re.match(r"^\s*(\d+)\s*%\s*$", str(value))
    if match:
        return integer("reserve", match.group(1), 0, 100, "percent of all memory"), True
    return size("reserve", value), False


def look(machine: Machine, desired: Desired) -> Snapshot:
    host = machine.host
    memory = look_memory(machine)
    sizes = look_sizes(machine, memory)
    systemd = host.is_dir("/run/systemd/system")
    keys = [pool.key for look in sizes.values() for pool in look.pools()]
    refused = {key: machine.ledger.refusal(key) for key in keys}
    group = None
    if desired.shm_group:
        wanted = desired.shm_group.number(machine)
        group = Group(host.text(_SHM_GROUP), host.writable(_SHM_GROUP), wanted, desired.shm_group.nearest(machine))
    thp = {name: (host.text(THP_FILES[name]), host.writable(THP_FILES[name])) for name in desired.thp}
    return Snapshot(
        memory,
        sizes,
        {key: reason for key, reason in refused.items() if reason},
        _back(machine, desired.owner, sizes),
        thp,
        group,
        {mount.path: look_mount(machine, mount, systemd) for mount in desired.mounts},
        look_file(machine, SYSCTL_FILE),
        look_file(machine, TMPFILES_FILE),
        sysctl_overrides(machine, SYSCTL_FILE, dict(_sysctl_lines(desired, memory, desired.pools, group))),
    )


def _back(machine: Machine, owner: str, sizes: Mapping[int, Size]) -> dict[str, int]:
    """How many pages each pool of ours would gain (or lose, below 0) if it went back to its original."""
    live = {pool.key: pool.pages for look in sizes.values() for pool in look.pools()}
    return {
        key: int(entry.original) - live[key]
        for key, entry in machine.ledger.owned_by(owner)
        if key in live and entry.is_ours(str(live[key]))
    }


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(optional=frozenset(map(_key, desired.optional)), releases_first=True)
    possible = plan_pools(draft, desired.pools, snapshot.sizes, desired.partial, snapshot.refused)
    _check_releases(draft, snapshot)
    reserve = snapshot.memory.total * desired.reserve // 100 if desired.reserve_percent else desired.reserve
    check_reserve(draft, snapshot.sizes, snapshot.memory, reserve, snapshot.back)
    thp = [name for name in desired.thp if _want_thp(draft, name, desired.thp[name], *snapshot.thp[name])]
    group = snapshot.group if desired.shm_group and _want_group(draft, desired.shm_group, snapshot.group) else None
    for mount in desired.mounts:
        look = snapshot.mounts[mount.path]
        want_mount(draft, mount, look, snapshot.memory.default_size, list(snapshot.sizes), desired.persist)
    if desired.persist:
        if desired.optional.issuperset(desired.names()):
            draft.optional |= {f"file:{SYSCTL_FILE}", f"file:{TMPFILES_FILE}"}
        sysctl = _sysctl_lines(desired, snapshot.memory, possible, group)
        usual = snapshot.sizes.get(snapshot.memory.default_size)
        pools = tuple(pool.key for pool in usual.pools()) if usual else ()
        keys = {"vm.nr_hugepages": pools, "vm.hugetlb_shm_group": (_key("shm_group"),)}
        _want_drop_in(draft, snapshot.sysctl_file, {f"{key} = {value}": keys[key] for key, value in sysctl})
        tmpfiles = _pool_lines(snapshot, possible)
        tmpfiles.update({f"w {THP_FILES[name]} - - - - {desired.thp[name]}": (_key(name),) for name in thp})
        _want_drop_in(draft, snapshot.tmpfiles_file, tmpfiles)
        for key, where in sorted(snapshot.overrides.items()):
            draft.warnings.append(
                f"sysctl {key}: {where}, which wins at the next boot; remove that line or the setting here"
            )
    planned = {change.key: int(change.after) for change in draft.changes if change.key.startswith("hugepages:")}
    draft.report = {
        "pools": rows(desired.pools, snapshot.sizes, planned),
        "memory": {"total": snapshot.memory.total, "available": snapshot.memory.available, "reserve": reserve},
    }
    return draft


def report(machine: Machine, desired: Desired) -> dict[str, Any]:
    """The pools as they came out, read after the writes."""
    return {"pools": rows(desired.pools, look_sizes(machine, look_memory(machine)), {})}


def _key(name: str) -> str:
    """The key of a name that the user listed in `optional`."""
    if name in THP_FILES:
        return f"sysfs:{THP_FILES[name]}"
    if name == "shm_group":
        return "sysctl:vm.hugetlb_shm_group"
    return f"mount:{name}" if name.startswith("/") else f"hugepages:{name}"


def _check_releases(draft: Draft, snapshot: Snapshot) -> None:
    """A pool that is no longer wanted goes back to its original, unless its pages are in use."""
    for size_look in snapshot.sizes.values():
        for pool in size_look.pools():
            left = pool.pages + snapshot.back.get(pool.key, 0)
            if pool.key not in draft.covered and left < min(pool.in_use, pool.pages):
                draft.refusals.append(
                    f"{pool.key}: no longer asked for, but {pool.in_use} of its pages are in use; "
                    "stop what uses them first, or keep asking for the pool"
                )


def _want_thp(draft: Draft, name: str, value: str, text: str | None, writable: bool) -> bool:
    path = THP_FILES[name]
    key = f"sysfs:{path}"
    if text is None:
        draft.cannot(key, f"this kernel has no {path}: {name} cannot be set")
    elif value not in offered(text):
        draft.cannot(key, f"{name} {value!r} is not one of {', '.join(offered(text))}")
    elif not writable:
        draft.cannot(key, READ_ONLY)
    else:
        draft.want(key, "choice", path, selected(text), value, touches=moved_along(path))
        return True
    return False


def _want_group(draft: Draft, asked: Account, group: Group | None) -> bool:
    key = _key("shm_group")
    if group is None or group.live is None:
        draft.cannot(key, f"this kernel has no {_SHM_GROUP}")
    elif group.wanted is None:
        draft.cannot(key, f"shm_group: {asked.missing(group.nearest)}")
    elif not group.writable:
        draft.cannot(key, READ_ONLY)
    else:
        draft.want(key, "text", _SHM_GROUP, group.live, str(group.wanted))
        return True
    return False


def _sysctl_lines(
    desired: Desired, memory: Memory, pools: tuple[Asked, ...] | list[Asked], group: Group | None
) -> list[tuple[str, str]]:
    """What sysctl.d can say: systemd-sysctl runs early, when memory is not yet fragmented."""
    lines = [
        ("vm.nr_hugepages", str(pool.count)) for pool in pools if pool.node is None and pool.size == memory.default_size
    ]
    if group and group.wanted is not None and desired.shm_group:
        lines.append(("vm.hugetlb_shm_group", str(group.wanted)))
    return lines


def _pool_lines(snapshot: Snapshot, pools: list[Asked]) -> dict[str, tuple[str, ...]]:
    """The pools that no sysctl stands for: a line of tmpfiles.d each, and the keys that it sets."""
    found = {}
    for pool in pools:
        if pool.node is not None:
            folder = f"/sys/devices/system/node/node{pool.node}/hugepages"
        elif pool.size != snapshot.memory.default_size:
            folder = "/sys/kernel/mm/hugepages"
        else:
            continue
        path = f"{folder}/hugepages-{pool.size >> 10}kB/nr_hugepages"
        there = snapshot.sizes[pool.size]
        alone = [there.nodes[pool.node]] if pool.node in there.nodes else there.pools()
        found[f"w {path} - - - - {pool.count}"] = tuple(one.key for one in alone)
    return found


def _want_drop_in(draft: Draft, look: FileLook, lines: Mapping[str, tuple[str, ...]]) -> None:
    # Without a line and without a file there is nothing to say; a file that an earlier call wrote and
    # this one does not name goes away as a release.
    if lines:
        want_lines(draft, look, lines)
