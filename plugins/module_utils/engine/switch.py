# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dead-man switch: what could cost the connection goes back by itself unless the controller confirms in time.

Before the first write of a call with such a change, all that is needed to go back lies on the disk (the places with
their values, the ledger and the record as they were), and a timer of systemd runs the program on the machine, which
puts it back. Each part of the call adds its places first and starts the time anew when it is done. The controller
confirms over a new connection; that removes the file, and the timer. A boot that finds the file restores as well.

Whoever holds the lock of the ledger decides: a confirmation that comes while the machine goes back finds no file.
Source: systemd-run(1), systemd.timer(5).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..doors.host import Host
from ..errors import ApplyError, RefusedError
from . import knobs
from .actions import run_actions
from .change import Change, Place, Value
from .ledger import PATH as LEDGER
from .machine import Machine
from .program import PATH as PROGRAM
from .record import PATH as RECORD
from .transaction import restore

PATH = "/var/lib/ai-workstation/unconfirmed.json"
REPORT = "/var/lib/ai-workstation/restored.json"
UNIT = "ai-workstation-unconfirmed"
_TIMER, _SERVICE = f"{UNIT}.timer", f"{UNIT}.service"


class Switch:
    """The switch of one call. reasons: what may cost the connection, by key; without any it does nothing."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.reasons: dict[str, str] = {}
        self._state: dict[str, Any] = {}

    @property
    def armed(self) -> bool:
        return bool(self._state)

    def foresee(self, changes: Iterable[Change]) -> None:
        """Take note of the planned changes, before the first one is written."""
        self.reasons.update({change.key: change.risk for change in changes if change.risk})

    def obstacle(self, host: Host) -> str:
        """Why there can be no switch on this machine; empty where there can."""
        if not self.seconds or not self.reasons:
            return ""
        if not host.is_dir("/run/systemd/system") or host.which("systemd-run") is None:
            return self._refusal("the timer that would take it back needs systemd-run, and systemd does not run here")
        return ""

    def _refusal(self, why: str) -> str:
        key, risk = next(iter(self.reasons.items()))
        return f"{key}: {risk}, and {why}; confirm_within: 0 goes without that safety"

    def before_writes(
        self, machine: Machine, changes: list[Change], touched: list[tuple[Place, Value, str]], risky: bool
    ) -> None:
        """Put on disk how to go back from what a part is about to write, and start the time. The lock is held.

        What comes before the program is there (the part that brings it) needs no way back. Raises RefusedError.
        """
        if not self.seconds or not self.reasons:
            return
        host = machine.host
        if not host.exists(PROGRAM):
            if risky:
                why = f"{PROGRAM}, which would take it back, is not there: let the part boot_unit bring it first"
                raise RefusedError(self._refusal(why))
            return
        if self._state and not host.exists(PATH):
            raise ApplyError("the time to confirm ran out during the call, and what it had changed went back")
        first = not self._state
        if first:
            self._state = {
                "id": host.token(),
                "boot_id": host.boot_id(),
                "process": host.process(),
                "complete": False,
                "armed": host.utc(),
                "seconds": self.seconds,
                "reasons": self.reasons,
                "ledger": host.text(LEDGER),
                "record": host.text(RECORD),
                "places": [],
            }
        self._state["places"] += [
            _place(change) for change in changes if change.presence != "appears" and change.place.kind != "program"
        ]
        self._state["places"] += [
            {**_address(place), "before": before, "after": None, "scope": "runtime", "actions": []}
            for place, before, _cause in touched
        ]
        host.save_json(PATH, self._state)
        try:
            self._start(host)
        except ApplyError:
            if first:
                host.remove_file(PATH)
                self._state = {}
            raise

    def after_writes(self, machine: Machine) -> None:
        """The time runs from the last write on. The lock is held, so that no restore is under way."""
        if self._state:
            self._start(machine.host)

    def complete(self, machine: Machine) -> None:
        """The call has ended, well or not: from here on it waits for the controller alone. The lock is held."""
        if self._state and machine.host.exists(PATH):
            self._state["complete"] = True
            # Where it cannot be noted, the next call takes this one for one that was killed, which is no harm.
            with contextlib.suppress(OSError):
                machine.host.save_json(PATH, self._state)

    def _start(self, host: Host) -> None:
        _stop(host)
        argv = ("systemd-run", f"--unit={UNIT}", f"--on-active={self.seconds}", "--timer-property=AccuracySec=1s")
        done = host.act((*argv, "--collect", "--quiet", PROGRAM, "restore"))
        if done.code:
            raise ApplyError(f"the switch cannot be armed: systemd-run: {' '.join((done.err or done.out).split())}")

    def public(self) -> dict[str, Any] | None:
        """What the controller needs to confirm."""
        return {name: self._state[name] for name in ("id", "seconds", "reasons")} if self._state else None


def confirm(machine: Machine, identity: str) -> None:
    """The controller is back: all stays as it is. Raises RefusedError where it is too late. The lock is held."""
    host = machine.host
    state = _load(host)
    if state is None or state["id"] != identity:
        report = _report(host)
        raise RefusedError(
            "; ".join(report) if report else f"nothing waits for the confirmation {identity}: it is confirmed already"
        )
    host.remove_file(PATH)
    _stop(host)


def finish_earlier(machine: Machine) -> list[str]:
    """What an earlier call left unconfirmed goes back before this one looks. The lock is held.

    Returns what to say about it, once. Raises RefusedError while it is at work, or its controller still has time; a
    call that was killed has none.
    """
    host = machine.host
    if machine.switch and machine.switch.armed:
        return []  # it is this call's own
    state = _load(host)
    if state is not None:
        alive = state["complete"] or host.runs(state["process"])
        if alive and host.run(("systemctl", "is-active", _TIMER)).out.strip() == "active":
            raise RefusedError(
                f"an earlier call ({state['armed']}) waits for its confirmation and goes back by itself within "
                f"{state['seconds']} s; run again then"
            )
        put_back(machine)
    said = _report(host)
    if said and host.is_root():
        host.remove_file(REPORT)
    return said


def foresee_earlier(host: Host) -> list[str]:
    """What finish_earlier() would find, for a call that writes nothing."""
    if not host.exists(PATH):
        return _report(host)
    return [
        "an earlier call was not confirmed, and what it changed goes back first: this preview does not know of that"
    ]


def waits_from_another_boot(host: Host) -> bool:
    """Whether a machine that has just booted must go back."""
    state = _load(host)
    return state is not None and state["boot_id"] != host.boot_id()


def put_back(machine: Machine) -> list[str]:
    """Go back to where the unconfirmed call began, values and ledger; returns what to say. The lock is held."""
    host = machine.host
    state = _load(host)
    if state is None:
        return ["nothing waits for a confirmation"]
    first: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    for item in state["places"]:
        first.setdefault(item["key"], item)
        last[item["key"]] = item
    other_boot = state["boot_id"] != host.boot_id()
    wanted = [
        (Place(item["key"], item["kind"], item["address"]), item["before"])
        for key, item in reversed(first.items())
        if not (other_boot and item["scope"] == "runtime" and not _set_by_boot(machine, last[key]))
    ]
    for place, _before in wanted:
        if place.kind == "file":
            host.drop_temporary(place.address)
    failed = {place.key: reason for place, _value, reason in restore(machine, wanted)}
    actions = {action for item in first.values() for action in item["actions"]}
    try:
        run_actions(host, actions)
    except ApplyError as error:
        failed["commands"] = str(error)
    ledger = machine.reload_ledger()
    # The program stays: it may have been brought by the call that it now takes back.
    stay = {key for key, entry in ledger.entries.items() if entry.kind == "program"}
    ledger.rewind(state["ledger"], {*failed, *stay})
    if state["record"] is None:
        host.remove_file(RECORD)
    else:
        host.save_json(RECORD, json.loads(state["record"]))
    host.save_json(REPORT, {"at": host.utc(), "armed": state["armed"], "reasons": state["reasons"], "failed": failed})
    host.remove_file(PATH)
    _stop_timer(host)
    return _report(host)


def _set_by_boot(machine: Machine, item: Mapping[str, Any]) -> bool:
    """Whether a runtime value is as the unconfirmed call left it although the machine has booted: a file set it."""
    try:
        live = knobs.read(machine, Place(item["key"], item["kind"], item["address"]))
    except OSError:
        return False
    return bool(live == item["after"])


def _place(change: Change) -> dict[str, Any]:
    more = {"before": change.before, "after": change.after, "scope": change.scope, "actions": list(change.actions)}
    return {**_address(change.place), **more}


def _address(place: Place) -> dict[str, str]:
    return {"key": place.key, "kind": place.kind, "address": place.address}


def _load(host: Host) -> dict[str, Any] | None:
    text = host.text(PATH)
    if text is None:
        return None
    try:
        state: dict[str, Any] = json.loads(text)
    except ValueError:
        raise RefusedError(
            f"{PATH} cannot be read; it says how to go back: restore a backup, or move it away"
        ) from None
    return state


def _report(host: Host) -> list[str]:
    """One line about what went back, and one for each key that could not."""
    text = host.text(REPORT)
    if text is None:
        return []
    told = json.loads(text)
    risks = ", ".join(f"{key} ({risk})" for key, risk in list(told["reasons"].items())[:3])
    lines = [f"nobody confirmed the call of {told['armed']} in time: it went back at {told['at']}; it had set {risks}"]
    return lines + [f"{key} did not go back: {reason}" for key, reason in told["failed"].items()]


def _stop(host: Host) -> None:
    """End the timer, and a restore that waits for the lock which the caller holds."""
    host.act(("systemctl", "stop", _TIMER, _SERVICE))


def _stop_timer(host: Host) -> None:
    host.act(("systemctl", "stop", _TIMER))
