# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a call says: changes and diff from the same steps, in check mode and after the fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..doors.compose import Container
from ..values import print_size
from .model import IMAGE_LABEL, Record, Step
from .units import UnitStep
from .yaml_text import dump


def row(key: str, before: str | None, after: str | None, reason: str) -> dict[str, Any]:
    """One change, in the words of all modules of this collection."""
    return {
        "key": key,
        "before": before,
        "after": after,
        "scope": "persistent",
        "reboot_required": False,
        "reason": reason,
    }


def of_services(
    steps: Sequence[Step], new: Mapping[str, Mapping[str, Any]], record: Record, containers: Sequence[Container]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Changes and diff of the services that change. new: their records as wanted."""
    running = {one.service: one.status for one in containers}
    changes, diff = [], []
    for step in steps:
        if not step.changes:
            continue
        name, old = step.service, record.services.get(step.service)
        before = _words(old, running[name]) if name in running else None
        after = _words(new[name], "running") if name in new else None
        changes.append(row(f"service:{name}", before, after, f"{step.kind}: {step.reason}"))
        diff.append(
            {
                "before_header": f"service {name}",
                "after_header": f"service {name}, {step.kind}",
                "before": _text(old) if name in running else "",
                "after": _text(new.get(name)),
            }
        )
    return changes, diff


def of_network(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The diff of a network that has changed."""
    texts = [dump({"networks": part}) for part in (before, after)]
    return {"before_header": "network", "after_header": "network", "before": texts[0], "after": texts[1]}


def of_units(steps: Sequence[UnitStep], texts: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Changes and diff of the units. texts: what lies at their paths now."""
    changes, diff = [], []
    for step in steps:
        if step.kind == "keep":
            continue
        name, gone = step.unit.name, step.kind == "remove"
        before = "installed" if step.unit.path in texts else None
        changes.append(row(f"unit:{name}", before, None if gone else "running", step.kind))
        for path, text in step.unit.files.items():
            old, new = texts.get(path, ""), "" if gone else text
            if old != new:
                diff.append({"before_header": path, "after_header": path, "before": old, "after": new})
    return changes, diff


def _words(record: Mapping[str, Any] | None, status: str) -> str:
    """A service in a few words."""
    if record is None:
        return status
    definition = record["definition"]
    found = [status, str(definition.get("labels", {}).get(IMAGE_LABEL) or definition["image"])]
    if "cpuset" in definition:
        found.append(f"CPUs {definition['cpuset']}")
    if "mem_limit" in definition:
        found.append(print_size(definition["mem_limit"]))
    return ", ".join([*found, *definition.get("ports", ())])


def _text(record: Mapping[str, Any] | None) -> str:
    return dump({key: value for key, value in record.items() if value}) if record else ""
