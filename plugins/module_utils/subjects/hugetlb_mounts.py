# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""hugetlbfs mounts: mounted now, and at every boot by a systemd mount unit of our own.

Sources: Documentation/admin-guide/mm/hugetlbpage.rst (mount options), systemd.mount(5), systemd-escape(1).
The live state is what /proc/self/mountinfo says, not what systemd believes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import knobs
from ..engine.change import Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import print_size, size
from .accounts import Account, parse_account
from .drop_in import HEADER, FileLook, look_file, want_file, want_folders

_PATH = re.compile(r"/[A-Za-z0-9._:@+=/-]+")
_NOT_BELOW = ("/proc/", "/sys/", "/run/systemd/")


@dataclass(frozen=True)
class Mount:
    """One entry of the parameter `mounts`. Sizes in bytes; page_size 0: the kernel's default size."""

    path: str
    page_size: int
    limit: int
    mode: int
    owner: Account
    group: Account

    @property
    def unit(self) -> str:
        return unit_name(self.path)


@dataclass(frozen=True)
class MountLook:
    """live: type and options of what is mounted there now. ours: we mounted it, or the unit file is ours."""

    live: str | None
    missing: tuple[str, ...]
    folder: bool
    ours: bool
    unit_file: FileLook
    enablement: str
    uid: int | None
    gid: int | None


def parse_mounts(items: list[Mapping[str, Any]]) -> tuple[Mount, ...]:
    found: dict[str, Mount] = {}
    for item in items:
        path = str(item["path"])
        if not _PATH.fullmatch(path) or posixpath.normpath(path) != path or f"{path}/".startswith(_NOT_BELOW):
            raise InputError(
                f"mounts: {path!r} is not a plain absolute path (letters, digits, . _ : @ + = - and /) outside "
                "/proc and /sys; write one like '/dev/hugepages-ai'"
            )
        if path in found:
            raise InputError(f"mounts: {path} is named twice; one call describes each mount once")
        mode = str(item.get("mode") or "0755")
        if not re.fullmatch(r"[01]?[0-7]{3}", mode):
            raise InputError(
                f"mounts {path}: mode {mode!r} is not like '0770'; quote it, so that YAML keeps the octal digits"
            )
        page_size = size(f"mounts {path}: page_size", item["page_size"]) if item.get("page_size") else 0
        limit = size(f"mounts {path}: size", item["size"]) if item.get("size") else 0
        owner = parse_account(f"mounts {path}: owner", item.get("owner") or "0", "user")
        group = parse_account(f"mounts {path}: group", item.get("group") or "0", "group")
        found[path] = Mount(path, page_size, limit, int(mode, 8), owner, group)
    return tuple(found.values())


def unit_name(path: str) -> str:
    """The name of the mount unit of a path, as `systemd-escape --path --suffix=mount` prints it."""
    trimmed = path.strip("/")
    name = "".join(
        "-" if char == "/" else char if re.match(r"[A-Za-z0-9:_.]", char) else _escaped(char) for char in trimmed
    )
    return (_escaped(".") + name[1:] if name.startswith(".") else name) + ".mount"


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8"))


def look_mount(machine: Machine, mount: Mount, systemd: bool) -> MountLook:
    missing: list[str] = []
    folder = mount.path
    while not machine.host.is_dir(folder):
        missing.insert(0, folder)
        folder = posixpath.dirname(folder)
    unit_file = look_file(machine, f"/etc/systemd/system/{mount.unit}")
    return MountLook(
        knobs.read(machine, Place("", "mount", mount.path)),
        tuple(missing),
        not machine.host.exists(mount.path) or machine.host.is_dir(mount.path),
        f"mount:{mount.path}" in machine.ledger.entries or (unit_file.state is not None and unit_file.ours),
        unit_file,
        knobs.read(machine, Place("", "unit_file", mount.unit)) if systemd else "",
        mount.owner.number(machine),
        mount.group.number(machine),
    )


def want_mount(
    draft: Draft, mount: Mount, look: MountLook, default_size: int, offered: list[int], persist: bool
) -> None:
    """State one mount with its folder and its unit."""
    key = f"mount:{mount.path}"
    page_size = mount.page_size or default_size
    after = _canonical(mount, look, page_size)
    reason = _obstacle(mount, look, page_size, offered, after, persist)
    if reason:
        draft.cannot(key, reason)
        return
    if key in draft.optional:
        draft.optional |= {f"file:{look.unit_file.path}"}
    want_folders(draft, FileLook(mount.path, None, look.missing[:-1], False, True))
    draft.covered.add(f"dir:{mount.path}")
    if look.missing:
        draft.want(f"dir:{mount.path}", "mount_point", mount.path, None, "present")
    draft.want(key, "mount", mount.path, look.live, after)
    if persist:
        brings = {"": (key,)}
        unit = _unit(mount, after, page_size)
        want_file(draft, look.unit_file, unit, actions=("daemon-reload",), brings=brings)
        more: dict[str, Any] = {"actions": ("daemon-reload",), "scope": "persistent", "brings": brings}
        draft.want(f"unit_file:{mount.unit}", "unit_file", mount.unit, look.enablement, "enabled", **more)


def _obstacle(mount: Mount, look: MountLook, page_size: int, offered: list[int], after: str, persist: bool) -> str:
    """Why this machine cannot have the mount; empty when it can."""
    there = ", ".join(map(print_size, offered)) or "none"
    accounts = ((mount.owner, look.uid), (mount.group, look.gid))
    unknown = next((account.missing() for account, number in accounts if number is None), "")
    held = (look.live or "nothing").split()[0]
    obstacles = (
        (
            page_size not in offered,
            f"this kernel has no huge pages of {print_size(page_size)}; it offers {there}",
        ),
        (
            mount.limit % page_size != 0,
            f"size {print_size(mount.limit)} is not a whole number of {print_size(page_size)} pages",
        ),
        (unknown != "", unknown),
        (not look.folder, "something that is no directory is in the way"),
        (
            look.live not in (None, after) and not look.ours,
            f"{held} is mounted there, and not by us; choose another path, like '/dev/hugepages-ai'",
        ),
        (
            persist and not look.enablement,
            "systemd does not run here, so nothing would mount it at boot; persist: false mounts it for now",
        ),
        (
            persist and look.enablement not in ("enabled", "disabled"),
            f"the unit {mount.unit} is {look.enablement}; choose another path, or free that unit",
        ),
    )
    return next((reason for met, reason in obstacles if met), "")


def _canonical(mount: Mount, look: MountLook, page_size: int) -> str:
    """Type and options as the kernel prints them: defaults left out, sizes in its units (hugetlbfs_show_options)."""
    pages = f"{page_size >> 20}M" if page_size >= 1 << 20 else f"{page_size >> 10}K"
    options = [f"pagesize={pages}"]
    options += [f"mode={mount.mode:o}"] if mount.mode != 0o755 else []
    options += [f"uid={look.uid}"] if look.uid else []
    options += [f"gid={look.gid}"] if look.gid else []
    options += [f"size={mount.limit}"] if mount.limit else []
    return f"hugetlbfs {','.join(sorted(options))}"


def _unit(mount: Mount, after: str, page_size: int) -> str:
    return (
        f"{HEADER}[Unit]\nDescription=Huge pages of {print_size(page_size)} at {mount.path}\n\n"
        f"[Mount]\nWhat=hugetlbfs\nWhere={mount.path}\nType=hugetlbfs\nOptions={after.split()[1]}\n\n"
        "[Install]\nWantedBy=local-fs.target\n"
    )
