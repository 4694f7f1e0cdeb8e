# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's command line as text and as parameters, and the GRUB files that build it.

Sources: lib/cmdline.c of the kernel (next_arg), Documentation/admin-guide/kernel-parameters.rst,
grub-mkconfig of Debian and Ubuntu: /etc/default/grub, then /etc/default/grub.d/*.cfg by name; an
ordinary entry gets GRUB_CMDLINE_LINUX and then GRUB_CMDLINE_LINUX_DEFAULT, a recovery entry only the first.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Optional

Parameter = tuple[str, Optional[str]]  # name and value; None: a flag

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)(\+?=)(.*)$")
_ENTRY = re.compile(r"^\s*linux(?:16|efi)?\s+\S+\s*(.*)$", re.MULTILINE)


def parse_command_line(text: str) -> list[Parameter]:
    """Split as the kernel does: spaces inside double quotes do not split, and what follows `--` is for init."""
    found: list[Parameter] = []
    for word in re.findall(r'(?:"[^"]*"?|[^\s"])+', text):
        if word == "--":
            break
        name, equals, value = word.replace('"', "").partition("=")
        if name:
            found.append((name, value if equals else None))
    return found


def print_command_line(parameters: Iterable[Parameter]) -> str:
    """The text that parse_command_line() reads as these parameters; a value with white space is quoted."""
    return " ".join(_word(name, value) for name, value in parameters)


def _word(name: str, value: str | None) -> str:
    if value is None:
        return name
    return f'{name}="{value}"' if re.search(r"\s", value) else f"{name}={value}"


def same_name(name: str) -> str:
    """The kernel takes dashes and underscores in names for the same (kernel/params.c, parameq)."""
    return name.replace("-", "_")


def by_name(parameters: Iterable[Parameter]) -> dict[str, list[str | None]]:
    """The values of each name, in their order."""
    found: dict[str, list[str | None]] = {}
    for name, value in parameters:
        found.setdefault(same_name(name), []).append(value)
    return found


def not_shown(wanted: Iterable[Parameter], shown: Iterable[Parameter]) -> list[str]:
    """Names whose wanted values are not the last ones shown: of most parameters the last one counts."""
    have = by_name(shown)
    return [name for name, values in by_name(wanted).items() if have.get(name, [])[-len(values) :] != values]


@dataclass(frozen=True)
class Assigned:
    """A parameter in a GRUB file, with the place where it is set."""

    name: str
    value: str | None
    where: str


@dataclass(frozen=True)
class GrubFiles:
    """What the files of others put on the command line before ours is read, and after it."""

    before: tuple[Assigned, ...]
    after: tuple[Assigned, ...]
    dropped_at: str  # "file:line" of a later assignment that forgets what ours added; "": none

    @property
    def all(self) -> tuple[Assigned, ...]:
        return self.before + self.after


def read_grub_files(texts: Mapping[str, str], ours: str) -> GrubFiles:
    """`texts`: path -> content in the order of reading, ours among them or not."""
    lines: dict[bool, dict[str, list[Assigned]]] = {False: {}, True: {}}
    dropped_at, past = "", False
    for path, text in texts.items():
        past = past or path >= ours
        if path == ours:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            match = _ASSIGNMENT.match(line)
            if not match:
                continue
            variable, where = match.group(1), f"{path}:{number}"
            value = _shell_value(match.group(3))
            keeps = match.group(2) == "+=" or re.search(rf"\$\{{?{variable}\b", value)
            if not keeps:
                lines[False].pop(variable, None)
                lines[True].pop(variable, None)
                if past and variable == "GRUB_CMDLINE_LINUX_DEFAULT":
                    dropped_at = where
            kept = lines[past].setdefault(variable, [])
            kept += [Assigned(name, item, where) for name, item in parse_command_line(value) if name[0] != "$"]
    before, after = (tuple(item for items in lines[side].values() for item in items) for side in (False, True))
    return GrubFiles(before, after, dropped_at)


def _shell_value(text: str) -> str:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return text.strip()
    return words[0] if words else ""


def first_entry(grub_cfg: str) -> list[Parameter]:
    """The parameters of the first boot entry of grub.cfg, which is the ordinary one."""
    match = _ENTRY.search(grub_cfg)
    return parse_command_line(match.group(1)) if match else []
