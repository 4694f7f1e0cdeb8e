# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watch the containers of one compose project: start again what is unwell, and stop what does not stay up.

    stack_watch.py PROJECT LIMIT SECONDS FILE

Docker starts a container that ended again and again without end, and does nothing about one whose health check fails.
This program restarts the second kind, counts both kinds, and stops a container that was started again LIMIT times
within SECONDS. It says so in the journal and in FILE (JSON), which the module service_stack reads and clears.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

_SERVICE = "com.docker.compose.service"
# Priorities of the journal, as systemd reads them from the output (sd-daemon(3)).
_ERROR, _WARNING = "<3>", "<4>"
# Held by a run of the module service_stack, which judges by itself whether a service is well.
_LOCK = Path("/run/lock/ai-workstation-stack.lock")


class Breaker:
    """Counts troubles by container; says when it is enough."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: dict[str, deque[float]] = {}

    def trips(self, container: str, now: float) -> bool:
        """Take one more trouble into account. True: it was the last one that is borne; counting begins anew."""
        times = self._times.setdefault(container, deque())
        times.append(now)
        while now - times[0] > self._seconds:
            times.popleft()
        if len(times) < self._limit:
            return False
        del self._times[container]
        return True


def docker(*words: str) -> str:
    """What a docker command prints; nothing where it fails, as a container may be gone by now."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def by_hand(container: str) -> bool:
    """Whether somebody stopped or removed it: Docker will not start it again, and there is nothing to count."""
    return docker("inspect", "--format", "{{.State.Restarting}} {{.State.Running}}", container) not in (
        "true true",
        "true false",
        "false true",
    )


def run_in_progress(lock: Path = _LOCK) -> bool:
    """Whether the module is at work now."""
    try:
        with lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def record(path: Path, service: str, reason: str) -> None:
    """Note in FILE, replaced in one step, that a service was stopped."""
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known[service] = reason
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def take(event: dict[str, Any], breaker: Breaker, seconds: float, path: Path) -> None:
    """One event of the engine."""
    container = event["Actor"]["ID"]
    attributes = event["Actor"]["Attributes"]
    service = attributes.get(_SERVICE, container[:12])
    unwell = event["Action"] == "health_status: unhealthy"
    if run_in_progress() or (not unwell and (event["Action"] != "die" or by_hand(container))):
        return
    what = "its health check failed" if unwell else f"it ended with exit status {attributes.get('exitCode')}"
    if breaker.trips(container, time.monotonic()):
        last = docker("logs", "--tail", "1", container)
        reason = f"started again too often within {seconds:g} s; the last time {what}"
        print(f"{_ERROR}service {service} is stopped: {reason}. {last}".rstrip(), flush=True)
        # On disk first: a run that starts now must find the reason.
        record(path, service, reason)
        docker("stop", container)
    elif unwell:
        print(f"{_WARNING}service {service} is started again: {what}", flush=True)
        docker("restart", container)


def main(project: str, limit: int, seconds: float, path: Path) -> int:
    breaker = Breaker(limit, seconds)
    filters = [f"label=com.docker.compose.project={project}", "type=container", "event=die", "event=health_status"]
    command = ["docker", "events", "--format", "{{json .}}", *(word for one in filters for word in ("--filter", one))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
        for line in events.stdout or ():
            take(json.loads(line), breaker, seconds, path)
    # The engine went away; systemd starts this program again.
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])))
