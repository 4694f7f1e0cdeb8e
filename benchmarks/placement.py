# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long placement takes on a large machine: 256 CPUs on eight nodes, eight GPUs, 20 services.

rows() measures; run alone it prints. Placement waits for nothing, so CPU time is what is measured: it does not depend
on who else uses the machine. Four cases: from nothing, with the earlier result as hint, with an earlier
result of half of the services, and a request that cannot be met (the search for a smallest conflict).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ansible/collections"), str(ROOT / "tests/unit")]

from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpus  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement import place  # noqa: E402
from placing import gpu, machine  # noqa: E402
from topologies import epyc  # noqa: E402

RUNS, SERVICES = 15, 20
_LOCALITIES = ("same_l3", "same_node", "any", "gpu_node")


def services() -> list[dict[str, Any]]:
    """Two thirds exclusive, every kind of locality, a quarter with a GPU: 122 cores of 128 are wanted."""
    return [
        {
            "name": f"service{number:02}",
            "engine": "llama_cpp",
            "cpus": 4 + number % 5,
            "exclusive": number % 3 != 0,
            "locality": _LOCALITIES[number % 4],
            "memory_bytes": "8G",
            "gpu": {"share": 0.4} if number % 4 == 3 else None,
        }
        for number in range(SERVICES)
    ]


def rows() -> list[dict[str, Any]]:
    """Rows of build/bench.json."""
    facts, wishes = machine(epyc, *(gpu(number, number) for number in range(8))), services()
    first, half = place(facts, wishes), place(facts, wishes[::2])
    full = [{**wish, "cpus": 8, "exclusive": True} for wish in wishes]
    online = len(cpus("online", facts["cpu"]["online"]))
    sizes = f"CPU time, median of {RUNS}, {online} CPUs, {len(wishes)} services"
    moved = _moved(half, place(facts, wishes, hint=half))
    anew = _moved(half, place(facts, wishes))
    return [
        _row("placement", lambda: place(facts, wishes), 50, f"{sizes}, from nothing"),
        _row("placement with hint", lambda: place(facts, wishes, hint=first), 50, f"{sizes}, everything stays"),
        _row(
            "placement of ten more", lambda: place(facts, wishes, hint=half), 50, f"{sizes}, ten of them there before"
        ),
        _row("placement refused", lambda: place(facts, full), None, f"{sizes}, smallest conflict and tried remedies"),
        {
            "name": "placement services moved",
            "value": moved,
            "unit": "services",
            "goal": 0,
            "better": "lower",
            "detail": f"of ten, when ten more come and the earlier result is the hint; {anew} without the hint",
        },
    ]


def _moved(before: dict[str, Any], after: dict[str, Any]) -> int:
    return sum(one["cpus"] != after["services"][name]["cpus"] for name, one in before["services"].items())


def _row(name: str, call: Callable[[], object], goal: int | None, detail: str) -> dict[str, Any]:
    times = []
    for _run in range(RUNS):
        start = time.process_time()
        call()
        times.append((time.process_time() - start) * 1000)
    value = round(statistics.median(times), 1)
    return {"name": name, "value": value, "unit": "ms", "goal": goal, "better": "lower", "detail": detail}


if __name__ == "__main__":
    for row in rows():
        print("{name}: {value} {unit} (goal {goal}, {better} is better): {detail}".format(**row))
