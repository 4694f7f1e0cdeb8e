# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Memory: memory limits, huge pages and the reserve of the system must not be more than there is.

A sum, so a smallest conflicting set is easy: the largest wishes, as few as it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .conflicts import MIB, conflict
from .machine import Machine
from .wishes import Wish

RESERVE = "reserve_bytes"


def conflicts(machine: Machine, wishes: Sequence[Wish], reserve: int) -> list[dict[str, Any]]:
    """The conflict about memory, if there is one. Nothing is checked where nobody wants memory."""
    items = {
        f"{wish.name}.{field}": getattr(wish, field)
        for wish in wishes
        for field in ("memory_bytes", "hugepages_bytes")
        if getattr(wish, field)
    }
    total = machine.memory_bytes
    if not items or total is None or sum(items.values()) + reserve <= total:
        return []
    items[RESERVE] = reserve
    chosen: dict[str, int] = {}
    for name in sorted(items, key=lambda name: (-items[name], name)):
        chosen[name] = items[name]
        if sum(chosen.values()) > total:
            break
    wanted = ", ".join(f"{name} {gib(size)}" for name, size in chosen.items())
    message = f"{wanted}: that is {gib(sum(chosen.values()) - total)} more than the {gib(total)} of memory there are"
    return [conflict("memory", list(chosen), message, _remedies(chosen, total))]


def _remedies(chosen: Mapping[str, int], total: int) -> list[dict[str, Any]]:
    found = []
    for name, size in chosen.items():
        most = (total - sum(chosen.values()) + size) // MIB * MIB
        if most > 0:
            found.append({"wish": name, "value": most})
    return found


def left(machine: Machine, wishes: Sequence[Wish], reserve: int) -> int | None:
    """What nobody has been given, the reserve apart. None where the machine does not tell its memory."""
    if machine.memory_bytes is None:
        return None
    return max(machine.memory_bytes - reserve - sum(wish.all_memory_bytes for wish in wishes), 0)


def gib(size: int) -> str:
    """Bytes in GiB, for messages."""
    return f"{size / (1 << 30):.1f} GiB"
