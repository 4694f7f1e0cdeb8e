# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users and groups of the target, by name or number: passwd(5), group(5)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from ..engine.machine import Machine
from ..errors import InputError

_FILES = {"user": "/etc/passwd", "group": "/etc/group"}
_LAST_ID = (1 << 32) - 2  # the highest number means "no account" to the kernel


@dataclass(frozen=True)
class Account:
    """A user or group as it was written in a parameter."""

    kind: str
    name: str

    def number(self, machine: Machine) -> int | None:
        """Its uid or gid; None where the target's file has no such name."""
        return int(self.name) if self.name.isdigit() else _names(machine, self.kind).get(self.name)

    def nearest(self, machine: Machine) -> str:
        near = difflib.get_close_matches(self.name, _names(machine, self.kind), 1)
        return near[0] if near else ""

    def missing(self, near: str = "") -> str:
        hint = f"; nearest name: {near}" if near else ""
        return f"{_FILES[self.kind]} has no {self.kind} {self.name}{hint}; create it first, or give its number"


def parse_account(parameter: str, value: Any, kind: str) -> Account:
    text = "" if isinstance(value, bool) else str(value).strip()
    if not re.fullmatch(r"[0-9]+|[A-Za-z_][A-Za-z0-9_.-]*\$?", text) or (text.isdigit() and int(text) > _LAST_ID):
        raise InputError(f"{parameter}: {value!r} is not the name or number of a {kind}")
    return Account(kind, text)


def _names(machine: Machine, kind: str) -> dict[str, int]:
    lines = (line.split(":") for line in (machine.host.text(_FILES[kind]) or "").splitlines())
    return {fields[0]: int(fields[2]) for fields in lines if len(fields) > 2 and fields[2].isdigit()}
