# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The result: what was decided, why, and what about it is worth a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...module_utils.values import cpu_list
from . import memory
from .board import HOUSEKEEPING, Board, near
from .choose import memory_left
from .conflicts import gpu_words
from .decide import Hint
from .machine import Core, Machine
from .wishes import Wish


def build(board: Board, wishes: Sequence[Wish], reserve: int, hint: Hint) -> dict[str, Any]:
    """The whole result of a feasible request, JSON-able."""
    machine = board.machine
    _pools(board, wishes, hint)
    services = {wish.name: _service(board, wish, hint) for wish in sorted(wishes, key=lambda wish: wish.name)}
    housekeeping = cpu_list(board.cpus[HOUSEKEEPING])
    interrupts = _interrupts(board)
    return {
        "feasible": True,
        "services": services,
        "housekeeping_cpus": housekeeping,
        "interrupt_cpus": cpu_list(cpu for cpus in interrupts.values() for cpu in cpus) or housekeeping,
        "interrupt_cpus_by_device": {device: cpu_list(cpus) for device, cpus in interrupts.items()},
        "left": _left(board, wishes, reserve),
        "warnings": [*machine.warnings, *_memory_warnings(board, wishes), *_warnings(board, wishes)],
        "conflicts": [],
    }


def infeasible(machine: Machine, conflicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result when not all wishes can be met: nothing is placed."""
    return {
        "feasible": False,
        "services": {},
        "housekeeping_cpus": "",
        "interrupt_cpus": "",
        "interrupt_cpus_by_device": {},
        "left": {},
        "warnings": list(machine.warnings),
        "conflicts": list(conflicts),
    }


def _pools(board: Board, wishes: Sequence[Wish], hint: Hint) -> None:
    """Services without a CPU wish run where nobody is exclusive, off the housekeeping CPUs where possible."""
    open_cpus = {cpu for core in board.machine.cores if core.number not in board.owner for cpu in core.cpus}
    pool = open_cpus - set(board.cpus[HOUSEKEEPING]) or open_cpus
    for wish in wishes:
        if not wish.cpus:
            old = hint.cpus.get(wish.name, frozenset())
            board.cpus[wish.name] = tuple(sorted(old if old and old <= open_cpus else pool))


def _cores(board: Board, wish: Wish) -> list[Core]:
    return sorted({board.machine.core_of[cpu] for cpu in board.cpus[wish.name]}, key=lambda core: core.number)


def _service(board: Board, wish: Wish, hint: Hint) -> dict[str, Any]:
    machine, cores = board.machine, _cores(board, wish)
    domains = sorted({core.domain for core in cores})
    cpus = {number: [cpu for core in machine.by_domain[number] for cpu in core.cpus] for number in domains}
    return {
        "cpus": cpu_list(board.cpus[wish.name]),
        "exclusive": wish.exclusive,
        "cores": len(cores),
        "memory_node": memory_node(board, wish),
        "memory_limit_bytes": wish.memory_bytes,
        "hugepages_bytes": wish.hugepages_bytes,
        "gpus": list(board.hand.get(wish.name, ())),
        "vram_bytes": {
            gpu.uuid: wish.gpu.need(gpu)
            for gpu in machine.gpus
            if wish.gpu and gpu.vram_bytes and gpu.uuid in board.hand.get(wish.name, ())
        },
        "l3_domains": [cpu_list(cpus[number]) for number in domains if machine.domains[number].known],
        "why": _why(board, wish, cores, hint),
    }


def memory_node(board: Board, wish: Wish) -> int | None:
    """The node whose memory is nearest to most of the CPUs. To prefer, not to bind to: a full node is no error."""
    machine = board.machine
    with_memory = [node.number for node in machine.nodes if node.memory_bytes]
    if not with_memory:
        return None
    cores = _cores(board, wish)
    count = {node: sum(core.node == node for core in cores) for node in machine.cpu_nodes}
    home = max(count, key=lambda node: (count[node], -node))
    return min(with_memory, key=lambda node: (machine.distance(home, node), node))


# -- why -------------------------------------------------------------------------------------------


def _why(board: Board, wish: Wish, cores: Sequence[Core], hint: Hint) -> str:
    return "; ".join(_reasons(board, wish, cores, hint))


def _reasons(board: Board, wish: Wish, cores: Sequence[Core], hint: Hint) -> Iterator[str]:
    machine = board.machine
    if not wish.cpus:
        yield "no CPU wish: it runs where nobody is exclusive"
    else:
        yield wish.sentence()
        yield from _taste(machine, wish, cores)
    if wish.gpu:
        yield gpu_words(wish)
        nodes = near(machine, board.hand[wish.name])
        if len(machine.cpu_nodes) > 1 and len(nodes) < len(machine.cpu_nodes):
            yield f"GPU near node {cpu_list(nodes)}"
    if hint.cpus.get(wish.name):
        kept = hint.cpus[wish.name] == set(board.cpus[wish.name])
        yield "CPUs kept" if kept else f"CPUs moved from {cpu_list(hint.cpus[wish.name])}"


def _taste(machine: Machine, wish: Wish, cores: Sequence[Core]) -> Iterator[str]:
    sizes = {machine.domains[core.domain].size_bytes for core in cores}
    all_sizes = {domain.size_bytes for domain in machine.domains}
    if len(all_sizes) > 1 and wish.prefers == "cache" and sizes == {max(all_sizes)}:
        yield f"the largest L3 ({max(all_sizes) >> 20} MiB), as it computes on the CPU"
    clocks = {domain.mhz for domain in machine.domains}
    if max(clocks) > min(clocks) and wish.prefers == "clock":
        fastest = max(machine.domains[core.domain].mhz for core in cores)
        if fastest == max(clocks):
            yield f"the highest clock ({fastest} MHz)"
    if {core.kind for core in cores} == {"performance"}:
        yield "performance cores"


# -- interrupts ------------------------------------------------------------------------------------


def _interrupts(board: Board) -> dict[str, tuple[int, ...]]:
    """CPUs for the interrupts of each GPU and network card: never one that a service has for itself.

    Housekeeping CPUs on the device's node; else cores there that nobody was given, as many as housekeeping has;
    else all housekeeping CPUs.
    """
    machine, housekeeping = board.machine, board.cpus[HOUSEKEEPING]
    found: dict[str, tuple[int, ...]] = {}
    for address, node in machine.devices.items():
        own = [cpu for cpu in housekeeping if node is None or machine.core_of[cpu].node == node]
        idle = [core for core in machine.cores if core.node == node and not _taken(board, core)]
        spare = [cpu for core in idle for cpu in core.cpus][: len(housekeeping)]
        found[address] = tuple(own or spare or housekeeping)
    return found


def _taken(board: Board, core: Core) -> bool:
    return core.number in board.owner or board.load(core) > 0


# -- what is left ----------------------------------------------------------------------------------


def _left(board: Board, wishes: Sequence[Wish], reserve: int) -> dict[str, Any]:
    machine = board.machine
    idle = [core for core in machine.cores if not _taken(board, core)]
    given = {cpu for cpus in board.cpus.values() for cpu in cpus}
    return {
        "cpus": cpu_list(cpu for core in idle for cpu in core.cpus),
        "idle_siblings": cpu_list(
            cpu for core in machine.cores if core.number in board.owner for cpu in core.cpus if cpu not in given
        ),
        "memory_bytes": memory.left(machine, wishes, reserve),
        "vram_bytes": {
            gpu.uuid: gpu.usable_bytes - board.used.get(gpu.uuid, 0) for gpu in machine.gpus if gpu.vram_bytes
        },
    }


# -- warnings --------------------------------------------------------------------------------------


def _memory_warnings(board: Board, wishes: Sequence[Wish]) -> Iterator[str]:
    machine = board.machine
    wanted = {wish.name: wish.all_memory_bytes for wish in wishes}
    if machine.memory_bytes is None and any(wanted.values()):
        yield "the facts do not tell how much memory there is: the sum of the memory wishes was not checked"
        return
    if len(machine.nodes) < 2:
        return
    for node in machine.cpu_nodes:
        if machine.node_of[node].memory_bytes and memory_left(board, wanted, node, "") < 0:
            near_it = sorted(name for name, cores in board.cores.items() if cores and cores[0].node == node)
            names = ", ".join(name for name in near_it if wanted.get(name))
            yield f"node {node} has less memory than the services on it want ({names}): part of it will be remote"


def _warnings(board: Board, wishes: Sequence[Wish]) -> Iterator[str]:
    for wish in sorted(wishes, key=lambda wish: wish.name):
        if wish.cpus:
            cores = board.cores[wish.name]
            yield from (f"{wish.name}: {text}" for text in (*_spread(board, wish, cores), *_shared(board, wish, cores)))


def _spread(board: Board, wish: Wish, cores: Sequence[Core]) -> Iterator[str]:
    domains, nodes = len({core.domain for core in cores}), {core.node for core in cores}
    if domains > 1:
        yield f"its CPUs span {domains} L3 domains: threads that exchange data pay for it"
    if len(nodes) > 1:
        yield f"its CPUs span NUMA nodes {cpu_list(nodes)}: part of its memory is remote"
    if len({core.kind for core in cores}) > 1:
        yield "its CPUs are of both kinds, performance and efficiency: the slower ones set the pace of equal shares"
    if any(core.isolated for core in cores):
        yield "some of its CPUs are isolated (isolcpus): the kernel balances no load there, so pin every thread"
    if wish.gpu and len(nodes) == 1 and not nodes <= set(near(board.machine, board.hand[wish.name])):
        yield f"its CPUs are on node {cpu_list(nodes)}, its GPU is nearer to another"
    if wish.locality == "same_l3" and not board.machine.domains[cores[0].domain].known:
        yield "the machine shows no L3: the cores of one node were taken as one domain"


def _shared(board: Board, wish: Wish, cores: Sequence[Core]) -> Iterator[str]:
    mine = set(board.cpus[wish.name])
    others = sorted({name for core in cores for name in board.users.get(core.number, ())} - {wish.name})
    for other in others:
        common = mine & set(board.cpus[other])
        what = "housekeeping" if other == HOUSEKEEPING else other
        if common:
            yield f"shares CPUs {cpu_list(common)} with {what}"
        else:
            yield f"shares cores with {what}: its CPUs are SMT siblings of theirs"
    idle = {cpu for core in cores for cpu in core.cpus} - mine
    if wish.exclusive and wish.by_threads and idle:
        yield f"its last core is its own as a whole: the SMT sibling {cpu_list(idle)} stays idle"
