# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends nvidia-ml-py along with workstation_state, and confirms over a new connection what may have cost it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ..plugin_utils.ship import NvmlAction

_PAUSE = 2.0  # seconds between two attempts to reach the machine


class ActionModule(NvmlAction):
    MODULE = "ai_infra.workstation.workstation_state"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if result.get("unconfirmed"):
            self._confirm(result, result["unconfirmed"], task_vars)
        return result

    def _confirm(self, result: dict[str, Any], waiting: dict[str, Any], task_vars: dict[str, Any] | None) -> None:
        """Keep the changes if the machine can be reached anew; else it goes back by itself, and the task fails."""
        end = time.monotonic() + waiting["seconds"]
        result["confirmed"] = False
        why = ""
        while not result["confirmed"] and time.monotonic() < end:
            try:
                self._new_connection()
                answer = self._execute_module(
                    module_name="ai_infra.workstation.tuning_confirm",
                    module_args={"id": waiting["id"]},
                    task_vars=task_vars,
                )
            except AnsibleConnectionFailure as error:
                why = " ".join(str(error).split())
                time.sleep(_PAUSE)
                continue
            result["confirmed"] = not answer.get("failed")
            why = answer.get("msg", "")
            break
        if not result["confirmed"]:
            keys = ", ".join(list(waiting["reasons"])[:3])
            result["failed"] = True
            result["msg"] = (
                f"{keys}: changed, and not confirmed within {waiting['seconds']} s: {why or 'no answer'}; "
                "the machine goes back to where it was by itself"
            )

    def _new_connection(self) -> None:
        """Let go of the connection, with the one that ssh keeps open for others, so that the next is a new one."""
        if self._connection.transport != "local":
            self._connection.reset()
