# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Swap on disk, swap in compressed memory (zram), and the compressed cache in front of swap (zswap).

Sources: systemd.swap(5), systemd-fstab-generator(8), Documentation/admin-guide/blockdev/zram.rst, mm/zswap.rst.

Swap off masks the units that systemd makes of fstab's lines, of swap partitions and of files; fstab itself stays as it
is, and unmasking brings all of it back.

zram is a unit of our own around zramctl and mkswap of util-linux. zram-generator and zram-tools are not on a fresh
machine of any of our four targets, and a udev rule with a swap unit needs three files and says nothing when the kernel
refuses the algorithm; a unit fails with the reason, and stopping it gives the memory back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, integer, print_size, size
from .parts import Parts, Wishes, fact, owner

ZRAM_UNIT = "ai-workstation-zram.service"
_ALGORITHMS = ("zstd", "lz4", "lzo-rle")
_SWAPLESS_BYTES = 32 << 30
_NO_SWAP_HERE = "a container has no swap of its own; its host has"


def foreign_swap(facts: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Swap that is in use and not ours; None where the facts do not tell."""
    there = fact(facts, "memory", "swap")
    ours = owner(facts, "our_zram").get("active")
    if there is None:
        return None
    return [one for one in there if not (ours and str(one.get("device")).startswith("/dev/zram"))]


def swap_can_go(facts: Mapping[str, Any]) -> bool:
    """Whether a machine is fine without swap: enough memory, no hibernation, little swapped out, earlyoom there."""
    total, available = fact(facts, "memory", "total_bytes"), fact(facts, "memory", "available_bytes")
    used = sum(one.get("used_bytes") or 0 for one in foreign_swap(facts) or ())
    resumes = any(word.startswith("resume=") for word in str(fact(facts, "kernel", "cmdline") or "").split())
    enough = (total or 0) >= _SWAPLESS_BYTES and used <= (available or 0)
    return enough and not resumes and bool(owner(facts, "earlyoom").get("installed"))


def zram_obstacle(facts: Mapping[str, Any]) -> str:
    """Why this machine cannot have our zram swap; empty when it can."""
    loadable, release = fact(facts, "kernel", "loadable"), fact(facts, "kernel", "release")
    units = [one["unit"] for one in fact(facts, "systemd", "swap_units") or () if one["unit"].startswith("dev-zram")]
    other = owner(facts, "zramswap")
    if fact(facts, "kernel", "container"):
        return _NO_SWAP_HERE
    if loadable is not None and "zram" not in loadable:
        return f"the kernel {release} has no module zram; on Ubuntu install linux-modules-extra-{release}"
    if units or other.get("active") or other.get("enabled"):
        unit = units[0] if units else other["unit"]
        return f"{unit} of another package makes zram swap already; keep that one, or remove its package"
    return ""


def swap(wishes: Wishes) -> Parts:
    """os_tuning_swap: keep, or off."""
    name = "os_tuning_swap"
    if wishes.value(name) != "off":
        return Parts()
    if wishes.container:
        return wishes.impossible(name, "swap", _NO_SWAP_HERE)
    units = wishes.fact("systemd", "swap_units") or []
    parts = Parts(units=[{"name": one["unit"], "unit_file": "masked", "active": False} for one in units])
    if wishes.from_profile(name):
        parts.optional = [one["unit"] for one in units]
    known = {one["device"] for one in units}
    parts.skipped = [
        {
            "key": f"swap:{one['device']}",
            "reason": "no unit brings it, so it is not there after a reboot; swapoff it by hand",
        }
        for one in foreign_swap(wishes.facts) or ()
        if one["device"] not in known
    ]
    return parts


def zram(wishes: Wishes) -> Parts:
    """os_tuning_zram: {size, algorithm, priority}."""
    name = "os_tuning_zram"
    wanted = wishes.value(name)
    if not wanted:
        return Parts()
    reason = zram_obstacle(wishes.facts)
    if reason:
        return wishes.impossible(name, "zram", reason)
    unknown = sorted(set(wanted) - {"size", "algorithm", "priority"})
    if unknown:
        raise InputError(f"{name}: {unknown[0]!r} is not one of size, algorithm, priority")
    algorithm = choice(f"{name} algorithm", wanted.get("algorithm", "zstd"), _ALGORITHMS)
    priority = integer(f"{name} priority", wanted.get("priority", 100), 0, 32767)
    bytes_wanted = _zram_bytes(wishes, size(f"{name} size", wanted.get("size", "8G")))
    parts = Parts(own_units=[{"name": ZRAM_UNIT, "unit_file": "enabled", "active": True}])
    parts.drop_in(
        f"/etc/systemd/system/{ZRAM_UNIT}", *_zram_unit(bytes_wanted, algorithm, priority), restart=[ZRAM_UNIT]
    )
    if wishes.from_profile(name):
        parts.optional = [ZRAM_UNIT, f"/etc/systemd/system/{ZRAM_UNIT}"]
    return parts


def _zram_bytes(wishes: Wishes, asked: int) -> int:
    """A profile's size is for a large machine; a small one gets a quarter of its memory, in whole MiB."""
    total = wishes.fact("memory", "total_bytes")
    mine = "size" in (wishes.variables.get("os_tuning_zram") or {})
    if asked < 1 << 20:
        raise InputError(f"os_tuning_zram size: {print_size(asked)} is less than 1M")
    return asked if mine or not total else min(asked, total // 4 >> 20 << 20)


# udev opens a disk that has come or changed, to see what is on it, and one that is open cannot be reset.
_SETTLED = "udevadm settle --timeout=30 || true; "


def _zram_unit(size_bytes: int, algorithm: str, priority: int) -> tuple[str, ...]:
    start = (
        f'test -d /sys/module/zram || touch "$$RUNTIME_DIRECTORY/loaded"; modprobe zram; {_SETTLED}'
        f"device=$$(zramctl --find --size {size_bytes} --algorithm {algorithm}); "
        'echo "$$device" >"$$RUNTIME_DIRECTORY/device"; '
        f'mkswap "$$device" >/dev/null; swapon --priority {priority} "$$device"'
    )
    # After a stop, and after a start that failed half way.
    stop = (
        'if test -e "$$RUNTIME_DIRECTORY/device"; then device=$$(cat "$$RUNTIME_DIRECTORY/device"); '
        f'swapoff "$$device" || true; {_SETTLED}zramctl --reset "$$device"; fi; '
        'if test -e "$$RUNTIME_DIRECTORY/loaded"; then modprobe -r zram || true; fi'
    )
    return (
        "[Unit]",
        f"Description=Swap of {print_size(size_bytes)} in compressed memory",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "RuntimeDirectory=ai-workstation-zram",
        f"ExecStart=/bin/sh -ec '{start}'",
        f"ExecStopPost=/bin/sh -ec '{stop}'",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )


def zswap(wishes: Wishes) -> Parts:
    """os_tuning_zswap: true or false, by the module's parameter; tmpfiles.d sets it again at every boot."""
    wanted = wishes.flag("os_tuning_zswap")
    if wanted is None:
        return Parts()
    path = "/sys/module/zswap/parameters/enabled"
    return Parts(
        sysfs={path: "Y" if wanted else "N"}, optional=[path] if wishes.from_profile("os_tuning_zswap") else []
    )
