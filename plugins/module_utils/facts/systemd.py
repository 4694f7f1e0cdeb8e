# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd: its version, the services that run, the units that bring swap. Read from files, no command is run.

cgroup      2 where control groups are one tree, 1 where they are not, null where there are none
version     of the installed systemd, by the name of its private library
services    [unit] that are active
swap_units  [{unit, device}] of fstab, of other generators and of unit files; the device as /proc/swaps names it
"""

from __future__ import annotations

import re

from ..doors.host import Host
from . import owners
from .reading import Facts

_LIBRARIES = ("/usr/lib/systemd/libsystemd-shared-*.so", "/usr/lib/*/systemd/libsystemd-shared-*.so")


def gather(host: Host) -> Facts:
    """The `systemd` section."""
    names = [name for pattern in _LIBRARIES for name in host.glob(pattern)]
    versions = [int(found.group(1)) for found in (re.search(r"-(\d+)[^/]*\.so$", name) for name in names) if found]
    return {
        "version": max(versions, default=None),
        "cgroup": _cgroup(host),
        "services": sorted(name for name in owners.active_units(host) if name.endswith(".service")),
        "swap_units": _swap_units(host),
    }


def _cgroup(host: Host) -> int | None:
    if host.exists("/sys/fs/cgroup/cgroup.controllers"):
        return 2
    return 1 if host.names("/sys/fs/cgroup") else None


def _swap_units(host: Host) -> list[Facts]:
    found: dict[str, str | None] = {}
    for folder in (*owners.GENERATED, *owners.FOLDERS):
        for unit in host.names(folder):
            if unit.endswith(".swap"):
                what = re.search(r"^What=(.+)$", host.text(f"{folder}/{unit}") or "", re.MULTILINE)
                device = host.resolve(what.group(1).strip()) if what else None
                found[unit] = found.get(unit) or device
    return [{"unit": unit, "device": device} for unit, device in sorted(found.items())]
