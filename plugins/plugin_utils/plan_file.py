# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of one machine as a file: what check mode said, why, and the fingerprints that hold a later run to it.

Pure: results in, a document out, and back. The same state gives the same file, byte for byte: there is no time in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..module_utils.engine.plan import fingerprint
from .profiles import settings

FORMAT = "ai_infra.workstation plan 1"
_KINDS = Path(__file__).with_name("plan_file.yml")
_RISKS = ("low", "medium", "high")
_HASH = "sha256"
# Only the planner reads it, and the environment and the flags of a service may hold passwords and tokens.
_SERVICES = "workstation_services"
_RELEASED = "no longer wanted"
NOTHING = fingerprint([])


class PlanFileError(ValueError):
    """The file cannot be applied here; why, in one line."""


@dataclass(frozen=True)
class Call:
    """One module call of a role and what it returned in check mode."""

    role: str
    module: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Machine:
    """Which machine, and which boot of it."""

    host: str
    machine_id: str | None
    boot_id: str | None


@dataclass(frozen=True)
class Kind:
    """What is known about a kind of changes (plan_file.yml)."""

    match: str
    variable: str
    risk: str
    why: str = ""
    undo: str = ""


@cache
def kinds() -> tuple[Kind, ...]:
    return tuple(Kind(**row) for row in yaml.safe_load(_KINDS.read_text(encoding="utf-8")))


def compose(
    machine: Machine,
    plan: Mapping[str, Any],
    variables: Mapping[str, Any],
    defaults: Mapping[str, Any],
    calls: Iterable[Call],
) -> dict[str, Any]:
    """The document. `variables`: our variables as this machine had them; `defaults`: those of the roles."""
    calls = list(calls)
    origin = _Origin(plan, variables, defaults)
    document = {
        "format": FORMAT,
        "host": machine.host,
        "machine_id": machine.machine_id,
        "boot_id": machine.boot_id,
        "profile": plan["profile"],
        "changes": [_explain(call, change, origin) for call in calls for change in call.result["changes"]],
        "skipped": [
            {"role": call.role, "module": call.module, **skip}
            for call in calls
            for skip in call.result.get("skipped_keys") or ()
        ],
        "reboot_reasons": _once(reason for call in calls for reason in call.result.get("reboot_reasons") or ()),
        "calls": [
            {
                "role": call.role,
                "module": call.module,
                "expect": call.result["expect"],
                "actions": call.result.get("actions") or [],
                "changes": call.result["changes"],
            }
            for call in calls
        ],
        "parameters": dict(plan),
        "variables": {name: value for name, value in variables.items() if name != _SERVICES},
    }
    document[_HASH] = _digest(document)
    return document


def dump(document: Mapping[str, Any]) -> str:
    """The document as the text of its file."""
    return json.dumps(document, indent=1) + "\n"


def load(text: str, path: str, machine: Machine) -> dict[str, Any]:
    """The document of a file that was made for this boot of this machine and is as it was written."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PlanFileError(f"plan {path}: not a plan, {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise PlanFileError(f"plan {path}: its format is {found!r}, not {FORMAT!r}; make a new plan")
    if document.get(_HASH) != _digest(document):
        raise PlanFileError(f"plan {path}: was changed after it was made (its {_HASH} does not fit); make a new plan")
    if document["host"] != machine.host:
        raise PlanFileError(f"plan {path}: is for {document['host']}, this is {machine.host}")
    if document["machine_id"] != machine.machine_id:
        raise PlanFileError(f"plan {path}: {machine.host} is another installation now (machine-id); make a new plan")
    if document["boot_id"] != machine.boot_id:
        raise PlanFileError(f"plan {path}: {machine.host} was restarted since; make a new plan")
    return document


def to_apply(document: Mapping[str, Any], roles: Iterable[str], modules: Iterable[str]) -> dict[str, Any]:
    """The fact workstation_plan for the roles: parameters, variables, and what each call may change.

    A call that the plan does not have may change nothing.
    """
    modules = list(modules)
    expect = {role: dict.fromkeys(modules, NOTHING) for role in roles}
    for call in document["calls"]:
        expect.setdefault(call["role"], {})[call["module"]] = call["expect"]
    return {**document["parameters"], "expect": expect, "variables": document["variables"]}


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The readable form."""
    changes = document["changes"]
    risks = [f"{sum(change['risk'] == risk for change in changes)} {risk}" for risk in _RISKS]
    reboots = sum(change["reboot"] for change in changes)
    yield f"PLAN {document['host']}  profile {document['profile']}"
    yield f"{len(changes)} changes, risk {', '.join(risks)}; {reboots} act after a reboot"
    yield f"boot {document['boot_id']}, {_HASH} {document[_HASH]}"
    call = ""
    for keys, change in _alike(changes):
        if f"{change['role']}/{change['module']}" != call:
            call = f"{change['role']}/{change['module']}"
            yield from ("", call)
        more = f" and {len(keys) - 1} more like it" if len(keys) > 1 else ""
        yield f"  {keys[0]}{more}: {_value(keys[0], change['before'])} -> {_value(keys[0], change['after'])}"
        yield f"      from  {change['variable']} ({change['from']})"
        if change["reason"]:
            yield f"      why   {change['reason']}"
        yield f"      risk  {change['risk']}" + (", acts after a reboot" if change["reboot"] else "")
        yield f"      undo  {change['undo']}"
    if not changes:
        yield from ("", "as wanted, nothing to change")
    if document["skipped"]:
        yield from ("", "SKIPPED")
        yield from _once(f"  {skip['key']}: {skip['reason']}" for skip in document["skipped"])
    if document["reboot_reasons"]:
        yield from ("", "A REBOOT IS NEEDED")
        yield from (f"  {reason}" for reason in document["reboot_reasons"])


@dataclass(frozen=True)
class _Origin:
    """Where the value of a variable came from."""

    plan: Mapping[str, Any]
    variables: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def of(self, variables: str, part: str) -> str:
        return ", ".join(_once(self._of_one(variable, part) for variable in variables.split(", ")))

    def _of_one(self, variable: str, part: str) -> str:
        if self._by_profile(variable, part):
            return f"profile {self.plan['profile']}"
        if variable not in self.variables or self.variables[variable] == self.defaults.get(variable):
            return "default of the role"
        return "inventory"

    def names(self, variable: str, part: str) -> bool:
        """Whether this part of the variable is there at all; else something else asks for it."""
        return part in _names(self.variables.get(variable)) or self._by_profile(variable, part)

    def _by_profile(self, variable: str, part: str) -> bool:
        parts = self.plan.get("from_profile", {}).get(variable) or []
        if not part or part in parts:
            return bool(parts)
        rows = [row for row in settings() if row.variable == variable and variable in parts]
        return any(part in _names(row.profiles[self.plan["profile"]]) for row in rows)


def _names(value: Any) -> set[str]:
    """What the parts of a variable are called."""
    if isinstance(value, Mapping):
        return {str(key) for key in value}
    if not isinstance(value, list):
        return set()
    found = {str(item[key]) for item in value if isinstance(item, Mapping) for key in ("name", "path") if key in item}
    # The folder of a file is wanted by who wants the file.
    return found | {str(folder) for name in found for folder in PurePosixPath(name).parents}


def _explain(call: Call, change: Mapping[str, Any], origin: _Origin) -> dict[str, Any]:
    """A change with all that a reader wants to know before he says yes."""
    kind, part = _kind(f"{call.role}/{call.module} {change['key']}", origin)
    released = change["reason"].startswith(_RELEASED)
    where = f"{kind.variable}[{part!r}]" if part else kind.variable
    return {
        "key": change["key"],
        "before": change["before"],
        "after": change["after"],
        "role": call.role,
        "module": call.module,
        "variable": where,
        "from": "named by nothing any more" if released else origin.of(kind.variable, part),
        "reason": change["reason"] if released else kind.why or _why(kind.variable, part) or change["reason"],
        "risk": kind.risk,
        "reboot": change["reboot_required"],
        "undo": "name it in the inventory again"
        if released
        else kind.undo or _undo(kind.variable, part, change, origin),
    }


def _undo(variable: str, part: str, change: Mapping[str, Any], origin: _Origin) -> str:
    back = f"{_value(change['key'], change['before'])} goes back"
    value = origin.variables.get(variable)
    if part and value is not None and not isinstance(value, Mapping):
        return f"take it out of {variable} and run again: {back}"
    return f"set {variable}{f'[{part!r}]' if part else ''} to null and run again: {back}"


def _kind(words: str, origin: _Origin) -> tuple[Kind, str]:
    """The first kind that fits and whose variable names the part; else the first that fits without a part."""
    found = [(kind, match.groupdict().get("part") or "") for kind in kinds() if (match := re.match(kind.match, words))]
    for kind, part in found:
        if not part or origin.names(kind.variable, part):
            return kind, part
    return found[0] if found else (Kind("", words.partition(" ")[0], "medium"), "")


def _why(variable: str, part: str) -> str:
    rows = [row for row in settings() if row.variable == variable and row.key in (None, part)]
    return rows[0].why if rows else ""


def _alike(changes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Changes that differ by a number in their key alone, together: 64 CPUs are one entry."""
    groups: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for change in changes:
        rest = {**change, "key": re.sub(r"\d+", "#", change["key"])}
        groups.setdefault(json.dumps(rest), ([], change))[0].append(change["key"])
    yield from groups.values()


def _digest(document: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != _HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _value(key: str, value: Any) -> str:
    if value is None:
        return "none"
    return f"mode {value:04o}" if key.startswith("dir:") and isinstance(value, int) else str(value)
