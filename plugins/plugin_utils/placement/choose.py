# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which place is good for a service: candidates, best first. Whether the rest still fits is asked elsewhere.

CPUs, in this order:
 1. where it was (the hint), so that little moves
 2. near its GPU, when it has one
 3. performance cores before efficiency cores; housekeeping the other way round
 4. a service that computes on the CPU goes where most L3 is (the X3D chiplet), any other where the clock is highest
 5. a node with enough memory for it
 6. an L3 domain that it shares with the fewest services, then the one that it fills best
 7. not beside the boot core, where the kernel's own work gathers; then the lowest number
A set in one L3 domain comes before one in one node, and that before one that spans nodes. Shared services
take cores that nobody uses before they share any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from .board import HOUSEKEEPING, Board, Fit, near, nodes_for
from .machine import Core, Domain, Gpu
from .wishes import GpuWish, Wish

_SAME_CLOCK = 0.98  # cores of one chiplet differ by about this much; it decides nothing


class Chooser:
    """Candidates for the services of one placement. `hint_cpus` and `hint_gpus`: where they were."""

    def __init__(
        self,
        board: Board,
        memory: Mapping[str, int],
        hint_cpus: Mapping[str, frozenset[int]],
        hint_gpus: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.board = board
        self.machine = board.machine
        self.memory = memory  # what each service wants
        self.hint_cpus = hint_cpus
        self.hint_gpus = hint_gpus

    # -- GPUs ------------------------------------------------------------------------------------------

    def gpus(self, wish: Wish, hand: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Sets of GPUs for a service; the last is the one of the proof, which always works."""
        if wish.gpu is None:
            return
        order = self._gpu_order(wish, wish.gpu)
        fitting = [gpu for gpu in sorted(self.machine.gpus, key=order) if self._fits(wish.gpu, gpu)]
        nodes = list(dict.fromkeys(gpu.node for gpu in fitting))
        together = [[gpu for gpu in fitting if gpu.node == node][: wish.gpu.count] for node in nodes]
        if wish.gpu.count == 1:
            together = [[gpu] for gpu in fitting]
        for chosen in [*together, fitting[: wish.gpu.count]]:
            if len(chosen) == wish.gpu.count:
                yield tuple(gpu.uuid for gpu in chosen)
        yield hand

    def _fits(self, wish: GpuWish, gpu: Gpu) -> bool:
        used = self.board.used.get(gpu.uuid, 0)
        return wish.accepts(gpu) and used + wish.need(gpu) <= gpu.usable_bytes

    def _gpu_order(self, wish: Wish, gpu_wish: GpuWish) -> Callable[[Gpu], tuple[object, ...]]:
        """Its old GPU; one without a display; one with few services; the largest, or the tightest for bytes."""

        def key(gpu: Gpu) -> tuple[object, ...]:
            users = sum(gpu.uuid in uuids for uuids in self.board.hand.values())
            size = gpu.vram_bytes if gpu_wish.vram_bytes is not None else -gpu.vram_bytes
            return gpu.uuid not in self.hint_gpus.get(wish.name, ()), gpu.display, users, size, gpu.address

        return key

    # -- CPUs ------------------------------------------------------------------------------------------

    def cores(self, wish: Wish, proof: Fit) -> Iterator[list[Core]]:
        """Sets of cores for a service; the last is the one of the proof, which always works."""
        open_cores = [core for core in self.machine.cores if core.number not in self.board.owner]
        unused = [core for core in open_cores if not self.board.load(core)]
        yield from self._sets(wish, unused)
        if not wish.exclusive:
            yield from self._sets(wish, open_cores)
        yield self._proven(wish, proof, open_cores)

    def _sets(self, wish: Wish, cores: Sequence[Core]) -> Iterator[list[Core]]:
        allowed = set(nodes_for(self.board, wish))
        by_domain: dict[int, list[Core]] = {}
        for core in sorted(cores, key=self._core_order(wish.name)):
            if core.node in allowed or wish.locality != "gpu_node":
                by_domain.setdefault(core.domain, []).append(core)
        order = self._domain_order(wish, by_domain)
        domains = sorted(by_domain, key=lambda number: order(number, tight=True))
        on_one_node = wish.locality in {"same_node", "gpu_node"}
        for number in domains:
            for node in sorted({core.node for core in by_domain[number]}) if on_one_node else [None]:
                yield from _enough(wish, [core for core in by_domain[number] if node in (None, core.node)])
        if wish.locality == "same_l3":
            return
        loose = sorted(by_domain, key=lambda number: order(number, tight=False))
        nodes = list(dict.fromkeys(core.node for number in loose for core in by_domain[number]))
        for node in nodes:
            yield from _enough(wish, [core for number in loose for core in by_domain[number] if core.node == node])
        if wish.locality == "any":
            yield from _enough(
                wish, [core for node in nodes for n in loose for core in by_domain[n] if core.node == node]
            )

    def _core_order(self, name: str) -> Callable[[Core], tuple[object, ...]]:
        """The order of cores inside a domain."""
        hinted = self.hint_cpus.get(name, frozenset())

        def key(core: Core) -> tuple[object, ...]:
            return (
                hinted.isdisjoint(core.cpus),
                self.board.load(core),
                core.isolated,
                core.kind == "efficiency",
                core is self.machine.boot_core,
                core.number,
            )

        return key

    def _domain_order(self, wish: Wish, there: dict[int, list[Core]]) -> Callable[..., tuple[object, ...]]:
        hinted = {
            self.machine.core_of[cpu].domain for cpu in self.hint_cpus.get(wish.name, ()) if cpu in self.machine.core_of
        }
        close = set(near(self.machine, self.board.hand.get(wish.name, ()))) or set(self.machine.cpu_nodes)

        def key(number: int, tight: bool) -> tuple[object, ...]:
            cores = there[number]
            worth = sum(wish.worth(core) for core in cores)
            best = sum(wish.worth(core) for core in cores if core.kind != "efficiency")
            return (
                number not in hinted,
                close.isdisjoint({core.node for core in cores}),
                best < wish.cpus and any(core.kind for core in cores),
                self._taste(wish, self.machine.domains[number]),
                self._memory_short(wish, cores[0].node),
                self._services_in(number),
                worth if tight else -worth,
                self.machine.boot_core.domain == number,
                number,
            )

        return key

    def _taste(self, wish: Wish, domain: Domain) -> tuple[float, float]:
        top = self.machine.top_mhz
        slower = 0 if domain.mhz >= top * _SAME_CLOCK else top - domain.mhz
        return (-domain.size_bytes, slower) if wish.prefers == "cache" else (slower, domain.size_bytes)

    def _memory_short(self, wish: Wish, node: int) -> bool:
        """Whether the node would have less memory than the service and those already near it want."""
        return memory_left(self.board, self.memory, node, wish.name) < self.memory.get(wish.name, 0)

    def _services_in(self, domain: int) -> int:
        cores = self.machine.by_domain[domain]
        names = {self.board.owner.get(core.number) for core in cores} - {None}
        for core in cores:
            names.update(self.board.users.get(core.number, ()))
        return len(names - {HOUSEKEEPING})

    def _proven(self, wish: Wish, proof: Fit, open_cores: Sequence[Core]) -> list[Core]:
        """The cores that the proof has for the service."""
        ordered = sorted(open_cores, key=self._core_order(wish.name))
        if wish.exclusive:
            left = dict(proof.packing.takes[wish.name])
            ordered = [core for core in ordered if not self.board.load(core)]
        else:
            left = {cell: proof.packing.kept[cell] for cell in proof.packing.regions[wish.name]}
            # Kept cores first: a core with users is among those that the proof keeps.
            ordered.sort(key=lambda core: not self.board.load(core))
        chosen = []
        for core in ordered:
            if left.get(core.cell, 0) > 0:
                left[core.cell] -= 1
                chosen.append(core)
        return first(chosen, wish.worth, wish.cpus)

    # -- housekeeping ----------------------------------------------------------------------------------

    def housekeeping(self, threads: int) -> list[Core]:
        """Whole cores with at least this many CPUs, from those that no service has for itself."""
        hinted = self.hint_cpus.get(HOUSEKEEPING, frozenset())
        quiet = {core.domain for core in self.machine.cores} - {
            core.domain for core in self.machine.cores if core.number in self.board.owner
        }

        def key(core: Core) -> tuple[object, ...]:
            return (
                self.board.load(core),
                hinted.isdisjoint(core.cpus),
                core.isolated,
                core.kind != "efficiency",
                core.domain not in quiet,
                self.machine.domains[core.domain].size_bytes,
                core.number,
            )

        open_cores = [core for core in self.machine.cores if core.number not in self.board.owner]
        return first(sorted(open_cores, key=key), lambda core: len(core.cpus), threads)


def _enough(wish: Wish, cores: Sequence[Core]) -> Iterator[list[Core]]:
    """The first cores that are worth what the service wants, if there are."""
    chosen = first(cores, wish.worth, wish.cpus)
    if sum(wish.worth(core) for core in chosen) >= wish.cpus:
        yield chosen


def first(cores: Sequence[Core], worth: Callable[[Core], int], amount: int) -> list[Core]:
    """The first cores that are worth the amount together, without those that turn out not to be needed."""
    chosen: list[Core] = []
    total = 0
    for core in cores:
        if total >= amount:
            break
        chosen.append(core)
        total += worth(core)
    for core in reversed(chosen):
        if total - worth(core) >= amount:
            chosen.remove(core)
            total -= worth(core)
    return chosen


def memory_left(board: Board, memory: Mapping[str, int], node: int, besides: str) -> int:
    """What a node has left beside the services whose CPUs are on it."""
    told = board.machine.node_of[node].memory_bytes
    near_it = {name for name, cores in board.cores.items() if cores and cores[0].node == node and name != besides}
    return told - sum(memory.get(name, 0) for name in near_it)
