# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Profile and inventory make one plan; misspelt variables do not pass."""

from __future__ import annotations

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils import values
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.plugin_utils import plan, profiles, variables
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.conditions import CONDITIONS
from topologies import ryzen_9950x, write_tree

EPP = {"cpu": {"cpufreq": {"policies": [{"epps": ["performance", "power"]}]}}}


def make(given: dict | None = None, facts: dict | None = None):
    given = given or {}
    return plan.make({} if facts is None else facts, given, list(given))


@pytest.mark.parametrize("profile", profiles.NAMES)
def test_every_profile_makes_a_plan_on_a_machine_without_anything(profile: str) -> None:
    made = make({"workstation_profile": profile})
    assert made["profile"] == profile
    assert made["gpu_tuning"]["settings"]["persistence"] is True


def test_the_inventory_wins_key_by_key_and_is_not_optional() -> None:
    sysctl = {"vm.swappiness": 42, "vm.dirty_bytes": None, "kernel.pid_max": 65536}
    made = make({"os_tuning_sysctl": sysctl, "os_tuning_zswap": None})["os_tuning"]
    assert made["sysctl"] == {"vm.swappiness": 42, "kernel.pid_max": 65536, "vm.dirty_background_bytes": 268435456}
    assert made["kernel_settings_optional"] == ["vm.dirty_background_bytes"]


def test_the_documented_default_is_the_one_that_is_used() -> None:
    assert make()["profile"] == variables.specifications()["workstation_profile"]["default"]


def test_null_in_the_inventory_leaves_the_vendors_default() -> None:
    assert make({"gpu_tuning_power_limit": None})["gpu_tuning"]["settings"].keys() == {"persistence", "compute_mode"}
    cpu = make({"os_tuning_governor": None})["os_tuning"]
    assert cpu["cpu"]["governor"] is None
    assert "governor" not in cpu["cpu_optional"]


def test_a_play_that_has_not_loaded_a_role_plans_with_its_defaults() -> None:
    files = make({"os_tuning_oom_guard": "earlyoom"})["os_tuning"]["files"]
    (text,) = [file["content"] for file in files if "earlyoom" in file["path"]]
    names = variables.specifications()["os_tuning_oom_avoid"]["default"]
    assert f"--avoid ^({'|'.join(names)})" in text


def test_null_of_a_kernel_parameter_is_a_flag() -> None:
    given = {"nowatchdog": None, "iommu": "pt"}
    assert make({"os_tuning_kernel_parameters": given})["os_tuning"]["kernel_parameters"] == given


@pytest.mark.parametrize(("facts", "governor", "epp"), [(EPP, "powersave", "performance"), ({}, "performance", None)])
def test_balanced_takes_the_governor_that_the_driver_makes_best_use_of(
    facts: dict, governor: str, epp: str | None
) -> None:
    cpu = make(facts=facts)["os_tuning"]["cpu"]
    assert (cpu["governor"], cpu["epp"]) == (governor, epp)


def test_no_profile_makes_the_kernel_refuse_a_preference() -> None:
    # Governor performance forces the preference; writing another one is EBUSY.
    for profile in profiles.NAMES:
        cpu = make({"workstation_profile": profile}, EPP)["os_tuning"]["cpu"]
        assert cpu["governor"] != "performance" or cpu["epp"] in (None, "performance")


@pytest.mark.parametrize(("attested", "limit"), [(True, "max"), (False, None)])
def test_more_than_the_default_power_needs_an_attested_supply(attested: bool, limit: str | None) -> None:
    made = make({"workstation_profile": "aggressive", "gpu_tuning_psu_attested": attested})
    assert made["gpu_tuning"]["settings"].get("power_limit") == limit


def test_the_persistence_daemon_keeps_its_packaged_user() -> None:
    command = "/usr/bin/nvidia-persistenced --user nvpd --no-persistence-mode --verbose"
    owner = {"name": "nvidia_persistenced", "installed": True, "command": command}
    usable = {"owners": [owner], "gpu_driver": {"state": "ok", "reason": ""}}
    made = make(facts=usable)["gpu_tuning"]
    content = made["files"][0]["content"]
    assert "ExecStart=\nExecStart=/usr/bin/nvidia-persistenced --user nvpd --verbose --persistence-mode\n" in content
    assert "Before=docker.service" in content
    assert made["units"] == [{"name": "nvidia-persistenced.service", "active": True}]
    # One that runs reads its options when it starts, and only then.
    assert made["files"][0]["restart"] == ["nvidia-persistenced.service"]
    assert made["skipped"] == []
    unmanaged = make({"gpu_tuning_manage_persistenced": False}, usable)["gpu_tuning"]
    absent = make(facts={**usable, "owners": [{**owner, "installed": False}]})["gpu_tuning"]
    for none in (unmanaged, absent):
        assert (none["files"], none["units"], none["skipped"]) == ([], [], [])


def test_the_persistence_daemon_is_not_started_without_a_driver_that_works() -> None:
    owner = {"name": "nvidia_persistenced", "installed": True, "command": "/usr/bin/nvidia-persistenced"}
    driver = {"state": "not_loaded", "reason": "the nvidia kernel module is not loaded"}
    made = make(facts={"owners": [owner], "gpu_driver": driver})["gpu_tuning"]
    assert made["units"] == []
    assert made["skipped"] == [
        {"key": "unit_active:nvidia-persistenced.service", "reason": "the nvidia kernel module is not loaded"}
    ]
    # Its options stay: taken back, they would go and come with the driver, and systemd would reload each time.
    assert [file["restart"] for file in made["files"]] == [[]]


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(plan.PlanError) as caught:
        make(
            {
                "workstation_profile": "fast",
                "os_tuning_thp": "sometimes",
                "os_tuning_governer": "x",
                "os_tunning_epp": "y",
                "gpu_tuning_zzz": 1,
            }
        )
    message = str(caught.value)
    assert "'fast' is not one of conservative, balanced, aggressive" in message
    assert "os_tuning_thp: 'sometimes' is not one of always, madvise, never, or null" in message
    assert "os_tuning_governer is not one of ours; did you mean os_tuning_governor?" in message
    assert "os_tunning_epp is not one of ours; did you mean os_tuning_epp?" in message
    assert "gpu_tuning_zzz is not one of ours" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nginx_port", "__os_tuning_x", "inventory_hostname", "workstation", "hostvars"])
def test_names_of_others_are_left_alone(name: str) -> None:
    assert variables.misspelt([name]) == []


def test_every_variable_of_the_table_is_one_of_a_role() -> None:
    assert {setting.variable for setting in profiles.settings()} <= variables.known()


def test_every_condition_of_the_table_exists() -> None:
    values = [value for setting in profiles.settings() for value in setting.profiles.values()]
    assert {value["if"] for value in values if isinstance(value, dict) and "if" in value} == CONDITIONS.keys()


def test_what_a_profile_decides_can_be_null_in_the_argument_specification() -> None:
    # Ansible refuses null for an option with choices.
    specs = variables.specifications()
    assert not [setting.variable for setting in profiles.settings() if "choices" in specs[setting.variable]]


SERVICES = [{"name": "llama_cpu", "engine": "llama_cpp", "cpus": 2, "exclusive": True}, {"name": "web"}]


@pytest.fixture(scope="module")
def ryzen(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("ryzen")
    write_tree(ryzen_9950x(), root)
    return gather(Host(str(root)))


@pytest.mark.parametrize("profile", profiles.NAMES)
def test_services_are_placed_and_interrupts_stay_away_from_them(ryzen: dict, profile: str) -> None:
    made = make({"workstation_services": SERVICES, "workstation_profile": profile}, ryzen)
    taken = made["placement"]["services"]["llama_cpu"]["cpus"]
    assert len(values.cpus("", taken)) == 2
    banned = made["os_tuning"]["irqbalance"].get("banned_cpus")
    assert banned == (None if profile == "conservative" else taken)
    rules = made["os_tuning"]["interrupts"]
    assert bool(rules) == (profile == "aggressive")
    for rule in rules:
        assert not set(values.cpus("", rule["cpus"])) & set(values.cpus("", taken))


def test_what_the_inventory_says_of_interrupts_stands(ryzen: dict) -> None:
    given = {"os_tuning_inference_cpus": "30", "workstation_services": SERVICES}
    assert make(given, ryzen)["os_tuning"]["irqbalance"] == {"banned_cpus": "30"}


def test_services_that_do_not_fit_are_a_conflict(ryzen: dict) -> None:
    wish = {"name": "big", "cpus": 400, "exclusive": True}
    with pytest.raises(plan.PlanError, match="big"):
        make({"workstation_services": [wish]}, ryzen)
