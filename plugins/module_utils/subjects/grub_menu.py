# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The boot menu of GRUB as grub-mkconfig writes it: its entries, and the one that boots by default.

Sources: GRUB's manual (default, menuentry, submenu), grub-core/normal/menu.c (get_entry_number, and entry 0 where the
default is not in the menu), the scripts in /etc/grub.d of Debian and Ubuntu. Pure: text in, entries out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_HEAD = re.compile(r"^\s*(menuentry|submenu)\s.*\{\s*$")
_DEFAULT = re.compile(r'^\s*set default="(.*)"\s*$', re.MULTILINE)
_LINUX = re.compile(r"^\s*(linux(?:16|efi)?)\s+(\S+)(.*)$")
_INITRD = re.compile(r"^\s*(initrd(?:16|efi)?\s+.*)$")


@dataclass
class Entry:
    """A menu entry by its lines, or a submenu by its entries."""

    title: str
    id: str
    lines: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def boots_linux(self) -> bool:
        return any(_LINUX.match(line) for line in self.lines)


def default_entry(grub_cfg: str, saved: str) -> Entry | None:
    """The entry that boots when nothing is chosen; `saved`: saved_entry of grubenv. None: not to be told."""
    defaults = [text for text in _DEFAULT.findall(grub_cfg) if text != "${next_entry}"]
    default = (saved or "0") if defaults[-1:] == ["${saved_entry}"] else "".join(defaults[-1:])
    if not default or "$" in default:
        return None
    return _resolve(_entries(iter(grub_cfg.splitlines())), default)


def reads_next_entry(grub_cfg: str) -> bool:
    """Whether this menu boots what next_entry names, and forgets it before."""
    return "save_env next_entry" in grub_cfg and 'set default="${next_entry}"' in grub_cfg


def on_trial(entry: Entry, title: str, name: str, without: Sequence[str], more: Sequence[str]) -> str:
    """The same entry under another title and id, with other parameters.

    Where a file of it is gone (a kernel that was removed meanwhile) it reboots, to the default, and does not wait.
    """
    lines = [f"menuentry '{title}' $menuentry_id_option '{name}' {{"]
    for line in entry.lines:
        linux, initrd = _LINUX.match(line), _INITRD.match(line)
        if linux:
            words = [*_without(linux.group(3).split(), list(without)), *more]
            lines.append(_or_reboot(" ".join((linux.group(1), linux.group(2), *words))))
        else:
            lines.append(_or_reboot(initrd.group(1)) if initrd else line)
    return "\n".join([*lines, "}"]) + "\n"


def _or_reboot(command: str) -> str:
    return f"\tif {command}; then true; else reboot; fi"


def _without(words: list[str], run: list[str]) -> list[str]:
    """The words without the last place where this run of words stands."""
    size = len(run)
    for start in range(len(words) - size, -1, -1):
        if size and words[start : start + size] == run:
            return words[:start] + words[start + size :]
    return words


def _entries(lines: Iterator[str], inside: bool = False) -> list[Entry]:
    found = []
    for line in lines:
        head = _HEAD.match(line)
        if head:
            entry = _named(line)
            if head.group(1) == "submenu":
                entry.entries = _entries(lines, inside=True)
            else:
                entry.lines = list(_body(lines))
            found.append(entry)
        elif inside and line.strip() == "}":
            break
    return found


def _body(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.strip() == "}":
            return
        yield line


def _named(line: str) -> Entry:
    try:
        words = shlex.split(line.rpartition("{")[0])
    except ValueError:
        return Entry("", "")
    marks = [index for index, word in enumerate(words) if word in ("--id", "$menuentry_id_option")]
    return Entry(words[1] if len(words) > 1 else "", "".join(words[marks[0] + 1 : marks[0] + 2]) if marks else "")


def _resolve(entries: list[Entry], default: str) -> Entry | None:
    head, _more, rest = default.partition(">")
    if head.isdigit():
        chosen = entries[int(head) : int(head) + 1]
    else:
        chosen = [entry for entry in entries if head in (entry.title, entry.id)][:1]
    found = next(iter(chosen or entries), None)
    return _resolve(found.entries, rest or "0") if found and found.entries else found
