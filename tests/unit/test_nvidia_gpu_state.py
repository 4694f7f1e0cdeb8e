# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nvidia_gpu_state on the stand-in driver, asked through the real nvidia-ml-py."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import (
    ApplyError,
    InputError,
    RefusedError,
)
from ansible_collections.ai_infra.workstation.plugins.module_utils.specs import SPECS
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import nvidia_gpu_state
from gpu_box import CARDS, FULL
from nvml_child import NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")


def keys(result):
    return [change["key"].rpartition("/")[2] for change in result["changes"]]


def skipped(result):
    return {skip["key"]: skip["reason"] for skip in result["skipped_keys"]}


# -- setting, again, changing, taking back ------------------------------------------------------------


def test_a_set_is_applied_in_order_and_read_back(make_box):
    box = make_box()
    result = box.run(**FULL)
    assert keys(result) == ["persistence", "power_limit_mw", "gpu_locked_clocks", "compute_mode"]
    assert [change["before"] for change in result["changes"]] == ["off", 350000, "unknown", "default"]
    assert [change["after"] for change in result["changes"]] == ["on", 315000, "420-1800", "exclusive_process"]
    assert box.setters() == [
        "nvmlDeviceSetPersistenceMode",
        "nvmlDeviceSetPowerManagementLimit",
        "nvmlDeviceSetGpuLockedClocks",
        "nvmlDeviceSetComputeMode",
    ]
    gpu = result["gpus"][0]
    assert (gpu["uuid"], gpu["pci"], gpu["persistence"]) == (box.uuid(), "0000:01:00.0", "on")
    assert gpu["power_watts"] == {"limit": 315, "enforced": 315, "default": 350, "min": 100, "max": 350}
    assert (gpu["compute_mode"], gpu["locked_clocks"]["gpu"]) == ("exclusive_process", "420-1800")
    assert gpu["clocks_mhz"]["sm"] == 420
    assert "not verifiable" in gpu["locked_clocks"]["source"]
    state = box.state()[0]
    assert state["power_limit_mw"] == 315000
    assert state["idle_sm_mhz"] == 420
    assert state["sm_mhz"] <= 1800


def test_a_second_run_changes_nothing_and_makes_no_setter_call(make_box):
    box = make_box()
    box.run(**FULL)
    box.setters()
    result = box.run(**FULL)
    assert result["changed"] is False
    assert result["changes"] == []
    assert box.setters() == []


def test_check_mode_predicts_the_diff_and_sets_nothing(make_box):
    box = make_box()
    before = box.state()
    predicted = box.run(check=True, **FULL)
    assert box.setters() == []
    assert box.state() == before
    assert not box.kernel.exists(PATH)
    real = box.run(**FULL)
    assert predicted["diff"] == real["diff"]
    assert predicted["changes"] == real["changes"]


def test_one_session_for_the_whole_call(make_box):
    box = make_box("rtx3090", "rtx4090")
    box.driver.trace(clear=True)
    box.run(**FULL)
    names = [call.function for call in box.driver.trace()]
    assert names.count("nvmlInitWithFlags") == names.count("nvmlShutdown") == 1
    assert names.count("nvmlDeviceGetHandleByIndex_v2") == 2


def test_what_is_not_named_any_more_goes_back(make_box):
    box = make_box()
    before = box.state()
    box.run(**FULL)
    box.setters()
    result = box.run(persistence=True)
    assert keys(result) == ["compute_mode", "gpu_locked_clocks", "power_limit_mw"]
    assert "nvmlDeviceResetGpuLockedClocks" in box.setters()
    result = box.run()
    assert keys(result) == ["persistence"]
    assert box.state() == before
    assert box.run()["changed"] is False


def test_a_changed_value_and_the_first_one_is_still_the_original(make_box):
    box = make_box()
    box.run(persistence=True, power_limit="300W", gpu_clocks={"max_mhz": 1800})
    result = box.run(persistence=True, power_limit="250", gpu_clocks={"max_mhz": 1500})
    assert [(change["before"], change["after"]) for change in result["changes"]] == [
        (300000, 250000),
        ("210-1800", "210-1500"),
    ]
    result = box.run(persistence=True)
    assert {change["after"] for change in result["changes"]} == {350000, "unknown"}
    assert box.state()[0]["power_limit_mw"] == 350000


@pytest.mark.parametrize("card", CARDS)
def test_every_card_set_again_and_back(make_box, card):
    box = make_box(card)
    before = box.state()
    wanted = {
        **FULL,
        "memory_clocks": {"reset": True},
        "application_clocks": {"reset": True},
        "ecc": False,
        "mig": False,
        "optional": ["*"],
        "gpu_clocks": {"max_mhz": 1350},
    }
    predicted = box.run(check=True, **wanted)
    first = box.run(**wanted)
    assert "persistence" in keys(first)
    assert box.state()[0]["sm_mhz"] <= 1350
    # Two cards say only at the write that they do not let a value be set; the next run knows.
    surprise = {"laptop": ["power_limit_mw"], "a100": ["memory_locked_clocks"]}.get(card, [])
    assert [key for key in keys(predicted) if key not in keys(first)] == surprise
    if not surprise:
        assert first["diff"] == predicted["diff"]
    again = box.run(**wanted)
    assert (again["changed"], again["changes"]) == (False, [])
    assert box.run(check=True, **wanted)["changes"] == []
    lacking = {key.rpartition("/")[2] for key in skipped(again)}
    expected = {
        "rtx3090": {"application_clocks", "ecc", "mig"},
        "rtx4090": {"application_clocks", "mig"},
        "rtx5090": {"application_clocks", "ecc", "mig"},
        "laptop": {"application_clocks", "ecc", "mig", "power_limit_mw"},
    }
    assert lacking == expected.get(card, lacking - {"persistence", "power_limit_mw", "gpu_locked_clocks"})
    box.run()
    assert box.state() == before
    assert box.run()["changed"] is False


@pytest.mark.parametrize("card", CARDS)
def test_every_card_reset_to_defaults(make_box, card):
    box = make_box(card)
    fresh = box.state()
    optional = ["power_limit"]
    box.run(**{**FULL, "gpu_clocks": {"max_mhz": 1350}}, optional=optional)
    result = box.run(persistence=True, reset=True, optional=optional)
    assert "gpu_locked_clocks" in keys(result)
    state = box.state()
    assert state[0].pop("persistence") == "on"
    assert fresh[0].pop("persistence") == "off"
    assert state == fresh
    assert box.run(persistence=True, reset=True, optional=optional)["changed"] is False


def test_reset_without_persistence_is_unchanged_the_second_time(make_box):
    box = make_box()
    assert keys(box.run(reset=True)) == ["gpu_locked_clocks", "memory_locked_clocks"]
    result = box.run(reset=True)
    assert result["changed"] is False
    assert result["warnings"] == []


def test_a_call_without_settings_reports_and_changes_nothing(make_box):
    box = make_box("rtx5090", "h200")
    result = box.run()
    assert result["changed"] is False
    assert [gpu["name"] for gpu in result["gpus"]] == ["NVIDIA GeForce RTX 5090", "NVIDIA H200"]
    assert result["gpus"][1]["ecc"] == {"current": "on", "pending": "on"}
    assert result["gpus"][0]["ecc"] is None


# -- what the driver forgets ---------------------------------------------------------------------------


def test_what_a_driver_reload_lost_is_applied_again(make_box):
    box = make_box()
    box.run(**FULL)
    held = box.state()
    box.driver.reload_driver()
    assert box.state() != held
    result = box.run(**FULL)
    assert keys(result) == ["persistence", "power_limit_mw", "gpu_locked_clocks", "compute_mode"]
    assert box.state() == held
    assert box.run(**FULL)["changed"] is False


def test_after_a_reload_nothing_is_left_to_take_back(make_box):
    box = make_box()
    before = box.state()
    box.run(persistence=True, power_limit="300", compute_mode="prohibited")
    box.driver.reload_driver()
    result = box.run()
    assert (result["changed"], result["warnings"]) == (False, [])
    assert box.state() == before


@pytest.mark.parametrize("what", ["reboot", "module", "gpu", "version", "daemon"])
def test_each_part_of_the_identity_makes_a_lock_unknown(make_box, what):
    box = make_box()
    wanted = {"persistence": True, "gpu_clocks": {"max_mhz": 1800}}
    box.kernel.put("/run/nvidia-persistenced/nvidia-persistenced.pid", "77")
    fields = "77 (nvidia-persist) S " + " ".join(str(number) for number in range(4, 30))
    box.kernel.put("/proc/77/stat", fields)
    box.run(**wanted)
    assert box.run(**wanted)["changed"] is False
    if what == "reboot":
        box.kernel.reboot()
    elif what == "version":
        box.kernel.put("/proc/driver/nvidia/version", "NVRM version: other")
    elif what == "daemon":
        box.kernel.put("/proc/77/stat", fields.replace(" 22 ", " 9999 "))
    else:
        path = "/sys/module/nvidia" if what == "module" else "/proc/driver/nvidia/gpus/0000:01:00.0"
        os.rename(box.kernel.at(path), box.kernel.at(path) + ".gone")
        os.makedirs(box.kernel.at(path))
    result = box.run(**wanted)
    assert [(change["before"], change["after"]) for change in result["changes"]] == [("unknown", "210-1800")]
    assert box.run(**wanted)["changed"] is False


def test_a_lock_is_not_trusted_after_persistence_was_off(make_box):
    box = make_box()
    wanted = {"persistence": True, "gpu_clocks": {"max_mhz": 1800}}
    box.run(**wanted)
    box.ask(lambda nvml: nvml.write(box.uuid(), "persistence", "off"))
    assert keys(box.run(**wanted)) == ["persistence", "gpu_locked_clocks"]


def test_a_lock_is_not_trusted_after_the_run_that_changed_it_was_killed(make_box):
    box = make_box()
    box.run(persistence=True, gpu_clocks={"max_mhz": 1800})
    box.driver.fault(fn="nvmlDeviceSetGpuLockedClocks", action="kill-after")
    with pytest.raises(AssertionError, match="wait status 9"):
        box.run(persistence=True, gpu_clocks={"max_mhz": 1500})
    box.driver.fault()
    result = box.run(persistence=True, gpu_clocks={"max_mhz": 1800})
    assert [(change["before"], change["after"]) for change in result["changes"]] == [("unknown", "210-1800")]


def test_volatile_values_without_persistence_are_warned_of(make_box):
    box = make_box()
    result = box.run(power_limit="300", compute_mode="prohibited")
    assert "forgets power_limit_mw, compute_mode" in result["warnings"][0]
    assert box.run(persistence=True, power_limit="300")["warnings"] == []


def test_a_daemon_that_forbids_persistence_is_noted(make_box):
    box = make_box()
    box.kernel.put("/run/nvidia-persistenced/nvidia-persistenced.pid", "77")
    box.kernel.put("/proc/77/cmdline", "/usr/bin/nvidia-persistenced\0--no-persistence-mode\0")
    assert "drop-in" in box.run(persistence=True)["warnings"][0]


# -- which GPU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uuid", "UUID", "0000:02:00.0", "02:00.0", "00000000:02:00.0", "1", "5090", "all"])
def test_a_gpu_by_each_of_its_names(make_box, name):
    box = make_box("rtx3090", "rtx5090")
    word = {"uuid": box.uuid(1), "UUID": box.uuid(1).upper(), "5090": "rtx 5090"}.get(name, name)
    result = box.run(gpus=[{"id": word, "persistence": True}])
    changed = {change["key"] for change in result["changes"]}
    assert f"gpu:{box.uuid(1)}/persistence" in changed
    assert len(changed) == (2 if name == "all" else 1)
    assert [values["persistence"] for values in box.state()] == ["on" if name == "all" else "off", "on"]


def test_the_settings_of_one_gpu_win_over_those_for_all(make_box):
    box = make_box("rtx3090", "rtx4090")
    box.run(persistence=True, power_limit="80%", gpus=[{"id": "1", "power_limit": "default"}])
    assert [values["power_limit_mw"] for values in box.state()] == [280000, 450000]
    assert [values["persistence"] for values in box.state()] == ["on", "on"]


def test_two_gpus_of_one_name_is_an_error_that_names_both(make_box):
    box = make_box("rtx3090", "rtx3090")
    with pytest.raises(RefusedError) as caught:
        box.run(gpus=[{"id": "RTX 3090", "persistence": True}])
    assert box.uuid(0) in str(caught.value)
    assert box.uuid(1) in str(caught.value)
    assert box.setters() == []


def test_a_name_that_matches_nothing_lists_what_is_there(make_box):
    box = make_box("rtx3090")
    with pytest.raises(
        RefusedError, match=f"no GPU matches '5090'; there are 0: NVIDIA GeForce RTX 3090 .*{box.uuid()}"
    ):
        box.run(gpus=[{"id": "5090", "persistence": True}])
    result = box.run(gpus=[{"id": "RTX 5090", "persistence": True}], optional=["RTX 5090"])
    assert result["changed"] is False
    assert "no GPU matches" in skipped(result)["gpu:RTX 5090"]


def test_one_gpu_under_two_names_is_an_error(make_box):
    box = make_box()
    with pytest.raises(RefusedError, match="are the same GPU"):
        box.run(gpus=[{"id": "0", "ecc": True}, {"id": box.uuid(), "mig": True}])


def test_a_gpu_that_was_taken_out_is_let_go(make_box):
    box = make_box("rtx3090", "rtx4090")
    gone = box.uuid(1)
    box.run(**{**FULL, "gpu_clocks": {"max_mhz": 1500}})
    box.driver.set(1, card=None)
    result = box.run(persistence=True)
    assert any(gone in warning and "not in the machine" in warning for warning in result["warnings"])
    assert all(box.uuid(0) in change["key"] for change in result["changes"])


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"power_limit": "fast"}, InputError, ("power_limit", "'fast'", "85%", "max")),
        ({"power_limit": "9000"}, RefusedError, ("power_limit", "9000 W", "100 to 350 W", "default 350 W")),
        ({"power_limit": "9000W"}, RefusedError, ("9000 W",)),
        ({"power_limit": "20%"}, RefusedError, ("70 W", "100 to 350 W")),
        ({"power_limit": "0"}, InputError, ("power_limit",)),
        ({"power_limit": "-5"}, InputError, ("power_limit",)),
        ({"power_limit": True}, InputError, ("power_limit",)),
        ({"compute_mode": "exclusive_thread"}, InputError, ("compute_mode", "exclusive_process, prohibited")),
        ({"persistence": "yes"}, InputError, ("persistence", "'yes'")),
        (
            {"persistence": True, "gpu_clocks": {"max_mhz": 1801}},
            RefusedError,
            ("1801 MHz", "1800 and 1815", "210 to 2100"),
        ),
        ({"persistence": True, "gpu_clocks": {"min_mhz": 2400, "max_mhz": 2550}}, RefusedError, ("2400 MHz", "2100")),
        ({"persistence": True, "memory_clocks": {"max_mhz": 3002}}, RefusedError, ("3002 MHz", "810 and 5001")),
        ({"gpu_clocks": {"min_mhz": 1800, "max_mhz": 1500}}, InputError, ("gpu_clocks", "1800", "1500")),
        ({"gpu_clocks": {}}, InputError, ("gpu_clocks", "reset")),
        ({"gpu_clocks": {"reset": True, "max_mhz": 5}}, InputError, ("gpu_clocks", "one of the two")),
        ({"gpu_clocks": "1500"}, InputError, ("gpu_clocks", "'1500'")),
        ({"gpu_clocks": {"max": 1500}}, InputError, ("gpu_clocks", "max_mhz")),
        ({"gpu_clocks": {"max_mhz": "fast"}}, InputError, ("gpu_clocks.max_mhz", "'fast'")),
        ({"application_clocks": {"memory_mhz": 5}}, InputError, ("application_clocks", "graphics_mhz")),
        ({"gpus": [{"persistence": True}]}, InputError, ("gpus[0].id",)),
        ({"gpus": [{"id": "0", "power_limit": "x"}]}, InputError, ("gpus[0].power_limit", "'x'")),
        ({"optional": ["power"]}, InputError, ("optional", "'power'", "power_limit")),
        ({"ecc": True}, RefusedError, ("ecc", "this card has no ECC")),
        ({"mig": True}, RefusedError, ("mig", "this card has no MIG mode")),
        ({"gpu_clocks": {"max_mhz": 1800}}, RefusedError, ("without persistence", "persistence: true")),
        ({"persistence": False, "gpu_clocks": {"max_mhz": 1800}}, RefusedError, ("without persistence",)),
    ],
)
def test_bad_input_is_one_line_and_sets_nothing(make_box, params, error, words):
    box = make_box("rtx3090")
    for check in (True, False):
        with pytest.raises(error) as caught:
            box.run(check=check, **{"persistence": True, **params} if "ecc" in params else params)
        message = str(caught.value)
        assert "\n" not in message
        assert all(word in message for word in words), message
    assert box.setters() == []
    assert not box.kernel.exists(PATH)


def test_a_set_is_refused_whole_with_every_reason(make_box):
    box = make_box("rtx3090")
    with pytest.raises(RefusedError) as caught:
        box.run(persistence=True, power_limit="9000", ecc=True, gpu_clocks={"max_mhz": 9})
    assert len(caught.value.details["refusals"]) == 3
    assert box.setters() == []


def test_more_than_the_default_power_must_be_attested(make_box):
    box = make_box("rtx5090")
    for limit in ("600", "max", "104%"):
        with pytest.raises(RefusedError, match="above the card's default of 575 W.*allow_above_default: true"):
            box.run(power_limit=limit)
    box.run(persistence=True, power_limit="max", allow_above_default=True)
    assert box.state()[0]["power_limit_mw"] == 600000


def test_memory_locks_are_refused_on_blackwell_geforce_alone(make_box):
    box = make_box("rtx5090")
    with pytest.raises(RefusedError, match="issue 1266"):
        box.run(persistence=True, memory_clocks={"max_mhz": 14001})
    assert keys(box.run(persistence=True, memory_clocks={"reset": True})) == ["persistence", "memory_locked_clocks"]
    for card, clock in (("rtx3090", 9501), ("rtxpro6000", 14001)):
        box = make_box(card)
        assert "memory_locked_clocks" in keys(box.run(persistence=True, memory_clocks={"max_mhz": clock}))


def test_what_a_card_lacks_is_skipped_where_it_is_optional(make_box):
    box = make_box("rtx3090")
    result = box.run(persistence=True, ecc=True, optional=["ecc"])
    assert keys(result) == ["persistence"]
    assert "no ECC" in skipped(result)[f"gpu:{box.uuid()}/ecc"]


def test_a_limit_that_the_driver_does_not_let_be_set(make_box):
    box = make_box("laptop")
    before = box.state()
    with pytest.raises(ApplyError, match=r"NVML_ERROR_NOT_SUPPORTED \(3\).*nothing of this call remains"):
        box.run(persistence=True, power_limit="70")
    assert box.state() == before
    result = box.run(persistence=True, power_limit="70", optional=["power_limit"])
    assert keys(result) == ["persistence"]
    box.setters()
    result = box.run(persistence=True, power_limit="70", optional=["power_limit"])
    assert result["changed"] is False
    assert "does not let" in skipped(result)[f"gpu:{box.uuid()}/power_limit_mw"]
    assert box.setters() == []


def test_application_clocks_are_checked_against_both_lists(make_box):
    box = make_box("a100")
    listed = box.ask(lambda nvml: nvml.memory_clocks(box.uuid()))
    at = box.ask(lambda nvml: nvml.graphics_clocks(box.uuid(), listed[-1]))
    wanted = {"persistence": True, "application_clocks": {"memory_mhz": listed[-1], "graphics_mhz": at[3]}}
    assert keys(box.run(**wanted)) == ["persistence", "application_clocks"]
    assert box.state()[0]["application_clocks"] == f"{listed[-1]},{at[3]}"
    assert box.run(**wanted)["changed"] is False
    with pytest.raises(RefusedError, match="application_clocks.*not on the card's list"):
        box.run(persistence=True, application_clocks={"memory_mhz": listed[-1], "graphics_mhz": at[3] + 1})
    with pytest.raises(RefusedError, match="application_clocks.*3 MHz is not on the card's list"):
        box.run(persistence=True, application_clocks={"memory_mhz": 3, "graphics_mhz": at[3]})
    assert keys(box.run(persistence=True)) == ["application_clocks"]


# -- ECC and MIG -------------------------------------------------------------------------------------------


def test_ecc_waits_for_a_reboot_and_says_so_until_then(make_box):
    box = make_box("rtx4090")
    first = box.run(ecc=True)
    assert [(change["scope"], change["reboot_required"]) for change in first["changes"]] == [("boot", True)]
    assert first["gpus"][0]["ecc"] == {"current": "off", "pending": "on"}
    again = box.run(ecc=True)
    assert (again["changed"], again["reboot_required"]) == (False, True)
    assert "off now, on after a reboot" in again["reboot_reasons"][0]
    back = box.run(ecc=False)
    assert (back["changed"], back["reboot_required"]) == (True, False)
    box.run(ecc=True)
    box.driver.reload_driver()
    result = box.run(ecc=True)
    assert (result["changed"], result["reboot_required"]) == (False, False)
    assert result["gpus"][0]["ecc"] == {"current": "on", "pending": "on"}


def test_mig_acts_at_once_on_an_idle_hopper(make_box):
    box = make_box("h200")
    predicted = box.run(check=True, mig=True)
    result = box.run(mig=True)
    assert (result["reboot_required"], predicted["diff"]) == (False, result["diff"])
    assert result["gpus"][0]["mig"] == {"current": "on", "pending": "on"}
    assert box.run(mig=True)["changed"] is False


@pytest.mark.parametrize(("card", "busy"), [("a100", False), ("h200", True)])
def test_mig_waits_for_a_gpu_reset(make_box, card, busy):
    box = make_box(card)
    if busy:
        box.driver.set(0, processes="1234:C:5000")
    predicted = box.run(check=True, mig=True)
    result = box.run(mig=True)
    assert predicted["diff"] == result["diff"]
    assert (predicted["reboot_required"], result["reboot_required"]) == (True, True)
    assert result["gpus"][0]["mig"] == {"current": "off", "pending": "on"}
    again = box.run(mig=True)
    assert (again["changed"], again["reboot_required"]) == (False, True)
    assert "GPU reset" in again["reboot_reasons"][0]


# -- no driver, no GPU, no root ----------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "word"), [(9, "modprobe nvidia"), (12, "install"), (0, "finds no GPU")])
def test_no_driver_is_an_error_or_a_skip_as_asked(make_box, code, word):
    box = make_box()
    box.driver.set(**({"init_rc": code} if code else {"0.card": None}))
    with pytest.raises(RefusedError, match=word):
        box.run(persistence=True)
    result = box.run(persistence=True, require_gpu=False)
    assert result["changed"] is False
    assert word in skipped(result)["gpu:*"]
    assert result["gpus"] == []


@pytest.mark.parametrize(("code", "state"), [(18, "mismatch"), (4, "no_permission"), (999, "unknown")])
def test_a_defect_of_the_driver_is_never_a_skip(make_box, code, state):
    box = make_box()
    box.driver.set(init_rc=code)
    with pytest.raises(RefusedError, match=state):
        box.run(persistence=True, require_gpu=False, optional=["*"])


def test_without_a_driver_what_we_set_is_left_for_later(make_box):
    box = make_box()
    box.run(**FULL)
    box.driver.set(init_rc=9)
    assert box.run(require_gpu=False)["changed"] is False
    box.driver.set(init_rc=None)
    assert len(box.run()["changes"]) == 4


def test_no_root_is_one_line_and_check_mode_needs_none(make_box):
    box = make_box()
    with pytest.raises(RefusedError, match="needs root; run the task with become: true"):
        box.run(uid=NOBODY, persistence=True)
    assert keys(box.run(check=True, uid=NOBODY, persistence=True)) == ["persistence"]


def test_a_plan_is_refused_when_the_driver_has_moved(make_box):
    box = make_box()
    plan = box.run(check=True, persistence=True, power_limit="300")
    box.ask(
        lambda nvml: (nvml.write(box.uuid(), "persistence", "on"), nvml.write(box.uuid(), "power_limit_mw", 200000))
    )
    with pytest.raises(RefusedError, match="make a new plan"):
        box.run(persistence=True, power_limit="300", expect=plan["expect"])


# -- the module's face -----------------------------------------------------------------------------------------


def test_every_setting_is_an_option_at_both_levels():
    spec = SPECS["nvidia_gpu_state"]
    both = {*nvidia_gpu_state.NAMES, "allow_above_default", "reset"}
    assert spec.keys() - both == {"gpus", "require_gpu"}
    assert spec["gpus"]["options"].keys() == {"id", *both}
