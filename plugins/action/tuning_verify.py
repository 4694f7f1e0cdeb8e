# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends nvidia-ml-py along with the module tuning_verify, and prints what it found, one line a key."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.ship import NvmlAction


class ActionModule(NvmlAction):
    MODULE = "ai_infra.workstation.tuning_verify"
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "")
        for line in result.get("lines", ()):
            self._display.display(f"{host}: {line}")
        return result
