# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call of the module service_stack: look, decide, and where it is no preview, apply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..doors.compose import Compose, Container
from ..doors.host import Host
from ..errors import RefusedError
from . import ground
from .apply import Change
from .decide import steps as decide
from .desired import Secrets, composed, desired
from .model import Record, Step, Wanted
from .yaml_text import dump

LOCK = "/run/lock/ai-workstation-stack.lock"
AFTER_INSTALL = "after install"


def converge(params: Mapping[str, Any], check: bool, host: Host) -> dict[str, Any]:
    """Bring the stack to what the parameters say. Raises WorkstationError with one line."""
    directory, project = params["directory"].rstrip("/"), params["compose"].get("name") or params["project"]
    compose = Compose(host, project, f"{directory}/compose.yml")
    if not host.is_root():
        raise RefusedError("service_stack needs root: it owns files below /var/lib and speaks to the container engine")
    if check:
        return _call(params, True, host, compose, directory)
    with host.lock(LOCK):
        return _call(params, False, host, compose, directory)


def _call(params: Mapping[str, Any], check: bool, host: Host, compose: Compose, directory: str) -> dict[str, Any]:
    record = _record(host, f"{directory}/state.json")
    missing = compose.missing()
    if params["state"] == "absent" or not params["compose"].get("services"):
        return _absent(params, check, Change(host, compose, directory, {}, record), missing)
    if missing and not check:
        raise RefusedError(missing)
    secrets = Secrets(host, directory, params["secret_values"])
    wanted = desired(
        host,
        directory,
        params["compose"],
        params["services"],
        params["files"],
        params["secrets"],
        secrets,
        (lambda _name: None) if missing else compose.image,
    )
    containers = [] if missing else compose.containers()
    base = {"networks": params["compose"].get("networks"), "volumes": params["compose"].get("volumes")}
    later = [missing] if missing else _later(host, compose, wanted)
    if later and not check:
        raise RefusedError("; ".join(later))
    if not missing:
        _refuse(host, compose, wanted, containers, base["networks"] or {})
    full = composed(compose.project, base, {one.name: one.record for one in wanted})
    moved = bool(record.network) and record.network != base["networks"] and bool(containers)
    hashes = {} if missing else compose.hashes(full)
    steps = decide(wanted, containers, hashes, record, network_changed=moved)
    result = _result(steps, wanted, record, containers, later, moved, base)
    if check:
        return result
    Change(host, compose, directory, base, record).run(steps, wanted, secrets.made, network_changed=moved)
    return result


def _later(host: Host, compose: Compose, wanted: Sequence[Wanted]) -> list[str]:
    """What is not there yet and another role brings."""
    return [*ground.images(compose, wanted), *ground.models(host, wanted)]


def _refuse(
    host: Host, compose: Compose, wanted: Sequence[Wanted], containers: Sequence[Container], networks: Mapping[str, Any]
) -> None:
    problems = [*ground.ports_taken(wanted, containers, ground.listeners(host))]
    problems += ground.network_taken(host, compose, networks)
    if problems:
        raise RefusedError("; ".join(problems))


def _record(host: Host, path: str) -> Record:
    raw = host.raw(path)
    if raw is None:
        return Record()
    try:
        return Record.from_json(json.loads(raw))
    except (ValueError, AttributeError) as error:
        raise RefusedError(f"{path}: it cannot be read ({error}); move it away, services are then made anew") from error


def _absent(params: Mapping[str, Any], check: bool, change: Change, missing: str) -> dict[str, Any]:
    """Containers, network and files go; what people made stays, unless the call says otherwise."""
    containers = [] if missing else change.compose.containers()
    volumes = {} if missing else change.compose.volumes()
    going = {"none": (), "caches": change.record.caches, "all": volumes}[params["remove_volumes"]]
    chosen = sorted(set(volumes) & set(going))
    files = change.host.is_dir(change.directory)
    steps = [Step(one.service, "remove", "state is absent") for one in containers]
    changes = [_row(one, {}, {}) for one in steps]
    changes += [{**_row(Step(name, "remove"), {}, {}), "key": f"volume:{name}"} for name in chosen]
    if files:
        changes.append({**_row(Step("", "remove"), {}, {}), "key": f"dir:{change.directory}"})
    diff = [
        {"before_header": row["key"], "after_header": row["key"], "before": "present\n", "after": ""} for row in changes
    ]
    if changes and not check:
        if missing:
            change.remove_files()
        else:
            change.remove_all(chosen)
    return {"changed": bool(changes), "changes": changes, "diff": diff, "skipped_keys": [], "services": {}}


def _row(step: Step, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": f"service:{step.service}",
        "before": before or None,
        "after": after or None,
        "scope": "persistent",
        "reboot_required": False,
        "reason": f"{step.kind}: {step.reason}" if step.reason else step.kind,
    }


def _result(
    steps: Sequence[Step],
    wanted: Sequence[Wanted],
    record: Record,
    containers: Sequence[Container],
    later: Sequence[str],
    moved: bool,
    base: Mapping[str, Any],
) -> dict[str, Any]:
    new = {one.name: one.record for one in wanted}
    running = {one.service: one for one in containers}
    changed = [one for one in steps if one.changes]
    changes = [
        _row(
            one, _short(record.services.get(one.service), running.get(one.service)), _short(new.get(one.service), None)
        )
        for one in changed
    ]
    diff = [
        {
            "before_header": f"service {one.service}",
            "after_header": f"service {one.service}, {one.kind}",
            "before": _text(record.services.get(one.service)) if one.kind != "create" else "",
            "after": _text(new.get(one.service)),
        }
        for one in changed
    ]
    if moved:
        texts = [dump({"networks": part}) for part in (record.network, base["networks"])]
        diff.insert(0, {"before_header": "network", "after_header": "network", "before": texts[0], "after": texts[1]})
    return {
        "changed": bool(changed),
        "changes": changes,
        "diff": diff,
        "skipped_keys": [{"key": "service_stack", "reason": f"{AFTER_INSTALL}: {reason}"} for reason in later],
        "services": {one.service: {"step": one.kind, "reason": one.reason} for one in steps},
    }


def _short(record: Mapping[str, Any] | None, container: Container | None) -> dict[str, Any]:
    """What a report shows of a service."""
    if record is None:
        return {}
    definition = record["definition"]
    found = {key: definition[key] for key in ("image", "cpuset", "mem_limit", "ports") if key in definition}
    return {**found, "status": container.status} if container else found


def _text(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    return dump({key: value for key, value in record.items() if value})
