# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Placement on known machines: where an expert would put things; and what is said when it cannot be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ai_infra.workstation.plugins.filter.place import FilterModule
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement import place
from placing import MACHINES, gpu, machine, threadripper, two_sockets
from topologies import GIB, epyc, ryzen_9950x, ryzen_9950x3d

LLAMA = {"name": "llama", "engine": "llama_cpp", "cpus": 8, "exclusive": True, "locality": "same_l3"}
VLLM = {"name": "vllm", "engine": "vllm", "cpus": 4, "exclusive": True, "locality": "gpu_node", "gpu": {"share": 0.55}}


def sets(result: dict[str, Any]) -> dict[str, str]:
    assert result["feasible"], result["conflicts"]
    return {name: one["cpus"] for name, one in result["services"].items()}


def message(result: dict[str, Any]) -> str:
    assert not result["feasible"]
    return " / ".join(conflict["message"] for conflict in result["conflicts"])


# -- good places -----------------------------------------------------------------------------------


def test_on_a_9950x_a_large_service_has_one_chiplet_and_the_boot_core_stays_with_the_system() -> None:
    found = place(MACHINES["9950x"], [LLAMA, {"name": "web", "cpus": 2}])
    assert sets(found) == {"llama": "8-15", "web": "1-2"}
    assert found["housekeeping_cpus"] == "0,16"
    assert found["services"]["llama"]["l3_domains"] == ["8-15,24-31"]
    assert found["left"]["cpus"] == "3-7,19-23"
    assert found["left"]["idle_siblings"] == "24-31"


def test_on_a_9950x3d_cpu_inference_gets_the_cache_and_gpu_services_the_clock() -> None:
    found = place(MACHINES["9950x3d"], [LLAMA, VLLM])
    assert sets(found) == {"llama": "0-7", "vllm": "8-11"}
    assert found["housekeeping_cpus"] == "12,28"
    assert "96 MiB" in found["services"]["llama"]["why"]
    assert "5752 MHz" in found["services"]["vllm"]["why"]
    assert sets(place(MACHINES["9950x3d"], [dict(LLAMA, prefers="clock")])) == {"llama": "8-15"}
    assert sets(place(MACHINES["9950x3d"], [dict(LLAMA, engine="custom")])) == {"llama": "8-15"}


def test_a_preference_gives_way_when_another_service_needs_the_place() -> None:
    small = {"name": "a_first", "cpus": 4, "exclusive": True, "engine": "llama_cpp", "priority": 90}
    other = {"name": "other", "cpus": 8, "exclusive": True, "locality": "same_l3", "priority": 10}
    found = place(MACHINES["9950x3d"], [small, other])
    assert sets(found) == {"a_first": "1-4", "other": "8-15"}
    third = {"name": "third", "cpus": 3, "exclusive": True, "locality": "same_l3", "priority": 10}
    assert sets(place(MACHINES["9950x3d"], [small, other, third])) == {
        "a_first": "1-4",
        "other": "8-15",
        "third": "5-7",
    }


def test_services_get_chiplets_of_their_own_while_there_are_any() -> None:
    four = [{"name": f"s{number}", "cpus": 3, "exclusive": True} for number in range(4)]
    assert sets(place(MACHINES["threadripper"], four)) == {"s0": "8-10", "s1": "16-18", "s2": "24-26", "s3": "1-3"}


def test_on_two_sockets_cpus_are_near_the_gpu_and_memory_near_the_cpus() -> None:
    found = place(MACHINES["epyc"], [dict(VLLM, gpu={"uuid": "GPU-1"}), LLAMA])
    assert sets(found) == {"llama": "8-15", "vllm": "16-19"}
    assert found["services"]["vllm"]["memory_node"] == 1
    assert found["interrupt_cpus_by_device"]["0000:01:00.0"] == found["housekeeping_cpus"] == "0,32"
    assert found["interrupt_cpus_by_device"]["0000:02:00.0"] == "20,52"


def test_the_gpu_is_chosen_so_that_the_cpus_near_it_suffice() -> None:
    hog = {
        "name": "hog",
        "cpus": 15,
        "exclusive": True,
        "locality": "gpu_node",
        "gpu": {"uuid": "GPU-0"},
        "priority": 0,
    }
    other = dict(VLLM, name="other", cpus=12, gpu={"vram_bytes": "4G"}, priority=99)
    cards = [gpu(0, 0), gpu(1, 0), gpu(2, 1)]
    found = place(machine(two_sockets, *cards), [hog, other])
    assert found["services"]["other"]["gpus"] == ["GPU-2"]
    assert found["services"]["other"]["memory_node"] == 1


def test_on_a_hybrid_inference_has_performance_cores_and_the_system_efficiency_cores() -> None:
    found = place(MACHINES["hybrid"], [LLAMA])
    assert sets(found) == {"llama": "0,2,4,6,8,10,12,14"}
    assert found["housekeeping_cpus"] == "16-17"
    mixed = place(MACHINES["hybrid"], [dict(LLAMA, cpus=10)])
    assert sets(mixed) == {"llama": "0,2,4,6,8,10,12,14,16-17"}
    assert any("both kinds" in text for text in mixed["warnings"])
    threads = place(MACHINES["hybrid"], [dict(LLAMA, cpus=20, cpus_unit="threads")])
    assert sets(threads) == {"llama": "0-19"}


def test_a_small_virtual_machine_shares_everything_and_says_so() -> None:
    found = place(MACHINES["vm"], [{"name": "a", "cpus": 2}, {"name": "b"}])
    assert sets(found) == {"a": "0-1", "b": "0-1"}
    assert found["warnings"] == ["a: shares CPUs 0-1 with housekeeping"]
    text = message(place(MACHINES["vm"], [{"name": "a", "cpus": 1, "exclusive": True}]))
    assert text.endswith("any of these is enough: a.exclusive: false or housekeeping_cpus: 1")
    assert sets(place(MACHINES["vm"], [{"name": "a", "cpus": 1, "exclusive": True}], housekeeping_cpus=1)) == {"a": "1"}


def test_smt_off_in_the_same_plan_leaves_first_threads_only() -> None:
    wish = dict(LLAMA, cpus=16, cpus_unit="threads")
    assert sets(place(MACHINES["9950x"], [wish])) == {"llama": "8-15,24-31"}
    text = message(place(MACHINES["9950x"], [wish], smt="off"))
    assert "the largest L3 8 cores" in text
    assert "llama.cpus: 8" in text
    # CPU 9 is offline, so 25 is a second thread alone: SMT off takes it down. CPU 20's first thread stays.
    left = place(MACHINES["offline"], [{"name": "all"}], smt="off", housekeeping_cpus=1)
    assert sets(left) == {"all": "1-2,4-8,10-15"}
    assert left["housekeeping_cpus"] == "0"


def test_smt_on_waits_for_threads_that_are_offline_now() -> None:
    facts = machine(lambda: ryzen_9950x().without_smt())
    found = place(facts, [LLAMA], smt="on")
    assert sets(found) == {"llama": "8-15"}
    assert found["warnings"] == ["SMT is off now: second threads are placed in the run after they came online"]


def test_nodes_without_memory_or_cpus() -> None:
    found = place(MACHINES["no memory"], [dict(VLLM, gpu={"uuid": "GPU-1"})])
    assert sets(found)["vllm"] == "16-19"
    assert found["services"]["vllm"]["memory_node"] == 0
    # GPU-0 hangs on the node that has memory only: the nearest with CPUs is as good as it gets.
    found = place(MACHINES["no cpus"], [dict(VLLM, gpu={"uuid": "GPU-0"})])
    assert sets(found)["vllm"] == "8-11"
    assert found["services"]["vllm"]["memory_node"] == 0


def test_a_node_with_too_little_memory_is_avoided_or_named() -> None:
    wishes = [dict(LLAMA, name=name, cpus=4, memory_bytes="40G") for name in ("a", "b")]
    found = place(MACHINES["epyc"], wishes)
    assert [found["services"][name]["memory_node"] for name in ("a", "b")] == [0, 1]
    assert found["warnings"] == []
    found = place(MACHINES["epyc"], [dict(LLAMA, memory_bytes="100G")])
    assert found["warnings"] == [
        "node 0 has less memory than the services on it want (llama): part of it will be remote"
    ]


def test_isolated_cpus_come_last_and_are_named() -> None:
    facts = machine(ryzen_9950x)
    facts["cpu"] = {**facts["cpu"], "isolated": "1-7,17-23"}
    wish = {"name": "a", "cpus": 7, "exclusive": True, "locality": "same_l3", "engine": "llama_cpp"}
    other = dict(wish, name="b")
    assert sets(place(facts, [wish])) == {"a": "8-14"}
    found = place(facts, [wish, other])
    assert sets(found) == {"a": "8-14", "b": "0-6"}
    assert found["housekeeping_cpus"] == "15,31"
    assert any("isolated" in text for text in found["warnings"])


def test_a_machine_that_shows_no_l3_is_one_domain_per_node() -> None:
    facts = machine(ryzen_9950x)
    facts["cpu"] = {
        **facts["cpu"],
        "cpus": [{**one, "l3": None, "l3_size_bytes": None} for one in facts["cpu"]["cpus"]],
    }
    found = place(facts, [dict(LLAMA, cpus=12)])
    assert sets(found) == {"llama": "1-12"}
    assert "shows no L3" in found["warnings"][0]
    assert found["services"]["llama"]["l3_domains"] == []


# -- stability -------------------------------------------------------------------------------------


def test_a_service_that_grows_stays_where_it_was() -> None:
    before = place(MACHINES["epyc"], [dict(LLAMA, cpus=3), dict(VLLM, name="other", gpu={"share": 0.2})])
    after = place(MACHINES["epyc"], [dict(LLAMA, cpus=5), dict(VLLM, name="other", gpu={"share": 0.2})], hint=before)
    assert set(before["services"]["llama"]["l3_domains"]) == set(after["services"]["llama"]["l3_domains"])
    assert sets(after)["other"] == sets(before)["other"]
    assert "CPUs moved from" in after["services"]["llama"]["why"]
    assert "CPUs kept" in after["services"]["other"]["why"]


def test_a_hint_that_is_no_longer_right_is_dropped_for_that_service_alone() -> None:
    wishes = [dict(LLAMA, cpus=4), {"name": "web", "cpus": 2}]
    hint = {"services": {"llama": {"cpus": "4-7"}, "web": {"cpus": "40-41"}}, "housekeeping_cpus": "14,30"}
    found = place(MACHINES["9950x"], wishes, hint=hint)
    assert sets(found)["llama"] == "4-7"
    assert sets(found)["web"] != "40-41"
    assert found["housekeeping_cpus"] == "14,30"
    assert sets(place(MACHINES["9950x"], [dict(LLAMA, cpus=4)], hint={"services": {"llama": {"cpus": "6-9"}}})) == {
        "llama": "8-11"
    }  # two domains: wrong for same_l3, but still the first place to look


def test_a_hint_is_given_up_when_a_new_wish_needs_the_place() -> None:
    before = {"services": {"small": {"cpus": "2-3"}, "other": {"cpus": "8-9"}}}
    wishes = [{"name": "small", "cpus": 2, "exclusive": True}, {"name": "other", "cpus": 2, "exclusive": True}, LLAMA]
    found = place(MACHINES["9950x"], wishes, hint=before)
    # Both hints are right, but with both kept no chiplet is left for llama. The first by name stays.
    assert sets(found) == {"other": "8-9", "small": "10-11", "llama": "0-7"}


def test_a_core_that_turns_out_not_to_be_needed_is_not_taken() -> None:
    # Core 4 has one thread left: with it six threads would be on four cores, and one of these too many.
    found = place(MACHINES["offline"], [{"name": "a", "cpus": 6, "cpus_unit": "threads", "locality": "same_l3"}])
    assert found["services"]["a"]["cores"] == 3


# -- GPUs and memory -------------------------------------------------------------------------------


def test_gpus_by_name_by_size_and_without_a_display() -> None:
    facts = MACHINES["9950x3d"]
    whole = {"name": "a", "gpu": {}}
    assert place(facts, [whole])["services"]["a"]["gpus"] == ["GPU-0"]
    assert place(facts, [{"name": "a", "gpu": {"vram_bytes": "20G"}}])["services"]["a"]["gpus"] == ["GPU-1"]
    assert place(facts, [{"name": "a", "gpu": {"name": "rtx 3090"}}])["services"]["a"]["gpus"] == ["GPU-1"]
    shown = {**facts, "gpus": [{**facts["gpus"][0], "display_active": True}, facts["gpus"][1]]}
    assert place(shown, [whole])["services"]["a"]["gpus"] == ["GPU-1"]
    both = place(facts, [{"name": "a", "gpu": {"vram_bytes": "20G"}}, {"name": "b", "gpu": {"vram_bytes": "2G"}}])
    assert (both["services"]["a"]["gpus"], both["services"]["b"]["gpus"]) == (["GPU-1"], ["GPU-0"])


def test_vram_of_a_gpu_is_counted_with_contexts_and_slack() -> None:
    fits = [{"name": "v", "gpu": {"share": 0.5}}, {"name": "l", "gpu": {"vram_bytes": 15 * GIB - (512 << 20)}}]
    found = place(MACHINES["9950x"], fits)
    assert found["services"]["l"]["vram_bytes"] == {"GPU-0": 15 * GIB}
    assert found["left"]["vram_bytes"] == {"GPU-0": 0}
    fits[1]["gpu"] = {"vram_bytes": 15 * GIB}
    assert message(place(MACHINES["9950x"], fits)) == (
        "l wants 15G of a GPU and v wants 0.5 of a GPU: they do not fit together (usable: NVIDIA GeForce RTX 5090 "
        "31744 MiB); any of these is enough: l.gpu.vram_bytes: 14848M or v.gpu.share: 0.48"
    )


def test_a_gpu_that_does_not_answer_is_named_and_not_used() -> None:
    broken = {**gpu(0), "uuid": None}
    found = place(machine(ryzen_9950x, broken), [{"name": "a"}])
    assert found["warnings"] == ["GPU 0000:01:00.0 is not used: the driver does not answer for it"]
    text = message(place(machine(ryzen_9950x, broken), [{"name": "a", "gpu": {}}]))
    assert text == "a wants a whole GPU: that does not fit (no GPU answers); leave one of them out"


def test_a_gpu_of_unknown_size_is_taken_whole_or_not_at_all() -> None:
    facts = machine(ryzen_9950x, gpu(0, vram=0))
    assert place(facts, [{"name": "a", "gpu": {}}])["services"]["a"]["gpus"] == ["GPU-0"]
    assert not place(facts, [{"name": "a", "gpu": {"share": 0.1}}])["feasible"]


def test_memory_wishes_huge_pages_and_the_reserve() -> None:
    wishes = [{"name": "a", "memory_bytes": "96G"}, {"name": "b", "hugepages_bytes": "24G"}]
    found = place(MACHINES["9950x"], wishes)
    assert found["left"]["memory_bytes"] == 0
    assert found["services"]["a"]["memory_limit_bytes"] == 96 * GIB
    wishes[1]["memory_bytes"] = "1M"
    conflict = place(MACHINES["9950x"], wishes)["conflicts"][0]
    assert conflict["wishes"] == ["a.memory_bytes", "b.hugepages_bytes", "reserve_bytes", "b.memory_bytes"]
    assert conflict["remedies"][0] == {"wish": "a.memory_bytes", "value": 96 * GIB - (1 << 20)}
    assert place(MACHINES["9950x"], wishes, reserve_bytes="4G")["feasible"]
    unknown = {**MACHINES["9950x"], "memory": {}}
    assert "was not checked" in place(unknown, wishes)["warnings"][0]


# -- what cannot be done ---------------------------------------------------------------------------


def test_twelve_cores_in_one_l3_are_too_many_for_a_9950x() -> None:
    found = place(MACHINES["9950x"], [dict(LLAMA, cpus=12)])
    assert found["conflicts"] == [
        {
            "resource": "cpus",
            "wishes": ["llama.cpus"],
            "message": "llama wants 12 exclusive cores in one L3: that does not fit (the machine has 16 cores with 32 "
            "threads, the largest L3 8 cores with 16 threads); any of these is enough: llama.cpus: 8 or "
            "llama.locality: same_node",
            "remedies": [{"wish": "llama.cpus", "value": 8}, {"wish": "llama.locality", "value": "same_node"}],
        }
    ]
    spread = place(MACHINES["9950x"], [dict(LLAMA, cpus=12, locality="same_node")])
    assert spread["warnings"] == ["llama: its CPUs span 2 L3 domains: threads that exchange data pay for it"]


def test_only_the_wishes_in_the_way_are_named() -> None:
    two = [dict(LLAMA, name=name, cpus=8) for name in ("a", "b")]
    found = place(MACHINES["9950x"], [*two, {"name": "bystander", "cpus": 2}, {"name": "other"}])
    assert [conflict["wishes"] for conflict in found["conflicts"]] == [["a.cpus", "b.cpus"]]


def test_every_kind_of_conflict_is_reported_at_once() -> None:
    wishes = [dict(LLAMA, cpus=12, memory_bytes="500G"), dict(VLLM, gpu={"share": 1})]
    found = place(MACHINES["9950x"], wishes)
    assert {conflict["resource"]: conflict["wishes"] for conflict in found["conflicts"]} == {
        "memory": ["llama.memory_bytes"],
        "gpu": ["vllm.gpu"],
        "cpus": ["llama.cpus"],
    }
    assert "vllm.gpu.share: 0.96" in message(found)


def test_a_conflict_between_gpus_and_the_cpus_near_them() -> None:
    # The one that wants a whole GPU leaves the others only the other GPU, whose node has too few cores for both.
    near = [dict(VLLM, name=name, cpus=12, gpu={"share": 0.4}) for name in ("a", "b")]
    facts = machine(two_sockets, gpu(0, 0), gpu(1, 1))
    assert place(facts, near)["feasible"]
    (conflict,) = place(facts, [*near, {"name": "whole", "gpu": {}}])["conflicts"]
    assert sorted(conflict["wishes"]) == ["a.cpus", "a.gpu", "b.cpus", "b.gpu", "whole.gpu"]
    assert {"wish": "b.cpus", "value": 4} in conflict["remedies"]
    assert {"wish": "b.locality", "value": "any"} in conflict["remedies"]
    assert {"wish": "whole.gpu.share", "value": 0.56} in conflict["remedies"]


# -- wrong input -----------------------------------------------------------------------------------

WRONG = [
    ([{"name": "a", "cpu": 1}], "service a: 'cpu' is not a field of it; did you mean cpus?"),
    ([{"name": "a", "cpus": -1}], "service a: cpus: -1 is not a whole number from 0 to 8192 cores"),
    ([{"name": "a", "cpus": "all"}], "service a: cpus: 'all' is not a whole number from 0 to 8192 cores"),
    ([{"name": "a b"}], "services[0].name: 'a b' is not a name; write letters, digits, dots, dashes, underscores"),
    ([{"name": "a"}, {"name": "a"}], "services: the name 'a' is there more than once; give each service its own"),
    (["a"], "service None: 'a' is not a dictionary; allowed are name, engine,"),
    ("a", "services: 'a' is not a list of services"),
    (
        [{"name": "a", "cpus": 1, "locality": "near"}],
        "a: locality: 'near' is not one of same_l3, same_node, gpu_node, any",
    ),
    ([{"name": "a", "cpus": 1, "locality": "gpu_node"}], "service a: locality: 'gpu_node' needs a gpu"),
    ([{"name": "a", "exclusive": True}], "service a: exclusive: True needs cpus"),
    ([{"name": "a", "cpus": 1, "exclusive": "maybe"}], "service a: exclusive: 'maybe' is not a boolean"),
    ([{"name": "a", "memory_bytes": "lots"}], "service a: memory_bytes: 'lots' is not a size"),
    ([{"name": "a", "priority": 101}], "service a: priority: 101 is not a whole number from 0 to 100"),
    ([{"name": "a", "gpu": {"share": 55}}], "service a: gpu.share: 55 is not a fraction of a GPU's VRAM"),
    (
        [{"name": "a", "gpu": {"vram": "8G"}}],
        "service a: gpu: 'vram' is not a field of it; allowed are count, share, vram_bytes",
    ),
    ([{"name": "a", "gpu": {"count": 2, "uuid": "GPU-0"}}], "service a: gpu.uuid: 1 UUIDs are fewer than count, 2"),
    ([{"name": "housekeeping_cpus"}], "services: the name 'housekeeping_cpus' is taken"),
]


@pytest.mark.parametrize(("services", "text"), WRONG, ids=[text[:40] for _services, text in WRONG])
def test_wrong_services_name_service_field_value_and_what_is_allowed(services: Any, text: str) -> None:
    with pytest.raises(InputError) as error:
        place(MACHINES["9950x"], services)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"smt": "maybe"}, "smt: 'maybe' is not one of on, off"),
        ({"housekeeping_cpus": 0}, "housekeeping_cpus: 0 is not a whole number from 1 to 32"),
        ({"housekeeping_cpus": 33}, "housekeeping_cpus: 33 is not a whole number from 1 to 32"),
        ({"housekeeping_cpus": 17, "smt": False}, "housekeeping_cpus: 17 is not a whole number from 1 to 16"),
        ({"reserve_bytes": "much"}, "reserve_bytes: 'much' is not a size"),
        ({"hint": "0-7"}, "hint: '0-7' is not an earlier result"),
        ({"hint": {"services": {"a": {"cpus": "x"}}}}, "hint: services.a.cpus: 'x' is not a CPU list"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as error:
        place(MACHINES["9950x"], [], **options)
    assert text in str(error.value)


@pytest.mark.parametrize("facts", [None, "x", {}, {"cpu": {"cpus": []}}])
def test_facts_without_cpus(facts: Any) -> None:
    with pytest.raises(InputError, match=r"^facts: "):
        place(facts, [])


# -- the filter ------------------------------------------------------------------------------------


def test_the_filter_fails_in_one_line_or_hands_conflicts_over() -> None:
    run = FilterModule().filters()["place"]
    assert run(MACHINES["9950x"], [LLAMA]) == place(MACHINES["9950x"], [LLAMA])
    with pytest.raises(AnsibleFilterError, match="llama wants 12 exclusive cores in one L3"):
        run(MACHINES["9950x"], [dict(LLAMA, cpus=12)])
    with pytest.raises(AnsibleFilterError, match="smt: 'x' is not one of on, off"):
        run(MACHINES["9950x"], [], smt="x")
    assert run(MACHINES["9950x"], [dict(LLAMA, cpus=12)], refuse=False)["conflicts"]


def test_256_cpus_and_20_services() -> None:
    facts = machine(epyc, *(gpu(number, number) for number in range(8)))
    wishes = [
        {
            "name": f"s{number:02}",
            "cpus": 4 + number % 5,
            "exclusive": number % 3 != 0,
            "locality": ["same_l3", "same_node", "any", "gpu_node"][number % 4],
            "gpu": {"share": 0.4} if number % 4 == 3 else None,
        }
        for number in range(20)
    ]
    assert len(sets(place(facts, wishes))) == 20


def test_a_request_without_a_core_for_the_system_is_refused_and_one_core_less_is_placed() -> None:
    crowded = machine(lambda: replace(threadripper(), node_bytes=512 * GIB))
    wishes = [dict(LLAMA, name=f"s{number}", cpus=cpus) for number, cpus in enumerate([5, 3, 5, 3, 4, 4, 4, 4])]
    assert place(crowded, wishes)["conflicts"][0]["wishes"] == [f"s{number}.cpus" for number in range(8)]
    wishes[0]["cpus"] = 4
    assert place(crowded, wishes)["feasible"]
    assert sets(place(machine(ryzen_9950x3d), [LLAMA], housekeeping_cpus=16)) == {"llama": "0-7"}
