# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine with GPUs for tests of nvidia_gpu_state: a FakeKernel beside the stand-in driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fake_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import Nvml, open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import nvidia_gpu_state
from fake_kernel import FakeKernel, run_module
from nvml_child import in_child

CARDS = ("rtx3090", "rtx4090", "rtx5090", "rtxpro6000", "h200", "a100", "laptop")
FULL = {
    "persistence": True,
    "power_limit": "90%",
    "gpu_clocks": {"min_mhz": 420, "max_mhz": 1800},
    "compute_mode": "exclusive_process",
}


class Box:
    """The kernel's files and the driver of one machine. `folder` must be open to other users."""

    def __init__(self, folder: Path, cards: Sequence[str]) -> None:
        self.driver = fake_nvml.Machine(folder / "gpu", cards)
        self.kernel = FakeKernel(folder / "root")
        # The driver's folders in /proc and /sys, made anew at a reload.
        self.driver.show_in(folder / "root")

    def uuid(self, gpu: int = 0) -> str:
        return self.driver.uuid(gpu)

    def run(self, check: bool = False, uid: int | None = None, **params: Any) -> dict[str, Any]:
        """One call of the module."""

        def piece() -> dict[str, Any]:
            return run_module(nvidia_gpu_state, self.kernel, check, lambda: open_nvml(None), **params)

        self.kernel.root_user = uid is None
        found: dict[str, Any] = in_child(self.driver, piece, uid)
        return found

    def ask(self, piece: Callable[[Nvml], Any]) -> Any:
        """What the driver says, from a process of its own."""
        return in_child(self.driver, lambda: piece(open_nvml(None)))

    def state(self) -> list[dict[str, Any]]:
        """Everything that can be set, on each GPU, with the clocks at load: that is where a lock shows."""
        self.driver.set(load=100)
        found: list[dict[str, Any]] = self.ask(
            lambda nvml: [dict(nvml.settings(gpu.uuid).values) for gpu in nvml.devices() if not gpu.problem]
        )
        self.driver.set(load=0)
        idle = self.ask(lambda nvml: [nvml.settings(gpu.uuid)["sm_mhz"] for gpu in nvml.devices() if not gpu.problem])
        return [{**values, "idle_sm_mhz": clock} for values, clock in zip(found, idle, strict=True)]

    def setters(self) -> list[str]:
        """The calls made since the last time that set something."""
        calls = [call.function for call in self.driver.trace(clear=True)]
        return [name for name in calls if name.startswith(("nvmlDeviceSet", "nvmlDeviceReset"))]
