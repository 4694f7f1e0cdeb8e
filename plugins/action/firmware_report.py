# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Audits facts that are there already, or sends the module firmware_report with nvidia-ml-py to the machine.

Writes the findings as a ticket on the controller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..module_utils.errors import WorkstationError
from ..module_utils.specs import FIRMWARE
from ..module_utils.subjects import firmware_report
from ..plugin_utils.plain import file_name, plain, write_beside
from ..plugin_utils.ship import NvmlAction
from ..plugin_utils.ticket import compose, dump, lines, parse


class ActionModule(NvmlAction):
    """See plugins/modules/firmware_report.py for the documentation."""

    MODULE = "ai_infra.workstation.firmware_report"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # The module runs on the machine, and must not write there: the folder is for this side alone.
        folder = self._task.args.pop("ticket_dir", None)
        facts = self._task.args.pop("facts", None)
        if facts and not int(self._task.args.get("sample_seconds") or 0):
            result = self._report(plain(facts))
        else:
            result = super().run(tmp, task_vars)
        if folder and "findings" in result:
            host = str((task_vars or {})["inventory_hostname"])
            base = Path(str(folder)).expanduser() / file_name(host)
            try:
                result["ticket"] = _write(base, host, plain(result))
            except OSError as error:
                where, why = error.filename or base, error.strerror or error
                return {**result, "failed": True, "msg": f"ticket_dir: {where}: {why}; give a folder of the controller"}
        return result

    def _report(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The findings of facts that are there already: no call of the machine."""
        _checked, params = self.validate_argument_spec(FIRMWARE)
        try:
            return {"changed": False, **firmware_report.run(params, lambda: facts, lambda _facts, _seconds: {})}
        except WorkstationError as error:
            return {"failed": True, "msg": str(error), **error.details}


def _write(base: Path, host: str, result: dict[str, Any]) -> str:
    """Both forms of the ticket; the path of the readable one."""
    data, text = base.with_name(f"{base.name}.json"), base.with_name(f"{base.name}.txt")
    before = parse(data.read_text(encoding="utf-8", errors="replace")) if data.is_file() else None
    ticket = compose(host, result["findings"], result["machine"], before)
    write_beside(data, dump(ticket))
    write_beside(text, "\n".join(lines(ticket)) + "\n")
    return str(text)
