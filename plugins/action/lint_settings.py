# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check the settings in a repository. Runs on the controller, reads files and touches no target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.linter.findings import SEVERITIES, at_least, count
from ..plugin_utils.linter.lint import lint_path

_FAIL_ON = ("never", "error", "warning")


class ActionModule(ActionBase):
    """See plugins/modules/lint_settings.py for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("path", "fail_on", "show", "report"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {"fail_on": "error", "show": "info", "report": "", **self._task.args}
        for name, choices in (("fail_on", _FAIL_ON), ("show", SEVERITIES)):
            if arguments[name] not in choices:
                msg = f"{name}: {arguments[name]!r} is not one of {', '.join(choices)}"
                return {**result, "failed": True, "msg": msg}
        if not arguments.get("path"):
            return {**result, "failed": True, "msg": "path: missing; name a repository or a file to check"}
        try:
            found = _lint(arguments, check=self._task.check_mode)
        except OSError as error:
            return {**result, "failed": True, "msg": f"lint_settings: {error}"}
        for line in found["lines"]:
            self._display.display(line)
        return {**result, **found}


def _lint(arguments: dict[str, Any], *, check: bool) -> dict[str, Any]:
    report = lint_path(Path(str(arguments["path"])).expanduser())
    shown = at_least(report.findings, arguments["show"])
    counts = count(report.findings)
    content = {"files": report.files, "counts": counts, "findings": [finding.as_dict() for finding in shown]}
    changed = bool(arguments["report"]) and _write(Path(arguments["report"]).expanduser(), content, check=check)
    failing = [] if arguments["fail_on"] == "never" else at_least(report.findings, arguments["fail_on"])
    summary = ", ".join(f"{number} {severity}" for severity, number in counts.items())
    return {
        "changed": changed,
        "failed": bool(failing),
        "settings": content,
        "lines": [str(finding) for finding in shown],
        "worst": next((severity for severity, number in counts.items() if number), "none"),
        "msg": f"{sum(report.files.values())} files checked: {summary}",
    }


def _write(path: Path, content: dict[str, Any], *, check: bool) -> bool:
    """Write the report; whether that changes the file."""
    text = json.dumps(content, indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if not check:
        path.write_text(text, encoding="utf-8")
    return True
