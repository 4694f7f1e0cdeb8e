# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/rules.md, made from the rules and the table of their homes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .engine import TOPICS, rules

_HOMES = Path(__file__).with_name("homes.yml")
_HEAD = """\
# Conflict rules

What must not be wanted together, or not on this machine, and where it is caught.

This page is made from plugins/plugin_utils/rules by scripts/generate_docs.py; do not edit it.

## Rules of the plan

The role workstation_plan asks all of them before anything is changed, and reports all that they find: what, why,
which variables, how to fix it. An error ends the play for that machine only. Notes and warnings do not.

To accept the error of a rule, list its name in the inventory; it stays in the report as an accepted warning:

    workstation_plan_accept: [governor_writers]

Rules marked `no` cannot be accepted: no plan can be made, or a module refuses the same. A dangerous kernel
parameter is accepted by its own name in os_tuning_kernel_parameters_accept.

Findings of service_settings have the severity that the settings linter gives them; some rules find a milder case,
which is a warning then.
"""
_TABLE = """
| rule | severity | can be accepted | trap | what it finds |
|---|---|---|---|---|
"""
_TRAPS = """
## Known traps and where they are caught

planner: a rule above. linter: a rule of the settings linter. module: it refuses or skips, and a test shows it.
test: our own tests show that we do not make the mistake.

| trap | when | caught by |
|---|---|---|
"""


@cache
def homes() -> tuple[Mapping[str, Any], ...]:
    """The table of traps (homes.yml)."""
    return tuple(yaml.safe_load(_HOMES.read_text(encoding="utf-8")))


def rules_page() -> str:
    """The text of docs/rules.md."""
    parts = [_HEAD]
    for topic in TOPICS:
        rows = [
            f"| {one.name} | {one.severity} | {'yes' if one.acceptable else 'no'} | {one.trap or '-'} | {one.what} |\n"
            for one in rules()
            if one.topic == topic
        ]
        parts += [f"\n### {topic}\n", _TABLE, *rows]
    traps = [f"| {home['trap']} | {home['when']} | {'; '.join(_where(home))} |\n" for home in homes()]
    return "".join((*parts, _TRAPS, *traps))


def _where(home: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("planner", "linter"):
        if kind in home:
            yield f"{kind}: {', '.join(home[kind])}"
    for module in home.get("module", ()):
        yield f"module: {module['name']} ({module['test'].partition('::')[2]})"
    for test in home.get("tests", ()):
        yield f"test: {test.partition('::')[2]}"
