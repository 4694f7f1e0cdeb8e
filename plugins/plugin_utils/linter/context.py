# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a checker knows of the place that it looks at, and the making of a finding."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .findings import Finding
from .knowledge import Record, Rule, ValueRule, rule_of, rules

_BUILD = re.compile(r"(?:^|-)b?(\d{4,6})$")
_RELEASE = re.compile(r"^v?(\d+\.\d+(?:\.\d+)*(?:\.?(?:post|rc)\d+)?)")


@dataclass(frozen=True)
class Variable:
    """One environment variable. value None: it comes from somewhere else and is not known."""

    name: str
    value: str | None
    line: int = 0


@dataclass(frozen=True)
class Flag:
    """One option of a command line. value None: it has none, or it is not known."""

    name: str
    value: str | None
    line: int = 0


@dataclass(frozen=True)
class Context:
    """Where something was found. own: names that the files themselves define and expand."""

    file: str = ""
    engine: str = ""
    version: str | None = None
    own: frozenset[str] = frozenset()

    def of(self, engine: str, version: str | None) -> Context:
        return replace(self, engine=engine, version=version)

    def finding(
        self, line: int, rule: str, setting: str, message: str, replacement: str = "", severity: str = ""
    ) -> Finding:
        """A finding with its rule's severity unless another is given."""
        known: Rule = rules()[rule]
        # A message that names the replacement itself ("did you mean") does not need it twice.
        told = not replacement or replacement in message
        text = f"{setting}: {message.rstrip('.')}" + ("" if told else f"; use {replacement}")
        return Finding(self.file, line, rule, severity or known.severity, setting, text, replacement)

    def judged(self, line: int, record: Record, shown: str, severity: str = "") -> Finding:
        """What the record's verdict says of a setting."""
        what = f"{'' if record.reader != 'nobody' else 'no program reads it. '}{record.what}"
        rule = rule_of(record.kind, record.verdict)
        return self.finding(line, rule, shown, what or rules()[rule].what, record.replacement, severity or record.level)

    def judged_value(self, line: int, record: Record, rule: ValueRule, shown: str) -> Finding:
        """What the record says of this value."""
        name = rule_of(record.kind, rule.verdict)
        severity = rule.severity or ("" if rule.verdict != "no_op" else "info")
        return self.finding(line, name, shown, rule.say, rule.replacement or record.replacement, severity)


def engine_of_image(image: str) -> tuple[str, str | None]:
    """Engine and version by the name of an image: vllm/vllm-openai:v0.11.0, llama.cpp:server-cuda-b9294."""
    name, tag = split_image(image)
    last = name.rsplit("/", 1)[-1].lower()
    if "vllm" in last:
        found = _RELEASE.match(tag)
        return "vllm", found[1] if found else None
    if re.search(r"llama[._-]?(cpp|server)", last):
        build = _BUILD.search(tag)
        return "llama.cpp", build[1] if build else None
    return "", None


def split_image(image: str) -> tuple[str, str]:
    """Name and tag; a digest is no tag."""
    name = image.split("@", 1)[0]
    base, colon, tag = name.rpartition(":")
    return (base, tag) if colon and "/" not in tag else (name, "")


def pinned(image: str) -> bool:
    """Whether an image names one version. What is expanded elsewhere counts as pinned: it is not known here."""
    if "@sha256:" in image or "$" in image:
        return True
    tag = split_image(image)[1]
    return bool(tag) and not re.fullmatch(r"(latest|main|master|edge|nightly|stable|server|server-cuda|full)", tag)
