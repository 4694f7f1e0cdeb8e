# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks and the file systems on them.

Sources: Documentation/ABI/stable/sysfs-block, filesystems/proc.rst (mountinfo).

disks [{name, model, transport: nvme|sata|sas|usb|virtio|xen|mmc|scsi|virtual, rotational: bool, scheduler,
 schedulers [], read_ahead_kb, size_bytes, numa_node, mounts [path]}]
mounts [{path, source, fstype, options [], disks [name], size_bytes, available_bytes}]
"""

from __future__ import annotations

import posixpath

from ..doors.host import Host
from ..values import mount_text, offered, selected
from .reading import Facts, flag, node_number, number

_NOT_DISKS = ("loop", "ram", "zram", "sr", "fd", "nbd")
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "vfat", "exfat", "zfs"}
_REMOTE = {"nfs", "nfs4", "cifs", "ceph", "lustre", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "9p", "virtiofs"}
_TRANSPORTS = (
    ("/nvme/", "nvme"),
    ("/nvme-subsystem/", "nvme"),
    ("/virtio", "virtio"),
    ("/usb", "usb"),
    ("/ata", "sata"),
    ("/end_device-", "sas"),
    ("/mmc_host/", "mmc"),
    ("/vbd-", "xen"),
    ("/devices/virtual/", "virtual"),
    ("/host", "scsi"),
)


def gather(host: Host) -> Facts:
    """The `storage` section."""
    names = [name for name in host.names("/sys/block") if not name.startswith(_NOT_DISKS)]
    numbers = _device_numbers(host, names)
    mounts = [_mount(host, line, numbers) for line in _mount_lines(host)]
    return {"disks": [_disk(host, name, mounts) for name in names], "mounts": mounts}


def _disk(host: Host, name: str, mounts: list[Facts]) -> Facts:
    base = f"/sys/block/{name}"
    files = ("queue/scheduler", "queue/rotational", "queue/read_ahead_kb", "size", "device/model", "device/numa_node")
    scheduler, rotational, ahead, sectors, model, node = host.many(f"{base}/{file}" for file in files)
    return {
        "name": name,
        "model": model,
        "transport": next((kind for part, kind in _TRANSPORTS if part in host.resolve(base) + "/"), None),
        "rotational": flag(rotational),
        "scheduler": scheduler and selected(scheduler),
        "schedulers": list(offered(scheduler or "")),
        "read_ahead_kb": number(ahead),
        "size_bytes": number(sectors, 512),  # always 512-byte sectors, whatever the disk has
        "numa_node": node_number(node),
        "mounts": [mount["path"] for mount in mounts if name in mount["disks"]],
    }


def _device_numbers(host: Host, names: list[str]) -> dict[str, set[str]]:
    """ "major:minor" of every disk and partition -> the disks below it, through mappings and arrays."""
    below = {name: disks_below(host, name) for name in names}
    found: dict[str, set[str]] = {}
    for name in names:
        base = f"/sys/block/{name}"
        parts = [part for part in host.names(base) if part.startswith(name)]
        for text in host.many((f"{base}/dev", *(f"{base}/{part}/dev" for part in parts))):
            if text:
                found[text] = below[name]
    return found


def disks_below(host: Host, name: str, depth: int = 0) -> set[str]:
    """A disk and those it is made of. A slave may be a partition: its folder's parent is the disk."""
    found = {name}
    for slave in host.names(f"/sys/block/{name}/slaves") if depth < 8 else []:
        parent = posixpath.basename(posixpath.dirname(host.resolve(f"/sys/class/block/{slave}")))
        disk = slave if host.is_dir(f"/sys/block/{slave}") else parent
        found |= disks_below(host, disk, depth + 1)
    return found


def _mount_lines(host: Host) -> list[list[str]]:
    """Mounts of storage; a file system bound to several places counts at each, as users know it by path."""
    lines = [line.split() for line in (host.text("/proc/self/mountinfo") or "").splitlines()]
    kept: dict[str, list[str]] = {}
    for words in lines:
        if "-" in words[6:] and len(words) > words.index("-", 6) + 2:
            fstype = words[words.index("-", 6) + 1]
            if fstype in _LOCAL or fstype in _REMOTE:
                kept[words[4]] = words  # the last mount on a path is the visible one
    return list(kept.values())


def _mount(host: Host, words: list[str], numbers: dict[str, set[str]]) -> Facts:
    dash = words.index("-", 6)
    fstype, source = words[dash + 1], mount_text(words[dash + 2])
    path = mount_text(words[4])
    # A dead file server would hang the question for space.
    space = host.space(path) if fstype in _LOCAL else None
    disks = numbers.get(words[2], set())
    if not disks and source.startswith("/dev/"):
        # btrfs has device numbers of its own.
        number_text = host.text(f"/sys/class/block/{posixpath.basename(source)}/dev")
        disks = numbers.get(number_text or "", set())
    super_options = words[dash + 3].split(",") if len(words) > dash + 3 else []
    return {
        "path": path,
        "source": source,
        "fstype": fstype,
        "options": sorted({*words[5].split(","), *super_options}),
        "disks": sorted(disks),
        "size_bytes": space[0] if space else None,
        "available_bytes": space[1] if space else None,
    }
