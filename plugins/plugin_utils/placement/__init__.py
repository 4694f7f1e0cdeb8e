# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Placement: CPU sets, memory and GPUs for services, from the facts of a machine. Pure.

    place(facts["workstation"], services, smt=None, housekeeping_cpus=2, reserve_bytes="8G", hint=previous)

The way it decides, file by file:

 machine     the cores that will be online, by L3 domain and node
 wishes      the services, each with what it wants, in the order of priority and name
 packing     exact: can these CPU wishes be met together? Bin packing over counts of cores
 cards       exact: can these GPU wishes be met together?
 board       who has what, and both questions for what is still to be placed
 conflicts   if not: a smallest set of wishes that conflict, and changes that were tried and help
 memory      the same for memory, which is a sum
 choose      which place is good: candidates for one service, best first
 decide      each service in turn takes its first candidate that leaves the others a place
 report      the result, with reasons and warnings

So the greedy order makes the result easy to explain and the exact answer behind it makes it complete: a
request that can be met is met, and one more free L3 domain never makes it fail (unless the new CPUs are nearer
to a GPU than those it had: then "near its GPU" means another node than before).

An exclusive service has whole cores: nobody runs on the siblings of its CPUs. Shared services, services without a
CPU wish and housekeeping may overlap each other and never an exclusive one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, cpus, integer, size
from . import conflicts, machine, memory, report, wishes
from .board import HOUSEKEEPING, Board, Rest, fit
from .decide import Hint, place_all

DEFAULT_RESERVE_BYTES = 8 << 30  # the system, page cache, the loading of models


def place(
    facts: Any,
    services: Any,
    smt: Any = None,
    housekeeping_cpus: Any = 2,
    reserve_bytes: Any = DEFAULT_RESERVE_BYTES,
    hint: Any = None,
) -> dict[str, Any]:
    """Place the services. Raises InputError for wrong input; wishes that conflict are in the result."""
    state = {True: "on", False: "off"}.get(smt, smt) if isinstance(smt, bool) else smt
    if not isinstance(facts, Mapping):
        raise InputError(f"facts: {str(facts)[:80]!r} are not facts; give ansible_facts['workstation']")
    box = machine.read(facts, None if state is None else choice("smt", state, ("on", "off")))
    wanted = wishes.parse(services)
    if any(wish.name == HOUSEKEEPING for wish in wanted):
        raise InputError(f"services: the name {HOUSEKEEPING!r} is taken by the result; choose another")
    online = sum(len(core.cpus) for core in box.cores)
    housekeeping = integer("housekeeping_cpus", housekeeping_cpus, 1, online, "(CPUs that will be online)")
    reserve = size("reserve_bytes", reserve_bytes)
    earlier = _hint(hint)
    found = memory.conflicts(box, wanted, reserve)
    rest = Rest(tuple(w for w in wanted if w.cpus), tuple(w for w in wanted if w.gpu), housekeeping)
    proof = fit(Board(box), rest)
    if proof is None:
        request = conflicts.Request(box, {wish.name: wish for wish in wanted}, housekeeping)
        found += conflicts.find(request)
    if found or proof is None:
        return report.infeasible(box, found)
    return report.build(place_all(box, wanted, housekeeping, earlier, proof), wanted, reserve, earlier)


def _hint(hint: Any) -> Hint:
    """An earlier result. What is missing in it is no hint; what is no result is an error."""
    if not hint:
        return Hint()
    if not isinstance(hint, Mapping) or not isinstance(hint.get("services", {}), Mapping):
        raise InputError(f"hint: {str(hint)[:80]!r} is not an earlier result of this filter; leave it out or give that")
    cpu_sets: dict[str, frozenset[int]] = {}
    gpus: dict[str, tuple[str, ...]] = {}
    for name, service in hint.get("services", {}).items():
        entry = service if isinstance(service, Mapping) else {}
        cpu_sets[name] = frozenset(cpus(f"hint: services.{name}.cpus", entry.get("cpus") or ""))
        gpus[name] = tuple(str(uuid) for uuid in entry.get("gpus") or ())
    cpu_sets[HOUSEKEEPING] = frozenset(cpus(f"hint: {HOUSEKEEPING}", hint.get(HOUSEKEEPING) or ""))
    return Hint(cpu_sets, gpus)
