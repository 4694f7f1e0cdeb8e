# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Environment variables: the ones nobody reads, the ones of another version, values that do not do what is hoped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .allocator import check_allocator
from .context import Context, Flag, Variable
from .findings import Finding
from .knowledge import Record, families, known, tables
from .versions import Table, near

_SELECTORS = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def check_environment(variables: Sequence[Variable], context: Context, flags: Iterable[Flag] = ()) -> list[Finding]:
    """Everything that is wrong with the variables of one process."""
    found = [finding for variable in variables for finding in _check(variable, context)]
    return [*found, *check_allocator(variables, context, list(flags))]


def _check(variable: Variable, context: Context) -> Iterator[Finding]:
    name, value = variable.name, variable.value
    record = known("environment").get(name)
    if record and record.verdict != "real":
        yield context.judged(variable.line, record, name)
        return
    family = next((one for one in families() if name.startswith(one["prefix"])), None)
    if family and not record and (name in context.own or name.startswith(tuple(family["theirs"]))):
        return
    if family and family["engine"]:
        absent = _by_version(variable, context, tables()[family["engine"]], record)
        if absent or not _is_known(name, tables()[family["engine"]], record):
            yield absent or _unknown(variable, context, family)
            return
    elif family and not record:
        yield from _unknown_without_table(variable, context, family)
        return
    if value is not None:
        yield from _value(variable, value, context, record)


def _is_known(name: str, table: Table, record: Record | None) -> bool:
    return record is not None or spelled(name) in table.environment


def spelled(name: str) -> str:
    """llama-server takes LLAMA_ARG_NO_X for every switch LLAMA_ARG_X."""
    return name.replace("LLAMA_ARG_NO_", "LLAMA_ARG_", 1)


def _by_version(variable: Variable, context: Context, table: Table, record: Record | None) -> Finding | None:
    """The variable belongs to the engine, but not to this version of it."""
    name = variable.name if variable.name in table.environment else spelled(variable.name)
    version = context.version if context.engine == table.engine else None
    place = table.presence("environment", name, version)
    what = f" {record.what}" if record and record.what else ""
    replacement = record.replacement if record else ""
    if place.state == "not_yet":
        text = f"{table.engine} {version} does not read it yet; {place.version} does"
        return context.finding(variable.line, "env-not-yet", variable.name, text)
    if place.state == "removed":
        text = f"{table.engine} read it up to {place.version}; {table.next_after(place.version)} does not.{what}"
        severity = "error" if table.understands(version) else "warning"
        return context.finding(variable.line, "env-removed", variable.name, text, replacement, severity)
    return None


def _unknown(variable: Variable, context: Context, family: Mapping[str, Any]) -> Finding:
    """A name of an engine whose names were read: it may be a flag, or misspelt."""
    table = tables()[family["engine"]]
    flag = "--" + variable.name.removeprefix(family["prefix"]).lower().replace("_", "-")
    if flag in table.flag:
        text = f"no program reads it: {table.engine} has a flag for it"
        return context.finding(variable.line, "env-fictitious", variable.name, text, flag)
    records = (one for one in known("environment").values() if one.engine == table.engine and one.verdict == "real")
    like = near(variable.name, [*table.environment, *(one.name for one in records)])
    hint = f"; did you mean {like}?" if like else ""
    version = context.version if context.engine == table.engine else None
    proven = table.was_read(version)
    read = f"{table.engine} {version}" if proven else f"no version of {table.engine} up to {table.newest}"
    text = f"{read}{' does not know it' if proven else ' knows it'}{hint}"
    severity = "error" if proven else "warning"
    return context.finding(variable.line, "env-unknown", variable.name, text, like, severity)


def _unknown_without_table(variable: Variable, context: Context, family: Mapping[str, Any]) -> Iterator[Finding]:
    names = [one.name for one in known("environment").values() if one.verdict != "fictitious"]
    like = near(variable.name, names)
    if family.get("near_only") and not like:
        return
    hint = f"; did you mean {like}?" if like else ""
    text = f"not known as a variable of {family['reader']}{hint}"
    yield context.finding(variable.line, "env-unknown", variable.name, text, like)


def _value(variable: Variable, value: str, context: Context, record: Record | None) -> Iterator[Finding]:
    name = variable.name
    if name in _SELECTORS and re.fullmatch(r"\d+(,\d+)*", value):
        text = f"{value} is an index, and the order of cards is not guaranteed between boots"
        yield context.finding(variable.line, "env-device-index", name, text, "the UUID that nvidia-smi -L prints")
    if record is None:
        return
    shown = f"{name}={value}"
    for rule in record.values:
        if rule.fits(value):
            yield context.judged_value(variable.line, record, rule, shown)
            return
    if record.default is not None and value == record.default:
        text = f"{value} is the default; leave it out"
        yield context.finding(variable.line, "env-no-op", shown, text)
