"""Run the benchmarks, print a table and write build/bench.json.

    benchmarks/run.py              all of them
    benchmarks/run.py facts        some of them

A benchmark is a module or package here with rows() -> [{name, value, unit, goal, better, detail}];
`better` is lower or higher, `goal` null where there is none. The exit status is 0 when all of them ran.
A goal that was missed is said in the table and is no failure: what the numbers are is for a person to judge.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULT = ROOT / "build" / "bench.json"
FIELDS = ("name", "value", "unit", "goal", "better", "detail")

sys.path.insert(0, str(ROOT / "scripts"))
import machine  # noqa: E402 lies in scripts/


def benchmarks() -> list[str]:
    """The names of the modules and packages beside this file."""
    modules = [path.stem for path in HERE.glob("*.py") if path != Path(__file__).resolve()]
    return sorted([*modules, *(path.parent.name for path in HERE.glob("*/__init__.py"))])


def verdict(row: dict[str, Any]) -> str:
    if row["goal"] is None:
        return ""
    met = row["value"] <= row["goal"] if row["better"] == "lower" else row["value"] >= row["goal"]
    return "met" if met else "MISSED"


def table(rows: Sequence[dict[str, Any]]) -> str:
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'name':<{width}}  {'value':>9}  {'unit':<6} {'goal':>6}  "]
    for row in rows:
        sign = {"lower": "<=", "higher": ">="}[row["better"]]
        goal = "" if row["goal"] is None else f"{sign} {row['goal']:g}"
        lines.append(f"{row['name']:<{width}}  {row['value']:>9g}  {row['unit']:<6} {goal:>6}  {verdict(row)}".rstrip())
    return "\n".join(lines)


def main(wanted: Sequence[str]) -> int:
    # A benchmark that is stopped still has to clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    known = benchmarks()
    if unknown := [name for name in wanted if name not in known]:
        print(f"unknown benchmark {unknown[0]!r}: {', '.join(known)}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    not_run = []
    for name in wanted or known:
        started = time.monotonic()
        try:
            found = importlib.import_module(name).rows()
        except (machine.NotRun, RuntimeError) as reason:
            not_run.append(name)
            print(f"{name}: not run: {reason}\n")
            continue
        rows += [{field: row[field] for field in FIELDS} for row in found]
        print(f"{name} ({time.monotonic() - started:.0f} s)\n\n{table(found)}\n")
        for row in found:
            print(f"{row['name']}: {row['detail']}\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{RESULT.relative_to(ROOT)}: {len(rows)} rows")
    return 1 if not_run or not rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
