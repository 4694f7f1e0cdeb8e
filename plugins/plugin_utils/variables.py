# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which inventory variables are ours, and the nearest name for one that is not.

Ansible accepts a misspelt variable without a word; here it is an error before anything is changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_ROLES = Path(__file__).resolve().parents[2] / "roles"
# A name this close to one of ours is ours, misspelt (difflib ratio): os_tunning_governor.
_NEAR = 0.9


@cache
def specifications() -> Mapping[str, Mapping[str, Any]]:
    """Every public variable with its argument specification."""
    options: dict[str, Mapping[str, Any]] = {}
    for path in _ROLES.glob("*/meta/argument_specs.yml"):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry in specs.values():
            options.update(entry.get("options") or {})
    return options


def known() -> frozenset[str]:
    """The names of our public variables."""
    return frozenset(specifications())


def defaults() -> dict[str, Any]:
    """What the roles set where the inventory does not: a play that has not loaded a role yet has not its defaults."""
    return {name: spec["default"] for name, spec in specifications().items() if "default" in spec}


@cache
def prefixes() -> tuple[str, ...]:
    """The beginnings of names that belong to our roles."""
    return (*(f"{path.name}_" for path in sorted(_ROLES.iterdir()) if path.is_dir()), "workstation_")


def misspelt(names: Iterable[str]) -> list[tuple[str, str]]:
    """Variables that look like ours and are not known: (name, nearest known name or "")."""
    found = []
    for name in sorted(set(names) - known()):
        if name.startswith("_"):
            continue
        near = difflib.get_close_matches(name, known(), 1, 0.6 if name.startswith(prefixes()) else _NEAR)
        if near or name.startswith(prefixes()):
            found.append((name, near[0] if near else ""))
    return found
