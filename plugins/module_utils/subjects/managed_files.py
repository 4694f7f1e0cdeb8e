# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole set of our own drop-ins of one role, and the commands they need, each once."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.actions import ACTIONS
from ..engine.change import Draft
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice
from .drop_in import HEADER, FileLook, look_file, want_file

NAME = "managed_files"

# Tuning is configuration: nothing of ours belongs anywhere else.
ROOTS = ("/etc/", "/usr/local/lib/")


@dataclass(frozen=True)
class Wanted:
    path: str
    content: str | None
    mode: int
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Desired:
    files: tuple[Wanted, ...]
    optional: frozenset[str]


def parse(params: Mapping[str, Any]) -> Desired:
    files: dict[str, Wanted] = {}
    for item in params.get("files") or ():
        wanted = _parse_file(item)
        if wanted.path in files:
            raise InputError(f"files: {wanted.path} is named twice; one call describes each file once")
        files[wanted.path] = wanted
    return Desired(tuple(files.values()), frozenset(params.get("optional") or ()))


def _parse_file(item: Mapping[str, Any]) -> Wanted:
    path = str(item["path"])
    if posixpath.normpath(path) != path or not path.startswith(ROOTS):
        raise InputError(f"files: {path!r} is not a plain path below {' or '.join(ROOTS)}")
    mode = str(item.get("mode") or "0644")
    if not re.match(r"^0?[0-7]{3}$", mode):
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
    return Wanted(path, content, int(mode, 8), tuple(item.get("actions") or ()))


def look(machine: Machine, desired: Desired) -> dict[str, FileLook]:
    return {wanted.path: look_file(machine, wanted.path) for wanted in desired.files}


def decide(desired: Desired, snapshot: Mapping[str, FileLook]) -> Draft:
    draft = Draft(optional=frozenset(f"file:{path}" for path in desired.optional))
    for wanted in desired.files:
        content = None if wanted.content is None else HEADER + wanted.content
        want_file(draft, snapshot[wanted.path], content, wanted.mode, actions=wanted.actions)
    return draft
