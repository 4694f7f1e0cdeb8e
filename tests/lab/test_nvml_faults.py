# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every error code at every NVML call of an apply: one line, and the state as before or told and kept pending.

It needs no machine of the lab: the stand-in driver, the real nvidia-ml-py and the module's code. tests/unit tries one
code at every call and eight codes at every setter; this is the whole table.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import WorkstationError
from gpu_box import FULL, Box

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")

# Every NVML_ERROR_ of nvml.h as nvidia-ml-py has it.
CODES = sorted(
    value
    for name, value in vars(pynvml).items()
    if re.fullmatch(r"NVML_ERROR_[A-Z_]+", name) and isinstance(value, int)
)
WANTED = {**FULL, "memory_clocks": {"min_mhz": 5001, "max_mhz": 9501}}


def ended(box: Box, **params: Any) -> tuple[str, str]:
    try:
        box.run(**params)
    except WorkstationError as error:
        return type(error).__name__, str(error)
    except OSError as error:
        return "OSError", str(error)
    return "applied", ""


def pending(box: Box) -> list[str]:
    """Keys that the ledger keeps as in flight or as ours."""
    text = box.kernel.text(LEDGER)
    return sorted(json.loads(text)["entries"]) if text else []


def fault(make: Callable[[], Box], before: Any, after: Any, number: int, code: int) -> str:
    """What is wrong with how one fault at one call ends; empty: nothing."""
    box = make()
    box.driver.fault(f"call={number} rc={code} times=1")
    outcome, message = ended(box, **WANTED)
    box.driver.fault()
    state = box.state()
    if "\n" in message or "Traceback" in message:
        return f"not one line: {message!r}"
    if "NOT restored" in message:
        # Told; then it must be on the ledger, so that the next run takes it up.
        return "" if pending(box) else f"told and forgotten: {message}"
    if state != (after if outcome == "applied" else before):
        return f"{outcome}: the state is neither as before nor as asked"
    return ""


def test_every_code_at_every_call(proof: Callable[..., None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 the driver is asked by a process of its own
        made = 0

        def make() -> Box:
            nonlocal made
            made += 1
            where = Path(folder, str(made))
            where.mkdir()
            return Box(where, ("rtx3090",))

        box = make()
        before = box.state()
        box.driver.trace(clear=True)
        box.run(**WANTED)
        calls = [call.function for call in box.driver.trace()]
        calls = calls[: calls.index("nvmlShutdown") + 1]
        after = box.state()
        unclean = [
            f"{function} (call {number}), code {code}: {wrong}"
            for number, function in enumerate(calls, 1)
            for code in CODES
            if (wrong := fault(make, before, after, number, code))
        ]
    tried = len(calls) * len(CODES)
    proof(nvml_faults=tried, nvml_faults_unclean=len(unclean), nvml_calls=len(calls), nvml_codes=len(CODES))
    assert unclean == []
    assert len(CODES) >= 28
    assert len(calls) > 40
