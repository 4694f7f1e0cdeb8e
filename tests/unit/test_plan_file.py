# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan as a file: what it says of each change, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.plain import write_beside
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.plan_file import (
    NOTHING,
    Call,
    Machine,
    PlanFileError,
    compose,
    dump,
    kinds,
    lines,
    load,
    to_apply,
)
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.variables import known

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Machine("ws5090", "a" * 32, "boot-1")
PLAN = {"profile": "balanced", "from_profile": {"os_tuning_sysctl": ["vm.swappiness"], "gpu_tuning_ecc": []}}
VARIABLES = {"os_tuning_sysctl": {"vm.max_map_count": 262144}, "os_tuning_files": [], "os_tuning_governor": "powersave"}
DEFAULTS = {"os_tuning_files": []}


def change(key: str, before="1", after="2", **more):
    said = {"scope": "runtime", "reboot_required": False, "reason": ""}
    return {"key": key, "before": before, "after": after, **said, **more}


def call(role: str, module: str, *changes, **more) -> Call:
    return Call(role, module, {"changes": list(changes), "expect": f"{role}{module}", **more})


CALLS = [
    call(
        "os_tuning",
        "kernel_settings",
        change("sysctl:vm.swappiness", "60", "10"),
        change("sysctl:vm.max_map_count", "65530", "262144"),
        change("sysctl:vm.dirty_ratio", "5", "20", reason="no longer wanted: back to the value before us"),
        skipped_keys=[{"key": "sysctl:vm.x", "reason": "not here"}],
    ),
    call("os_tuning", "cpu_governor", *(change(f"cpufreq:policy{n}/scaling_governor") for n in range(16))),
    call("os_tuning", "managed_files", change("file:/etc/a", None, "sha256:1 mode 0644")),
    call(
        "gpu_tuning",
        "nvidia_gpu_state",
        change("gpu:GPU-1/ecc", "on", "off", reboot_required=True),
        change("gpu:GPU-1/gpu_locked_clocks", "unknown", "0-1500"),
        reboot_reasons=["gpu:GPU-1/ecc acts after a reboot"],
    ),
]


def document(calls: list[Call] | None = None) -> dict:
    return compose(MACHINE, PLAN, VARIABLES, DEFAULTS, CALLS if calls is None else calls)


def explained(key: str) -> dict:
    return next(row for row in document()["changes"] if row["key"] == key)


def test_every_change_says_who_wants_it_why_and_how_to_undo_it() -> None:
    row = explained("sysctl:vm.swappiness")
    assert (row["before"], row["after"], row["from"]) == ("60", "10", "profile balanced")
    assert row["variable"] == "os_tuning_sysctl['vm.swappiness']"
    assert "Model files are file cache" in row["reason"]
    assert row["undo"] == "set os_tuning_sysctl['vm.swappiness'] to null and run again: 60 goes back"
    assert explained("sysctl:vm.max_map_count")["from"] == "inventory"
    assert explained("cpufreq:policy3/scaling_governor")["variable"] == "os_tuning_governor"
    assert explained("cpufreq:policy3/scaling_governor")["from"] == "inventory"
    assert explained("file:/etc/a")["from"] == "default of the role"


NET = "sysctl:net.core.x"


@pytest.mark.parametrize(
    ("module", "key", "variables", "words"),
    [
        ("kernel_settings", "sysctl:net.core.rmem_max", {}, "os_tuning_serves_wan"),
        ("kernel_settings", NET, {"os_tuning_sysctl": {"net.core.x": 1}}, "os_tuning_sysctl['net.core.x']"),
        ("unit_state", "unit_file:fstrim.timer", {}, "os_tuning_units['fstrim.timer']"),
        ("unit_state", "unit_active:cups.service", {}, "os_tuning_units, os_tuning_services_disabled"),
        ("unit_state", "unit_file:a", {"os_tuning_units": [{"name": "a"}]}, "os_tuning_units['a']"),
        ("unit_state", "unit_active:dev-sda1.swap", {}, "os_tuning_swap"),
        ("managed_files", "file:/etc/systemd/journald.conf.d/50-ai-workstation.conf", {}, "os_tuning_journal_max"),
        ("managed_files", "dir:/etc/systemd/system/ai.slice.d", {}, "os_tuning_slices"),
        ("managed_files", "file:/etc/a", {"os_tuning_files": [{"path": "/etc/a"}]}, "os_tuning_files['/etc/a']"),
    ],
)  # fmt: skip
def test_what_a_wish_brings_along_is_said_to_come_from_the_wish(
    module: str, key: str, variables: dict, words: str
) -> None:
    plan = {"profile": "balanced", "from_profile": {"os_tuning_units": ["os_tuning_units"]}}
    (row,) = compose(MACHINE, plan, variables, {}, [call("os_tuning", module, change(key))])["changes"]
    assert row["variable"] == words


def test_entries_of_lists_are_undone_by_taking_them_out_and_folders_show_their_mode() -> None:
    variables = {"os_tuning_files": [{"path": "/etc/a.d/b"}]}
    changes = change("dir:/etc/a.d", None, 0o755), change("file:/etc/a.d/b", None, "sha256:1 mode 0644")
    made = compose(MACHINE, PLAN, variables, {}, [call("os_tuning", "managed_files", *changes)])
    assert {row["undo"] for row in made["changes"]} == {"take it out of os_tuning_files and run again: none goes back"}
    assert made["changes"][0]["variable"] == "os_tuning_files['/etc/a.d']"
    assert "  dir:/etc/a.d: none -> mode 0755" in list(lines(made))


def test_what_goes_back_is_named_as_such() -> None:
    row = explained("sysctl:vm.dirty_ratio")
    assert (row["from"], row["undo"]) == ("named by nothing any more", "name it in the inventory again")
    assert row["reason"].startswith("no longer wanted")


def test_risk_and_reboot() -> None:
    assert (explained("gpu:GPU-1/ecc")["risk"], explained("gpu:GPU-1/ecc")["reboot"]) == ("high", True)
    assert (explained("sysctl:vm.swappiness")["risk"], explained("sysctl:vm.swappiness")["reboot"]) == ("low", False)
    assert "driver cannot tell" in explained("gpu:GPU-1/gpu_locked_clocks")["undo"]


def test_the_file_holds_what_check_mode_said_to_the_byte_and_nothing_of_the_hour() -> None:
    assert [one["changes"] for one in document()["calls"]] == [one.result["changes"] for one in CALLS]
    assert dump(document()) == dump(document())
    assert load(dump(document()), "f", MACHINE) == document()


def test_a_plan_holds_no_secrets_of_services() -> None:
    services = [{"name": "vllm", "environment": {"HF_TOKEN": "hf_secret"}, "flags": ["--api-key=secret"]}]
    made = compose(MACHINE, PLAN, {**VARIABLES, "workstation_services": services}, DEFAULTS, CALLS)
    assert "secret" not in dump(made)
    assert made["variables"] == VARIABLES


def test_a_plan_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "plans" / "ws.json"
    assert write_beside(path, "{}", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    # One that an earlier version left open to all is closed, though nothing in it changes.
    path.chmod(0o644)
    assert not write_beside(path, "{}", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_readable_form_takes_sixteen_cpus_together() -> None:
    text = "\n".join(lines(document()))
    assert "PLAN ws5090  profile balanced" in text
    assert "22 changes, risk 20 low, 1 medium, 1 high; 1 act after a reboot" in text
    assert "cpufreq:policy0/scaling_governor and 15 more like it: 1 -> 2" in text
    assert "file:/etc/a: none -> sha256:1 mode 0644" in text
    assert "risk  high, acts after a reboot" in text
    assert "sysctl:vm.x: not here" in text
    assert "as wanted" in "\n".join(lines(document([call("os_tuning", "hugepages")])))
    text.encode("ascii")


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(MACHINE, host="ws3090"), "is for ws5090, this is ws3090"),
        (replace(MACHINE, machine_id="b" * 32), "another installation"),
        (replace(MACHINE, boot_id="boot-2"), "was restarted since"),
    ],
)
def test_a_plan_of_another_machine_or_boot_is_refused(machine: Machine, words: str) -> None:
    with pytest.raises(PlanFileError, match=words):
        load(dump(document()), "f", machine)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a plan"),
        ("[]", "format is 'list'"),
        ('{"format": "plan 9"}', "format is 'plan 9'"),
        (dump(document()).replace('"262144"', '"262145"'), "changed after it was made"),
        (dump(document()).replace("os_tuningmanaged_files", NOTHING), "changed after it was made"),
        (json.dumps({**document(), "extra": 1}), "changed after it was made"),
    ],
)
def test_a_file_that_is_no_plan_or_was_changed_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(PlanFileError, match=words) as caught:
        load(text, "f", MACHINE)
    assert "\n" not in str(caught.value)


def test_a_call_that_the_plan_does_not_have_may_change_nothing() -> None:
    fact = to_apply(document(), ["os_tuning", "gpu_tuning"], ["kernel_settings", "hugepages"])
    assert fact["expect"]["os_tuning"]["kernel_settings"] == "os_tuningkernel_settings"
    assert fact["expect"]["os_tuning"]["hugepages"] == NOTHING
    assert fact["expect"]["gpu_tuning"]["kernel_settings"] == NOTHING
    assert (fact["profile"], fact["variables"]) == ("balanced", VARIABLES)


def test_kinds_name_variables_that_exist_and_known_risks() -> None:
    for kind in kinds():
        assert set(kind.variable.split(", ")) <= known(), kind
        assert kind.risk in ("low", "medium", "high")


def tasks(role: str):
    return yaml.safe_load((ROOT / "roles" / role / "tasks" / "main.yml").read_text())


@pytest.mark.parametrize("role", ["os_tuning", "gpu_tuning"])
def test_the_call_of_a_role_takes_its_fingerprints_and_keeps_its_result(role: str) -> None:
    """Without these a call would be outside of every plan."""
    calls = [task for task in tasks(role) if "ansible.builtin.include_role" not in task]
    assert len(calls) == 1
    arguments = calls[0]["ai_infra.workstation.workstation_state"]
    assert arguments["expect"] == f"{{{{ __{role}_expect | default(omit, true) }}}}"
    assert arguments["owner"] == role
    assert calls[0]["register"] == f"__{role}_call"


def test_plan_and_site_run_the_same_roles() -> None:
    site = yaml.safe_load((ROOT / "site.yml").read_text())[0]
    plan = yaml.safe_load((ROOT / "playbooks" / "plan.yml").read_text())[0]
    # bios_verification changes nothing, and what a reboot is for was planned.
    aside = ("ai_infra.workstation.bios_verification", "ai_infra.workstation.workstation_reboot")
    changing = [role for role in site["roles"] if role["role"] not in aside]
    roles = [role for role in changing if "not __site_planned" not in role.get("when", [])]
    assert plan["roles"] == roles
    assert "plan is defined or workstation_plan_file is defined" in site["vars"]["__site_planned"]
    assert plan["check_mode"] is True
    proof = next(task for task in site["pre_tasks"] if "ansible.builtin.include_role" in task)
    assert [f"ai_infra.workstation.{name}" for name in proof["loop"]] == [role["role"] for role in roles]
    assert proof["ansible.builtin.include_role"]["apply"]["check_mode"] is True
    assert not re.search(r"check_mode:\s*false", (ROOT / "site.yml").read_text())
