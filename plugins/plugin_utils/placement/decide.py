# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Placing the services of a feasible request: each in turn gets the best place that leaves the others one.

What the hint says is tried first, service by service, and kept where it still is right and lets the rest fit.
Then GPUs, then CPUs, by priority and name. Every step carries a proof that what is still to come fits
(board.fit); the first candidate with such a proof is taken. The proof itself is the last candidate, so
that no step can fail, and no step has to be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .board import HOUSEKEEPING, Board, Fit, Rest, fit, nodes_for
from .choose import Chooser
from .machine import Core, Machine
from .wishes import Wish


@dataclass(frozen=True)
class Hint:
    """An earlier placement: CPUs (of housekeeping as well) and GPUs by service."""

    cpus: Mapping[str, frozenset[int]] = field(default_factory=dict)
    gpus: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def place_all(machine: Machine, wishes: Sequence[Wish], housekeeping: int, hint: Hint, proof: Fit) -> Board:
    """The board with all services and housekeeping on it. `proof`: that they fit, from an empty board."""
    placer = _Placer(machine, wishes, housekeeping, hint, proof)
    placer.keep_hints()
    placer.place_gpus()
    placer.place_cpus()
    placer.place_housekeeping()
    return placer.board


class _Placer:
    def __init__(self, machine: Machine, wishes: Sequence[Wish], housekeeping: int, hint: Hint, proof: Fit) -> None:
        self.board = Board(machine)
        self.hint = hint
        self.housekeeping = housekeeping
        self.rest = Rest(
            tuple(wish for wish in wishes if wish.cpus), tuple(wish for wish in wishes if wish.gpu), housekeeping
        )
        self.proof = proof
        memory = {wish.name: wish.all_memory_bytes for wish in wishes}
        self.chooser = Chooser(self.board, memory, hint.cpus, hint.gpus)

    def keep_hints(self) -> None:
        for wish in self.rest.gpu:
            uuids = self.hint.gpus.get(wish.name)
            if uuids and gpus_still_right(self.board, wish, uuids):
                self._try_gpus(wish, uuids)
        for wish in self.rest.cpu:
            cpus = self.hint.cpus.get(wish.name)
            if cpus and still_right(self.board, wish, cpus):
                self._try_cores(wish, cores_of(self.board.machine, cpus))
        self._keep_housekeeping()

    def _keep_housekeeping(self) -> None:
        cores = cores_of(self.board.machine, self.hint.cpus.get(HOUSEKEEPING, frozenset()))
        if not _enough_threads(cores, self.housekeeping) or any(core.number in self.board.owner for core in cores):
            return
        if {cpu for core in cores for cpu in core.cpus} != self.hint.cpus[HOUSEKEEPING]:
            return
        self._put_housekeeping(cores)
        proof = fit(self.board, self.rest, self.proof)
        if proof is None:
            self.board.take_back(HOUSEKEEPING)
        else:
            self.proof = proof

    def place_gpus(self) -> None:
        for wish in self.rest.gpu:
            tried = set()
            for uuids in self.chooser.gpus(wish, self.proof.hand[wish.name]):
                if uuids not in tried and self._try_gpus(wish, uuids):
                    break
                tried.add(uuids)

    def _try_gpus(self, wish: Wish, uuids: Sequence[str]) -> bool:
        self.board.give(wish, uuids)
        rest = self.rest.without_gpu(wish.name)
        proof = fit(self.board, rest, self.proof)
        if proof is None:
            self.board.give(wish, uuids, -1)
            return False
        self.rest, self.proof = rest, proof
        return True

    def place_cpus(self) -> None:
        for wish in self.rest.cpu:
            tried = set()
            for cores in self.chooser.cores(wish, self.proof):
                which = frozenset(core.number for core in cores)
                if which not in tried and self._try_cores(wish, cores):
                    break
                tried.add(which)

    def _try_cores(self, wish: Wish, cores: Sequence[Core]) -> bool:
        self.board.put(wish.name, cores, wish.expand(cores), wish.exclusive)
        rest = self.rest.without_cpu(wish.name)
        proof = fit(self.board, rest, self.proof)
        if proof is None:
            self.board.take_back(wish.name)
            return False
        self.rest, self.proof = rest, proof
        return True

    def place_housekeeping(self) -> None:
        if HOUSEKEEPING not in self.board.cores:
            self._put_housekeeping(self.chooser.housekeeping(self.housekeeping))

    def _put_housekeeping(self, cores: Sequence[Core]) -> None:
        cpus = sorted(cpu for core in cores for cpu in core.cpus)
        self.board.put(HOUSEKEEPING, cores, cpus, exclusive=False)


def cores_of(machine: Machine, cpus: frozenset[int]) -> list[Core]:
    """The cores of these CPUs; none when one of the CPUs is not usable."""
    if any(cpu not in machine.core_of for cpu in cpus):
        return []
    return sorted({machine.core_of[cpu] for cpu in cpus}, key=lambda core: core.number)


def _enough_threads(cores: Sequence[Core], threads: int) -> bool:
    """Whether the cores have that many threads, and none is too many."""
    have = [len(core.cpus) for core in cores]
    return bool(have) and sum(have) >= threads and sum(have) - min(have) < threads


def still_right(board: Board, wish: Wish, cpus: frozenset[int]) -> bool:
    """Whether these CPUs are what the service wishes for, and nobody else's."""
    cores = cores_of(board.machine, cpus)
    worth = [wish.worth(core) for core in cores]
    if not cores or sum(worth) < wish.cpus or sum(worth) - min(worth) >= wish.cpus or set(wish.expand(cores)) != cpus:
        return False
    if any(core.number in board.owner or (wish.exclusive and board.load(core)) for core in cores):
        return False
    domains, nodes = {core.domain for core in cores}, {core.node for core in cores}
    if wish.locality == "same_l3":
        return len(domains) == 1
    if wish.locality == "any":
        return True
    return len(nodes) == 1 and nodes <= set(nodes_for(board, wish))


def gpus_still_right(board: Board, wish: Wish, uuids: Sequence[str]) -> bool:
    """Whether these GPUs are there, as many as wished for, and have room."""
    gpus = [gpu for gpu in board.machine.gpus if gpu.uuid in uuids]
    if wish.gpu is None or not len(gpus) == len(uuids) == wish.gpu.count:
        return False
    return all(
        wish.gpu.accepts(gpu) and board.used.get(gpu.uuid, 0) + wish.gpu.need(gpu) <= gpu.usable_bytes for gpu in gpus
    )
