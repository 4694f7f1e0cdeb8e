# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gateway adds to an answer: the same requests straight to an engine and through HAProxy, in turn.

The engine answers at once, so what is measured is the way there and back, and the ratio is the worst there can be.
Keys, rate limit, the search for the model in the body and session stickiness are all on.
"""

from __future__ import annotations

import http.client
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".ansible" / "collections"), str(ROOT / "tests" / "gateway"), str(ROOT / "scripts")]

import machine  # noqa: E402 lies in scripts/
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.keys import keys_file  # noqa: E402
from rig import Engine, chat, endpoint, gateway, running  # noqa: E402 lies in tests/gateway

REQUESTS = 1500
KEY = "sk-bench-0123456789abcdef"
GOAL_MS = 1.0


def first_byte_ms(connection: http.client.HTTPConnection, stream: bool) -> float:
    """Milliseconds from the request to the first byte of the answer's body."""
    body = json.dumps(chat(messages=[{"role": "user", "content": "hello " * 300}], stream=stream))
    headers = {"Authorization": f"Bearer {KEY}", "X-Session-Id": "bench", "Content-Type": "application/json"}
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    answer.read(1)
    taken = (time.perf_counter() - started) * 1000
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the engine answered {answer.status}")
    return taken


def measure(direct: int, through: int, stream: bool) -> tuple[float, float]:
    """Medians of both ways, each on one connection that stays open."""
    ways = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in (direct, through)]
    taken: list[list[float]] = [[], []]
    for number in range(REQUESTS + 50):
        for way, found in zip(ways, taken, strict=True):
            milliseconds = first_byte_ms(way, stream)
            if number >= 50:
                found.append(milliseconds)
    for way in ways:
        way.close()
    return statistics.median(taken[0]), statistics.median(taken[1])


def rows() -> list[dict[str, Any]]:
    if shutil.which("haproxy") is None:
        raise machine.NotRun("needs the package haproxy")
    found = []
    with tempfile.TemporaryDirectory() as name, running(Engine("engine")) as (engine,):
        folder = Path(name)
        (folder / "keys").write_text(keys_file({"bench": KEY}), encoding="utf-8")
        options = {"keys_file": str(folder / "keys"), "rate_limit_requests": 1_000_000}
        with gateway(folder, [endpoint(engine)], **options) as door:
            for stream, what in ((False, "answer"), (True, "first token")):
                direct, through = measure(engine.port, door.port, stream)
                label = what.replace(" ", "_")
                detail = (
                    f"p50 of {REQUESTS} requests, {what}: direct {direct:.3f} ms, gateway {through:.3f} ms, "
                    f"ratio {through / direct:.2f}; one client, keep-alive, keys, rate limit and model routing on"
                )
                found.append(
                    {
                        "name": f"gateway_added_p50_{label}",
                        "value": round(through - direct, 3),
                        "unit": "ms",
                        "goal": GOAL_MS,
                        "better": "lower",
                        "detail": detail,
                    }
                )
                found.append(
                    {
                        "name": f"gateway_ratio_p50_{label}",
                        "value": round(through / direct, 2),
                        "unit": "x",
                        "goal": None,
                        "better": "lower",
                        "detail": detail,
                    }
                )
    return found
