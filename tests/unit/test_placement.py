# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Properties of placement that hold on every machine, for every request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpus
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement import place
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement.cards import Call, deal
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement.machine import VRAM_SLACK_BYTES, Cell, Gpu
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement.packing import Demand, Space, pack
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement.wishes import GpuWish
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from placing import MACHINES, check, gpu, grown, machine, threadripper, two_sockets
from topologies import GIB, intel_hybrid, ryzen_9950x, ryzen_9950x3d, small_vm

Facts = dict[str, Any]
hammer = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@st.composite
def service(draw: st.DrawFn, name: str, most: int) -> Facts:
    one: Facts = {"name": name, "priority": draw(st.integers(0, 3))}
    if draw(st.booleans()):
        sizes = [{"share": draw(st.sampled_from([0.2, 0.5, 0.9]))}, {"vram_bytes": draw(st.integers(1, 20)) * GIB}, {}]
        one["gpu"] = {**draw(st.sampled_from(sizes)), "count": draw(st.sampled_from([1, 1, 2]))}
    one["cpus"] = draw(st.integers(0, most))
    one["cpus_unit"] = draw(st.sampled_from(["cores", "threads"]))
    one["smt"] = draw(st.sampled_from([None, "siblings", "one_per_core"]))
    one["exclusive"] = one["cpus"] > 0 and draw(st.booleans())
    one["locality"] = draw(st.sampled_from(["same_l3", "same_node", "any", "gpu_node" if "gpu" in one else "any"]))
    one["engine"] = draw(st.sampled_from(["llama_cpp", "vllm", "custom"]))
    one["memory_bytes"] = draw(st.sampled_from([None, 8 * GIB, 40 * GIB]))
    return one


@st.composite
def requests(draw: st.DrawFn, machines: Sequence[str] = tuple(MACHINES), count: int = 5) -> tuple[Facts, list[Facts]]:
    name = draw(st.sampled_from(machines))
    most = 3 if name == "vm" else 9
    services = [draw(service(f"s{number}", most)) for number in range(draw(st.integers(1, count)))]
    return MACHINES[name], services


smts = st.sampled_from([None, "on", "off"])


@hammer
@given(requests(), smts, st.integers(1, 2), st.data())
def test_a_placement_keeps_all_its_promises_in_whatever_order_services_come(request, smt, housekeeping, data):
    facts, services = request
    found = place(facts, services, smt, housekeeping)
    shuffled = data.draw(st.permutations(services))
    assert json.dumps(place(facts, shuffled, smt, housekeeping)) == json.dumps(found)
    if found["feasible"]:
        check(facts, services, found, smt, housekeeping)
    else:
        assert found["conflicts"]


@hammer
@given(requests(), smts)
def test_the_result_as_hint_changes_nothing(request, smt):
    facts, services = request
    found = place(facts, services, smt)
    assume(found["feasible"])
    again = place(facts, services, smt, hint=json.loads(json.dumps(found)))
    for one in (found, again):
        for entry in one["services"].values():
            del entry["why"]
    assert again == found


@hammer
@given(requests(), st.data())
def test_removing_a_service_moves_no_other(request, data):
    facts, services = request
    found = place(facts, services)
    assume(found["feasible"])
    gone = data.draw(st.sampled_from(services))
    left = place(facts, [one for one in services if one is not gone], hint=found)
    for name, entry in left["services"].items():
        assert (entry["cpus"], entry["gpus"]) == (found["services"][name]["cpus"], found["services"][name]["gpus"])
    assert left["housekeeping_cpus"] == found["housekeeping_cpus"]


@hammer
@given(requests(count=4), st.data())
def test_a_new_service_moves_nobody_who_need_not_move(request, data):
    facts, services = request
    found = place(facts, services)
    new = data.draw(service("new", 4))
    more = place(facts, [*services, new], hint=found)
    assume(found["feasible"] and more["feasible"])
    check(facts, [*services, new], more, None, 2)
    moved = [name for name, one in found["services"].items() if more["services"][name]["cpus"] != one["cpus"]]
    wishes = {one["name"]: one for one in services}
    if moved and all(wishes[name]["cpus"] for name in moved):
        # Somebody had to: with all of them pinned there is no room for the new one.
        free = set(cpus("", found["left"]["cpus"]))
        assert new["cpus"]
        assert not _fits_beside(facts, new, free)


def _fits_beside(facts: Facts, new: Facts, free: set[int]) -> bool:
    """Whether a service without a locality has its cores among those that nobody had."""
    if new["locality"] != "any":
        return False
    by_core = {one["siblings"] for one in facts["cpu"]["cpus"] if one["cpu"] in free}
    return len(by_core) >= new["cpus"]


GROWING = [ryzen_9950x, ryzen_9950x3d, threadripper, two_sockets, intel_hybrid, small_vm]


@hammer
@given(st.sampled_from(GROWING), smts, st.data())
def test_a_free_l3_domain_more_never_makes_a_request_infeasible(make, smt, data):
    gpus = [gpu(0, 0), gpu(1, 1 if make is two_sockets else 0)]
    services = [data.draw(service(f"s{number}", 9)) for number in range(data.draw(st.integers(1, 5)))]
    assume(place(machine(make, *gpus), services, smt)["feasible"])
    larger = {**grown(make), "gpus": gpus, "pci": []}
    found = place(larger, services, smt)
    assert found["feasible"], found["conflicts"]
    check(larger, services, found, smt, 2)


# -- conflicts -------------------------------------------------------------------------------------


def only(services: Sequence[Facts], wishes: Sequence[str], housekeeping: int) -> tuple[list[Facts], int, int]:
    """The request with nothing but these wishes: services, housekeeping CPUs, reserve."""
    left = []
    for one in services:
        has = {
            field for field in ("cpus", "gpu", "memory_bytes", "hugepages_bytes") if f"{one['name']}.{field}" in wishes
        }
        part = {key: value for key, value in one.items() if key in {"name", "priority", "engine", *has}}
        if "cpus" in has:
            part.update({key: one[key] for key in ("cpus_unit", "smt", "exclusive", "locality")})
            if one["locality"] == "gpu_node" and "gpu" not in has:
                part.update(gpu=dict(one["gpu"], count=1), lend=True)
        left.append(part)
    return left, housekeeping if "housekeeping_cpus" in wishes else 1, 8 * GIB if "reserve_bytes" in wishes else 0


def feasible(facts: Facts, services: Sequence[Facts], wishes: Sequence[str], housekeeping: int) -> bool:
    left, kept, reserve = only(services, wishes, housekeeping)
    lending = [one for one in left if one.pop("lend", False)]
    assume(not lending)  # "near its GPU" without the wish for the GPU cannot be said through the filter
    return bool(place(facts, left, None, kept, reserve)["feasible"])


@hammer
@given(requests(count=6), st.integers(1, 4))
def test_conflicting_wishes_are_minimal_and_each_remedy_helps(request, housekeeping):
    facts, services = request
    housekeeping = min(housekeeping, len(cpus("", facts["cpu"]["online"])))
    found = place(facts, services, None, housekeeping)
    assume(not found["feasible"])
    assert found["services"] == {}
    for conflict in found["conflicts"]:
        wishes = conflict["wishes"]
        assert not feasible(facts, services, wishes, housekeeping)
        for wish in wishes:
            assert feasible(facts, services, [one for one in wishes if one != wish], housekeeping), wish
        for remedy in conflict["remedies"]:
            changed, kept = remedied(services, remedy, housekeeping)
            assert feasible(facts, changed, wishes, kept), remedy
        for remedy in conflict["remedies"][:6]:
            assert f"{remedy['wish']}: " in conflict["message"]


def remedied(services: Sequence[Facts], remedy: Facts, housekeeping: int) -> tuple[list[Facts], int]:
    if remedy["wish"] == "housekeeping_cpus":
        return list(services), remedy["value"]
    name, _dot, field = remedy["wish"].partition(".")

    def change(one: Facts) -> Facts:
        if one["name"] != name:
            return one
        if field.startswith("gpu."):
            return {**one, "gpu": {**one["gpu"], field[4:]: remedy["value"]}}
        return {**one, field: remedy["value"]}

    return [change(one) for one in services], housekeeping


# -- the exact answers -----------------------------------------------------------------------------


@st.composite
def packings(draw: st.DrawFn) -> tuple[list[Cell], list[Demand], list[int]]:
    """Up to seven cores in cells of one or two threads, on two nodes with two domains each."""
    pairs = draw(st.lists(st.sampled_from([(0, 0), (1, 0), (2, 1), (3, 1)]), min_size=1, max_size=4, unique=True))
    cells = [Cell(domain, node, draw(st.sampled_from([1, 2]))) for domain, node in pairs]
    counts = [draw(st.integers(1, 2)) for _cell in cells]
    demands = []
    for number in range(draw(st.integers(1, 4))):
        level = draw(st.integers(0, 2))
        keys = [[cell.domain for cell in cells], [cell.node for cell in cells], [0 for _cell in cells]][level]
        regions = [tuple(i for i, one in enumerate(keys) if one == key) for key in sorted(set(keys))]
        if level == 1 and draw(st.booleans()):
            regions = [draw(st.sampled_from(regions))]
        amount, by_threads = draw(st.integers(1, 4)), draw(st.booleans())
        demands.append(Demand(f"d{number}", amount, by_threads, draw(st.booleans()), tuple(regions), level))
    return cells, demands, counts


def by_trying_all(cells: Sequence[Cell], demands: Sequence[Demand], counts: Sequence[int]) -> bool:
    """Every owner of every core."""
    cores = [cell for cell, count in enumerate(counts) for _core in range(count)]
    owners = [number for number, demand in enumerate(demands) if demand.exclusive]
    return any(
        all(
            any(_met(cells, demand, number, region, cores, taken) for region in demand.regions)
            for number, demand in enumerate(demands)
        )
        for taken in itertools.product([None, *owners], repeat=len(cores))
    )


def _met(cells, demand, number, region, cores, taken) -> bool:
    mine = number if demand.exclusive else None
    there = [cell for cell, owner in zip(cores, taken, strict=True) if owner == mine and cell in region]
    return sum(cells[cell].threads if demand.by_threads else 1 for cell in there) >= demand.amount


@settings(max_examples=150, deadline=None)
@given(packings())
def test_packing_finds_a_way_exactly_when_there_is_one(case):
    cells, demands, counts = case
    found = pack(cells, demands, Space(tuple(counts), tuple(0 for _cell in cells)))
    assert (found is not None) == by_trying_all(cells, demands, counts)


@st.composite
def deals(draw: st.DrawFn) -> tuple[list[Gpu], list[Call]]:
    sizes = [draw(st.sampled_from([8, 16, 24])) * GIB for _gpu in range(draw(st.integers(1, 3)))]
    gpus = [Gpu(f"G{i}", f"card{size >> 30}", f"{i}", i % 2, size, False) for i, size in enumerate(sizes)]
    calls = []
    for number in range(draw(st.integers(1, 4))):
        wish = GpuWish(
            draw(st.integers(1, 2)),
            draw(st.sampled_from([None, None, 0.3, 0.6])),
            draw(st.sampled_from([None, 5 * GIB, 9 * GIB])),
            draw(st.sampled_from([(), (), ("G0",), ("G0", "G1")])),
            draw(st.sampled_from(["", "", "card16"])),
        )
        calls.append(Call(f"c{number}", wish, draw(st.booleans())))
    return gpus, calls


@settings(max_examples=150, deadline=None)
@given(deals())
def test_dealing_gpus_finds_a_way_exactly_when_there_is_one(case):
    gpus, calls = case
    assert (deal(gpus, calls, {}) is not None) == _any_hand(gpus, calls, {one.uuid: [] for one in gpus})


def _any_hand(gpus: Sequence[Gpu], calls: Sequence[Call], given_out: dict[str, list[tuple[bool, int]]]) -> bool:
    if not calls:
        return all(
            len(parts) == 1
            if any(whole for whole, _need in parts)
            else sum(need for _whole, need in parts) <= one.vram_bytes - VRAM_SLACK_BYTES
            for one in gpus
            if (parts := given_out[one.uuid])
        )
    wish = calls[0].wish
    for chosen in itertools.combinations([one for one in gpus if wish.accepts(one)], wish.count):
        for one in chosen:
            given_out[one.uuid].append((wish.whole, wish.need(one)))
        works = _any_hand(gpus, calls[1:], given_out)
        for one in chosen:
            given_out[one.uuid].pop()
        if works:
            return True
    return False
