# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel texts to typed values. What is missing or odd becomes None or empty: facts never fail."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..values import cpus

Facts = dict[str, Any]


def number(text: str | None, factor: int = 1) -> int | None:
    """A decimal number times `factor`; None where the text is none."""
    try:
        return None if text is None else int(text) * factor
    except ValueError:
        return None


def mhz(text: str | None) -> int | None:
    """MHz of a cpufreq file, which is in kHz (Documentation/admin-guide/pm/cpufreq.rst)."""
    khz = number(text)
    return None if khz is None else round(khz / 1000)


def kib(text: str | None) -> int | None:
    """Bytes of "32768K" or "32768 kB"; sysfs cache sizes and /proc/meminfo count in KiB."""
    return number((text or "").rstrip("kKB ") or None, 1024)


def flag(text: str | None) -> bool | None:
    """A kernel switch: 1/0, Y/N. None where there is no such file."""
    return {"1": True, "Y": True, "y": True, "0": False, "N": False, "n": False}.get(text or "")


def cpu_numbers(text: str | None) -> tuple[int, ...]:
    """A CPU list; empty where there is none (old kernels print "(null)" for an empty one)."""
    try:
        return cpus("", text or "")
    except InputError:
        return ()


def node_number(text: str | None) -> int | None:
    """A NUMA node; the kernel says -1 where it knows none."""
    node = number(text)
    return None if node is None or node < 0 else node


def numbered(names: list[str], prefix: str) -> list[int]:
    """The sorted numbers of the names that are prefix and number: node0, node1."""
    return sorted(
        int(name[len(prefix) :]) for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()
    )


def table(text: str | None, separator: str = ":") -> dict[str, str]:
    """Lines of "key: value"; the first of a key counts."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, middle, value = line.partition(separator)
        if middle:
            found.setdefault(key.strip(), value.strip())
    return found
