# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole set of our own drop-ins of one role, the commands they need, each once, and the units among them.

A unit whose file is ours belongs into the same call as its file: the file is there before the unit starts, and the
unit is stopped before its file goes away.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.actions import ACTIONS, restart
from ..engine.change import Draft
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice
from . import unit_state
from .drop_in import HEADER, FileLook, look_file, want_file

NAME = "managed_files"

# Where drop-ins of tuning belong; accounts, scheduled commands and rights of users are not ours to write.
FOLDERS = (
    "/etc/apt/apt.conf.d",
    "/etc/apt/preferences.d",
    "/etc/default",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/security/limits.d",
    "/etc/sysctl.d",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/etc/udev/rules.d",
)

_GRUB = "/etc/default/grub"


@dataclass(frozen=True)
class Wanted:
    path: str
    content: str | None
    mode: int
    actions: tuple[str, ...]
    reboot: bool = False
    risk: str = ""


@dataclass(frozen=True)
class Desired:
    files: tuple[Wanted, ...]
    units: unit_state.Desired
    optional: frozenset[str]


@dataclass(frozen=True)
class Snapshot:
    files: dict[str, FileLook]
    units: unit_state.Snapshot


def parse(params: Mapping[str, Any]) -> Desired:
    files: dict[str, Wanted] = {}
    for item in params.get("files") or ():
        wanted = _parse_file(item)
        if wanted.path in files:
            raise InputError(f"files: {wanted.path} is named twice; one call describes each file once")
        files[wanted.path] = wanted
    ours = [{**unit, "ours": True} for unit in params.get("units") or ()]
    units = unit_state.parse({"units": ours, "optional": params.get("optional")})
    return Desired(tuple(files.values()), units, frozenset(params.get("optional") or ()))


def _parse_file(item: Mapping[str, Any]) -> Wanted:
    path = str(item["path"])
    below = path.startswith(tuple(f"{folder}/" for folder in FOLDERS))
    if posixpath.normpath(path) != path or not path.isprintable() or not below:
        raise InputError(f"files: {path!r} is not a plain path below one of {', '.join(FOLDERS)}")
    if path.startswith(_GRUB):
        raise InputError(
            f"files: {path} builds the kernel's command line; set parameters with the module kernel_command_line "
            "(os_tuning_kernel_parameters), which checks them and can try them for one boot"
        )
    mode = str(item.get("mode") or "0644")
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise InputError(f"files {path}: mode {mode!r} is not like '0644' (no set-uid, set-gid or sticky bit)")
    for action in item.get("actions") or ():
        choice(f"files {path}: actions", action, ACTIONS)
    content = item.get("content")
    if item.get("state", "present") == "absent":
        content = None
    elif content is None:
        raise InputError(f"files {path}: content is missing; give it, or state: absent")
    elif not content.endswith("\n"):
        content += "\n"
    restarts = [restart(unit_state.unit_name(f"files {path}: restart", unit)) for unit in item.get("restart") or ()]
    actions = (*(item.get("actions") or ()), *restarts)
    return Wanted(path, content, int(mode, 8), actions, bool(item.get("reboot")), str(item.get("risk") or ""))


def look(machine: Machine, desired: Desired) -> Snapshot:
    files = {wanted.path: look_file(machine, wanted.path) for wanted in desired.files}
    return Snapshot(files, unit_state.look(machine, desired.units))


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(optional=frozenset(f"file:{path}" for path in desired.optional))
    for wanted in desired.files:
        content = None if wanted.content is None else HEADER + wanted.content
        more: dict[str, Any] = {
            "actions": wanted.actions,
            "reboot_required": wanted.reboot,
            "risk": wanted.risk,
        }
        want_file(draft, snapshot.files[wanted.path], content, wanted.mode, **more)
    if desired.units.units:
        _before_units(draft)
        units = unit_state.decide(desired.units, snapshot.units)
        draft.changes += units.changes
        draft.holds += units.holds
        draft.skipped += units.skipped
        draft.refusals += units.refusals
        draft.covered |= units.covered
    return draft


def _before_units(draft: Draft) -> None:
    """systemd must know the files before the units start: the actions run right after the last file."""
    files = [index for index, change in enumerate(draft.changes) if change.actions]
    if files:
        every = {action: None for index in files for action in draft.changes[index].actions}
        draft.changes[files[-1]] = dataclasses.replace(draft.changes[files[-1]], actions=tuple(every), at_once=True)
