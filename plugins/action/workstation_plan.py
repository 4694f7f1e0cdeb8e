# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the plan of a machine from its facts and variables. Runs on the controller, touches no target."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.plan import PlanError, make
from ..plugin_utils.variables import known


class ActionModule(ActionBase):
    """See plugins/modules/workstation_plan.py for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        facts = task_vars.get("ansible_facts", {}).get("workstation")
        if not facts:
            return {
                **result,
                "failed": True,
                "msg": "workstation_plan: no facts of this machine; run workstation_facts before",
            }
        variables = {name: self._templar.template(task_vars[name]) for name in sorted(known() & task_vars.keys())}
        names = [name for name in task_vars if not name.startswith("ansible_")]
        try:
            plan = make(facts, variables, names)
        except PlanError as error:
            return {**result, "failed": True, "msg": str(error), "conflicts": error.findings}
        return {
            **result,
            "changed": False,
            "conflicts": plan["findings"],
            "skipped_keys": [*plan["os_tuning"]["skipped"], *plan["gpu_tuning"]["skipped"]],
            "ansible_facts": {"workstation_plan": plan},
        }
