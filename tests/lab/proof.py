# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures that tests have counted, merged into build/proof.json."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

PROOF = Path(__file__).resolve().parents[2] / "build" / "proof.json"


def record(**figures: Any) -> None:
    """Put figures into the file, beside those of other tests. They run in parallel."""
    PROOF.parent.mkdir(exist_ok=True)
    with PROOF.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(PROOF.read_text(encoding="utf-8")) if PROOF.exists() else {}
        fresh = PROOF.with_suffix(".new")
        fresh.write_text(json.dumps({**known, **figures}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fresh.rename(PROOF)
