# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""sysctl files and single kernel parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .context import Context
from .findings import Finding
from .knowledge import known
from .versions import near

_LINE = re.compile(r"-?\s*([A-Za-z_][\w./*?\[\]-]*)\s*=\s*(.*)")
_EXCLUDE = re.compile(r"-\s*[A-Za-z_][\w./*?\[\]-]*")


def looks_like_sysctl(text: str) -> bool:
    """Whether every line of a .conf file is a kernel parameter."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line[0] not in "#;"]
    pattern = r"-?(vm|kernel|net|fs|dev|user)[./][\w./*-]+\s*="
    return bool(lines) and all(re.match(pattern, line) for line in lines)


def check_sysctl_file(text: str, context: Context) -> list[Finding]:
    found: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        match = _LINE.fullmatch(stripped)
        if match:
            found += check_setting(match[1], match[2].strip(), number, context)
        elif not _EXCLUDE.fullmatch(stripped):
            text_ = "no assignment of the form key = value"
            found.append(context.finding(number, "sysctl-syntax", stripped[:40], text_))
    return found


def canonical(key: str) -> str:
    """vm/swappiness is vm.swappiness: the first separator decides."""
    return key.replace("/", ".") if "/" in key and ("." not in key or key.index("/") < key.index(".")) else key


def check_setting(key: str, value: str, line: int, context: Context) -> Iterator[Finding]:
    """What is known of one parameter and its value."""
    name = canonical(key)
    record = known("sysctl").get(name)
    if record is None:
        if name.startswith("vm.") and not re.search(r"[*?\[$]", name):
            like = near(name, known("sysctl"))
            text = f"the kernel has no such key{f'; did you mean {like}?' if like else ''}"
            yield context.finding(line, "sysctl-unknown", name, text, like)
        return
    if record.verdict != "real":
        yield context.judged(line, record, name)
        return
    if "#" in value:
        yield context.finding(line, "sysctl-syntax", name, "a comment behind a value becomes part of it")
        value = value.partition("#")[0].strip()
    for rule in record.values:
        if rule.fits(value):
            yield context.judged_value(line, record, rule, f"{name}={value}")
            return
    if record.default is not None and value == record.default:
        yield context.finding(line, "sysctl-no-op", f"{name}={value}", f"{value} is the default; leave it out")
