# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring one service up and prove it well: its container runs, its health check says so, a token really comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

from ..doors.compose import Compose, Container, last_line
from ..values import print_size
from .model import Wanted
from .probe import Endpoint, ask

_PAUSE = 0.3
# A container without a health check is well when it has run for so long and was never started again.
_STEADY_SECONDS = 3.0
_RESTARTS = 2
_KILLED = 128 + 9  # exit status after SIGKILL
_SPARE_SECONDS = 15  # the engine's own time beside the health check


class NotWellError(Exception):
    """A service did not come up; the text says why, with its last lines."""


def start(compose: Compose, wanted: Wanted, *, again: bool = False) -> None:
    """Start a service by the compose file that lies there. Raises NotWellError."""
    since = time.time()
    made = compose.make(wanted.name)
    if made.code == 0:
        _own_volumes(compose, wanted)
        made = compose.up(wanted.name, again=again)
    if made.code != 0:
        raise NotWellError(_engine_words(made.err))
    prove(compose, wanted, since)


def prove(compose: Compose, wanted: Wanted, since: float) -> None:
    """Wait until a service that was started is well, within its limit. Raises NotWellError."""
    limit = (wanted.health_seconds or _STEADY_SECONDS) + _SPARE_SECONDS
    deadline = time.monotonic() + limit
    steady = time.monotonic() + _STEADY_SECONDS
    while True:
        found = compose.container(wanted.name)
        problem = _ended(compose, wanted, found, since)
        if problem:
            raise NotWellError(problem + _said(compose, found))
        if found and found.running and (found.health == "healthy" or (not found.health and time.monotonic() > steady)):
            break
        if time.monotonic() > deadline:
            raise NotWellError(f"it is not well within {limit:g} s{_said(compose, found)}")
        compose.host.pause(_PAUSE)
    if wanted.probe:
        answer(compose, wanted)


def answer(compose: Compose, wanted: Wanted, ask_it: Callable[[Endpoint], Mapping[str, Any]] = ask) -> None:
    """Ask a service for a token. Raises NotWellError with what came instead."""
    probe = wanted.probe or {}
    address = "127.0.0.1" if probe["address"] == "0.0.0.0" else probe["address"]  # noqa: S104 compared, not bound
    key = (compose.host.text(wanted.key_path) or "") if wanted.key_path else ""
    result = ask_it(Endpoint(f"http://{address}:{probe['port']}", str(probe.get("model") or ""), key))
    if result["state"] != "answers":
        raise NotWellError(f"{result['message']}{_said(compose, compose.container(wanted.name))}")


def _ended(compose: Compose, wanted: Wanted, found: Container | None, since: float) -> str:
    """Why there is nothing more to wait for; empty as long as there is."""
    if found is None:
        return "it has no container"
    # While it waits to be started again its exit status is the last one; once it runs again it has none.
    ended = found.status in ("exited", "dead") or (found.status == "restarting" and found.restarts >= _RESTARTS)
    if not ended and found.health != "unhealthy":
        return ""
    if found.out_of_memory or compose.killed_for_memory(found.id, since):
        return f"the kernel ended it: it needs more memory than its limit{_limit(wanted)}"
    if found.health == "unhealthy" and found.running:
        return "its health check fails"
    if found.exit_code == _KILLED and _limit(wanted):
        # Not every kernel and engine tells why.
        return f"it was killed (exit status 137), most often for needing more than its memory limit{_limit(wanted)}"
    return f"its program ends by itself, exit status {found.exit_code}"


def _limit(wanted: Wanted) -> str:
    number = wanted.definition.get("mem_limit")
    return f" of {print_size(number)}" if number else ""


def _said(compose: Compose, found: Container | None) -> str:
    lines = compose.logs(found.id) if found else []
    # A program that was started again says the same again.
    once = dict.fromkeys(line.strip() for line in lines)
    return f"; its last lines: {' | '.join(once)}" if once else ""


def _engine_words(text: str) -> str:
    """The engine's own words, without the progress that Compose prints before."""
    lines = [line.strip() for line in text.splitlines() if "rror" in line]
    return lines[-1] if lines else last_line(text)


def _own_volumes(compose: Compose, wanted: Wanted) -> None:
    """Give new volumes to the user of the service: the engine makes them root's where the image has no such folder."""
    uid, gid = (int(part) for part in str(wanted.definition["user"]).split(":"))
    folders = compose.volumes()
    for mount in wanted.definition.get("volumes", ()):
        folder = folders.get(mount["source"]) if mount["type"] == "volume" else None
        found = compose.host.stat(folder) if folder else None
        if folder and found and found.st_uid != uid and not compose.host.names(folder):
            compose.host.give(folder, uid, gid)
