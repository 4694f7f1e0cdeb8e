# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ticket for the person who goes into the firmware menus of one machine. Pure: findings in, text and data out.

A ticket is compared with the one before it, so that the run after the reboot says what the visit has brought.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FORMAT = "ai_infra.workstation firmware ticket 1"
_WIDTH = 100
# What became of an item since the ticket before.
FIXED, STILL, NEW, OPEN = "fixed", "still wrong", "new", "cannot be told any more"


def compose(
    host: str, findings: Iterable[Mapping[str, Any]], machine: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The ticket of one machine. `before`: its previous ticket, where there is one of this format."""
    rows = [dict(finding) for finding in findings]
    return {
        "format": FORMAT,
        "host": host,
        "machine": dict(machine),
        "findings": rows,
        "since": _since(rows, machine, before) if before else None,
    }


def parse(text: str) -> dict[str, Any] | None:
    """A ticket as it was written; None for anything else, which the new ticket then replaces."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and _is_ticket(found) else None


def _is_ticket(found: Mapping[str, Any]) -> bool:
    try:
        return (
            found["format"] == FORMAT
            and {"boot_id", "bios"} <= found["machine"].keys()
            and "version" in found["machine"]["bios"]
            and all({"id", "device", "result"} <= finding.keys() for finding in found["findings"])
            and "since" in found
        )
    except (KeyError, TypeError, AttributeError):
        return False


def dump(ticket: Mapping[str, Any]) -> str:
    return json.dumps(ticket, indent=1) + "\n"


def _since(findings: list[dict[str, Any]], machine: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What has become of the items since the ticket before.

    While the machine has not been restarted, the ticket before keeps its comparison: another run of the same boot
    must not wipe out what the first one found.
    """
    rebooted = before["machine"]["boot_id"] != machine["boot_id"]
    if not rebooted and before["since"] and before["findings"] == findings:
        return dict(before["since"])
    old = {_name(finding): finding["result"] for finding in before["findings"]}
    items: dict[str, list[str]] = {FIXED: [], STILL: [], NEW: [], OPEN: []}
    for finding in findings:
        word = _became(old.get(_name(finding)), finding["result"])
        if word:
            items[word].append(finding["item"])
    bios = [ticket["bios"]["version"] for ticket in (before["machine"], machine)]
    return {"rebooted": rebooted, "bios": bios if bios[0] != bios[1] else [], "items": items}


def _became(old: str | None, now: str) -> str:
    if now == "fail":
        return STILL if old == "fail" else NEW
    if old == "fail":
        return FIXED if now == "pass" else OPEN
    return ""


def _name(finding: Mapping[str, Any]) -> tuple[str, str]:
    return finding["id"], finding["device"]


def lines(ticket: Mapping[str, Any]) -> Iterator[str]:
    """The text to take along to the machine."""
    machine, findings = ticket["machine"], ticket["findings"]
    wrong = [finding for finding in findings if finding["result"] == "fail"]
    unknown = [finding for finding in findings if finding["result"] == "unknown"]
    right = [finding for finding in findings if finding["result"] == "pass"]
    yield f"FIRMWARE TICKET {ticket['host']}"
    yield f"board     {_joined(machine['board'])}"
    yield f"firmware  {_joined(machine['bios'])}"
    yield f"boot      {machine['boot_id']}"
    yield f"result    {len(wrong)} wrong, {len(unknown)} not provable, {len(right)} right"
    if ticket["since"]:
        yield from _history(ticket["since"])
    if wrong:
        yield from ("", "PROVEN WRONG: change these in the firmware menus")
        for number, finding in enumerate(wrong, 1):
            yield from _entry(f"{number}. [ ] {finding['item']}", finding)
    if unknown:
        yield from ("", "NOT PROVABLE FROM LINUX: look with your own eyes")
        for reason, items in _by_reason(unknown):
            if len(items) > 1:
                names = ", ".join(item["item"] for item in items)
                yield from textwrap.wrap(names, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
                yield from _wrapped("why", reason)
            else:
                yield from _entry(f"- {items[0]['item']}", items[0])
    if right:
        yield from ("", "RIGHT, leave as it is")
        yield from (f"  {finding['item']}: {finding['why']}" for finding in right)
    if not wrong:
        return
    yield from ("", "AFTERWARDS", "  Save, restart, and run the audit again:")
    yield f"  ansible-playbook site.yml -l {ticket['host']} -t bios_verification"
    yield "  The next ticket says item by item what is fixed and what is still wrong."


def _history(since: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "SINCE THE TICKET BEFORE")
    yield (
        "  the machine was restarted"
        if since["rebooted"]
        else "  the machine was not restarted: menus cannot have changed"
    )
    if since["bios"]:
        yield f"  firmware version {since['bios'][0]} -> {since['bios'][1]}"
    told = [(word, items) for word, items in since["items"].items() if items]
    yield from (f"  {word}: {', '.join(items)}" for word, items in told)
    if not told:
        yield "  nothing was wrong and nothing is"


def _entry(title: str, finding: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {title}"
    yield from _wrapped("why", finding["why"])
    yield from _wrapped("evidence", finding["evidence"])
    if finding["advice"]:
        yield from _wrapped("do", finding["advice"])
    for place in finding["menu"]:
        yield from _wrapped("menu", place)


def _by_reason(findings: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """In a virtual machine every item has the same reason: once is enough."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        groups.setdefault(finding["why"], []).append(finding)
    yield from groups.items()


def _wrapped(word: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"      {word:<9} ", subsequent_indent=" " * 16, break_long_words=False
    )


def _joined(values: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in values.values() if value) or "unknown"
