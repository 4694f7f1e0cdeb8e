# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/linter.md: how to call the linter, its rules, and every setting with a verdict, made from the knowledge."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .knowledge import SEVERITY, Record, ValueRule, records, rules, tables

_HEAD = """\
# lint_settings

## NAME

lint_settings - find settings that do nothing, are gone, or do harm

## SYNOPSIS

    ansible-playbook playbooks/lint_settings.yml -e path=/srv/stack
    ansible-playbook playbooks/lint_settings.yml -e path=. -e fail_on=warning -e show=warning -e report=settings.json

## DESCRIPTION

Reads compose files, Dockerfiles, environment files (.env, *.env), sysctl files and shell scripts below a path, and
compares them with what programs read: the CUDA driver, the NVIDIA container toolkit, PyTorch, NCCL, vLLM and
llama.cpp by version, Docker, and the kernel. Nothing of the repository is run or imported, links are not followed,
and .git, node_modules and virtual environments are left out. A file of a known kind that cannot be read is a finding.

One line is one finding:

    path:line: severity: rule: setting: what, why; use what instead

The version of an engine is that of its image (vllm/vllm-openai:v0.11.0, llama.cpp:server-cuda-b9294). With a
version, what it does not read is an error; without one, what the newest version does not read is a warning.
Between two versions that were read nobody looked, so a name that comes or goes there is not accused.
Names that the files themselves expand (${VLLM_TAG}) are the author's own.

## OPTIONS

    path       a folder or a file
    fail_on    never, error or warning: from which severity on the play fails (error)
    show       info, warning or error: what is shown; all is counted (info)
    report     a file for the findings as JSON: file, line, rule, severity, setting, message, replacement

## SEVERITIES

    error      it does nothing, is refused, or does harm
    warning    it works and is not what is meant, or the version is not known
    info       it can be left out

## RULES

T numbers are those of the list of conflicts and traps that the planner and the linter share.
"""
_TITLES = {
    "environment": "Environment variables",
    "flag": "Flags",
    "sysctl": "Kernel parameters",
    "compose_key": "Keys of compose files",
    "dockerfile": "Dockerfiles",
}


def linter_page() -> str:
    """The text of docs/linter.md."""
    read = [
        f"{table.engine}: {len(table.environment)} variables and {len(table.flag)} flags, from its source packages "
        f"{', '.join(table.versions)}."
        for table in tables().values()
    ]
    parts = [
        _HEAD,
        *(_rule(name) for name in rules()),
        "\n## VERSIONS\n",
        *(f"\n{textwrap.fill(text, 110)}\n" for text in read),
        "\n## SETTINGS\n\nEvery setting with a verdict, and values with one.\n",
        *(_kind(kind, title) for kind, title in _TITLES.items()),
        "\n## SEE ALSO\n\ndocs/settings.md for what to set instead.\n",
        "\nThis page is made from plugins/plugin_utils/knowledge by scripts/generate_docs.py; do not edit it.\n",
    ]
    return "".join(parts)


def _rule(name: str) -> str:
    rule = rules()[name]
    head = f"\n    {name}  ({rule.severity}{', ' + rule.trap if rule.trap else ''})\n"
    return head + _indented(rule.what) + _indented(rule.why)


def _kind(kind: str, title: str) -> str:
    shown = [record for record in records() if record.kind == kind and (record.verdict != "real" or record.values)]
    return f"\n### {title}\n" + "".join(_record(record) for record in shown) if shown else ""


def _record(record: Record) -> str:
    severity = f", {record.level}" if record.level else ""
    name = f"{record.engine} {record.name}" if record.kind == "flag" else record.name
    text = f"\n    {name}  ({record.verdict.replace('_', ' ')}{severity})\n" + _indented(record.what)
    if record.replacement:
        text += _indented(f"Use: {record.replacement}")
    text += "".join(_indented(line) for line in map(_value, record.values))
    return text + _indented(f"Source: {record.source}")


def _value(rule: ValueRule) -> str:
    severity = rule.severity or SEVERITY[rule.verdict]
    return f"{' '.join(_conditions(rule))}: {severity}: {rule.say}" + (
        f"; use {rule.replacement}" if rule.replacement else ""
    )


def _conditions(rule: ValueRule) -> Iterator[str]:
    if rule.is_ is not None:
        yield f"value {rule.is_}"
    if rule.matches is not None:
        yield "other values" if "(?!" in rule.matches else f"values like {rule.matches}"
    if rule.below is not None:
        yield f"below {_number(rule.below)}"
    if rule.above is not None:
        yield f"above {_number(rule.above)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _indented(text: str) -> str:
    return (
        textwrap.fill(text, 104, initial_indent=" " * 8, subsequent_indent=" " * 8, break_long_words=False) + "\n"
        if text
        else ""
    )
