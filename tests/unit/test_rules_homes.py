# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every known trap has a home that exists, and every rule has its tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import test_rules_gpu
import test_rules_inventory
import test_rules_machine
import test_rules_services
import yaml
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.base import SEVERITIES
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.engine import TOPICS, rules
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.page import homes
from ruling import make, owner

ROOT = Path(__file__).resolve().parents[2]
HOMES = {home["trap"]: home for home in homes()}
LINTER = ROOT / "plugins/plugin_utils/knowledge/rules.yml"
CASES = [
    *test_rules_gpu.CASES,
    *test_rules_inventory.CASES,
    *test_rules_machine.CPU,
    *test_rules_machine.MEMORY,
    *test_rules_machine.KERNEL,
    *test_rules_machine.FIRMWARE,
    *test_rules_services.CASES,
]


def test_every_trap_is_there_once_and_in_order() -> None:
    assert [home["trap"] for home in homes()] == [f"T{number:02}" for number in range(1, 36)]
    assert all(home["when"] and home.keys() & {"planner", "linter", "module", "tests"} for home in homes())
    assert {key for home in homes() for key in home} <= {"trap", "when", "planner", "linter", "module", "tests"}


@cache
def functions_in(path: str) -> frozenset[str]:
    return frozenset(
        node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize("trap", HOMES)
def test_every_home_of_a_trap_exists(trap: str) -> None:
    home = HOMES[trap]
    planner = {one.name for one in rules()}
    assert set(home.get("planner", ())) <= planner
    for node in [*home.get("tests", ()), *(module["test"] for module in home.get("module", ()))]:
        path, _colons, name = node.partition("::")
        assert name in functions_in(path), node
    for module in home.get("module", ()):
        assert (ROOT / f"plugins/modules/{module['name']}.py").exists()


def test_every_linter_rule_that_is_a_home_exists() -> None:
    names = {row["name"] for row in yaml.safe_load(LINTER.read_text())["rules"]}
    assert {name for home in homes() for name in home.get("linter", ())} <= names


def test_every_rule_that_names_a_trap_is_a_home_of_it() -> None:
    for one in rules():
        if one.trap:
            assert one.name in HOMES[one.trap].get("planner", ()), one.name


@pytest.mark.parametrize("name", [one.name for one in rules()])
def test_every_rule_has_a_test_where_it_fires_and_one_where_it_must_not(name: str) -> None:
    mine = [case for case in CASES if case.rule == name]
    assert any(case.says for case in mine)
    assert any(not case.says for case in mine)


def test_every_rule_says_what_it_finds() -> None:
    for one in rules():
        assert one.severity in SEVERITIES
        assert one.topic in TOPICS
        assert one.what.endswith(".")
        assert "|" not in one.what


def test_every_unit_of_ours_starts_before_docker() -> None:
    made = make({"owners": [owner("nvidia_persistenced")]})
    units = [file["content"] for file in made["gpu_tuning"]["files"] if "/systemd/system/" in file["path"]]
    assert units
    for content in units:
        lines = content.splitlines()
        assert any(line.startswith("Before=") and "docker.service" in line.split("=")[1].split() for line in lines)
        after = " ".join(line.partition("=")[2] for line in lines if line.startswith("After="))
        assert not {"docker.service", "multi-user.target"} & set(after.split())
