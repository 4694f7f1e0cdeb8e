# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What travels from the controller to the target together with a module call."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils.doors.nvml_binding import pack


@functools.lru_cache(maxsize=1)
def pynvml_source() -> str | None:
    """The controller's nvidia-ml-py, packed; None where it is not installed.

    It is one file, found without importing it. A package of that name is another project.
    """
    spec = importlib.util.find_spec("pynvml")
    if spec is None or not spec.origin or Path(spec.origin).name != "pynvml.py":
        return None
    return pack(Path(spec.origin).read_bytes())


class NvmlAction(ActionBase):
    """Runs the module of the same name with nvidia-ml-py in its parameter `pynvml`: one remote call, no file."""

    MODULE = ""
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {**self._task.args, "pynvml": pynvml_source()}
        result.update(
            self._execute_module(
                module_name=self.MODULE,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        )
        return result
