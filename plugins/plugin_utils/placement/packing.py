# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Can all CPU wishes be met together? An exact answer, with a witness.

Cores of one cell (same L3 domain, node and number of threads) can stand in for each other, so only
counts matter. An exclusive demand takes cores away. A shared one, and housekeeping, only need enough
cores that nobody has for himself: such cores are "kept", and all shared demands may use the same.

The search goes from narrow regions (one L3 domain) to wide ones (one node, the machine). When the
narrow demands have their cores, only totals matter for the wider ones, so how a wide demand spreads over
domains needs no search. What is left is bin packing with few, mostly equal bins: a depth-first search, best
fit first, that remembers dead ends. Machines that differ only in the order of equal domains are one state.

This is exact as long as domains nest in nodes or nodes in domains, which holds for every processor we know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...module_utils.errors import RefusedError
from .machine import Cell

Region = tuple[int, ...]  # cells
STEPS = 200_000  # far above what 20 services on 32 domains need


@dataclass(frozen=True)
class Demand:
    """`amount` cores, or threads, in one of the regions."""

    name: str
    amount: int
    by_threads: bool
    exclusive: bool
    regions: tuple[Region, ...]
    level: int  # 0: the narrowest regions


@dataclass(frozen=True)
class Space:
    """Cores by cell: nobody's yet, and kept for everybody who shares."""

    free: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass
class Packing:
    """A witness: what each exclusive demand takes by cell, where each shared one is, what is kept in the end."""

    takes: dict[str, dict[int, int]] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Step:
    """One way to meet one demand: cores by cell."""

    region: Region
    cores: tuple[tuple[int, int], ...]


@dataclass
class _Bound:
    """What the demands from each index on ask of a region at the least: exclusive cores in all, and the most cores
    and threads that one shared demand wants. `least`: the threads of its smallest core."""

    region: Region
    least: int
    exclusive: list[int] = field(default_factory=lambda: [0])
    cores: list[int] = field(default_factory=lambda: [0])
    threads: list[int] = field(default_factory=lambda: [0])

    def add(self, demand: Demand | None, most: int) -> None:
        """Put the demand before those that were added. None: one that may be met elsewhere."""
        amount = demand.amount if demand else 0
        shared = demand is not None and not demand.exclusive
        by_threads = demand is not None and demand.by_threads
        alone = 0 if shared else -(-amount // most) if by_threads else amount
        self.exclusive.insert(0, self.exclusive[0] + alone)
        self.cores.insert(0, max(self.cores[0], amount if shared and not by_threads else 0))
        self.threads.insert(0, max(self.threads[0], amount if shared and by_threads else 0))


def pack(cells: Sequence[Cell], demands: Sequence[Demand], space: Space) -> Packing | None:
    """A way to meet all demands, or None when there is none."""
    return _Search(cells, demands, space).run()


class _Search:
    def __init__(self, cells: Sequence[Cell], demands: Sequence[Demand], space: Space) -> None:
        self.cells = cells
        self.demands = sorted(demands, key=lambda d: (d.level, -d.amount, not d.exclusive, d.by_threads, d.name))
        self.free, self.kept = list(space.free), list(space.kept)
        self.chosen: list[_Step] = []
        self.dead: set[tuple[int, object]] = set()
        self.steps = 0
        # Nodes that a demand names: only these must not be exchanged with equal ones.
        everywhere = {cell.node for cell in cells}
        self.named = {
            cells[region[0]].node if region else -1
            for demand in demands
            if {cells[cell].node for region in demand.regions for cell in region} != everywhere
            for region in demand.regions
        }
        self.shape = self._shape()
        self.bounds = self._bounds()

    def _bounds(self) -> list[_Bound]:
        """For the machine and each region that some demand is tied to: what is asked of it, from each demand on."""
        tied = {demand.regions[0]: None for demand in self.demands if len(demand.regions) == 1}
        most = max((cell.threads for cell in self.cells), default=1)
        found = []
        for region in {tuple(range(len(self.cells))): None, **tied}:
            inside = set(region)
            bound = _Bound(region, min((self.cells[cell].threads for cell in region), default=1))
            for demand in reversed(self.demands):
                own = all(inside.issuperset(one) for one in demand.regions)
                bound.add(demand if own else None, most)
            found.append(bound)
        return found

    def _shape(self) -> list[tuple[int, list[list[int]]]]:
        """Cells by node and domain; one flat row where domains do not nest in nodes."""
        nodes: dict[int, dict[int, list[int]]] = {}
        for index, cell in enumerate(self.cells):
            nodes.setdefault(cell.node, {}).setdefault(cell.domain, []).append(index)
        domains = [domain for by_domain in nodes.values() for domain in by_domain]
        if len(domains) != len(set(domains)):
            return []
        return [(node if node in self.named else -1, list(by_domain.values())) for node, by_domain in nodes.items()]

    def run(self) -> Packing | None:
        if not self._walk(0):
            return None
        found = Packing(kept=list(self.kept))
        for demand, step in zip(self.demands, self.chosen, strict=True):
            found.regions[demand.name] = step.region
            if demand.exclusive:
                found.takes[demand.name] = dict(step.cores)
        return found

    def _walk(self, index: int) -> bool:
        if index == len(self.demands):
            return True
        self.steps += 1
        if self.steps > STEPS:
            raise RefusedError("services: too many to decide whether all can be placed; set localities to any")
        if self._hopeless(index):
            return False
        state = (index, self._state()) if self.dead else None
        if state in self.dead:
            return False
        demand = self.demands[index]
        for step in self._ways(demand):
            self._move(step, demand.exclusive, 1)
            self.chosen.append(step)
            if self._walk(index + 1):
                return True
            self.chosen.pop()
            self._move(step, demand.exclusive, -1)
        self.dead.add(state or (index, self._state()))
        return False

    def _hopeless(self, index: int) -> bool:
        """Even if places inside a region did not matter, it would have too few cores: this ends most searches."""
        for bound in self.bounds:
            spare = sum(self.free[cell] for cell in bound.region) - bound.exclusive[index]
            if spare < 0:
                return True
            if spare + sum(self.kept[cell] for cell in bound.region) < bound.cores[index]:
                return True
            threads = sum((self.free[cell] + self.kept[cell]) * self.cells[cell].threads for cell in bound.region)
            if threads - bound.exclusive[index] * bound.least < bound.threads[index]:
                return True
        return False

    def _move(self, step: _Step, exclusive: bool, sign: int) -> None:
        for cell, count in step.cores:
            self.free[cell] -= sign * count
            if not exclusive:
                self.kept[cell] += sign * count

    def _state(self) -> object:
        """Free and kept cores, the same for all machines that differ only in the order of equal parts."""
        if not self.shape:
            return (tuple(self.free), tuple(self.kept))
        cells, free, kept = self.cells, self.free, self.kept
        return sorted_tuple(
            (node, sorted_tuple(tuple((cells[c].threads, free[c], kept[c]) for c in domain) for domain in domains))
            for node, domains in self.shape
        )

    def _ways(self, demand: Demand) -> Iterator[_Step]:
        """The ways to meet a demand now, tightest fit first."""
        fits: list[tuple[int, int, int]] = []
        for number, region in enumerate(demand.regions):
            there = 0 if demand.exclusive else self._worth(demand, region, self.kept)
            if there >= demand.amount and not demand.exclusive:
                yield _Step(region, ())  # costs nothing, so nothing can be better
                return
            slack = self._worth(demand, region, self.free) + there - demand.amount
            if slack >= 0:
                fits.append((slack, number, demand.amount - there))
        for _slack, number, amount in sorted(fits):
            region = demand.regions[number]
            for cores in self._takes(region, amount, demand.by_threads):
                yield _Step(region, cores)

    def _worth(self, demand: Demand, region: Region, counts: Sequence[int]) -> int:
        if demand.by_threads:
            return sum(counts[cell] * self.cells[cell].threads for cell in region)
        return sum(counts[cell] for cell in region)

    def _takes(self, region: Region, amount: int, by_threads: bool) -> Iterator[tuple[tuple[int, int], ...]]:
        """Cores by cell worth the amount: one way for each mix of cores with more and fewer threads."""
        if len(region) == 1:
            worth = self.cells[region[0]].threads if by_threads else 1
            yield ((region[0], -(-amount // worth)),)
            return
        kinds = sorted({self.cells[cell].threads for cell in region}, reverse=by_threads)
        have = [sum(self.free[cell] for cell in region if self.cells[cell].threads == kind) for kind in kinds]
        for mix in mixes(amount, [(kind if by_threads else 1, count) for kind, count in zip(kinds, have, strict=True)]):
            left = dict(zip(kinds, mix, strict=True))
            cores = []
            for cell in region:
                kind = self.cells[cell].threads
                count = min(left[kind], self.free[cell])
                left[kind] -= count
                if count:
                    cores.append((cell, count))
            yield tuple(cores)


def mixes(amount: int, kinds: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """Ways to reach the amount with (worth, number there) of each kind, none with a core too many of its last kind."""
    worth, there = kinds[0]
    rest = sum(value * count for value, count in kinds[1:])
    most = min(there, -(-amount // worth))
    least = max(0, -(-(amount - rest) // worth))
    for count in range(most, least - 1, -1):
        if len(kinds) == 1 or amount <= count * worth:
            yield (count, *(0 for _kind in kinds[1:]))
        else:
            yield from ((count, *tail) for tail in mixes(amount - count * worth, kinds[1:]))


def sorted_tuple(items: Iterator[object]) -> tuple[object, ...]:
    """A tuple that does not depend on the order of the items."""
    return tuple(sorted(items))  # type: ignore[type-var]
