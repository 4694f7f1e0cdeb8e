# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each service needs. Pure: what is wanted and what runs in, steps out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..doors.compose import Container
from .model import Record, Step, Wanted

# How a definition's parts are called in a reason.
_WORDS = {
    "cpuset": "CPU set",
    "mem_limit": "memory limit",
    "configs": "configuration files",
    "secrets": "secrets",
    "command": "command line",
    "deploy": "GPU",
}


def steps(
    wanted: Sequence[Wanted],
    containers: Sequence[Container],
    hashes: Mapping[str, str],
    record: Record,
    stopped: Mapping[str, str],
    *,
    network_changed: bool,
) -> list[Step]:
    """The steps in the order in which they are taken: what goes first, then the services as they are declared.

    stopped: services that the watch has stopped, with its reason.
    """
    by_service = {one.service: one for one in containers}
    names = {one.name for one in wanted}
    gone = sorted({one.service for one in containers} - names | (set(record.services) - names))
    found = [Step(name, "remove", "it is not declared any more") for name in gone]
    return found + [_step(one, by_service.get(one.name), hashes, record, stopped, network_changed) for one in wanted]


def _step(
    wanted: Wanted,
    container: Container | None,
    hashes: Mapping[str, str],
    record: Record,
    stopped: Mapping[str, str],
    network_changed: bool,
) -> Step:
    name = wanted.name
    before = record.services.get(name)
    if container is None:
        return Step(name, "create", "it has no container")
    if container.config_hash != hashes.get(name) or network_changed:
        return Step(name, "recreate", "the network has changed" if network_changed else _changed(before, wanted))
    if not container.running:
        why = f"its container is {container.status}, exit status {container.exit_code}"
        return Step(name, "start", f"the watch stopped it, {stopped[name]}" if name in stopped else why)
    if container.health == "unhealthy":
        return Step(name, "start", "its health check fails")
    if before != wanted.record:
        return Step(name, "prove", "an earlier run ended before it was proven well")
    return Step(name, "keep")


def _changed(before: Mapping[str, Any] | None, wanted: Wanted) -> str:
    """What differs, in words."""
    if before is None:
        return "its definition has changed"
    old, new = before["definition"], wanted.definition
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and key != "labels")
    keys += [part for part in ("configs", "secrets") if part not in keys and before[part] != getattr(wanted, part)]
    if not keys:
        return "its container is not as it was left"
    return f"changed: {', '.join(_WORDS.get(key, key.replace('_', ' ')) for key in keys)}"
