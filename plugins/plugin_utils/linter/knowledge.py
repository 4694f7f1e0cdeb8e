# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The knowledge base: one record per setting (knowledge/*.yml), tables of names by version, the list of rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .versions import Table

FOLDER = Path(__file__).resolve().parents[1] / "knowledge"
KINDS = ("environment", "flag", "sysctl", "compose_key", "dockerfile")
VERDICTS = (
    "real",
    "no_op",
    "deprecated",
    "removed",
    "wrong_value",
    "fictitious",
    "harmful",
    "conflict",
)
# How severe a verdict is where a record says nothing else. A removed setting of an engine whose version is known
# is judged by the table of versions.
SEVERITY = {
    "real": "",
    "no_op": "info",
    "deprecated": "warning",
    "removed": "error",
    "wrong_value": "error",
    "fictitious": "error",
    "harmful": "error",
    "conflict": "error",
}
_PREFIX = {"environment": "env", "flag": "flag", "sysctl": "sysctl", "compose_key": "compose", "dockerfile": "env"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class ValueRule:
    """What to say of some values of a setting. The value is compared as text (is, matches) or number (below, above)."""

    say: str
    verdict: str = "wrong_value"
    severity: str = ""
    replacement: str = ""
    is_: str | None = None
    matches: str | None = None
    below: float | None = None
    above: float | None = None

    def fits(self, value: str) -> bool:
        if self.is_ is not None and value != self.is_:
            return False
        if self.matches is not None and not re.search(self.matches, value):
            return False
        if self.below is None and self.above is None:
            return True
        number = as_number(value)
        if number is None:
            return False
        return (self.below is None or number < self.below) and (self.above is None or number > self.above)


@dataclass(frozen=True)
class Record:
    """What is known of one setting. `engine` limits flags to one program; `source` is the evidence."""

    name: str
    kind: str
    reader: str
    verdict: str
    source: str
    what: str = ""
    engine: str = ""
    since: str = ""
    until: str = ""
    default: str | None = None
    replacement: str = ""
    severity: str = ""
    values: tuple[ValueRule, ...] = ()

    @property
    def level(self) -> str:
        return self.severity or SEVERITY[self.verdict]


@dataclass(frozen=True)
class Rule:
    """One kind of finding. trap: its number in the list of conflicts and traps, where it has one."""

    name: str
    severity: str
    what: str
    why: str
    trap: str = ""


def as_number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def rule_of(kind: str, verdict: str) -> str:
    """The name of the rule for a verdict on a setting of this kind: env-fictitious."""
    return f"{_PREFIX[kind]}-{verdict.replace('_', '-')}"


def read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506 a safe loader, the fast one where present


@cache
def records() -> tuple[Record, ...]:
    """Every record of knowledge/*.yml."""
    return tuple(record for path in sorted(FOLDER.glob("*.yml")) for record in _records_of(read(path)))


def _records_of(content: Any) -> Iterator[Record]:
    if not isinstance(content, Mapping) or "records" not in content:
        return
    for row in content["records"]:
        entry = {**content.get("defaults", {}), **row}
        values = tuple(_value_rule(one) for one in entry.pop("values", ()))
        yield Record(**entry, values=values)


def _value_rule(row: Mapping[str, Any]) -> ValueRule:
    return ValueRule(**{"is_" if key == "is" else key: value for key, value in row.items()})


@cache
def known(kind: str, engine: str = "") -> Mapping[str, Record]:
    """Records of one kind (of one engine, for flags) by name."""
    return {one.name: one for one in records() if one.kind == kind and (not engine or one.engine == engine)}


@cache
def tables() -> Mapping[str, Table]:
    """Names by version, by engine."""
    found = {}
    for path in sorted(FOLDER.glob("*_versions.yml")):
        content = read(path)
        found[content["engine"]] = Table(
            content["engine"],
            tuple(content["versions"]),
            {name: (row[0], row[1]) for name, row in content["environment"].items()},
            {name: (row[0], row[1]) for name, row in content["flag"].items()},
        )
    return found


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its name."""
    return {row["name"]: Rule(**row) for row in read(FOLDER / "rules.yml")["rules"]}


@cache
def families() -> tuple[Mapping[str, Any], ...]:
    """Families of environment variables: prefix, reader, engine, and what to leave alone."""
    return tuple(read(FOLDER / "rules.yml")["families"])
