# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the linter says: findings, their order and their severities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

SEVERITIES = ("info", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or does nothing.

    line: 1 is the first; 0 where there is no file. message: what, why and what to do, in one line.
    """

    file: str
    line: int
    rule: str
    severity: str
    setting: str
    message: str
    replacement: str = ""

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.severity}: {self.rule}: {self.message}"


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By file and line, each finding once."""
    return sorted(set(findings), key=lambda one: (one.file, one.line, one.rule, one.setting, one.message))


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each severity."""
    counts = dict.fromkeys(reversed(SEVERITIES), 0)
    for finding in findings:
        counts[finding.severity] += 1
    return counts


def at_least(findings: Iterable[Finding], severity: str) -> list[Finding]:
    """The findings that are as severe as `severity` or more."""
    return [one for one in findings if SEVERITIES.index(one.severity) >= SEVERITIES.index(severity)]
