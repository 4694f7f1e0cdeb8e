# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Typed values: one parser and one canonical print for each unit the kernel and the driver use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .errors import InputError

_SIZE = re.compile(r"^(\d+)\s*(?:([kKmMgGtT])(?:i?[bB])?|[bB])?$")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_SHIFT = {"k": 10, "m": 20, "g": 30, "t": 40}
_CPU_LIMIT = 8192  # CONFIG_NR_CPUS of the largest distribution kernels


def cpus(parameter: str, value: Any) -> tuple[int, ...]:
    """Parse a kernel CPU list ("0-3,8", Documentation/core-api/cpu_hotplug) into sorted numbers.

    A list of numbers and a single number are accepted as well; the empty text is the empty set.
    """
    if isinstance(value, bool):
        raise InputError(f"{parameter}: {value!r} is not a CPU list; write one like '0-3,8'")
    if isinstance(value, int):
        value = str(value)
    if isinstance(value, (list, tuple)):
        value = ",".join(str(item) for item in value)
    if not isinstance(value, str):
        raise InputError(f"{parameter}: {value!r} is not a CPU list; write one like '0-3,8'")
    text = value.strip()
    found: set[int] = set()
    for part in text.split(",") if text else []:
        match = re.match(r"^\s*(\d+)(?:-(\d+))?\s*$", part)
        if not match:
            raise InputError(
                f"{parameter}: {value!r} is not a CPU list ({part!r} is no number or range); write one like '0-3,8'"
            )
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        if high < low or high >= _CPU_LIMIT:
            raise InputError(
                f"{parameter}: the range {part.strip()!r} in {value!r} is not ascending within 0-{_CPU_LIMIT - 1}"
            )
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def cpu_list(numbers: Iterable[int]) -> str:
    """Print CPU numbers as the kernel does: "0-3,8"."""
    parts: list[str] = []
    ordered = sorted(set(numbers))
    index = 0
    while index < len(ordered):
        end = index
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        parts.append(str(ordered[index]) if end == index else f"{ordered[index]}-{ordered[end]}")
        index = end + 1
    return ",".join(parts)


def cpu_mask(text: str) -> tuple[int, ...]:
    """Parse a kernel CPU mask ("ff,00000001": 32-bit groups, highest first) into sorted numbers."""
    number = int(text.strip().replace(",", "") or "0", 16)
    return tuple(bit for bit in range(number.bit_length()) if number >> bit & 1)


def print_cpu_mask(numbers: Iterable[int]) -> str:
    """Print CPU numbers as a kernel CPU mask in 32-bit groups."""
    mask = sum(1 << number for number in set(numbers))
    groups: list[str] = []
    while mask or not groups:
        groups.append(f"{mask & 0xFFFFFFFF:x}" if mask <= 0xFFFFFFFF else f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
    return ",".join(reversed(groups))


def size(parameter: str, value: Any) -> int:
    """Parse a byte size ("2M", "1GiB", "2048kB", 4096) into bytes; suffixes are powers of 1024."""
    match = None if isinstance(value, bool) else _SIZE.match(str(value).strip())
    if not match:
        raise InputError(f"{parameter}: {value!r} is not a size; write bytes or a number with K, M, G or T, like '2M'")
    unit = match.group(2)
    return int(match.group(1)) << (_SHIFT[unit.lower()] if unit else 0)


def print_size(number: int) -> str:
    """Print bytes with the largest suffix that loses nothing: 2097152 -> "2M"."""
    for unit, shift in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if number and number % (1 << shift) == 0:
            return f"{number >> shift}{unit}"
    return str(number)


def integer(parameter: str, value: Any, low: int, high: int, unit: str = "") -> int:
    """Parse a whole number within [low, high]; `unit` is only for the message."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if not re.match(r"^-?\d+$", text) or not low <= int(text) <= high:
        suffix = f" {unit}" if unit else ""
        raise InputError(f"{parameter}: {value!r} is not a whole number from {low} to {high}{suffix}")
    return int(text)


def choice(parameter: str, value: Any, choices: Iterable[str]) -> str:
    """Check that a text is one of the choices."""
    allowed = list(choices)
    if value not in allowed:
        raise InputError(f"{parameter}: {value!r} is not one of {', '.join(allowed) or '(nothing is offered here)'}")
    return str(value)


def words(value: Any) -> str:
    """Canonical text of a kernel value: fields separated by one space (sysctl prints tabs)."""
    return " ".join(str(value).split())


def mount_text(text: str) -> str:
    """A field of /proc/self/mountinfo without its octal escapes: a space is written with number 040."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def selected(text: str) -> str:
    """The chosen word of a kernel choice file: "always [madvise] never" -> "madvise"."""
    match = re.search(r"\[([^\]]*)\]", text)
    return match.group(1) if match else words(text)


def offered(text: str) -> tuple[str, ...]:
    """All the words of a kernel choice file, in its order."""
    return tuple(text.replace("[", " ").replace("]", " ").split())


def version(text: str | None) -> tuple[int, ...]:
    """The numbers of a version, to compare: 570.86.16-0ubuntu1 is (570, 86, 16). Nothing known is less than all."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()
