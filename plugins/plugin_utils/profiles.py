# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Profiles: what a profile and the inventory together want of one machine, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .conditions import CONDITIONS

NAMES = ("conservative", "balanced", "aggressive")
_TABLE = Path(__file__).with_name("settings.yml")


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings."""

    name: str
    variable: str
    module: str
    unit: str
    what: str
    why: str
    source: str
    verify: str
    recipes: str
    profiles: Mapping[str, Any]
    key: str | None = None
    at_least: bool = False
    choices: tuple[str, ...] = ()
    null_is_value: bool = False  # of a key: a flag, which has no value


@dataclass
class Wanted:
    """The value of one variable for one machine.

    from_profile: the parts that the inventory does not name (keys of a dictionary, or the variable
    itself). They are optional: where the machine lacks them they are skipped with the reason.
    """

    value: Any
    from_profile: list[str] = field(default_factory=list)


@cache
def settings() -> tuple[Setting, ...]:
    """The table of settings (settings.yml)."""
    return tuple(Setting(**row) for row in yaml.safe_load(_TABLE.read_text(encoding="utf-8")))


def wanted(profile: str, facts: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Wanted]:
    """Every variable of the table: the profile's value, overridden by the inventory.

    Dictionaries are merged key by key, and a null in the inventory takes a key out (but for `null_is_value`); anything
    else that the inventory defines, null and the empty list included, replaces the profile's value whole.
    """
    found: dict[str, Wanted] = {}
    for setting in settings():
        value = _resolve(setting.profiles[profile], facts, variables)
        given = setting.variable in variables
        if setting.key is None and (not isinstance(value, dict) or (given and variables[setting.variable] is None)):
            mine = given
            found[setting.variable] = Wanted(variables[setting.variable], []) if mine else _profile(setting, value)
        else:
            entry = found.setdefault(setting.variable, Wanted(dict((variables.get(setting.variable) or {}).items())))
            for key, one in ({setting.key: value} if setting.key else value).items():
                if key not in entry.value and one is not None:
                    entry.value[key] = one
                    entry.from_profile.append(key)
    flags = {setting.variable for setting in settings() if setting.null_is_value}
    for variable, entry in found.items():
        if isinstance(entry.value, dict) and variable not in flags:
            entry.value = {key: value for key, value in entry.value.items() if value is not None}
    return found


def _profile(setting: Setting, value: Any) -> Wanted:
    return Wanted(value, [setting.variable] if value not in (None, []) else [])


def _resolve(value: Any, facts: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and "if" in value:
        return value["then"] if CONDITIONS[value["if"]](facts, variables) else value["else"]
    return value
