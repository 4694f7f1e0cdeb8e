# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""NVML seen from another process, where a test can end it, kill it or take its privileges away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from fake_nvml import HERE, Machine

INVALID, UNSUPPORTED, PERMISSION, NOT_FOUND = 2, 3, 4, 6
UNINITIALIZED, NOT_LOADED, LOST, RESET, MISMATCH, IN_USE, VERSION = 1, 9, 15, 16, 18, 19, 25
GRAPHICS, SM, MEM = 0, 1, 2

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the driver takes settings from root alone")


class NvmlError(Exception):
    """The code that NVML returned in the child."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Client:
    """One process with NVML open. `with Client(machine) as nvml: nvml("nvmlDeviceGetName", 0)`"""

    def __init__(self, machine: Machine, init: bool = True) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(HERE / "pynvml_process.py")],
            env=os.environ | machine.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.init = init

    def __enter__(self) -> Self:
        if self.init:
            self("nvmlInit")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.init and self.child.poll() is None and kind is None:
            self("nvmlShutdown")
        self.child.communicate()

    def __call__(self, function: str, gpu: int | None = None, *arguments: Any) -> Any:
        assert self.child.stdin
        assert self.child.stdout
        self.child.stdin.write(json.dumps([function, gpu, *arguments]) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            self.child.communicate()
            raise EOFError(f"the client died in {function}: {self.child.returncode}")
        answer = json.loads(line)
        if "error" in answer:
            raise NvmlError(answer["error"])
        return answer["value"]

    def code(self, function: str, gpu: int | None = None, *arguments: Any) -> int:
        """0, or the code that the call fails with."""
        try:
            self(function, gpu, *arguments)
        except NvmlError as error:
            return error.code
        return 0


def one(directory: Path, card: str = "rtx5090", **settings: object) -> Machine:
    return Machine(directory, [card], **settings)


def state_seen(machine: Machine) -> tuple[int, int]:
    with Client(machine) as nvml:
        return nvml("nvmlDeviceGetPowerManagementLimit", 0), nvml("nvmlDeviceGetClockInfo", 0, SM)
