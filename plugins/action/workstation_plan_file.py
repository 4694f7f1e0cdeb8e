# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write what check mode said as a plan, or read such a plan. Runs on the controller, touches no target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.plain import file_name, plain, write_beside
from ..plugin_utils.plan_file import Call, Machine, PlanFileError, compose, dump, lines, load, to_apply
from ..plugin_utils.variables import known, specifications

_COLLECTION = Path(__file__).resolve().parents[2]
# The result that a role keeps: __os_tuning_call.
_CALL = re.compile(r"^__(\w+)_call$")
# Variables may hold what is not for everybody.
_MODE = 0o600
# What says how a play runs is no part of what it does.
_OF_THE_PLAY = {
    "workstation_serial",
    "workstation_max_fail_percentage",
    "workstation_plan_file",
    "workstation_plan_dir",
}


class ActionModule(ActionBase):
    """See plugins/modules/workstation_plan_file.py for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset({"path", "state"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        state, path = self._task.args.get("state", "written"), self._task.args.get("path")
        facts = task_vars.get("ansible_facts") or {}
        if state not in ("written", "read"):
            return {**result, "failed": True, "msg": f"state: {state!r} is not one of written, read"}
        if not path or "workstation" not in facts:
            missing = "path: is missing" if not path else "no facts of this machine; run workstation_facts before"
            return {**result, "failed": True, "msg": f"workstation_plan_file: {missing}"}
        kernel = facts["workstation"]["kernel"]
        machine = Machine(str(task_vars["inventory_hostname"]), plain(kernel["machine_id"]), plain(kernel["boot_id"]))
        try:
            if state == "read":
                return {**result, **self._read(str(path), machine)}
            return {**result, **self._write(str(path), machine, facts, task_vars)}
        except PlanFileError as error:
            return {**result, "failed": True, "msg": str(error)}
        except OSError as error:
            where, why = error.filename or path, error.strerror or error
            return {**result, "failed": True, "msg": f"plan {where}: {why}; playbooks/plan.yml makes plans"}

    def _read(self, path: str, machine: Machine) -> dict[str, Any]:
        file = Path(path).expanduser()
        if file.is_dir():
            file = file / f"{file_name(machine.host)}.json"
        document = load(file.read_text(encoding="utf-8"), str(file), machine)
        roles = [folder.name for folder in (_COLLECTION / "roles").iterdir()]
        modules = [module.stem for module in (_COLLECTION / "plugins" / "modules").glob("*.py")]
        return {
            "changed": False,
            "path": str(file),
            "conflicts": document["parameters"].get("findings") or [],
            "ansible_facts": {"workstation_plan": to_apply(document, roles, modules)},
        }

    def _write(
        self, path: str, machine: Machine, facts: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> dict[str, Any]:
        plan = facts.get("workstation_plan")
        calls = [
            Call(match[1], part, outcome)
            for name in task_vars
            for match in [_CALL.match(name)]
            if match and "parts" in task_vars[name]
            for part, outcome in plain(self._templar.template(task_vars[name]))["parts"].items()
        ]
        if not plan or not calls:
            raise PlanFileError(
                f"plan {path}: no role of ours ran in this play, there is nothing to write; use playbooks/plan.yml"
            )
        # Of the roles that a plan is for. Others have variables with secrets, which a plan must not hold.
        planned = ("workstation_", *(f"{call.role}_" for call in calls))
        names = sorted(name for name in (known() - _OF_THE_PLAY) & task_vars.keys() if name.startswith(planned))
        variables = {name: plain(self._templar.template(task_vars[name])) for name in names}
        defaults = {name: option["default"] for name, option in specifications().items() if "default" in option}
        document = compose(machine, plain(plan), variables, defaults, calls)
        readable = "\n".join(lines(document)) + "\n"
        base = Path(path).expanduser() / file_name(machine.host)
        written = [
            write_beside(base.with_name(f"{base.name}.json"), dump(document), _MODE),
            write_beside(base.with_name(f"{base.name}.txt"), readable, _MODE),
        ]
        return {
            "changed": False,
            "path": f"{base}.json",
            "written": any(written),
            "changes_planned": len(document["changes"]),
            "text": readable,
        }
