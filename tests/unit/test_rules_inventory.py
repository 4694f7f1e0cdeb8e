# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflict rules about the inventory, and the report of all rules: order, acceptance, defaults, odd input."""

from __future__ import annotations

import tempfile

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.plugin_utils import plan, profiles, variables
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.base import SEVERITIES
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.engine import errors, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Device, board, dimm, plug, write_dmi
from ruling import Case, ampere, card, check, cpus, findings, fires, machine, make, owner, silent
from topologies import epyc, intel_hybrid, ryzen_9950x, ryzen_9950x3d, small_vm, write_tree

CASES = [
    fires("unknown_variable", "os_tuning_governer is not one of ours", os_tuning_governer="x"),
    fires("unknown_variable", "gpu_tuning_zzz is not one of ours", gpu_tuning_zzz=1),
    silent("unknown_variable", os_tuning_governor="powersave", nginx_port=80),
    fires("unknown_profile", "'fast' is not one of", workstation_profile="fast"),
    silent("unknown_profile"),
    fires("unknown_choice", "os_tuning_thp: 'sometimes' is not one of", os_tuning_thp="sometimes"),
    silent("unknown_choice", os_tuning_thp="never", os_tuning_thp_defrag=None),
    fires("wrong_type", "os_tuning_sysctl: 'vm.swappiness=1' is not a dictionary", os_tuning_sysctl="vm.swappiness=1"),
    fires("wrong_type", "os_tuning_units: 'x' is not a list", os_tuning_units="x"),
    fires("wrong_type", "os_tuning_governor: \"['performance']\" is not a single", os_tuning_governor=["performance"]),
    fires("wrong_type", "is not a list of dictionaries", os_tuning_units=["fstrim.timer"]),
    fires("wrong_type", "os_tuning_mounts[0]: path is missing", os_tuning_mounts=[{"options": ["noatime"]}]),
    fires("wrong_type", "os_tuning_units[0]: name: [1] is not a single", os_tuning_units=[{"name": [1]}]),
    fires("wrong_type", "os_tuning_units[0]: name is missing", os_tuning_units=[{"name": None}]),
    fires("wrong_type", "os_tuning_files[0]: path: ['x'] is not", os_tuning_files=[{"path": ["x"]}]),
    fires("wrong_type", "os_tuning_sysctl_at_least[0]: {} is not a single", os_tuning_sysctl_at_least=[{}]),
    fires(
        "wrong_type",
        "os_tuning_kernel_parameters_accept: 'True' is not a list",
        os_tuning_kernel_parameters={"mitigations": "off"},
        os_tuning_kernel_parameters_accept=True,
    ),
    fires(
        "wrong_type",
        "gpu_tuning_gpus[0]: gpu_clocks: True is not a dictionary",
        gpu_tuning_gpus=[{"id": "0", "gpu_clocks": True}],
    ),
    fires("wrong_type", "os_tuning_irqbalance: 1 is not the name of an option", os_tuning_irqbalance={1: "0-3"}),
    silent("wrong_type", os_tuning_sysctl={}, os_tuning_units=[], os_tuning_files=None),
    silent(
        "wrong_type",
        os_tuning_units=[{"name": "fstrim.timer", "active": None}],
        os_tuning_mounts=[{"path": "/mnt/ai-data", "options": ["noatime"]}],
        os_tuning_irqbalance={"banned_modules": ["nvidia"]},
    ),
    fires(
        "not_possible_here",
        "install the package earlyoom",
        {"owners": [owner("earlyoom", installed=False, active=False)]},
        os_tuning_oom_guard="earlyoom",
    ),
    silent("not_possible_here", {"owners": [owner("earlyoom", installed=False, active=False)]}),
    fires("unknown_accept", "'governer_writers' is not a rule", workstation_plan_accept=["governer_writers"]),
    fires("unknown_accept", "unknown_variable cannot be accepted", workstation_plan_accept=["unknown_variable"]),
    silent("unknown_accept", workstation_plan_accept=["governor_writers"]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case: Case) -> None:
    check(case)


def refused(facts: dict, **given_: object) -> list[dict]:
    with pytest.raises(plan.PlanError) as caught:
        make(facts, **given_)
    assert "\n" not in str(caught.value)
    return caught.value.findings


def test_a_profile_that_does_not_exist_does_not_hide_the_rest() -> None:
    found = refused(machine(), workstation_profile="agressive", gpu_tuning_power_limit="900W")
    assert [one["rule"] for one in found] == ["unknown_profile", "power_limit_out_of_range"]
    assert "did you mean aggressive?" in found[0]["fix"]


def test_a_word_that_yaml_took_for_a_boolean_is_explained() -> None:
    found = refused(machine(), os_tuning_smt=False)
    assert "quote the word, 'off'" in found[0]["fix"]


# -- acceptance ------------------------------------------------------------------------------------

WRITER = machine(owners=[owner("tuned")])


def test_an_accepted_error_is_a_warning_that_stays_in_the_report() -> None:
    assert [one["severity"] for one in refused(WRITER)] == ["error"]
    made = make(WRITER, workstation_plan_accept=["governor_writers"])
    assert [(one["rule"], one["severity"], one["accepted"]) for one in made["findings"]] == [
        ("governor_writers", "warning", True)
    ]


def test_accepting_one_rule_leaves_the_others() -> None:
    found = refused(WRITER, workstation_plan_accept=["governor_writers"], gpu_tuning_power_limit="900W")
    assert [(one["rule"], one["severity"]) for one in found] == [
        ("power_limit_out_of_range", "error"),
        ("governor_writers", "warning"),
    ]


def test_accepting_what_does_not_exist_or_cannot_be_is_an_error() -> None:
    found = refused(machine(), workstation_plan_accept=["governer_writers", "unknown_variable"])
    assert [one["rule"] for one in found] == ["unknown_accept", "unknown_accept"]
    assert "did you mean governor_writers?" in found[0]["fix"]
    assert found[1]["what"].endswith("unknown_variable cannot be accepted")


def test_a_rule_that_a_module_repeats_stays_an_error() -> None:
    found = refused(machine(), workstation_plan_accept=["power_limit_out_of_range"], gpu_tuning_power_limit="900W")
    assert {one["rule"] for one in found if one["severity"] == "error"} == {
        "power_limit_out_of_range",
        "unknown_accept",
    }


# -- the report ------------------------------------------------------------------------------------


def test_all_conflicts_are_in_one_report_and_in_one_line() -> None:
    facts = machine(owners=[owner("tuned")], gpus=[ampere()])
    given_ = {
        "os_tuning_governer": "x",
        "gpu_tuning_power_limit": "600W",
        "os_tuning_swap_": 1,
        "os_tuning_sysctl": {"vm.drop_caches": 3, "kernel.numa_balancing": 0},
    }
    with pytest.raises(plan.PlanError) as caught:
        make(facts, **given_)
    rules = [one["rule"] for one in caught.value.findings]
    assert rules == ["unknown_variable", "unknown_variable", "power_limit_out_of_range", "governor_writers",
                     "dropped_caches", "numa_on_one_node"]  # fmt: skip
    message = str(caught.value)
    assert message.startswith("5 conflicts: unknown_variable: ")
    assert "numa_on_one_node" not in message
    assert all(
        set(one) == {"rule", "severity", "what", "why", "variables", "fix", "accepted"} for one in caught.value.findings
    )


def test_one_conflict_is_not_several() -> None:
    with pytest.raises(plan.PlanError, match=r"^1 conflict: governor_writers: "):
        make(WRITER)


def test_the_order_of_the_input_does_not_matter() -> None:
    given_ = {"os_tuning_governer": 1, "gpu_tuning_x": 2, "os_tuning_sysctl": {"kernel.shmall": 1, "kernel.shmmax": 1}}
    facts = machine(owners=[owner("tuned"), owner("tlp")])
    other = {**facts, "owners": facts["owners"][::-1]}
    backwards = dict(reversed(given_.items()))
    assert findings(facts, given_) == findings(other, backwards)


# -- defaults --------------------------------------------------------------------------------------


TOPOLOGIES = [ryzen_9950x(), ryzen_9950x3d(), epyc(2, 16), intel_hybrid(), small_vm(), ryzen_9950x().without(3, 19),
              ryzen_9950x().without_smt()]  # fmt: skip


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda one: f"{one.model[:24]}-{len(one.online)}")
def test_a_default_inventory_has_no_error_on_any_machine_with_any_profile(topology) -> None:
    with tempfile.TemporaryDirectory() as root:
        write_tree(topology, root)
        plug(root, Device())
        write_dmi(root, board(), *(dimm(f"DIMM_{slot}", 32, 6000, 5600) for slot in range(4)))
        facts = gather(Host(root))
    defaults = {name: option["default"] for name, option in variables.specifications().items() if "default" in option}
    for profile in profiles.NAMES:
        for given_ in ({}, defaults):
            made = make(facts, **{**given_, "workstation_profile": profile})
            assert [one for one in made["findings"] if one["severity"] == "error"] == []


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("gpu", [card, ampere])
def test_nor_with_a_card(gpu, profile: str) -> None:
    for attested in (True, False):
        made = make(machine(gpus=[gpu()]), workstation_profile=profile, gpu_tuning_psu_attested=attested)
        assert made["findings"] == []


def test_facts_that_are_missing_are_no_conflict() -> None:
    assert make({})["findings"] == []


# -- odd input -------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.lists(
    st.dictionaries(st.sampled_from(["name", "path", "options", "size", "cpus", "id"]), JSON), max_size=2
)
SERVICE = st.dictionaries(
    st.sampled_from(["name", "cpus", "gpu", "memory_bytes", "mlock", "mps", "uid", "environment", "flags", "ports"]),
    JSON | st.just("one") | st.integers(0, 9),
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(variables.known())), JSON | ENTRIES, max_size=5),
    st.lists(SERVICE, max_size=3),
)
def test_whatever_is_written_there_is_a_plan_or_one_line(given_: dict, services: list) -> None:
    chosen = {**given_, **({"workstation_services": services} if services else {})}
    _context, found = plan.review(machine(cpu=cpus(4, 2)), chosen, list(chosen))
    assert all(one.rule and one.severity in SEVERITIES for one in found)
    assert "\n" not in one_line(found)
    if not errors(found):
        plan.make(machine(cpu=cpus(4, 2)), chosen, list(chosen))
