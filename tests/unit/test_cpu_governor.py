# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""cpu_governor against drivers that refuse and move what the kernel's drivers do."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import cpu_governor
from fake_cpus import CPU, FakeCpus
from fake_kernel import FakeKernel, killed, refuse, run_module
from hypothesis import example, given, settings
from hypothesis import strategies as st

GOVERNOR, EPP = "scaling_governor", "energy_performance_preference"
MIN, MAX = "scaling_min_freq", "scaling_max_freq"
ACPI = {"driver": "acpi-cpufreq", "governors": ("conservative", "ondemand", "userspace", "powersave", "performance")}


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(cpu_governor, kernel, check, **params)


def keys(outcome: dict) -> list[str]:
    return [change["key"] for change in outcome["changes"]]


def writes(kernel: FakeKernel) -> list[str]:
    return [path for path in kernel.writes if path.startswith(CPU)]


def entries(kernel: FakeKernel) -> dict:
    return json.loads(kernel.text(LEDGER) or '{"entries": {}}')["entries"]


EVERYTHING = [
    {"governor": "performance"},
    {"governor": "powersave", "epp": "performance"},
    {"epp": "64"},
    {"boost": False},
    {"boost": False, "policies": "0-1"},
    {"min_mhz": "2000", "max_mhz": "3000.5"},
    {"min_mhz": "hardware", "max_mhz": "hardware", "governor": "performance"},
    {"boost": False, "max_mhz": "hardware"},
    {"boost": False, "min_mhz": "1000", "max_mhz": "3500"},
    {"max_mhz": "3500"},
    {"min_mhz": "4000", "max_mhz": "4500"},
    {"idle_latency_us": 20},
    {"idle_latency_us": 20, "idle_mechanism": "disable", "policies": [2, 3]},
    {"idle_latency_us": 0, "accept_polling": True},
    {"smt": "off"},
    {"smt": "off", "governor": "performance", "boost": False, "idle_latency_us": 20, "idle_mechanism": "disable"},
]


@pytest.mark.parametrize("driver", ["intel_pstate", "amd-pstate-epp", "intel_cpufreq"])
@pytest.mark.parametrize("wanted", EVERYTHING, ids=str)
def test_there_again_and_back(kernel: FakeKernel, driver: str, wanted: dict) -> None:
    boost = "boost" if driver == "amd-pstate-epp" or "policies" in wanted else "no_turbo"
    cpus = FakeCpus(kernel, driver=driver, boost=boost)
    before = cpus.tree()
    predicted = call(kernel, check=True, **wanted)
    assert (cpus.tree(), kernel.writes) == (before, [])
    real = call(kernel, **wanted)
    assert predicted == real
    count = len(kernel.writes)
    again = call(kernel, **wanted)
    assert (again["changed"], again["changes"], len(kernel.writes)) == (False, [], count)
    assert again["planned_online_cpus"] == real["planned_online_cpus"] == kernel.text(f"{CPU}/online")
    undo = call(kernel, check=True)
    assert call(kernel) == undo
    assert cpus.tree() == before
    assert entries(kernel) == {}


DRIVERS = [
    {"driver": "intel_pstate", "boost": "no_turbo"},
    {"driver": "intel_pstate", "boost": "no_turbo", "ceiling_shown": False},
    {"driver": "amd-pstate-epp"},
    {"driver": "amd-pstate-epp", "boost": "policy"},
    {"boost": "boost", **ACPI},
]


LIMITS = {"min_mhz": "2000", "max_mhz": "3000.5"}


@example(calls=[LIMITS, {"boost": False, "policies": "0-1"}, {"boost": False}], driver=DRIVERS[2])
@example(calls=[{"boost": False}, {"boost": False, "smt": "off"}], driver=DRIVERS[2])
@example(calls=[{"smt": "off"}, {"boost": False}, {"max_mhz": "3500"}], driver=DRIVERS[0])
@example(calls=[{"smt": "off"}, {"boost": False}, LIMITS], driver=DRIVERS[3])
@example(calls=[{"boost": False, "smt": "off"}, {"boost": False}, {"boost": False, **LIMITS}], driver=DRIVERS[2])
@settings(max_examples=40, deadline=None)
@given(calls=st.lists(st.sampled_from(EVERYTHING), min_size=1, max_size=5), driver=st.sampled_from(DRIVERS))
def test_any_sequence_of_calls_ends_where_it_began(calls: list[dict], driver: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernel = FakeKernel(Path(folder))
        cpus = FakeCpus(kernel, cores=2, **driver)
        before = cpus.tree()
        for wanted in [*calls, {}]:
            try:
                predicted = call(kernel, check=True, **wanted)
            except RefusedError:
                continue  # a limit outside what boost off leaves, or what this driver lacks
            assert call(kernel, **wanted) == predicted
            again = call(kernel, check=True, **wanted)
            assert again["changes"] == [], (wanted, predicted["changes"])
        assert cpus.tree() == before
        assert entries(kernel) == {}


def test_limits_that_the_kernel_shows_a_moment_later_are_waited_for(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    before = cpus.tree()
    kernel.late = ("/scaling_min_freq", "/scaling_max_freq")
    real = call(kernel, **LIMITS)
    assert (cpus.read(0, "scaling_min_freq"), cpus.read(0, "scaling_max_freq")) == ("2000000", "3000500")
    assert call(kernel, check=True, **LIMITS)["changes"] == []
    assert len(call(kernel)["changes"]) == len(real["changes"])
    assert cpus.tree() == before


def test_governor_is_written_on_every_policy(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel)
    call(kernel, governor="performance")
    assert {cpus.read(number, GOVERNOR) for number in range(8)} == {"performance"}


def test_the_forced_preference_is_in_the_plan_and_returns_after_the_governor(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    outcome = call(kernel, governor="performance")
    assert keys(outcome)[:2] == [f"cpufreq:policy0/{EPP}", f"cpufreq:policy0/{GOVERNOR}"]
    assert outcome["changes"][0]["reason"] == "governor performance forces it"
    kernel.writes.clear()
    call(kernel)
    assert writes(kernel)[:2] == [cpus.policy(0, GOVERNOR), cpus.policy(0, EPP)]
    assert (cpus.read(0, GOVERNOR), cpus.read(0, EPP)) == ("powersave", "balance_performance")


def test_leaving_performance_the_governor_goes_before_the_preference(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1, default_governor="performance")
    kernel.put_all({cpus.policy(number, EPP): "performance" for number in (0, 1)})
    call(kernel, governor="powersave", epp="balance_performance")
    assert writes(kernel)[:2] == [cpus.policy(0, GOVERNOR), cpus.policy(0, EPP)]


def test_a_preference_against_governor_performance_is_refused_before_any_write(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel)
    with pytest.raises(RefusedError, match=r"policy0-7/.*'power' with governor performance.*EBUSY.*governor powersave"):
        call(kernel, governor="performance", epp="power")
    kernel.put(cpus.policy(3, GOVERNOR), "performance")
    with pytest.raises(RefusedError, match=r"cpufreq:policy3/.*'power' with governor performance"):
        call(kernel, epp="power")
    assert kernel.writes == []


def test_a_passive_driver_takes_a_preference_with_governor_performance(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, driver="intel_cpufreq", boost="no_turbo")
    call(kernel, governor="performance", epp=128)
    assert (cpus.read(0, GOVERNOR), cpus.read(0, EPP)) == ("performance", "balance_performance")


def test_dropping_the_governor_frees_the_preference_in_the_same_call(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel)
    call(kernel, governor="performance")
    call(kernel, epp="power")
    assert (cpus.read(7, GOVERNOR), cpus.read(7, EPP)) == ("powersave", "power")


@pytest.mark.parametrize(("low", "high"), [("500", "900"), ("4000", "4500"), ("900", "900")])
def test_limits_move_in_the_order_the_kernel_accepts(kernel: FakeKernel, low: str, high: str) -> None:
    cpus = FakeCpus(kernel, cores=1)
    call(kernel, min_mhz="2000", max_mhz="3000")
    call(kernel, min_mhz=low, max_mhz=high)
    assert (cpus.read(0, MIN), cpus.read(0, MAX)) == (f"{low}000", f"{high}000")


def test_a_limit_against_the_live_other_one_is_refused(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    kernel.put(cpus.policy(1, MAX), "2000000")
    with pytest.raises(RefusedError, match=r"policy1/.*minimum 3000 MHz would be above the maximum 2000 MHz; set both"):
        call(kernel, min_mhz=3000)


def test_no_turbo_is_the_inverse(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, driver="intel_pstate", boost="no_turbo")
    call(kernel, boost=False)
    assert kernel.text(f"{CPU}/intel_pstate/no_turbo") == "1"
    assert cpus.read(0, MAX) == "3500000"
    call(kernel, boost=True)
    assert (kernel.text(f"{CPU}/intel_pstate/no_turbo"), cpus.read(0, MAX)) == ("0", "5000000")


def test_boost_of_one_policy(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel)
    assert keys(call(kernel, boost=False, policies="2")) == ["cpufreq:policy2/boost"]
    assert [cpus.read(number, "boost") for number in (1, 2)] == ["1", "0"]


@pytest.mark.parametrize("driver", DRIVERS[:3], ids=str)
def test_a_limit_let_go_while_boost_is_off_waits_for_boost(kernel: FakeKernel, driver: dict) -> None:
    cpus = FakeCpus(kernel, cores=1, **driver)
    call(kernel, max_mhz=3000, boost=False)
    outcome = call(kernel, boost=False)
    assert outcome["changes"][0]["after"] == cpus.read(0, MAX) == "3500000"
    assert "as far as it goes without boost" in outcome["changes"][0]["reason"]
    assert entries(kernel)[f"cpufreq:policy0/{MAX}"]["original"] == "5000000"
    call(kernel)
    assert cpus.read(0, MAX) == "5000000"


def test_a_limit_let_go_with_boost_goes_back_while_its_range_is_there(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    call(kernel, max_mhz=3000)
    for wanted, switch in (({}, f"{CPU}/cpufreq/boost"), ({"policies": "0"}, cpus.policy(0, "boost"))):
        kernel.writes.clear()
        call(kernel, boost=False, **wanted)
        assert writes(kernel).index(cpus.policy(0, MAX)) < writes(kernel).index(switch)
        assert cpus.read(0, MAX) == "3500000"
        call(kernel, max_mhz=3000)


def test_a_limit_that_boost_moved_is_left_where_no_file_says_what_goes_without(kernel: FakeKernel) -> None:
    """intel_pstate without HWP on Linux before 6.10."""
    cpus = FakeCpus(kernel, cores=1, driver="intel_pstate", boost="no_turbo", ceiling_shown=False)
    for number in (0, 1):
        os.unlink(kernel.at(cpus.policy(number, "base_frequency")))
    call(kernel, max_mhz=3000)
    call(kernel, boost=False)
    assert (cpus.read(0, MAX), call(kernel, check=True, boost=False)["changes"]) == ("3500000", [])
    call(kernel)
    assert cpus.read(0, MAX) == "5000000"


def test_a_limit_above_what_boost_leaves_takes_the_call_back(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    call(kernel, max_mhz=4000)
    with pytest.raises(ApplyError, match="scaling_max_freq: '4000000' does not hold.*nothing of this call remains"):
        call(kernel, max_mhz=4000, boost=False)
    assert (cpus.read(0, MAX), cpus.read(0, "boost")) == ("4000000", "1")


def test_the_switch_of_a_policy_waits_for_the_one_for_all_cpus(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    call(kernel, boost=False, policies="0")
    call(kernel, boost=False)
    assert [cpus.read(number, "boost") for number in (0, 1)] == ["0", "0"]
    call(kernel)
    assert [cpus.read(number, "boost") for number in (0, 1)] == ["1", "1"]
    kernel.write_value(f"{CPU}/cpufreq/boost", "0")
    with pytest.raises(RefusedError, match=r"policy0/boost: the switch for all CPUs is off \(.*cpufreq/boost\)"):
        call(kernel, boost=True, policies="0")


def test_governors_differ_between_core_types(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, **ACPI)
    for number in (2, 3):
        kernel.put(cpus.policy(number, "scaling_available_governors"), "performance powersave")
    message = (
        r"cpufreq:policy2-3/scaling_governor: governor 'ondemand' is not offered by acpi-cpufreq: performance, power"
    )
    with pytest.raises(RefusedError, match=message):
        call(kernel, governor="ondemand")
    outcome = call(kernel, governor="ondemand", optional=["governor"])
    assert [cpus.read(number, GOVERNOR) for number in (1, 2)] == ["ondemand", "powersave"]
    assert [skip["key"] for skip in outcome["skipped_keys"]] == ["cpufreq:policy2-3/scaling_governor"]


def test_a_governor_that_may_be_a_module_is_explained(kernel: FakeKernel) -> None:
    FakeCpus(kernel, driver="acpi-cpufreq", governors=("performance", "schedutil"), default_governor="schedutil")
    with pytest.raises(
        RefusedError, match="offered by acpi-cpufreq: performance, schedutil; it may be a module: modprobe"
    ):
        call(kernel, governor="ondemand")


def test_smt_goes_first_and_the_rest_spares_what_leaves(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=2)
    outcome = call(kernel, smt="off", governor="performance", idle_latency_us=20)
    assert writes(kernel)[0] == f"{CPU}/smt/control"
    assert (outcome["planned_online_cpus"], kernel.text(f"{CPU}/online")) == ("0-1", "0-1")
    assert not any("policy2" in key or "cpu2" in key for key in keys(outcome))
    assert "CPUs 2-3 go offline with SMT" in outcome["warnings"][0]
    assert cpus.read(1, GOVERNOR) == "performance"


def test_what_leaves_with_smt_goes_back_before(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    before = cpus.tree()
    wanted = {"governor": "performance", "idle_latency_us": 20, "idle_mechanism": "disable"}
    call(kernel, **wanted)
    kernel.writes.clear()
    outcome = call(kernel, smt="off", **wanted)
    order = writes(kernel)
    assert order.index(f"{CPU}/cpu1/cpuidle/state3/disable") < order.index(f"{CPU}/smt/control")
    assert "its CPU goes offline" in outcome["changes"][0]["reason"]
    assert not any("policy1" in key for key in entries(kernel))
    call(kernel)
    assert cpus.tree() == before


def test_what_comes_with_smt_is_set_in_the_same_call(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=2)
    kernel.write_value(f"{CPU}/smt/control", "off")
    kernel.writes.clear()
    wanted = {"smt": "on", "governor": "performance", "idle_latency_us": 20}
    predicted = call(kernel, check=True, **wanted)
    assert call(kernel, **wanted) == predicted
    assert cpus.read(3, GOVERNOR) == "performance"
    assert call(kernel, **wanted)["changed"] is False


def test_what_comes_otherwise_than_foreseen_is_journaled_as_it_came(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    kernel.write_value(f"{CPU}/smt/control", "off")
    cpus.default_governor = "performance"
    call(kernel, smt="on", governor="performance", epp="performance")
    assert f"cpufreq:policy1/{GOVERNOR}" not in entries(kernel)
    kernel.write_value(f"{CPU}/smt/control", "off")
    cpus.default_governor, cpus.governors = "schedutil", ("performance", "powersave", "schedutil")
    call(kernel, smt="on", governor="performance", epp="performance")
    assert entries(kernel)[f"cpufreq:policy1/{GOVERNOR}"]["original"] == "schedutil"


def test_a_failure_after_smt_came_on_takes_all_of_it_back(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=2)
    kernel.write_value(f"{CPU}/smt/control", "off")
    before = cpus.tree()
    kernel.rules[f"{CPU}/cpu3/power/pm_qos_resume_latency_us"] = refuse(errno.EIO)
    cpus._come = lambda cpu: (cpus._put_policy(cpu), kernel.put(f"{CPU}/cpu{cpu}/topology/thread_siblings_list", "1"))
    with pytest.raises(ApplyError, match="pm_qos:cpu3.*Input/output error; nothing of this call remains"):
        call(kernel, smt="on", governor="performance", idle_latency_us=20)
    assert cpus.tree() == before
    assert entries(kernel) == {}


@pytest.mark.parametrize("state", ["notsupported", "notimplemented"])
def test_no_smt_control_is_said(kernel: FakeKernel, state: str) -> None:
    FakeCpus(kernel)
    kernel.put(f"{CPU}/smt/control", state)
    with pytest.raises(RefusedError, match=f"cpu:smt: SMT control is {state}"):
        call(kernel, smt="off")
    outcome = call(kernel, smt="off", optional=["smt"])
    assert (outcome["changed"], outcome["planned_online_cpus"]) == (False, "0-7")


def test_forceoff_waits_for_a_reboot(kernel: FakeKernel) -> None:
    FakeCpus(kernel)
    assert any("cannot be taken back" in text for text in call(kernel, smt="forceoff")["warnings"])
    with pytest.raises(RefusedError, match="forced off, which only a reboot ends"):
        call(kernel, smt="on")
    outcome = call(kernel)
    assert (outcome["changed"], outcome["reboot_required"], outcome["planned_online_cpus"]) == (False, True, "0-3")


def test_selected_policies_must_be_online_after_smt(kernel: FakeKernel) -> None:
    FakeCpus(kernel)
    call(kernel, check=True, governor="performance", policies="6")
    with pytest.raises(RefusedError, match=r"policies: CPU 6 is not online in the planned state \(online: 0-3\)"):
        call(kernel, governor="performance", policies="2,6", smt="off")
    with pytest.raises(RefusedError, match="policies: CPU 64-65 is not online"):
        call(kernel, governor="performance", policies="64-65")


def test_a_shared_policy_is_named(kernel: FakeKernel) -> None:
    FakeCpus(kernel, shared=4, **ACPI)
    outcome = call(kernel, governor="performance", policies="0-1")
    assert keys(outcome) == [f"cpufreq:policy0/{GOVERNOR}"]
    assert "policy0 also clocks CPU 2-3" in outcome["warnings"][0]


def test_idle_states_above_the_bound_are_disabled_and_only_those(kernel: FakeKernel) -> None:
    FakeCpus(kernel, cores=1)
    call(kernel, idle_latency_us=20, idle_mechanism="disable")
    assert [kernel.text(f"{CPU}/cpu1/cpuidle/state{n}/disable") for n in range(4)] == ["0", "0", "0", "1"]
    call(kernel, idle_latency_us=10, idle_mechanism="disable")
    assert [kernel.text(f"{CPU}/cpu1/cpuidle/state{n}/disable") for n in range(4)] == ["0", "0", "1", "1"]
    outcome = call(kernel, idle_latency_us=400)
    assert [kernel.text(f"{CPU}/cpu1/cpuidle/state{n}/disable") for n in range(4)] == ["0", "0", "0", "0"]
    assert kernel.text(f"{CPU}/cpu1/power/pm_qos_resume_latency_us") == "400"
    assert "pm_qos:cpu1" in keys(outcome)


@pytest.mark.parametrize("mechanism", ["pm_qos", "disable"])
def test_a_bound_that_leaves_polling_is_refused(kernel: FakeKernel, mechanism: str) -> None:
    FakeCpus(kernel)
    with pytest.raises(
        RefusedError, match=r"cpu0-7/idle: 0 us is below the first sleep state \(1 us\).*accept_polling"
    ):
        call(kernel, idle_latency_us=0, idle_mechanism=mechanism)


def test_no_latency_at_all_is_written_as_the_kernel_words_it(kernel: FakeKernel) -> None:
    FakeCpus(kernel)
    call(kernel, idle_latency_us=0, accept_polling=True)
    assert kernel.text(f"{CPU}/cpu0/power/pm_qos_resume_latency_us") == "n/a"


def test_a_virtual_machine_says_so_once_for_each_knob(kernel: FakeKernel) -> None:
    kernel.put_all({f"{CPU}/online": "0-255", f"{CPU}/present": "0-255"})
    wanted = {"governor": "performance", "epp": "power", "boost": True, "max_mhz": "hardware", "idle_latency_us": 20}
    outcome = call(kernel, optional=list(wanted), **wanted)
    reasons = {skip["key"]: skip["reason"] for skip in outcome["skipped_keys"]}
    assert set(reasons) == {
        "cpufreq:governor",
        "cpufreq:epp",
        "cpufreq:boost",
        "cpufreq:max_mhz",
        "cpuidle:states",
    }
    assert reasons["cpufreq:governor"] == "no cpufreq here (a virtual machine gives the choice to its host)"
    assert (outcome["changed"], outcome["planned_online_cpus"]) == (False, "0-255")
    with pytest.raises(RefusedError, match="cpufreq:governor: no cpufreq here"):
        call(kernel, governor="performance")


def test_hundreds_of_cpus_are_one_journal_and_one_write_each(kernel: FakeKernel) -> None:
    FakeCpus(kernel, cores=128, shared=2, boost="")
    call(kernel, governor="performance")
    assert len(writes(kernel)) == 2 * 128
    assert kernel.writes.count(LEDGER) == 2


@pytest.mark.parametrize(
    ("unit", "sign"),
    [
        ("tuned.service", "/sys/fs/cgroup/system.slice/tuned.service/cgroup.procs"),
        ("power-profiles-daemon.service", "/sys/fs/cgroup/system.slice/power-profiles-daemon.service/cgroup.procs"),
        ("auto-cpufreq.service", "/sys/fs/cgroup/systemd/system.slice/auto-cpufreq.service/tasks"),
        ("tlp.service", "/run/tlp/lock"),
    ],
)
def test_another_writer_is_named(kernel: FakeKernel, unit: str, sign: str) -> None:
    FakeCpus(kernel)
    assert call(kernel, check=True, governor="performance")["warnings"] == []
    kernel.put(sign, "")
    assert f"{unit} is active" in call(kernel, check=True, governor="performance")["warnings"][0]
    assert call(kernel, check=True, idle_latency_us=20)["warnings"] == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBUSY, errno.EIO, errno.EPERM, errno.EROFS])
def test_a_write_that_fails_takes_the_call_back(kernel: FakeKernel, code: int) -> None:
    cpus = FakeCpus(kernel)
    before = cpus.tree()
    kernel.rules[cpus.policy(7, GOVERNOR)] = refuse(code)
    with pytest.raises(ApplyError, match="cpufreq:policy7/scaling_governor.*nothing of this call remains"):
        call(kernel, smt="on", governor="performance", boost=False)
    assert cpus.tree() == before
    assert entries(kernel) == {}


def test_a_driver_that_does_not_take_a_number_is_remembered_as_a_skip(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel, cores=1)
    for number in (0, 1):
        kernel.rules[cpus.policy(number, EPP)] = refuse(errno.EINVAL)
    first = call(kernel, epp="99", optional=["epp"])
    assert {skip["reason"] for skip in first["skipped_keys"]} == {"the driver does not take this number"}
    second = call(kernel, epp="99", optional=["epp"])
    assert (second["changed"], second["skipped_keys"][0]["key"]) == (False, f"cpufreq:policy0-1/{EPP}")


def test_dynamic_epp_is_said(kernel: FakeKernel) -> None:
    FakeCpus(kernel)
    kernel.put(f"{CPU}/amd_pstate/dynamic_epp", "enabled")
    with pytest.raises(RefusedError, match="dynamic_epp is enabled"):
        call(kernel, epp="power")


def test_a_read_only_sys_is_a_reason(kernel: FakeKernel) -> None:
    cpus = FakeCpus(kernel)
    for path in Path(kernel.at(CPU)).rglob("*"):
        if path.is_file():
            kernel.read_only.add(str(path)[len(kernel.root) :])
    wanted = {"governor": "performance", "boost": False, "max_mhz": 2000, "idle_latency_us": 20, "smt": "off"}
    with pytest.raises(RefusedError, match="read-only here"):
        call(kernel, **wanted)
    outcome = call(kernel, optional=[*wanted, "epp"], **wanted)
    assert (outcome["changed"], outcome["planned_online_cpus"]) == (False, "0-7")
    assert {skip["key"] for skip in outcome["skipped_keys"]} == {
        "cpu:smt",
        "cpufreq:boost",
        f"cpufreq:policy0-7/{GOVERNOR}",
        f"cpufreq:policy0-7/{EPP}",
        f"cpufreq:policy0-7/{MAX}",
        "pm_qos:cpu0-7/bound",
    }
    assert cpus.read(0, GOVERNOR) == "powersave"


def test_missing_knobs_are_named_with_the_driver(kernel: FakeKernel) -> None:
    FakeCpus(kernel, boost="", **ACPI)
    with pytest.raises(
        RefusedError, match=r"acpi-cpufreq offers no boost switch.*driver acpi-cpufreq has no energy_perf"
    ):
        call(kernel, boost=True, epp="power")


def test_without_root_there_is_one_line(kernel: FakeKernel) -> None:
    FakeCpus(kernel)
    kernel.root_user = False
    with pytest.raises(RefusedError, match=r"cpu_governor: changing cpufreq:policy0/.*needs root"):
        call(kernel, governor="performance")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"governor": "per formance"}, "governor: 'per formance' is not a name"),
        ({"epp": "fast"}, "epp: 'fast' is not one of performance, balance_performance, balance_power, power, 0 to 255"),
        ({"epp": "256"}, "epp: '256' is not a whole number from 0 to 255"),
        ({"epp": "-1"}, "epp: '-1' is not a whole number from 0 to 255"),
        ({"epp": "default"}, "reads back as another word"),
        ({"boost": "yes"}, "boost: 'yes' is not true or false"),
        ({"min_mhz": "fast"}, "min_mhz: 'fast' is not a clock from 1 to 100000 MHz"),
        ({"max_mhz": "nan"}, "max_mhz: 'nan' is not a clock"),
        ({"min_mhz": 3000, "max_mhz": 2000}, "min_mhz: 3000 is above max_mhz 2000"),
        ({"policies": "0-3,,9"}, r"policies: '0-3,,9' is not a CPU list"),
        ({"policies": []}, "policies: the list is empty"),
        ({"idle_latency_us": -1}, "idle_latency_us: -1 is not a whole number from 0 to 2147483647 microseconds"),
        ({"idle_mechanism": "poll"}, "idle_mechanism: 'poll' is not one of pm_qos, disable"),
        ({"smt": "auto"}, "smt: 'auto' is not one of on, off, forceoff"),
        ({"optional": ["governer"]}, "optional: 'governer' is not one of governor, epp"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: dict, message: str) -> None:
    FakeCpus(kernel)
    with pytest.raises(InputError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)
    assert kernel.writes == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_mhz": 9000}, r"cpufreq:policy0-7/scaling_max_freq: 9000 MHz is outside 400 to 5000 MHz of this CPU"),
        ({"min_mhz": 100}, r"cpufreq:policy0-7/scaling_min_freq: 100 MHz is outside 400 to 5000 MHz"),
        ({"governor": "turbo"}, r"governor 'turbo' is not offered by amd-pstate-epp: performance, powersave$"),
    ],
)
def test_what_the_cpu_lacks_is_refused_once_for_all_policies(kernel: FakeKernel, params: dict, message: str) -> None:
    FakeCpus(kernel)
    with pytest.raises(RefusedError, match=message):
        call(kernel, **params)
    assert kernel.writes == []


def test_killed_anywhere_then_run_again_and_back(tmp_path: Path) -> None:
    wanted = {"smt": "off", "governor": "performance", "boost": False, "idle_latency_us": 20}
    point, finished = 0, False
    while not finished:
        kernel = FakeKernel(tmp_path / str(point))
        cpus = FakeCpus(kernel, cores=1)
        before = cpus.tree()
        finished = not killed(kernel, partial(call, kernel, **wanted), point + 1)
        call(kernel, **wanted)
        assert not call(kernel, **wanted)["changed"]
        call(kernel)
        assert cpus.tree() == before, f"killed at write {point}"
        assert os.path.exists(kernel.at(LEDGER))
        point += 1
    assert point > 5
