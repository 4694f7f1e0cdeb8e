# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Twenty clients ask through the gateway, every second one for a stream, while an engine is killed and comes back.

load.py KEY CONTAINER      prints what happened as JSON
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time

KEY, CONTAINER = sys.argv[1:]
PHASE, LIMIT_S = 60, 120
answers: list[tuple[int, bool, str]] = []
over = threading.Event()


def ask(stream: bool) -> tuple[int, bool, str]:
    """Status (0 without one: the answer had not begun), whether all of it came, and which engine gave it."""
    status, whole, engine = 0, False, ""
    content = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/v1/chat/completions", json.dumps(content), {"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        status, engine = answer.status, answer.getheader("X-Gateway-Server") or ""
        body = answer.read()
        whole = body.rstrip().endswith(b"[DONE]" if stream else b"}")
    return status, whole, engine


def client(number: int) -> None:
    while not over.is_set():
        answers.append(ask(number % 2 == 0))


def more(count: int) -> None:
    wanted, deadline = len(answers) + count, time.monotonic() + LIMIT_S
    while len(answers) < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"no {count} answers within {LIMIT_S} s: {answers[-5:]}")
        time.sleep(0.05)


def process() -> int:
    said = subprocess.run(
        ["docker", "inspect", "--format", "{{.State.Pid}}", CONTAINER], capture_output=True, text=True, check=True
    )
    return int(said.stdout)


clients = [threading.Thread(target=client, args=(number,)) for number in range(20)]
for one in clients:
    one.start()
try:
    more(PHASE)
    os.kill(process(), signal.SIGKILL)
    killed = len(answers)
    more(PHASE)
    # Docker starts it again, the gateway finds it well and gives it work.
    name, seen, deadline = CONTAINER.split("-")[-2], killed + PHASE, time.monotonic() + LIMIT_S
    while name not in {answer[2] for answer in answers[seen:]}:
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} gets no work within {LIMIT_S} s")
        time.sleep(0.05)
finally:
    over.set()
    for one in clients:
        one.join()
found = {
    "requests": len(answers),
    "failed": [answer for answer in answers if answer[0] != 200],
    "broken": sum(answer[0] == 200 and not answer[1] for answer in answers),
}
sys.stdout.write(json.dumps(found) + "\n")
