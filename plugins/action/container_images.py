# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends the contexts of docker/ along with the module container_images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils.errors import WorkstationError
from ..plugin_utils.images import FOLDER, contexts
from ..plugin_utils.plain import plain


class ActionModule(ActionBase):
    """See plugins/modules/container_images.py for the documentation."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = plain({"args": None, "gpus": [], "prefix": "ai-workstation", **self._task.args})
        folder = Path(arguments.get("folder") or FOLDER).expanduser()
        try:
            found = contexts(arguments.get("images"), arguments["args"], arguments["gpus"], arguments["prefix"], folder)
        except (WorkstationError, OSError) as error:
            return {**result, "failed": True, "msg": str(error)}
        result.update(
            self._execute_module(
                module_name="ai_infra.workstation.container_images",
                module_args={**self._task.args, "contexts": found},
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        )
        return result
