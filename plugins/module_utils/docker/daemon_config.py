# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker_daemon_config: merge, let dockerd check, write, let the engine read it; or everything back."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..doors.host import FileState, Host
from ..engine.ledger import LOCK
from ..errors import ApplyError, InputError, RefusedError
from . import engine as docker
from .daemon_json import ABSENT, FILE, RELOADED, Merge, Record, check, has_loaded, merge, settled, shown
from .engine import Engine

RECORD = "/var/lib/ai-workstation/docker.json"
_DONE = {"reload": "reloaded", "restart": "restarted"}


@dataclass(frozen=True)
class _Plan:
    """What one call would do. action: none, reload or restart. held_back: the same, where the user forbids it."""

    file: FileState | None
    record: Record
    wanted: dict[str, Any]
    merge: Merge
    engine: Engine
    action: str
    held_back: str
    warnings: list[str]


def converge(params: dict[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    """One call of the module: the outcome, or a WorkstationError."""
    if check_mode:
        return _outcome(_plan(params, host))
    with host.lock(LOCK):
        plan = _plan(params, host)
        _apply(plan, host)
    return _outcome(plan)


def _plan(params: dict[str, Any], host: Host) -> _Plan:
    wanted = dict(params["config"] or {}) if params["state"] == "present" else {}
    if params["state"] == "present" and params["config"] is None:
        raise InputError("config: needed with state=present; the keys of daemon.json that are to be ours")
    check(wanted)
    target = host.link(FILE)
    if target is not None:
        raise RefusedError(f"{FILE} is a link to {target}; replace it by the file itself")
    file, record = host.file(FILE), _record(host)
    text = file.content if file else None
    merged, engine = merge(text, wanted, record, params["accept"]), docker.look(host)
    _refuse_flags(engine, wanted)
    if merged.text is not None and merged.text != text:
        reason = docker.validate(host, engine, merged.text)
        if reason:
            raise RefusedError(f"dockerd refuses the configuration, nothing was written: {reason}")
    needed = _action(merged, engine, wanted, record, host.modified(FILE))
    warnings = list(merged.warnings)
    if needed != "none" and not engine.unit:
        warnings.append(f"the engine is no unit of systemd; {needed} it yourself, it has read another {FILE}")
    elif needed == "restart" and not params["restart"]:
        warnings.append("the engine has to be restarted before all of its configuration acts; restart=false forbids it")
    held = needed if needed != "none" and (not engine.unit or (needed == "restart" and not params["restart"])) else ""
    return _Plan(file, record, wanted, merged, engine, "none" if held else needed, held, warnings)


def _record(host: Host) -> Record:
    text = host.text(RECORD)
    if text is None:
        return Record()
    try:
        return Record.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            f"{RECORD} cannot be read ({error}); it knows which keys of {FILE} are ours: restore it, or move it away "
            "and name the keys in accept"
        ) from None


def _refuse_flags(engine: Engine, wanted: dict[str, Any]) -> None:
    conflicts = docker.flag_conflicts(engine.argv, wanted)
    if conflicts:
        places = " or ".join(engine.places) or "its unit"
        raise RefusedError(
            f"{'; '.join(conflicts)}; dockerd does not start with both: take the key out of config, or the flag out of "
            f"{places} (with a drop-in of your own)"
        )


def _action(merged: Merge, engine: Engine, wanted: dict[str, Any], record: Record, written: float) -> str:
    """What the running engine needs to act as the file says."""
    if not engine.running:
        return "none"
    keys = {change.path[0] for change in merged.changes}
    if not keys and wanted and written > engine.started and not has_loaded(record, engine.identity, wanted):
        keys = set(wanted)  # the file is younger than the engine, and nobody knows what it has read
    return "none" if not keys else "reload" if keys <= RELOADED else "restart"


def _apply(plan: _Plan, host: Host) -> None:
    merged, old = plan.merge, plan.file
    if merged.text != (old.content if old else None):
        host.save_json(RECORD, merged.record.to_json())
        try:
            _write(host, merged.text, old)
            _refresh(plan, host)
        except ApplyError as error:
            _restore(plan, host, str(error))
        except OSError:
            with contextlib.suppress(OSError):
                _save(host, plan.record)
            raise
    elif plan.action != "none":
        _refresh(plan, host)
    _remember(plan, host)


def _write(host: Host, text: str | None, old: FileState | None) -> None:
    if text is None:
        host.remove_file(FILE)
        return
    folder = os.path.dirname(FILE)
    if host.dir_mode(folder) is None:
        host.make_dir(folder, 0o755)
    kept = old or FileState("", 0o644, os.geteuid(), os.getegid())
    host.write_file(FILE, FileState(text, kept.mode, kept.uid, kept.gid))


def _refresh(plan: _Plan, host: Host) -> None:
    """Let the engine read the file. ApplyError when it does not."""
    if plan.action == "none":
        return
    reason = ""
    if plan.action == "reload":
        reason = docker.reload(host, plan.merge.config)
    else:
        if plan.merge.config.get("live-restore") is True and not (docker.info(host) or {}).get("LiveRestoreEnabled"):
            # It can be had without a restart, and then the containers live through the one that follows.
            docker.reload(host, {"live-restore": True})
        reason = docker.restart(host)
    if reason:
        raise ApplyError(f"the engine does not take the configuration: {reason}")


def _restore(plan: _Plan, host: Host, reason: str) -> None:
    """The old file back and the engine running with it; then the reason, as the error of the call."""
    _write(host, plan.file.content if plan.file else None, plan.file)
    _save(host, plan.record)
    docker.bring_back(host, plan.action)
    raise ApplyError(f"{reason}; {FILE} is as it was and the engine runs with it")


def _remember(plan: _Plan, host: Host) -> None:
    """Note what the file and the engine have now. Nothing is written where nothing is new."""
    told, before = plan.action != "none", plan.record
    engine = docker.look(host).identity if told else before.engine
    record = settled(plan.merge.record, plan.merge.text, engine, plan.wanted if told else before.loaded)
    if record.to_json() != before.to_json():
        _save(host, record)


def _save(host: Host, record: Record) -> None:
    if record.leaves:
        host.save_json(RECORD, record.to_json())
    else:
        host.remove_file(RECORD)


def _outcome(plan: _Plan) -> dict[str, Any]:
    changes = [
        {
            "key": f"daemon.json:{'.'.join(change.path)}",
            "before": None if change.before is ABSENT else change.before,
            "after": None if change.after is ABSENT else change.after,
            "scope": "persistent",
            "reboot_required": False,
            "reason": "",
        }
        for change in plan.merge.changes
    ]
    if plan.action != "none":
        changes.append(
            {
                "key": "docker.service",
                "before": "older configuration",
                "after": _DONE[plan.action],
                "scope": "runtime",
                "reboot_required": False,
                "reason": "",
            }
        )
    return {
        "changed": bool(changes),
        "changes": changes,
        "diff": {"before": "".join(_lines(changes, "before")), "after": "".join(_lines(changes, "after"))},
        "engine": {"state": plan.engine.state, "action": plan.action, "needed": plan.held_back or plan.action},
        "skipped_keys": [],
        "warnings": plan.warnings,
    }


def _lines(changes: list[dict[str, Any]], side: str) -> Iterator[str]:
    """One line per key. Only what changes: the rest of the file may hold passwords of proxies."""
    for change in changes:
        value = ABSENT if change[side] is None else change[side]
        yield f"{change['key']}: {shown(value)}\n"
