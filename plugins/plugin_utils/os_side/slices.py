# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shares of CPU, memory and disk by slice, and a CPU partition of the AI slice.

Sources: systemd.resource-control(5), systemd.slice(5), Documentation/admin-guide/cgroup-v2.rst (cpuset.cpus.partition).

The kernel forgets a partition with its control group, so a unit of our own makes it anew at every boot, and refuses to
be active where the kernel calls the partition invalid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import cpu_list, cpus, integer, size
from .parts import CONF, Parts, Wishes, fact

_OF_OTHERS = ("system", "user", "machine")
_LIMITS = ("cpu_weight", "io_weight", "memory_high", "memory_max", "allowed_cpus")
PARTITION_UNIT = "ai-workstation-partition.service"
_OLD_TREE = "control groups are in the old form (version 1) here; boot with systemd.unified_cgroup_hierarchy=1"


def slices(wishes: Wishes) -> Parts:
    """os_tuning_slices: by name, limits of one slice. Those of systemd get a drop-in, others are made."""
    name = "os_tuning_slices"
    wanted = wishes.value(name, {})
    if wanted and wishes.fact("systemd", "cgroup") == 1:
        return wishes.impossible(name, "slices", _OLD_TREE)
    parts = Parts()
    for key, entry in sorted(wanted.items()):
        if not entry:
            continue
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(key)):
            raise InputError(f"{name}: {key!r} is not a plain name; write one like 'ai' for ai.slice")
        if not isinstance(entry, Mapping):
            raise InputError(f"{name} {key}: {entry!r} is not a dictionary with {', '.join(_LIMITS)}")
        unit = f"{key}.slice"
        lines = ("[Slice]", *_lines(f"{name} {key}", entry))
        if key in _OF_OTHERS:
            parts.drop_in(f"/etc/systemd/system/{unit}.d/{CONF}", *lines, **_risk(unit, entry))
            continue
        head = ("[Unit]", f"Description=Slice {key} of this workstation", "")
        parts.drop_in(f"/etc/systemd/system/{unit}", *head, *lines, "", "[Install]", "WantedBy=slices.target")
        parts.own_units.append({"name": unit, "unit_file": "enabled", "active": True})
    if wishes.from_profile(name):
        parts.optional = [one["path"] for one in parts.files] + [one["name"] for one in parts.own_units]
    return parts


def _risk(unit: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """What is lost where the CPUs that are left are too few for what keeps the machine reachable."""
    return {} if entry.get("allowed_cpus") is None else {"risk": f"{unit} is confined to some CPUs"}


def _lines(where: str, entry: Mapping[str, Any]) -> list[str]:
    unknown = sorted(set(entry) - set(_LIMITS))
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is not one of {', '.join(_LIMITS)}")
    lines = []
    for option, word in (("cpu_weight", "CPUWeight"), ("io_weight", "IOWeight")):
        if entry.get(option) is not None:
            lines.append(f"{word}={integer(f'{where} {option}', entry[option], 1, 10000)}")
    for option, word in (("memory_high", "MemoryHigh"), ("memory_max", "MemoryMax")):
        if entry.get(option) is not None:
            lines.append(f"{word}={_memory(f'{where} {option}', entry[option])}")
    if entry.get("allowed_cpus") is not None:
        lines.append(f"AllowedCPUs={cpu_list(cpus(f'{where} allowed_cpus', entry['allowed_cpus']))}")
    return lines


def _memory(where: str, value: Any) -> str:
    """A size, or a part of the machine's memory in percent."""
    percent = re.fullmatch(r"(\d{1,3})%", str(value))
    if percent and 1 <= int(percent.group(1)) <= 100:
        return str(value)
    if percent or str(value).endswith("%"):
        raise InputError(f"{where}: {value!r} is not a percentage from 1% to 100%")
    return str(size(where, value))


def partition(wishes: Wishes) -> Parts:
    """os_tuning_cpu_partition: root gives ai.slice its CPUs alone; isolated also ends load balancing among them."""
    name = "os_tuning_cpu_partition"
    kind = wishes.value(name)
    if kind is None:
        return Parts()
    own = fact(wishes.value("os_tuning_slices"), "ai", "allowed_cpus")
    if own is None:
        return wishes.impossible(name, "cpu_partition", "os_tuning_slices gives the slice ai no allowed_cpus")
    if kind == "isolated" and not wishes.flag("os_tuning_cpu_partition_pinned"):
        return wishes.impossible(
            name,
            "cpu_partition",
            "without load balancing all threads pile up on one CPU unless each is pinned; "
            "take root, or say os_tuning_cpu_partition_pinned: true",
        )
    if wishes.fact("systemd", "cgroup") == 1:
        return wishes.impossible(name, "cpu_partition", _OLD_TREE)
    if wishes.container:
        return wishes.impossible(name, "cpu_partition", "a container's control groups are below its host's")
    parts = Parts(own_units=[{"name": PARTITION_UNIT, "unit_file": "enabled", "active": True}])
    risk = "CPUs are taken from everything outside ai.slice"
    path = f"/etc/systemd/system/{PARTITION_UNIT}"
    parts.drop_in(path, *_partition_unit(str(kind)), restart=[PARTITION_UNIT], risk=risk)
    if wishes.from_profile(name):
        parts.optional = [PARTITION_UNIT, path]
    return parts


def _partition_unit(kind: str) -> tuple[str, ...]:
    start = (
        "if test -e cpuset.cpus.exclusive; then cat cpuset.cpus >cpuset.cpus.exclusive; fi; "
        f"echo {kind} >cpuset.cpus.partition; state=$$(cat cpuset.cpus.partition); "
        f'if test "$$state" != {kind}; then echo member >cpuset.cpus.partition; '
        'echo "the kernel says: $$state" >&2; exit 1; fi'
    )
    stop = "echo member >cpuset.cpus.partition; if test -e cpuset.cpus.exclusive; then echo >cpuset.cpus.exclusive; fi"
    return (
        "[Unit]",
        "Description=CPUs of ai.slice for itself alone",
        "Requires=ai.slice",
        "After=ai.slice",
        "PartOf=ai.slice",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "WorkingDirectory=/sys/fs/cgroup/ai.slice",
        f"ExecStart=/bin/sh -ec '{start}'",
        f"ExecStop=/bin/sh -ec '{stop}'",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )
