# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who has what so far, and whether the rest can still be placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cards import Call, Hand, deal, holds
from .machine import Core, Machine
from .packing import Demand, Packing, Region, Space, pack
from .wishes import Wish

HOUSEKEEPING = "housekeeping_cpus"  # no service can have this name and a CPU wish of its own: see __init__.py


@dataclass
class Board:
    """Cores and GPUs given out. A core has one owner, or any number of users, or nobody."""

    machine: Machine
    owner: dict[int, str] = field(default_factory=dict)
    users: dict[int, list[str]] = field(default_factory=dict)
    cores: dict[str, tuple[Core, ...]] = field(default_factory=dict)
    cpus: dict[str, tuple[int, ...]] = field(default_factory=dict)
    hand: Hand = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, cores: Sequence[Core], cpus: Sequence[int], exclusive: bool) -> None:
        """Give cores to a service (or to housekeeping)."""
        # In one order, however they were chosen: what is said of a placement must not depend on how it came about.
        self.cores[name] = tuple(sorted(cores, key=lambda core: core.number))
        self.cpus[name] = tuple(cpus)
        for core in cores:
            if exclusive:
                self.owner[core.number] = name
            else:
                self.users.setdefault(core.number, []).append(name)

    def take_back(self, name: str) -> None:
        """Undo put()."""
        for core in self.cores.pop(name):
            if self.owner.get(core.number) == name:
                del self.owner[core.number]
            else:
                self.users[core.number].remove(name)
        del self.cpus[name]

    def give(self, wish: Wish, uuids: Sequence[str], sign: int = 1) -> None:
        """Give GPUs to a service; sign -1 takes them back."""
        for gpu in self.machine.gpus:
            if gpu.uuid in uuids and wish.gpu:
                self.used[gpu.uuid] = self.used.get(gpu.uuid, 0) + sign * wish.gpu.need(gpu)
        if sign > 0:
            self.hand[wish.name] = tuple(uuids)
        else:
            del self.hand[wish.name]

    def load(self, core: Core) -> int:
        """How many share the core."""
        return len(self.users.get(core.number, ()))

    def space(self) -> Space:
        """What is left, by cell."""
        free, kept = [0] * len(self.machine.cells), [0] * len(self.machine.cells)
        for core in self.machine.cores:
            if core.number not in self.owner:
                counts = kept if self.users.get(core.number) else free
                counts[core.cell] += 1
        return Space(tuple(free), tuple(kept))


@dataclass(frozen=True)
class Rest:
    """What still has to be placed: CPU wishes, GPU wishes, and CPUs (threads) for housekeeping."""

    cpu: tuple[Wish, ...]
    gpu: tuple[Wish, ...]
    housekeeping: int

    def without_cpu(self, name: str) -> Rest:
        return Rest(tuple(wish for wish in self.cpu if wish.name != name), self.gpu, self.housekeeping)

    def without_gpu(self, name: str) -> Rest:
        return Rest(self.cpu, tuple(wish for wish in self.gpu if wish.name != name), self.housekeeping)


@dataclass(frozen=True)
class Fit:
    """A proof that the rest can be placed: cores by cell and GPUs."""

    packing: Packing
    hand: Hand


def fit(board: Board, rest: Rest, earlier: Fit | None = None) -> Fit | None:
    """A way to place the rest beside what is on the board, or None when there is none.

    `earlier`: a proof for a larger rest. Its GPUs are tried first, as they mostly still do.
    """
    machine, space = board.machine, board.space()
    calls = [Call(wish.name, wish.gpu, _coupled(wish, rest)) for wish in rest.gpu if wish.gpu]
    coupled = any(call.near for call in calls)
    hand = {call.name: earlier.hand[call.name] for call in calls} if earlier else deal(machine.gpus, calls, board.used)
    if hand is None:
        return None
    if holds(machine.gpus, calls, board.used, hand):
        nodes = {call.name: near(machine, hand[call.name]) for call in calls if call.near}
        packing = pack(machine.cells, _demands(board, rest, nodes), space)
        if packing or not coupled:
            return Fit(packing, hand) if packing else None
    elif not coupled:
        return fit(board, rest)
    return _search(board, rest, calls, space)


def _search(board: Board, rest: Rest, calls: Sequence[Call], space: Space) -> Fit | None:
    """The same where the GPUs decide which nodes have to hold CPUs: both searched at once."""
    machine = board.machine
    tried: dict[tuple[tuple[str, tuple[int, ...]], ...], Packing | None] = {}
    accepted: list[Packing] = []

    def agree(hand: Hand) -> bool:
        # A service that has no GPU yet may be near any that it accepts.
        nodes = {call.name: near(machine, hand[call.name]) for call in calls if call.near and call.name in hand}
        key = tuple(sorted(nodes.items()))
        if key not in tried:
            tried[key] = pack(machine.cells, _demands(board, rest, nodes), space)
        packing = tried[key]
        accepted[:] = [packing] if packing else []
        return packing is not None

    hand = deal(machine.gpus, calls, board.used, agree)
    return Fit(accepted[0], hand) if hand is not None else None


def _coupled(wish: Wish, rest: Rest) -> bool:
    return wish.locality == "gpu_node" and wish in rest.cpu


def near(machine: Machine, uuids: Sequence[str]) -> tuple[int, ...]:
    """The nodes near these GPUs."""
    return tuple(sorted({node for uuid in uuids for node in machine.near[uuid]}))


def nodes_for(board: Board, wish: Wish) -> tuple[int, ...]:
    """The nodes that the CPUs of a service may be on."""
    machine = board.machine
    if wish.locality != "gpu_node" or wish.gpu is None:
        return machine.cpu_nodes
    if wish.name in board.hand:
        return near(machine, board.hand[wish.name])
    return near(machine, [gpu.uuid for gpu in machine.gpus if wish.gpu.accepts(gpu)]) or machine.cpu_nodes


def regions(board: Board, wish: Wish, nodes: Sequence[int] | None = None) -> tuple[Region, ...]:
    """The regions one of which has to hold the CPUs of a service."""
    machine = board.machine
    if wish.locality == "same_l3":
        return tuple(machine.cells_of_domain.values())
    if wish.locality == "any":
        return (tuple(range(len(machine.cells))),)
    allowed = nodes_for(board, wish) if nodes is None else nodes
    return tuple(machine.cells_of_node[node] for node in allowed)


def _demands(board: Board, rest: Rest, nodes: Mapping[str, tuple[int, ...]]) -> list[Demand]:
    machine = board.machine
    node, l3 = (0, 1) if machine.nodes_in_domains else (1, 0)
    levels = {"same_l3": l3, "same_node": node, "gpu_node": node, "any": 2}
    demands = [
        Demand(
            wish.name,
            wish.cpus,
            wish.by_threads,
            wish.exclusive,
            regions(board, wish, nodes.get(wish.name)),
            levels[wish.locality],
        )
        for wish in rest.cpu
        if wish.cpus
    ]
    everything = tuple(range(len(machine.cells)))
    return [*demands, Demand(HOUSEKEEPING, rest.housekeeping, True, False, (everything,), 2)]
