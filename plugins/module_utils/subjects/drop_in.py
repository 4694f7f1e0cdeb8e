# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of our own beside those of others: the part that every subject with a drop-in shares."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..doors.host import FileState
from ..engine.change import Draft
from ..engine.machine import Machine
from ..values import words

MARK = "# Written by ai_infra.workstation"
HEADER = f"{MARK}; changes here are lost. Undo: playbooks/rollback.yml\n"

# Where sysctl.d files live, strongest first (sysctl.d(5)).
_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


@dataclass(frozen=True)
class FileLook:
    """What is at a path now, and which folders on the way to it are missing (outermost first).

    ours: the ledger knows the file, or it carries our mark (the ledger may have been lost).
    """

    path: str
    state: FileState | None
    missing_folders: tuple[str, ...]
    read_only: bool
    ours: bool


def look_file(machine: Machine, path: str) -> FileLook:
    """Raises OSError where something other than a regular file is in the way."""
    missing: list[str] = []
    folder = posixpath.dirname(path)
    while not machine.host.is_dir(folder):
        missing.insert(0, folder)
        folder = posixpath.dirname(folder)
    state = machine.host.file(path)
    ours = f"file:{path}" in machine.ledger.entries or (state is not None and _marked(state.content))
    return FileLook(path, state, tuple(missing), not machine.host.writable(folder), ours)


def _marked(content: str) -> bool:
    """Whether the first line is ours; in a script it is the second."""
    return (content.partition("\n")[2] if content.startswith("#!") else content).startswith(MARK)


def want_file(
    draft: Draft, look: FileLook, content: str | None, mode: int = 0o644, uid: int = 0, gid: int = 0, **more: Any
) -> None:
    """State the wanted file (None: absent), with the folders it needs."""
    key = f"file:{look.path}"
    if look.read_only:
        draft.cannot(key, "the file system is read-only")
        return
    if look.state is not None and not look.ours:
        draft.cannot(key, "this file exists and is not ours; move it away or choose another name")
        return
    before = look.state.to_json() if look.state else None
    after = None if content is None else FileState(content, mode, uid, gid).to_json()
    if after is not None:
        want_folders(draft, look)
    draft.want(key, "file", look.path, before, after, scope=more.pop("scope", "persistent"), **more)


def want_lines(draft: Draft, look: FileLook, lines: Mapping[str, tuple[str, ...]], **more: Any) -> None:
    """State a file of lines, each with the keys that it sets at boot."""
    want_file(draft, look, HEADER + "".join(f"{line}\n" for line in lines), brings=lines, **more)


def want_folders(draft: Draft, look: FileLook) -> None:
    """The missing folders on the way, and no word about those that exist, so that releases keep them."""
    for folder in look.missing_folders:
        if f"dir:{folder}" not in draft.covered:
            draft.want(f"dir:{folder}", "dir", folder, None, 0o755, scope="persistent")
    # A folder that an earlier call made stays as long as a file in it is wanted.
    folder = posixpath.dirname(look.path)
    while folder != "/":
        draft.covered.add(f"dir:{folder}")
        folder = posixpath.dirname(folder)


_SWAPPED = str.maketrans("./", "/.")


def sysctl_name(text: str) -> str:
    """The one spelling of a sysctl: a name whose first separator is a slash has the two the other way round
    (sysctl.d(5)): net/ipv4/conf/eth0.5/forwarding is net.ipv4.conf.eth0/5.forwarding."""
    first = re.search("[./]", text)
    return text.translate(_SWAPPED) if first and first.group() == "/" else text


def sysctl_path(name: str) -> str:
    """The file of a sysctl."""
    return "/proc/sys/" + sysctl_name(name).translate(_SWAPPED)


def sysctl_overrides(machine: Machine, ours: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Keys of ours that a file read later at boot sets again: key -> "file:line sets it to value"."""
    files: dict[str, str] = {}
    for folder in reversed(_SYSCTL_FOLDERS):
        files.update({name: f"{folder}/{name}" for name in machine.host.names(folder) if name.endswith(".conf")})
    found: dict[str, str] = {}
    for name in sorted(files):
        if name <= posixpath.basename(ours):
            continue
        for number, line in enumerate(machine.host.lines(files[name]), 1):
            key, equals, value = line.partition("=")
            key = sysctl_name(key.strip().lstrip("-"))
            if equals and not key.startswith(("#", ";")) and key in wanted and words(value) != wanted[key]:
                found[key] = f"{files[name]}:{number} sets it to {words(value)}"
    return found
