# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a wish to module parameters: swap, guards, limits, network, mounts, services, slices."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    block_device_settings,
    irq_affinity,
    kernel_settings,
    managed_files,
    unit_state,
)
from ansible_collections.ai_infra.workstation.plugins.plugin_utils import plan, profiles
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.conditions import CONDITIONS
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.os_side import collect
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.os_side.parts import Parts
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.os_side.services import NOT_NEEDED
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.os_side.swap import ZRAM_UNIT
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
EARLYOOM = {"name": "earlyoom", "unit": "earlyoom.service", "installed": True, "active": False, "enabled": False}
OOMD = {**EARLYOOM, "name": "systemd_oomd", "unit": "systemd-oomd.service"}
DROP_IN_OF_EARLYOOM = "/etc/systemd/system/earlyoom.service.d/50-ai-workstation.conf"
OUR_ZRAM = {"name": "our_zram", "unit": ZRAM_UNIT, "installed": True, "active": True, "enabled": True}
DISK = {"device": "/dev/sda2", "used_bytes": 0, "size_bytes": 8 * GIB}
ZRAM = {"device": "/dev/zram0", "used_bytes": 0, "size_bytes": 8 * GIB}
DISK_UNIT = {"unit": r"dev-disk-by\x2duuid-1.swap", "device": "/dev/sda2"}


def machine(**changes: Any) -> dict[str, Any]:
    """Facts of an Ubuntu 24.04 with 128 GiB; a change is a section or what to change in it."""
    facts: dict[str, Any] = {
        "memory": {"total_bytes": 128 * GIB, "available_bytes": 100 * GIB, "swap": [], "nodes": [{}]},
        "kernel": {
            "release": "6.8.0-52-generic", "cmdline": "quiet", "container": False, "loadable": ["zram", "tcp_bbr"],
            "os": {"id": "ubuntu", "version_id": "24.04"},
        },
        "systemd": {"version": 255, "cgroup": 2, "services": [], "swap_units": []},
        "owners": [EARLYOOM, OOMD],
    }  # fmt: skip
    for name, change in changes.items():
        facts[name] = {**facts[name], **change} if isinstance(change, dict) else change
    return facts


def parts(facts: dict[str, Any] | None = None, profile: str = "conservative", **variables: Any) -> Parts:
    """What the families make of an inventory. zswap, which every profile switches off, only where it is named."""
    facts = machine() if facts is None else facts
    variables = {"os_tuning_zswap": None, **variables}
    return collect(profiles.wanted(profile, facts, variables), variables, facts)


def said(found: Parts) -> str:
    """All obstacles in one text; nothing may be half wanted beside them."""
    return "; ".join(obstacle.reason for obstacle in found.obstacles)


def content(found: Parts, path: str) -> str:
    return next(file["content"] for file in found.files if file["path"] == path)


# -- swap ----------------------------------------------------------------------------------------


def test_swap_off_masks_the_units_and_leaves_fstab() -> None:
    facts = machine(memory={"swap": [DISK, {**DISK, "device": "/by-hand"}]}, systemd={"swap_units": [DISK_UNIT]})
    found = parts(facts, os_tuning_swap="off")
    assert found.units == [{"name": DISK_UNIT["unit"], "unit_file": "masked", "active": False}]
    assert found.optional == []
    assert found.skipped[0]["key"] == "swap:/by-hand"
    assert parts(facts, os_tuning_swap="keep") == Parts()


@pytest.mark.parametrize(
    ("change", "possible"),
    [
        ({}, True),
        ({"memory": {"total_bytes": 16 * GIB}}, False),
        ({"memory": {"swap": [{**DISK, "used_bytes": 101 * GIB}]}}, False),
        ({"kernel": {"cmdline": "quiet resume=/dev/sda2"}}, False),
        ({"owners": [{**EARLYOOM, "installed": False}]}, False),
    ],
)
def test_the_aggressive_profile_drops_swap_only_where_nothing_is_lost(change: dict, possible: bool) -> None:
    wanted = profiles.wanted("aggressive", machine(**change), {})
    assert wanted["os_tuning_swap"].value == ("off" if possible else "keep")
    assert wanted["os_tuning_zram"].value == (
        None if possible else {"size": "8G", "algorithm": "zstd", "priority": 100}
    )
    assert wanted["os_tuning_sysctl"].value["vm.swappiness"] == (1 if possible else 150)


@pytest.mark.parametrize(
    ("swap", "owners", "wanted"),
    [([], [], True), ([DISK], [], False), ([ZRAM], [OUR_ZRAM], True), ([ZRAM], [], False), (None, [], False)],
)
def test_balanced_makes_zram_where_there_is_no_swap_but_ours(swap: Any, owners: list, wanted: bool) -> None:
    facts = machine(memory={"swap": swap}, owners=owners)
    found = profiles.wanted("balanced", facts, {})["os_tuning_zram"].value
    assert bool(found) == wanted
    assert profiles.wanted("balanced", facts, {"os_tuning_zram": None})["os_tuning_zram"].value is None


def test_zram_is_one_unit_of_ours() -> None:
    found = parts(os_tuning_zram={"size": "16G", "algorithm": "lz4", "priority": 5})
    assert found.own_units == [{"name": ZRAM_UNIT, "unit_file": "enabled", "active": True}]
    text = content(found, f"/etc/systemd/system/{ZRAM_UNIT}")
    assert "zramctl --find --size 17179869184 --algorithm lz4" in text
    assert "swapon --priority 5" in text
    assert found.files[0]["restart"] == [ZRAM_UNIT]
    assert found.optional == []


@pytest.mark.parametrize("unit", ["zram", "partition"])
def test_the_commands_of_our_units_are_shell(unit: str) -> None:
    found = parts(
        os_tuning_zram={"size": "1G"}, os_tuning_slices={"ai": {"allowed_cpus": "1-3"}}, os_tuning_cpu_partition="root"
    )
    text = content(found, f"/etc/systemd/system/ai-workstation-{unit}.service")
    commands = [line.partition("=")[2] for line in text.splitlines() if line.startswith(("ExecStart=", "ExecStop"))]
    assert len(commands) == 2
    for command in commands:
        script = command.removeprefix("/bin/sh -ec '").removesuffix("'").replace("$$", "$")
        assert "'" not in script
        assert "$" not in command.replace("$$", "")
        subprocess.run(["/bin/sh", "-n", "-c", script], check=True)


def test_a_profiles_zram_is_at_most_a_quarter_of_the_memory() -> None:
    small = machine(memory={"total_bytes": 8 * GIB, "swap": []})
    assert f"--size {2 * GIB} " in parts(small, "balanced").files[0]["content"]
    assert f"--size {6 * GIB} " in parts(small, "balanced", os_tuning_zram={"size": "6G"}).files[0]["content"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kernel": {"container": True}}, "a container has no swap of its own"),
        ({"kernel": {"loadable": []}}, "install linux-modules-extra-6.8.0-52-generic"),
        ({"owners": [{**OUR_ZRAM, "name": "zramswap", "unit": "zramswap.service"}]}, "zramswap.service of another"),
        ({"systemd": {"swap_units": [{"unit": "dev-zram0.swap", "device": None}]}}, "dev-zram0.swap of another"),
    ],
)
def test_where_zram_is_not_possible(change: dict, reason: str) -> None:
    asked = parts(machine(**change), os_tuning_zram={"size": "8G"})
    assert reason in said(asked)
    assert asked.own_units == []
    by_profile = parts(machine(**change), "balanced")
    assert by_profile.obstacles == []
    assert any(reason in skip["reason"] for skip in by_profile.skipped)
    # Without zram a high swappiness would only hurt.
    assert not CONDITIONS["zram_swap"](machine(**change), {"os_tuning_zram": {"size": "8G"}})


def test_zswap_is_a_parameter_of_its_module() -> None:
    path = "/sys/module/zswap/parameters/enabled"
    assert parts(os_tuning_zswap=True).sysfs == {path: "Y"}
    by_profile = collect(profiles.wanted("balanced", machine(), {}), {}, machine())
    assert (by_profile.sysfs, path in by_profile.optional) == ({path: "N"}, True)
    assert parts(os_tuning_zswap=None).sysfs == {}


# -- guards --------------------------------------------------------------------------------------


def test_the_guard_that_is_named_runs_and_the_other_does_not() -> None:
    found = parts(os_tuning_oom_guard="earlyoom", os_tuning_oom_avoid=["llama-server", "vllm"])
    assert found.units == [
        {"name": "earlyoom.service", "unit_file": "enabled", "active": True},
        {"name": "systemd-oomd.service", "unit_file": "disabled", "active": False},
    ]
    assert content(found, DROP_IN_OF_EARLYOOM).endswith(
        "\nExecStart=\nExecStart=/usr/bin/earlyoom -r 3600 -m 4 $EARLYOOM_ARGS --avoid ^(llama-server|vllm)\n"
    )
    none = parts(os_tuning_oom_guard="none")
    assert {(unit["name"], unit["active"]) for unit in none.units} == {
        ("earlyoom.service", False), ("systemd-oomd.service", False),
    }  # fmt: skip


def test_the_arguments_of_earlyooms_own_unit_stay() -> None:
    facts = machine(owners=[{**EARLYOOM, "command": "/usr/sbin/earlyoom $EARLYOOM_ARGS $MORE"}, OOMD])
    found = parts(facts, os_tuning_oom_guard="earlyoom", os_tuning_oom_avoid=["vllm"])
    start = "ExecStart=/usr/sbin/earlyoom -r 3600 -m 4 $EARLYOOM_ARGS $MORE --avoid ^(vllm)\n"
    assert start in content(found, DROP_IN_OF_EARLYOOM)
    assert not any("/etc/default" in file["path"] for file in found.files)


def test_a_guard_that_is_not_installed_leaves_the_other_alone() -> None:
    facts = machine(owners=[{**EARLYOOM, "installed": False}, OOMD])
    by_profile = parts(facts, "balanced")
    assert {"key": "unit_active:earlyoom.service", "reason": "install the package earlyoom"} in by_profile.skipped
    assert by_profile.units == []
    assert "install the package earlyoom" in said(parts(facts, os_tuning_oom_guard="earlyoom"))


# -- limits --------------------------------------------------------------------------------------


def test_limits_of_services_and_of_one_group() -> None:
    found = parts(os_tuning_memlock="64G", os_tuning_nofile="1024:1048576", os_tuning_limits_group="ai")
    manager = content(found, "/etc/systemd/system.conf.d/50-ai-workstation.conf")
    assert manager == f"[Manager]\nDefaultLimitMEMLOCK={64 * GIB}\nDefaultLimitNOFILE=1024:1048576\n"
    assert content(found, "/etc/security/limits.d/50-ai-workstation.conf") == (
        "@ai - memlock 67108864\n@ai soft nofile 1024\n@ai hard nofile 1048576\n"
    )
    assert "infinity" in parts(os_tuning_memlock="infinity").files[0]["content"]
    assert len(parts(os_tuning_nofile=65536).files) == 1


def test_the_journal() -> None:
    file = parts(os_tuning_journal_max="2G").files[0]
    assert (file["content"], file["restart"]) == (f"[Journal]\nSystemMaxUse={2 * GIB}\n", ["systemd-journald.service"])


# -- network and modules -------------------------------------------------------------------------


def test_serving_far_away_raises_buffers_and_never_lowers_them() -> None:
    found = parts(os_tuning_serves_wan=True)
    assert found.sysctl["net.ipv4.tcp_congestion_control"] == "bbr"
    assert found.modules == ["tcp_bbr"]
    assert set(found.at_least) == {key for key in found.sysctl if "mem" in key}
    assert parts(os_tuning_serves_wan=False) == parts()
    assert "no module tcp_bbr" in said(parts(machine(kernel={"loadable": []}), os_tuning_serves_wan=True))
    assert "settings of its host" in said(parts(machine(kernel={"container": True}), os_tuning_serves_wan=True))


def test_module_options_act_at_the_next_boot() -> None:
    found = parts(os_tuning_modules=["zram"], os_tuning_module_options={"nvidia": {"NVreg_X": 1, "modeset": True}})
    file = found.files[0]
    assert (file["content"], file["reboot"]) == ("options nvidia NVreg_X=1 modeset=Y\n", True)
    assert found.modules == ["zram"]


# -- mounts --------------------------------------------------------------------------------------


def test_mounts_of_a_profile_are_optional_and_those_of_the_inventory_are_not() -> None:
    assert parts(profile="balanced").mounts == [{"path": "/mnt/ai-data", "options": ["noatime"]}]
    assert "/mnt/ai-data" in parts(profile="balanced").optional
    assert "/srv" not in parts(os_tuning_mounts=[{"path": "/srv", "options": ["noatime"]}]).optional


@pytest.mark.parametrize(
    ("os", "version", "own"), [("debian", "13", False), ("debian", "12", True), ("ubuntu", "24.04", True)]
)
def test_tmp_in_memory_by_drop_in_or_by_a_unit_of_ours(os: str, version: str, own: bool) -> None:
    found = parts(machine(kernel={"os": {"id": os, "version_id": version}}), os_tuning_tmp_size="8G")
    assert (found.own_units == [{"name": "tmp.mount", "unit_file": "enabled"}]) == own
    assert f"size={8 * GIB}" in found.files[0]["content"]
    assert found.files[0]["reboot"]
    # A service with PrivateTmp requires tmp.mount: without the condition its next restart hides what is in /tmp.
    assert ("ConditionPathExists=!/run/systemd/seats" in found.files[0]["content"]) == own


def test_tmp_in_memory_needs_memory() -> None:
    small = machine(memory={"total_bytes": 32 * GIB})
    assert "only 34 GB of memory" in said(parts(small, os_tuning_tmp_size="8G"))
    assert said(parts(small, os_tuning_tmp_size="8G", os_tuning_tmp_accept=True)) == ""


# -- services ------------------------------------------------------------------------------------


def test_a_service_goes_with_all_that_starts_it() -> None:
    facts = machine(systemd={"services": ["cups.service", "bluetooth.service", "ssh.service"]})
    found = parts(facts, os_tuning_services_disabled=["cups", "snapd"], os_tuning_services_accept=["snapd"])
    assert [unit["name"] for unit in found.units] == [
        "cups.service", "cups.socket", "cups.path", "cups-browsed.service", "snapd.service",
    ]  # fmt: skip
    assert all(unit["unit_file"] == "masked" and not unit["active"] for unit in found.units)
    assert found.not_needed == ["bluetooth"]
    assert "ssh.service" in found.running


@pytest.mark.parametrize(
    "name", ["ssh", "ssh.service", "systemd-udevd", "dbus", "NetworkManager", "docker", "getty@tty1"]
)
def test_what_a_machine_needs_is_never_stopped(name: str) -> None:
    found = parts(os_tuning_services_disabled=[name], os_tuning_services_accept=[name])
    assert "the machine needs it" in said(found)
    assert found.units == []


def test_the_list_names_nothing_vital() -> None:
    for name in NOT_NEEDED:
        assert said(parts(os_tuning_services_disabled=[name])) == ""


def test_merging_by_unit_needs_its_systemd() -> None:
    found = parts(os_tuning_ksm_units=["agents.service"])
    assert found.sysfs["/sys/kernel/mm/ksm/run"] == 1
    assert "MemoryKSM=yes" in content(found, "/etc/systemd/system/agents.service.d/50-ai-workstation-ksm.conf")
    assert "needs systemd 254, this machine has 252" in said(
        parts(machine(systemd={"version": 252}), os_tuning_ksm_units=["agents.service"])
    )
    assert "/sys/kernel/mm/ksm/run" not in parts().sysfs


# -- slices --------------------------------------------------------------------------------------


def test_a_slice_of_ours_and_one_of_systemd() -> None:
    limits = {"cpu_weight": 500, "io_weight": 50, "memory_high": "80%", "memory_max": "90G", "allowed_cpus": "3,1-2"}
    found = parts(os_tuning_slices={"ai": limits, "system": {"allowed_cpus": "0"}})
    lines = content(found, "/etc/systemd/system/ai.slice").splitlines()
    assert {"CPUWeight=500", "IOWeight=50", "MemoryHigh=80%", f"MemoryMax={90 * GIB}", "AllowedCPUs=1-3"} <= set(lines)
    assert found.own_units == [{"name": "ai.slice", "unit_file": "enabled", "active": True}]
    assert content(found, "/etc/systemd/system/system.slice.d/50-ai-workstation.conf") == "[Slice]\nAllowedCPUs=0\n"


def test_the_aggressive_profile_bounds_the_ai_slice() -> None:
    found = parts(profile="aggressive")
    assert "MemoryHigh=80%" in content(found, "/etc/systemd/system/ai.slice")
    assert "ai.slice" in found.optional
    old = parts(machine(systemd={"cgroup": 1}), "aggressive")
    assert any(skip["key"] == "slices" for skip in old.skipped)


def test_a_partition_needs_cpus_and_isolation_needs_pinned_threads() -> None:
    ai = {"os_tuning_slices": {"ai": {"allowed_cpus": "4-7"}}}
    assert "echo root >cpuset.cpus.partition" in parts(os_tuning_cpu_partition="root", **ai).files[-1]["content"]
    assert profiles.wanted("aggressive", machine(), ai)["os_tuning_cpu_partition"].value == "root"
    assert profiles.wanted("aggressive", machine(), {})["os_tuning_cpu_partition"].value is None
    assert "gives the slice ai no allowed_cpus" in said(parts(os_tuning_cpu_partition="root"))
    assert "pile up on one CPU" in said(parts(os_tuning_cpu_partition="isolated", **ai))
    pinned = parts(os_tuning_cpu_partition="isolated", os_tuning_cpu_partition_pinned=True, **ai)
    assert "echo isolated >cpuset.cpus.partition" in pinned.files[-1]["content"]


# -- the rest ------------------------------------------------------------------------------------


def test_irqbalance_keeps_away_from_inference_cpus() -> None:
    assert parts(os_tuning_inference_cpus="8-15,4").irqbalance == {"banned_cpus": "4,8-15"}
    written = {"banned_modules": ["nvidia"]}
    assert parts(os_tuning_irqbalance=written, os_tuning_inference_cpus="4").irqbalance == written
    assert parts().irqbalance == {}


@pytest.mark.parametrize(("nodes", "pinned", "value"), [(2, True, 0), (1, True, None), (2, False, None)])
def test_numa_balancing_goes_only_with_several_nodes_and_pinned_services(nodes: int, pinned: bool, value: Any) -> None:
    facts = machine(memory={"nodes": [{}] * nodes})
    wanted = profiles.wanted("aggressive", facts, {"os_tuning_numa_pinned": pinned})
    assert wanted["os_tuning_sysctl"].value.get("kernel.numa_balancing") == value


BAD = [
    ({"os_tuning_zram": {"size": "many"}}, "'many' is not a size"),
    ({"os_tuning_zram": {"sise": "8G"}}, "'sise' is not one of size, algorithm, priority"),
    ({"os_tuning_zram": {"algorithm": "zip"}}, "'zip' is not one of zstd, lz4, lzo-rle"),
    ({"os_tuning_zswap": "yes"}, "'yes' is not true, false or null"),
    ({"os_tuning_oom_guard": "earlyoom", "os_tuning_oom_avoid": ["a b"]}, "'a b' is not a process name"),
    ({"os_tuning_oom_guard": "earlyoom", "os_tuning_oom_avoid": ["vllm", 5]}, "['vllm', 5] is not a list of names"),
    ({"os_tuning_nofile": "10:5"}, "not a whole number from 256"),
    ({"os_tuning_nofile": "4096:1024"}, "a soft and a hard limit"),
    ({"os_tuning_memlock": "lots"}, "'lots' is not a size"),
    ({"os_tuning_memlock": "1G", "os_tuning_limits_group": "*"}, "everybody ('*') is refused"),
    ({"os_tuning_memlock": "1G", "os_tuning_limits_group": "ai\n"}, "is not the name of one group"),
    ({"os_tuning_module_options": {"nvidia\n": {"x": 1}}}, "write options as a dictionary"),
    ({"os_tuning_module_options": {"nvidia": {"x": "1\n"}}}, "not an option and a plain value"),
    ({"os_tuning_ksm_units": ["agents.service\n"]}, "not the name of a service"),
    ({"os_tuning_slices": {"ai\n": {"cpu_weight": 1}}}, "not a plain name"),
    ({"os_tuning_oom_guard": "earlyoom", "os_tuning_oom_avoid": ["vllm\n"]}, "is not a process name"),
    ({"os_tuning_limits_group": "ai"}, "set one of them"),
    ({"os_tuning_journal_max": "1M"}, "less than 8M"),
    ({"os_tuning_serves_wan": "true"}, "'true' is not true, false or null"),
    ({"os_tuning_module_options": {"nvidia": "x=1"}}, "write options as a dictionary"),
    ({"os_tuning_module_options": {"nvidia": {"x": "1; reboot"}}}, "not an option and a plain value"),
    ({"os_tuning_services_disabled": ["snapd"]}, "os_tuning_services_accept"),
    ({"os_tuning_ksm_units": ["agents"]}, "not the name of a service"),
    ({"os_tuning_slices": {"ai": {"cpu_wait": 1}}}, "'cpu_wait' is not one of cpu_weight"),
    ({"os_tuning_slices": {"ai": {"cpu_weight": 0}}}, "whole number from 1 to 10000"),
    ({"os_tuning_slices": {"ai": {"memory_high": "120%"}}}, "not a percentage from 1% to 100%"),
    ({"os_tuning_slices": {"ai-x": {"cpu_weight": 1}}}, "not a plain name"),
    ({"os_tuning_slices": {"ai": 5}}, "5 is not a dictionary"),
    ({"os_tuning_inference_cpus": "a-b"}, "a-b"),
]  # fmt: skip


@pytest.mark.parametrize(("variables", "message"), BAD)
def test_what_cannot_be_read_is_said_in_one_line_that_names_the_variable(variables: dict, message: str) -> None:
    found = parts(**variables)
    assert message in said(found)
    assert any(name in said(found) for name in variables)
    with pytest.raises(plan.PlanError) as caught:
        plan.make(machine(), variables, list(variables))
    assert message in str(caught.value)


def test_every_bad_value_is_named_at_once() -> None:
    found = parts(os_tuning_memlock="lots", os_tuning_zswap="yes", os_tuning_ksm_units=["x"])
    assert len(found.obstacles) == 3


MAXIMAL = {
    "os_tuning_swap": "off",
    "os_tuning_zram": {"size": "8G"},
    "os_tuning_zswap": False,
    "os_tuning_oom_guard": "earlyoom",
    "os_tuning_oom_avoid": ["vllm"],
    "os_tuning_memlock": "infinity",
    "os_tuning_nofile": 65536,
    "os_tuning_limits_group": "ai",
    "os_tuning_journal_max": "1G",
    "os_tuning_mounts": [{"path": "/srv/models", "options": ["noatime", "nodev"]}],
    "os_tuning_tmp_size": "16G",
    "os_tuning_serves_wan": True,
    "os_tuning_modules": ["msr"],
    "os_tuning_module_options": {"nvidia": {"NVreg_X": 1}},
    "os_tuning_services_disabled": ["cups"],
    "os_tuning_ksm_units": ["agents.service"],
    "os_tuning_slices": {"ai": {"allowed_cpus": "4-7", "cpu_weight": 500}, "system": {"allowed_cpus": "0-3"}},
    "os_tuning_cpu_partition": "isolated",
    "os_tuning_cpu_partition_pinned": True,
    "os_tuning_inference_cpus": "4-7",
}


@given(st.sampled_from(profiles.NAMES), st.sets(st.sampled_from(sorted(MAXIMAL))), st.booleans())
def test_the_modules_take_whatever_a_plan_hands_them(profile: str, names: set[str], bare: bool) -> None:
    facts = {} if bare else machine(memory={"swap": [DISK]}, systemd={"swap_units": [DISK_UNIT]})
    variables = {name: MAXIMAL[name] for name in names}
    found = parts(facts, profile, **variables)
    unit_state.parse({"units": found.units})
    managed_files.parse({"files": found.files, "units": found.own_units})
    block_device_settings.parse({"mounts": found.mounts})
    irq_affinity.parse({"irqbalance": found.irqbalance or None})
    kernel_settings.parse(
        {"sysctl": found.sysctl, "sysfs": found.sysfs, "at_least": found.at_least, "modules": found.modules}
    )
    everything = {
        one.get("path") or one["name"] for one in (*found.files, *found.own_units, *found.units, *found.mounts)
    }
    assert set(found.optional) <= everything | found.sysfs.keys() | found.sysctl.keys()


def test_a_plan_hands_the_parts_to_the_calls_and_the_inventory_wins() -> None:
    variables = {
        **MAXIMAL,
        "os_tuning_swap": "keep",
        "os_tuning_sysctl": {"net.core.rmem_max": 1, "vm.max_map_count": 300000},
        "os_tuning_units": [{"name": "cups.service", "unit_file": "enabled"}],
        "os_tuning_files": [{"path": "/etc/systemd/system/ai.slice", "content": "mine"}],
    }
    facts = machine(cpu={}) if "cpu" in machine() else {**machine(), "cpu": {"online": "0-15", "present": "0-15"}}
    made = plan.make(facts, variables, list(variables))["os_tuning"]
    assert made["sysctl"]["net.core.rmem_max"] == 1
    assert {"vm.max_map_count", "net.core.rmem_max"} <= set(made["at_least"])
    assert [unit for unit in made["units"] if unit["name"] == "cups.service"] == variables["os_tuning_units"]
    assert [file for file in made["files"] if file["path"].endswith("/ai.slice")] == variables["os_tuning_files"]
    assert ZRAM_UNIT in {unit["name"] for unit in made["own_units"]}
    assert made["modules"] == ["tcp_bbr", "msr"]
    assert made["mounts"] == MAXIMAL["os_tuning_mounts"]
    assert made["irqbalance"] == {"banned_cpus": "4-7"}
