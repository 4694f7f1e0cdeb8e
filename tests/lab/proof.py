# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures that tests have counted, merged into build/proof.json."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

PROOF = Path(__file__).resolve().parents[2] / "build" / "proof.json"


def record(**figures: Any) -> dict[str, Any]:
    """Put figures into the file, beside those of other tests, which run in parallel; returns all of them.

    A figure that is a mapping joins what the file has of it.
    """
    PROOF.parent.mkdir(exist_ok=True)
    with PROOF.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(PROOF.read_text(encoding="utf-8")) if PROOF.exists() else {}
        fresh = PROOF.with_suffix(".new")
        for name, figure in figures.items():
            known[name] = {**known.get(name, {}), **figure} if isinstance(figure, dict) else figure
        fresh.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fresh.rename(PROOF)
    return known
