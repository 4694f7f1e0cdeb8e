# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask every rule, and put all answers into one report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from . import cpu, driver, firmware, gpu, inventory, kernel, memory, services
from .base import ERROR, SEVERITIES, WARNING, Finding, Rule, registered
from .context import Context

# The order of the topics in reports and in docs/rules.md. Importing a topic registers its rules.
TOPICS = tuple(
    module.__name__.rpartition(".")[2] for module in (inventory, driver, gpu, cpu, memory, kernel, services, firmware)
)


def rules() -> tuple[Rule, ...]:
    """Every rule, by topic."""
    return tuple(sorted(registered(), key=lambda one: TOPICS.index(one.topic)))


def evaluate(context: Context) -> list[Finding]:
    """All findings of all rules: errors first, then by topic and rule, the same for the same input."""
    found: list[tuple[int, Finding]] = []
    for number, one in enumerate(rules()):
        accepted = one.acceptable and one.name in context.accept
        found += [(number, _judged(finding, one, accepted)) for finding in one.check(context)]
    unique = dict.fromkeys(sorted(found, key=lambda item: (SEVERITIES.index(item[1].severity), item[0], item[1].what)))
    return [finding for _number, finding in unique]


def _judged(finding: Finding, one: Rule, accepted: bool) -> Finding:
    severity = finding.severity or one.severity
    if severity == ERROR and accepted:
        return replace(finding, rule=one.name, severity=WARNING, accepted=True)
    return replace(finding, rule=one.name, severity=severity)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop the plan."""
    return [finding for finding in findings if finding.severity == ERROR]


def one_line(findings: Sequence[Finding]) -> str:
    """The errors as one line."""
    count = f"{len(findings)} conflict{'s' if len(findings) > 1 else ''}"
    return f"{count}: {'; '.join(str(finding) for finding in findings)}"
