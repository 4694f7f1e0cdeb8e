# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory of the lab's proofs leaves nothing out: every option has a value that is not its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.specs import SPECS

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("os_tuning", "gpu_tuning")


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


VARIABLES = load("tests/lab/maximal/variables.yml")
CALLS = load("tests/lab/maximal/calls.yml")
EXCEPTIONS = load("tests/lab/maximal/exceptions.yml")
OPTIONS = {
    name: option
    for role in ROLES
    for name, option in load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"].items()
}


def role_parts() -> dict[str, dict[str, Any]]:
    """What the roles' calls of workstation_state say, by module."""
    parts: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        for task in load(f"roles/{role}/tasks/main.yml"):
            for module, given in task.get("ai_infra.workstation.workstation_state", {}).items():
                if module in SPECS:
                    parts.setdefault(module, {}).update(given)
    return parts


def fed_by() -> dict[tuple[str, str], str]:
    """Which variable holds the entries of a module's option: the descriptions of the roles say so."""
    found = {}
    for name, option in OPTIONS.items():
        words = "".join(option["description"])
        if says := re.search(r"as in the option C\((\w+)\) of the module (\w+)", words):
            found[says[2], says[1]] = name
    return found


def values_of(module: str, option: str) -> Iterator[Any]:
    """Everything that the maximal inventory gives to one option of a module."""
    for call in CALLS:
        if option in call.get(module, {}):
            yield call[module][option]
    if variable := fed_by().get((module, option)):
        yield VARIABLES.get(variable)


def leaves(spec: dict[str, Any], where: str, values: list[Any]) -> Iterator[str]:
    """Names of the options below one option that no entry gives a value to which is not the default."""
    entries = [entry for value in values for entry in (value if isinstance(value, list) else [value]) if entry]
    for name, option in spec.items():
        given = [entry[name] for entry in entries if name in entry]
        if all(value == option.get("default") for value in given):
            yield f"{where}.{name}"
        elif "options" in option:
            yield from leaves(option["options"], f"{where}.{name}", given)


def left_out() -> set[str]:
    missing = {
        name for name, option in OPTIONS.items() if VARIABLES.get(name, option.get("default")) == option.get("default")
    }
    roles = role_parts()
    for module, spec in SPECS.items():
        for name, option in spec.items():
            given = list(values_of(module, name))
            if not given and name not in roles.get(module, {}):
                missing.add(f"{module}.{name}")
            elif "options" in option:
                missing.update(leaves(option["options"], f"{module}.{name}", given))
    return missing


def test_every_option_has_a_value_that_is_not_its_default() -> None:
    assert sorted(left_out() - EXCEPTIONS.keys()) == []


def test_every_exception_is_needed_and_has_a_reason() -> None:
    assert sorted(EXCEPTIONS.keys() - left_out()) == []
    assert all(len(reason) > 20 for reason in EXCEPTIONS.values())


def test_no_variable_is_made_up() -> None:
    plan = load("roles/workstation_plan/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert sorted(VARIABLES.keys() - OPTIONS.keys() - plan.keys()) == []
