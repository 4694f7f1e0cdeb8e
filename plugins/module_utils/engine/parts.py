# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several subjects in one call: all of them are planned before the first one writes.

A refusal in the last part is known before the first part changes anything, and the machine is reached once
instead of once for each part. Each part is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ApplyError, RefusedError, WorkstationError
from .machine import Machine
from .plan import Subject, converge

Part = tuple[Subject, Mapping[str, Any]]

# What one part foretells and another must plan with: (part, report) -> (part, parameter). Interrupts are
# placed on the CPUs that are left once SMT is as wanted.
_PROJECTED = {("cpu_governor", "planned_online_cpus"): ("irq_affinity", "online_cpus")}


def converge_parts(
    parts: Sequence[Part], check_mode: bool, machine: Machine, problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Bring all parts to what they describe, in the order given, or say what would be done.

    Raises RefusedError with every problem of every part (and the `problems` that the caller has found)
    before any write, ApplyError naming the part that failed and the parts that were done before it.
    """
    foretold = _predict(parts, machine, list(problems))
    if check_mode:
        return _merged(foretold)
    first = next((index for index, (_name, outcome) in enumerate(foretold) if outcome["changed"]), len(parts))
    done = foretold[:first]
    for subject, params in _with_projections(parts[first:], dict(foretold)):
        machine.memo.clear()
        try:
            # What was expected was compared when all was planned; parts move each other's values.
            done.append((subject.NAME, converge(subject, {**params, "expect": None}, False, machine)))
        except WorkstationError as error:
            before = ", ".join(name for name, outcome in done if outcome["changed"]) or "none"
            raise ApplyError(f"{subject.NAME}: {error}; parts changed before: {before}", **error.details) from error
    return _merged(done)


def _predict(parts: Sequence[Part], machine: Machine, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    foretold: list[tuple[str, dict[str, Any]]] = []
    for part in parts:
        ((subject, params),) = _with_projections([part], dict(foretold))
        machine.memo.clear()
        try:
            foretold.append((subject.NAME, converge(subject, params, True, machine)))
        except WorkstationError as error:
            texts = [str(text) for text in error.details.get("refusals", [error])]
            problems += [text if text.startswith(f"{subject.NAME}: ") else f"{subject.NAME}: {text}" for text in texts]
        except OSError as error:
            problems.append(f"{subject.NAME}: {error.strerror or error}")
    if problems:
        raise RefusedError("; ".join(problems), refusals=problems)
    return foretold


def _with_projections(parts: Sequence[Part], foretold: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    found: list[Part] = []
    for subject, params in parts:
        more = {
            parameter: foretold[source][report]
            for (source, report), (target, parameter) in _PROJECTED.items()
            if target == subject.NAME and params.get(parameter) is None and report in foretold.get(source, {})
        }
        found.append((subject, {**params, **more}))
    return found


_LISTS = ("diff", "reboot_reasons", "warnings", "actions")


def _merged(outcomes: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One result of all parts; what each part said stands whole in `parts`, but for diff and warnings."""
    merged: dict[str, Any] = {name: [item for _part, one in outcomes for item in one[name]] for name in _LISTS}
    for name in ("changes", "skipped_keys"):
        merged[name] = [{**item, "part": part} for part, one in outcomes for item in one[name]]
    return {
        **merged,
        "changed": any(one["changed"] for _part, one in outcomes),
        "reboot_required": any(one["reboot_required"] for _part, one in outcomes),
        "expect": {part: one["expect"] for part, one in outcomes},
        "parts": {
            part: {key: value for key, value in one.items() if key not in ("diff", "warnings")}
            for part, one in outcomes
        },
    }
