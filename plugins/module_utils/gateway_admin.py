# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engines behind a running gateway: what each is doing, and how one is taken out and put back.

An engine is a server in every pool whose models it serves; to the outside it is one thing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable

from .doors.haproxy import AdminSocket
from .errors import InputError, RefusedError

STATES = ("ready", "drain", "maint")
# srv_admin_state of `show servers state`: set by somebody, not by a check or by name resolution.
_MAINT, _DRAIN = 0x01, 0x08
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Server:
    """An engine in one pool."""

    pool: str
    name: str
    number: str
    state: str
    status: str
    requests: int
    waiting: int


def servers(admin: AdminSocket) -> list[Server]:
    """All of them, from the gateway itself."""
    states = {
        (row["be_name"], row["srv_name"]): row
        for row in _rows(admin.ask("show servers state"), " ")
        if row["be_name"].startswith("pool.")
    }
    found = []
    for row in _rows(admin.ask("show stat -1 4 -1"), ","):
        known = states.get((row["pxname"], row["svname"]))
        if known is not None:
            bits = int(known["srv_admin_state"])
            state = "maint" if bits & _MAINT else "drain" if bits & _DRAIN else "ready"
            found.append(
                Server(
                    row["pxname"],
                    row["svname"],
                    known["srv_id"],
                    state,
                    row["status"],
                    int(row["scur"] or 0),
                    int(row["qcur"] or 0),
                )
            )
    return sorted(found, key=lambda server: (server.name, server.pool))


def _rows(text: str, separator: str) -> list[dict[str, str]]:
    """A table of HAProxy's: the line with the names begins with '# '."""
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("# ")]
    if not heads:
        raise RefusedError(f"the gateway answers {text[:80]!r} in place of a table; is this its admin_socket?")
    names = lines[heads[0]][2:].split(separator)
    return [dict(zip(names, line.split(separator))) for line in lines[heads[0] + 1 :] if line]


def report(found: list[Server]) -> dict[str, Any]:
    """One entry for each engine, with its pools, and one line."""
    engines: dict[str, list[Server]] = {}
    for server in found:
        engines.setdefault(server.name, []).append(server)
    backends = [
        {
            "name": name,
            "state": max((one.state for one in mine), key=STATES.index),
            "up": all(one.status.startswith(("UP", "DRAIN")) for one in mine),
            "requests": sum(one.requests for one in mine),
            "waiting": sum(one.waiting for one in mine),
            "pools": {one.pool: one.status for one in mine},
        }
        for name, mine in engines.items()
    ]
    lines = [
        f"{one['name']}: {one['state']}, {'up' if one['up'] else 'not up'}, {one['requests']} requests at work, "
        f"{one['waiting']} waiting"
        for one in backends
    ]
    return {"backends": backends, "lines": lines}


def commands(found: list[Server], name: str, state: str) -> list[str]:
    """What brings an engine into a state, nothing where it is; InputError for one that nobody knows."""
    if name not in {server.name for server in found}:
        known = ", ".join(sorted({server.name for server in found}))
        raise InputError(f"backend: {name!r} is not one of {known or '(the gateway has none)'}")
    wanted = []
    for server in found:
        if server.name == name and server.state != state:
            wanted.append(f"set server {server.pool}/{server.name} state {state}")
            if state == "drain":
                # HAProxy would still send it the sessions that stick to it.
                wanted.append(f"clear table {server.pool} data.server_id eq {server.number}")
    return wanted


def settle(admin: AdminSocket, name: str, limit_s: float, pause: Callable[[float], None] = time.sleep) -> list[Server]:
    """Wait until an engine has no request left; RefusedError when that takes longer."""
    deadline = time.monotonic() + limit_s
    while True:
        found = servers(admin)
        left = sum(server.requests for server in found if server.name == name)
        if not left:
            return found
        if time.monotonic() >= deadline:
            raise RefusedError(
                f"backend: {name} still has {left} requests at work after {limit_s:g} s and gets no new ones; "
                "wait longer (wait_seconds), or go on and lose them"
            )
        pause(_PAUSE_S)
