# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flags of vLLM, llama-server and nvidia-smi."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .context import Context, Flag
from .findings import Finding
from .knowledge import Record, known, tables
from .versions import Table, near

# What a word on a command line can come with: its line in the file.
Word = tuple[str, int]

_SMI_LONG = {
    "-pm": "--persistence-mode",
    "-pl": "--power-limit",
    "-ac": "--applications-clocks",
    "-lgc": "--lock-gpu-clocks",
    "-lmc": "--lock-memory-clocks",
    "-c": "--compute-mode",
}
_OPERATOR = re.compile(r"[|&;<>()]+|\d?>+")


def engine_command(words: Sequence[Word]) -> tuple[str, list[Word]]:
    """The engine that a command line starts and its arguments, or an empty name."""
    for place, (word, _line) in enumerate(words):
        base = word.rsplit("/", 1)[-1]
        rest = words[place + 1 :]
        if base == "vllm" and rest and rest[0][0] == "serve":
            return "vllm", _until_operator(rest[1:])
        if word == "vllm.entrypoints.openai.api_server":
            return "vllm", _until_operator(rest)
        if base == "llama-server":
            return "llama.cpp", _until_operator(rest)
        if base == "nvidia-smi":
            return "nvidia-smi", _until_operator(rest)
    return "", []


def _until_operator(words: Sequence[Word]) -> list[Word]:
    for place, (word, _line) in enumerate(words):
        if _OPERATOR.fullmatch(word):
            return list(words[:place])
    return list(words)


def parse(words: Sequence[Word], engine: str) -> list[Flag]:
    """The flags of a command line with their values."""
    flags = []
    for place, (word, line) in enumerate(words):
        if not re.match(r"--?[A-Za-z]", word) or "$" in word.split("=")[0]:
            continue
        name, equals, value = word.partition("=")
        following = words[place + 1][0] if place + 1 < len(words) else ""
        taken: str | None = value if equals else following
        if not equals and (not following or re.match(r"--?[A-Za-z]", following)):
            taken = None
        if taken is not None and "$" in taken:
            taken = None
        flags.append(Flag(_full_name(name, engine), taken, line))
    return flags


def _full_name(name: str, engine: str) -> str:
    if engine == "nvidia-smi":
        return _SMI_LONG.get(name, name)
    if engine == "vllm" and name.startswith("--"):
        return name.split(".", 1)[0].replace("_", "-")
    return name


def check_flags(flags: Sequence[Flag], context: Context) -> list[Finding]:
    """Everything that is wrong with the flags of one command line of context.engine."""
    return [finding for flag in flags for finding in _check(flag, context)]


def _check(flag: Flag, context: Context) -> Iterator[Finding]:
    record = known("flag", context.engine).get(flag.name)
    if record and record.verdict != "real":
        yield context.judged(flag.line, record, _shown(flag, context))
        return
    table = tables().get(context.engine)
    if table:
        problem = _by_version(flag, context, table, record)
        if problem:
            yield problem
            return
    if record and flag.value is not None:
        fitting = (rule for rule in record.values if rule.fits(flag.value))
        first = next(fitting, None)
        if first:
            yield context.judged_value(flag.line, record, first, f"{flag.name} {flag.value}")


def _shown(flag: Flag, context: Context) -> str:
    if context.engine == "nvidia-smi":
        return f"nvidia-smi {flag.name} {flag.value or ''}".strip()
    return flag.name


def _by_version(flag: Flag, context: Context, table: Table, record: Record | None) -> Finding | None:
    name = _known_name(flag.name, table)
    place = table.presence("flag", name, context.version)
    dated = table.understands(context.version)
    what = f" {record.what}" if record and record.what else ""
    replacement = record.replacement if record else ""
    if place.state == "not_yet":
        text = f"{table.engine} {context.version} does not have it yet; {place.version} does"
        return context.finding(flag.line, "flag-not-yet", flag.name, text)
    if place.state == "removed":
        text = f"{table.engine} had it up to {place.version}; {table.next_after(place.version)} does not.{what}"
        severity = "error" if dated else "warning"
        return context.finding(flag.line, "flag-removed", flag.name, text, replacement, severity)
    if place.state == "unknown":
        like = near(flag.name, table.flag)
        inside = bool(context.version) and dated and table.covers(context.version or "")
        text = f"{table.engine} has no such flag in any version from {table.versions[0]} to {table.newest}"
        text += f"; did you mean {like}?" if like else ""
        return context.finding(flag.line, "flag-unknown", flag.name, text, like, "error" if inside else "warning")
    return None


def _known_name(name: str, table: Table) -> str:
    """The name under which the table has a flag: vLLM takes --no-X for a switch --X, and -O3 for -O."""
    if name in table.flag or table.engine != "vllm":
        return name
    if name.startswith("--no-") and "--" + name[5:] in table.flag:
        return "--" + name[5:]
    if re.fullmatch(r"-O\d", name) or name in ("-h", "--help", "-v", "--version"):
        return "--model"
    return name
