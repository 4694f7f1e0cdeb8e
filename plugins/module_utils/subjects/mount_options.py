# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of a file system that is mounted already: now, and at boot by a drop-in of its systemd mount unit.

fstab is left alone. systemd turns its lines into units, and a drop-in of such a unit replaces the options.
Sources: mount(8), proc_pid_mountinfo(5), systemd.mount(5), systemd-fstab-generator(8).
"""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import knobs
from ..engine.change import Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice
from .drop_in import HEADER, FileLook, look_file, want_file
from .hugetlb_mounts import unit_name

# Of each group a mount has one; the kernel prints none for the last one. They belong to the mount, not to the file
# system, so that a remount touches no data.
GROUPS = (
    ("noatime", "relatime", "strictatime"),
    ("nodiratime", "diratime"),
    ("nodev", "dev"),
    ("nosuid", "suid"),
    ("noexec", "exec"),
)
OPTIONS = tuple(option for group in GROUPS for option in group)
# What the system itself needs: a wrong option there may cost the next boot.
_SYSTEM = ("/", "/usr", "/boot", "/boot/efi", "/var", "/proc", "/sys", "/dev", "/run")
_FOLDERS = ("/etc/systemd/system", "/run/systemd/generator", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


@dataclass(frozen=True)
class MountWish:
    path: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class MountLook:
    """live: the options of the mount; None where nothing is mounted. unit_options: those that its unit mounts it with,
    None where no unit does."""

    live: str | None
    unit_options: str | None
    drop_in: FileLook


def parse_mounts(items: Iterable[Mapping[str, Any]]) -> tuple[MountWish, ...]:
    found: dict[str, MountWish] = {}
    for item in items:
        path = str(item["path"])
        if not path.startswith("/") or posixpath.normpath(path) != path:
            raise InputError(f"mounts: {path!r} is not a plain absolute path; write one like '/mnt/ai-data'")
        if path in _SYSTEM:
            raise InputError(f"mounts: {path} belongs to the system and is left alone; name the volume of the models")
        if path in found:
            raise InputError(f"mounts: {path} is named twice; one call describes each mount once")
        options = tuple(choice(f"mounts {path}: options", option, OPTIONS) for option in item.get("options") or ())
        if not options:
            raise InputError(f"mounts {path}: options is empty; give one or more of {', '.join(OPTIONS)}")
        for group in GROUPS:
            both = [option for option in options if option in group]
            if len(both) > 1:
                raise InputError(f"mounts {path}: options {' and '.join(both)} exclude each other; remove one")
        found[path] = MountWish(path, options)
    return tuple(found.values())


def look_mount(machine: Machine, wish: MountWish) -> MountLook:
    unit = unit_name(wish.path)
    texts = (machine.host.text(f"{folder}/{unit}") for folder in _FOLDERS)
    text = next((text for text in texts if text), None)
    options = re.findall(r"^Options=(.*)$", text or "", re.MULTILINE)
    return MountLook(
        knobs.read(machine, Place("", "mount_options", wish.path)),
        None if text is None else (options or [""])[-1],
        look_file(machine, f"/etc/systemd/system/{unit}.d/50-ai-workstation.conf"),
    )


def want_mount_options(draft: Draft, wish: MountWish, look: MountLook, persist: bool) -> None:
    """State the options of one mount, and of the unit that mounts it at boot."""
    key = f"mount_options:{wish.path}"
    if look.live is None:
        draft.cannot(key, "nothing is mounted there")
        return
    refused = {errno.EPERM: "a container may not change the options of a mount"}
    draft.want(key, "mount_options", wish.path, look.live, live_options(look.live, wish.options), tolerate=refused)
    if not persist:
        return
    if look.unit_options is None:
        draft.warnings.append(
            f"{wish.path}: no line of fstab and no unit mounts it, so nothing sets it at the next boot"
        )
        return
    if key in draft.optional:
        draft.optional |= {f"file:{look.drop_in.path}"}
    options = ",".join(_merged(look.unit_options, wish.options))
    content = f"{HEADER}[Mount]\nOptions={options}\n"
    want_file(draft, look.drop_in, content, actions=("daemon-reload",), brings={"": (key,)})


def live_options(live: str, wanted: Iterable[str]) -> str:
    """The mount's options with the wanted ones in place of those that they exclude, as the kernel prints them."""
    return ",".join(sorted(option for option in _merged(live, wanted) if option not in knobs.MOUNT_DEFAULTS))


def _merged(options: str, wanted: Iterable[str]) -> list[str]:
    kept = [option for option in options.split(",") if option]
    for option in wanted:
        group = next(group for group in GROUPS if option in group)
        kept = [*(one for one in kept if one not in group), option]
    return kept
