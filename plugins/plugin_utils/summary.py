# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The readable end of a run. Pure: results in, lines out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

_WIDTH = 100


@dataclass
class HostReport:
    """What the modules said about one machine."""

    profile: str = ""
    changes: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    skipped: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    conflicts: list[Mapping[str, Any]] = field(default_factory=list)
    findings: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reboot: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._asked: dict[tuple[str, str], list[str]] = {}

    def add(self, role: str, data: Mapping[str, Any], task: str = "") -> None:
        """Take in the result of one task of a role."""
        plan = (data.get("ansible_facts") or {}).get("workstation_plan")
        if plan:
            self.profile = plan["profile"]
        # A rollback is no role, and says whose keys went back.
        self.changes += [(role or _owner(change), change) for change in data.get("changes") or ()]
        self.skipped += [(role, skip) for skip in data.get("skipped_keys") or ()]
        self.conflicts += data.get("conflicts") or ()
        self.findings += data.get("findings") or ()
        self.warnings += data.get("warnings") or ()
        # The last word of a role's task counts: after a reboot it is asked again.
        self._asked[role, task if role else str(len(self._asked))] = list(data.get("reboot_reasons") or ())
        self.reboot = [reason for reasons in self._asked.values() for reason in reasons]


def render(host: str, report: HostReport, check: bool) -> Iterator[str]:
    """The block of one machine."""
    yield ""
    yield f"{host}  " + (f"profile {report.profile}  " if report.profile else "") + _verdict(report, check)
    yield from _conflicts(report)
    yield from _changes(report, check)
    yield from _skipped(report)
    yield from _findings(report)
    yield from _plain("WARNINGS", report.warnings)
    yield from _plain("A REBOOT IS NEEDED  (site.yml does it with -e workstation_reboot_allowed=true)", report.reboot)
    # The block CONFLICTS has them one by one: here their number is enough.
    shown = r"\1, see CONFLICTS above" if report.conflicts else r"\g<0>"
    yield from _plain("ERRORS", (re.sub(r"(: \d+ conflicts?): .*", shown, error) for error in report.errors))


def _verdict(report: HostReport, check: bool) -> str:
    if report.errors:
        return "FAILED"
    count = len(report.changes)
    changes = f"{count} change{'s' * (count != 1)}"
    if check:
        return f"dry run: {changes} planned, nothing was touched"
    return f"{changes} made" if count else "as wanted, nothing to change"


def _conflicts(report: HostReport) -> Iterator[str]:
    """What the rules of the plan found, errors first, each with why and what to do."""
    if not report.conflicts:
        return
    kinds = ("error", "warning", "note")
    counts = {kind: sum(conflict["severity"] == kind for conflict in report.conflicts) for kind in kinds}
    yield "  CONFLICTS  " + ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count)
    for conflict in sorted(report.conflicts, key=lambda one: kinds.index(one["severity"])):
        word = "accepted" if conflict["accepted"] else conflict["severity"]
        yield f"    {word:<8}  {conflict['rule']}: {conflict['what']}"
        yield f"              why        {conflict['why']}"
        if conflict["variables"]:
            yield f"              variables  {', '.join(conflict['variables'])}"
        yield f"              fix        {conflict['fix']}"


def _changes(report: HostReport, check: bool) -> Iterator[str]:
    if not report.changes:
        return
    reasons = {change["reason"] for _role, change in report.changes}
    shared = reasons.pop() if len(reasons) == 1 and len(report.changes) > 1 else ""
    yield ("  WOULD CHANGE" if check else "  CHANGED") + (f"  ({shared})" if shared else "")
    for role in _in_order(role for role, _change in report.changes):
        rows = [(change["key"], change) for of, change in report.changes if of == role]
        yield f"    {role or 'task'}"
        width = min(max(len(key) for key, _row in rows), 60)
        for keys, (before, after, note) in _merged((key, _row(change, shared)) for key, change in rows):
            yield f"      {_shorten(keys):<{width}}  {before} -> {after}{note}"


def _row(change: Mapping[str, Any], shared: str) -> tuple[str, str, str]:
    """Before, after, and what to know of it but for the reason that all share."""
    before, after = _value(change["before"]), _value(change["after"])
    if change["key"].startswith(("file:", "dir:")):
        thing = "text" if change["key"].startswith("file:") else "folder"
        before = "absent" if change["before"] is None else f"old {thing}"
        after = "absent" if change["after"] is None else f"our {thing}"
    if change["key"].startswith("unit_links:"):
        before, after = _links(change["before"]), _links(change["after"])
    note = "  (after a reboot)" if change["reboot_required"] else ""
    return before, after, note + (f"  ({change['reason']})" if change["reason"] != shared else "")


def _skipped(report: HostReport) -> Iterator[str]:
    if report.skipped:
        yield "  SKIPPED"
    by_reason: dict[str, list[str]] = {}
    for _role, skip in report.skipped:
        by_reason.setdefault(skip["reason"], []).append(skip["key"])
    for reason, keys in by_reason.items():
        shown = keys if len(keys) < 4 else [*keys[:2], f"{len(keys) - 2} more"]
        yield f"    {', '.join(shown)}: {reason}"


def _findings(report: HostReport) -> Iterator[str]:
    if not report.findings:
        return
    order = ("fail", "unknown", "pass")
    counts = [f"{sum(f['result'] == result for f in report.findings)} {result}" for result in order]
    yield f"  FIRMWARE  {', '.join(counts)}"
    for result in order[:2]:
        by_words: dict[str, list[str]] = {}
        for finding in report.findings:
            if finding["result"] == result:
                by_words.setdefault(_finding(finding), []).append(finding["item"])
        for words, items in by_words.items():
            yield f"    {result:<7}  {', '.join(items) if len(items) < 4 else f'{len(items)} items'}: {words}"


def _finding(finding: Mapping[str, Any]) -> str:
    return str(finding.get("why") or finding.get("evidence") or "")


def _plain(title: str, lines: Iterable[str]) -> Iterator[str]:
    once = _in_order(lines)
    if once:
        yield f"  {title}"
        yield from (f"    {line}" for line in once)


def _merged(rows: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Rows with the same words in one row: the keys of 64 CPUs are one line, not 64."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key, words in rows:
        groups.setdefault((re.sub(r"\d+", "#", key), words), []).append(key)
    for (_family, words), keys in groups.items():
        yield (keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more like it"), words


def _in_order(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _owner(change: Mapping[str, Any]) -> str:
    return str(change.get("owner") or "").partition("/")[0]


def _links(links: Sized | None) -> str:
    return f"{len(links)} link{'s' * (len(links) != 1)}" if links else "none"


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
