# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a rule is, what it finds, and the list of all rules."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import Context

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Finding:
    """One conflict, in four parts. A rule leaves name and severity to the engine, or gives a milder severity."""

    what: str
    why: str
    variables: tuple[str, ...]
    fix: str
    severity: str = ""
    rule: str = ""
    accepted: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "variables": list(self.variables)}

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}; {self.fix}"


Check = Callable[["Context"], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A named question about a plan. trap: its number in docs/rules.md.

    acceptable: whether workstation_plan_accept may turn its error into a warning. It may not where a module
    refuses the same, or where no plan can be made.
    """

    name: str
    trap: str
    severity: str
    acceptable: bool
    topic: str
    check: Check

    @property
    def what(self) -> str:
        """The first line of the function's docstring."""
        return (self.check.__doc__ or "").strip().partition("\n")[0]


_RULES: dict[str, Rule] = {}


def rule(severity: str, trap: str = "", acceptable: bool = True) -> Callable[[Check], Check]:
    """Register a function as the rule of its name. It is called with the context and yields findings."""

    def register(check: Check) -> Check:
        name, topic = check.__name__, check.__module__.rpartition(".")[2]
        known = _RULES.get(name)
        if known and known.topic != topic:
            raise ValueError(f"two rules are called {name}")
        _RULES[name] = Rule(name, trap, severity, acceptable, topic, check)
        return check

    return register


def registered() -> tuple[Rule, ...]:
    """Every rule in the order of the files and, in a file, of the functions."""
    return tuple(_RULES.values())


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, "" where none is near."""
    found = difflib.get_close_matches(name, list(names), 1)
    return found[0] if found else ""


def said(items: Iterable[str]) -> str:
    """Words in a sentence: a, b and c."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def gib(number: int) -> str:
    """Bytes in GiB, for messages."""
    return f"{number / (1 << 30):.1f} GiB"
