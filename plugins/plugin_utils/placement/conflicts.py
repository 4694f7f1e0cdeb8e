# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wishes that cannot be met together: a smallest set of them, and what would make it feasible.

A set is minimal: without any one of its wishes the others can be met. One with one or two wishes is the
smallest there is; larger ones are the smallest of several found. Every remedy is one change of one wish after
which the set is feasible: it was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ...module_utils.values import print_size
from .board import HOUSEKEEPING, Board, Rest, fit
from .machine import Machine
from .wishes import Wish

MIB = 1 << 20
MANY = 6  # more than these are only in the data, not in the message


@dataclass(frozen=True)
class Part:
    """One wish: the CPUs or the GPUs of a service, or the housekeeping CPUs (service "")."""

    service: str
    field: str

    def __str__(self) -> str:
        return f"{self.service}.{self.field}" if self.service else self.field


HOUSE = Part("", HOUSEKEEPING)


@dataclass(frozen=True)
class Request:
    """All wishes of one call, and the machine to meet them on."""

    machine: Machine
    wishes: Mapping[str, Wish]
    housekeeping: int

    def parts(self) -> list[Part]:
        cpu = [Part(wish.name, "cpus") for wish in self.wishes.values() if wish.cpus]
        return [*cpu, *(Part(wish.name, "gpu") for wish in self.wishes.values() if wish.gpu), HOUSE]

    def fits(self, parts: Sequence[Part]) -> bool:
        """Whether these wishes alone can be met. Without the wish for more, one CPU is kept for housekeeping."""
        rest = Rest(
            tuple(self.wishes[part.service] for part in parts if part.field == "cpus"),
            tuple(self.wishes[part.service] for part in parts if part.field == "gpu"),
            self.housekeeping if HOUSE in parts else 1,
        )
        return fit(Board(self.machine), rest) is not None

    def changed(self, name: str, **fields: Any) -> Request:
        return replace(self, wishes={**self.wishes, name: replace(self.wishes[name], **fields)})


def find(request: Request) -> list[dict[str, Any]]:
    """All kinds of conflicts: GPUs among themselves, then CPUs (with GPUs, where these can be met)."""
    parts = request.parts()
    gpu = [part for part in parts if part.field == "gpu"]
    rest = [part for part in parts if part.field != "gpu"]
    found = []
    if not request.fits(gpu):
        found.append(_report(request, smallest(request, gpu), "gpu"))
    else:
        rest = [*rest, *gpu]
    if not request.fits(rest):
        found.append(_report(request, smallest(request, rest), "cpus"))
    return found


def smallest(request: Request, parts: Sequence[Part]) -> list[Part]:
    """A minimal infeasible set among parts that are infeasible together."""
    for count in (1, 2):
        for some in combinations(parts, count):
            if not request.fits(some):
                return list(some)
    orders = [list(parts), list(reversed(parts)), sorted(parts, key=lambda part: _weight(request, part))]
    return min((_shrink(request, order) for order in orders), key=len)


def _weight(request: Request, part: Part) -> tuple[int, str]:
    return (request.wishes[part.service].cpus if part.service else request.housekeeping, str(part))


def _shrink(request: Request, parts: Sequence[Part]) -> list[Part]:
    """Leave out each part that the conflict does not need."""
    left = list(parts)
    for part in parts:
        without = [one for one in left if one != part]
        if not request.fits(without):
            left = without
    return sorted(left, key=parts.index)


# -- remedies --------------------------------------------------------------------------------------


def _report(request: Request, parts: Sequence[Part], resource: str) -> dict[str, Any]:
    remedies = [remedy for part in parts for remedy in _remedies(request, parts, part)]
    message = f"{_what(request, parts)}{_limit(request, parts)}"
    return conflict(resource, [str(part) for part in parts], message, remedies)


def conflict(
    resource: str, wishes: Sequence[str], message: str, remedies: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One entry of the result."""
    ways = " or ".join(f"{one['wish']}: {_value(one)}" for one in remedies[:MANY])
    ways += f" or one of {len(remedies) - MANY} more" if len(remedies) > MANY else ""
    text = f"{message}; any of these is enough: {ways}" if ways else f"{message}; leave one of them out"
    return {"resource": resource, "wishes": list(wishes), "message": text, "remedies": list(remedies)}


def _value(remedy: Mapping[str, Any]) -> str:
    value = remedy["value"]
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return print_size(value) if str(remedy["wish"]).endswith("_bytes") else str(value)


def _remedies(request: Request, parts: Sequence[Part], part: Part) -> Iterator[dict[str, Any]]:
    if part == HOUSE:
        most = largest(request.housekeeping - 1, lambda n: replace(request, housekeeping=n).fits(parts))
        if most:
            yield {"wish": HOUSEKEEPING, "value": most}
        return
    changes = _cpu_changes if part.field == "cpus" else _gpu_changes
    for field, value, changed in changes(request, part.service, parts):
        if changed.fits(parts):
            yield {"wish": f"{part.service}.{field}", "value": value}


Change = tuple[str, Any, Request]


def _cpu_changes(request: Request, name: str, parts: Sequence[Part]) -> Iterator[Change]:
    wish = request.wishes[name]
    most = largest(wish.cpus - 1, lambda n: request.changed(name, cpus=n).fits(parts))
    if most:
        yield "cpus", most, request.changed(name, cpus=most)
    wider = {"same_l3": ("same_node", "any"), "same_node": ("any",), "gpu_node": ("any",), "any": ()}
    for locality in wider[wish.locality]:
        changed = request.changed(name, locality=locality)
        if changed.fits(parts):
            yield "locality", locality, changed
            break
    if wish.exclusive:
        yield "exclusive", False, request.changed(name, exclusive=False)
    if wish.cpus_unit == "threads" and wish.smt == "one_per_core":
        yield "smt", "siblings", request.changed(name, smt="siblings")


def _gpu_changes(request: Request, name: str, parts: Sequence[Part]) -> Iterator[Change]:
    gpu = request.wishes[name].gpu
    if gpu is None:
        return

    def having(**fields: Any) -> Request:
        return request.changed(name, gpu=replace(gpu, **fields))

    if gpu.vram_bytes is None:
        top = 99 if gpu.share is None else int(gpu.share * 100)
        share = largest(top, lambda percent: having(share=percent / 100).fits(parts))
        if share:
            yield "gpu.share", share / 100, having(share=share / 100)
    else:
        mib = largest(gpu.vram_bytes // MIB, lambda number: having(vram_bytes=number * MIB).fits(parts))
        if mib:
            yield "gpu.vram_bytes", mib * MIB, having(vram_bytes=mib * MIB)
    count = largest(gpu.count - 1, lambda number: having(count=number).fits(parts))
    if count:
        yield "gpu.count", count, having(count=count)
    if gpu.uuids:
        yield "gpu.uuid", None, having(uuids=())
    if gpu.name:
        yield "gpu.name", None, having(name="")


def largest(top: int, works: Callable[[int], bool]) -> int:
    """The largest number from 1 to `top` that works, 0 if none; what works for a number works below it."""
    low, high = 0, max(top, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if works(middle):
            low = middle
        else:
            high = middle - 1
    return low


# -- words -----------------------------------------------------------------------------------------


def _what(request: Request, parts: Sequence[Part]) -> str:
    if len(parts) == 1:
        return f"{_words(request, parts[0])}: that does not fit"
    if len(parts) > MANY:
        return f"{len(parts)} wishes ({', '.join(str(part) for part in parts)}): they do not fit together"
    words = [_words(request, part) for part in parts]
    return f"{', '.join(words[:-1])} and {words[-1]}: they do not fit together"


def _words(request: Request, part: Part) -> str:
    if part == HOUSE:
        return f"{HOUSEKEEPING} is {request.housekeeping}"
    wish = request.wishes[part.service]
    if part.field == "cpus":
        return f"{wish.name} wants {wish.sentence()}"
    return f"{wish.name} wants {gpu_words(wish)}"


def gpu_words(wish: Wish) -> str:
    """The GPU wish in words."""
    gpu = wish.gpu
    if gpu is None:
        return "no GPU"
    many = f"{gpu.count} " if gpu.count > 1 else "a "
    cards = f"{many}{'whole ' if gpu.whole else ''}GPU{'s' if gpu.count > 1 else ''}"
    part = f"{gpu.share:g} of " if gpu.share is not None else ""
    part += f"{'and at least ' if part else ''}{print_size(gpu.vram_bytes)} of " if gpu.vram_bytes is not None else ""
    part += "each of " if part and gpu.count > 1 else ""
    which = f" named {gpu.name}" if gpu.name else ""
    which += f" among {', '.join(gpu.uuids)}" if gpu.uuids else ""
    return f"{part}{cards}{which}"


def _limit(request: Request, parts: Sequence[Part]) -> str:
    """The number of the machine that the wishes run into."""
    machine = request.machine
    if all(part.field == "gpu" for part in parts):
        known = [f"{gpu.name} {gpu.usable_bytes // MIB if gpu.vram_bytes else '?'} MiB" for gpu in machine.gpus]
        return f" (usable: {', '.join(known)})" if known else " (no GPU answers)"
    cores, threads = len(machine.cores), sum(len(core.cpus) for core in machine.cores)
    text = f"the machine has {_count(cores, threads)}"
    if any(request.wishes[part.service].locality == "same_l3" for part in parts if part.field == "cpus"):
        one = max(machine.by_domain.values(), key=lambda members: (len(members), -members[0].number))
        text += f", the largest L3 {_count(len(one), sum(len(core.cpus) for core in one))}"
    nodes = {node: [core for core in machine.cores if core.node == node] for node in machine.cpu_nodes}
    if len(nodes) > 1:
        one_node = max(nodes.values(), key=lambda members: (len(members), -members[0].number))
        text += f", the largest node {_count(len(one_node), sum(len(core.cpus) for core in one_node))}"
    return f" ({text})"


def _count(cores: int, threads: int) -> str:
    return f"{cores} core{'s' if cores > 1 else ''}" + (f" with {threads} threads" if threads != cores else "")
