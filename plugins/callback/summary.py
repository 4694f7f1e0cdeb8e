# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The last words of a run: per machine what changed or would change, what was skipped and why, and what to look at."""

from __future__ import annotations

DOCUMENTATION = r"""
name: summary
type: aggregate
short_description: Summarise what a run changed, skipped and found, per machine
version_added: 0.1.0
description:
  - Prints, after the last task, one block per machine with every conflict of the plan, every changed key, every
    skipped key with its reason, the firmware findings, the reboot reasons and the errors.
options:
  report:
    description: Also write the same as JSON, per machine, to this file.
    type: path
    env:
      - name: AI_INFRA_WORKSTATION_REPORT
    ini:
      - section: callback_summary
        key: report
author:
  - ai_infra.workstation contributors (@ai-infra)
requirements:
  - enabled in the configuration (callbacks_enabled = ai_infra.workstation.summary)
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ..plugin_utils.summary import HostReport, render


class CallbackModule(CallbackBase):
    """Collects the results of this collection's modules and prints them at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ai_infra.workstation.summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._reports: dict[str, HostReport] = {}
        # What tasks in check mode foretold in a run that is not a preview as a whole.
        self._foretold: dict[str, HostReport] = {}

    def _report(self, result: Any) -> HostReport:
        check = _part(result, "task").check_mode and not context.CLIARGS.get("check")
        reports = self._foretold if check else self._reports
        return reports.setdefault(_part(result, "host").get_name(), HostReport())

    def v2_runner_on_ok(self, result: Any) -> None:
        data = _part(result, "result")
        if {"changes", "conflicts", "findings"} & data.keys():
            task = _part(result, "task")
            role = task._role  # noqa: SLF001 - there is no public way to a task's role
            name = role.get_name().rpartition(".")[2] if role else ""
            self._report(result).add(name, data, task.get_name())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            data, report = _part(result, "result"), self._report(result)
            report.conflicts += data.get("conflicts") or ()
            report.errors.append(f"{_part(result, 'task').get_name()}: {data.get('msg', 'failed')}")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._report(result).errors.append(f"cannot be reached: {_part(result, 'result').get('msg', '')}")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        # A machine of which there is nothing but predictions was previewed, or was refused before its first change.
        previews = {host: report for host, report in self._foretold.items() if host not in self._reports}
        reports = dict(sorted({**self._reports, **previews}.items()))
        for host, report in reports.items():
            check = host in previews or bool(context.CLIARGS.get("check"))
            if not stats.failures.get(host) and not stats.dark.get(host):
                report.errors.clear()  # a rescue took care of them
            for line in render(host, report, check):
                self._display.display(line)
        path = self.get_option("report")
        if path and reports:
            rows = {host: asdict(report) for host, report in reports.items()}
            Path(path).write_text(json.dumps(rows, indent=1, default=str) + "\n", encoding="utf-8")


def _part(result: Any, name: str) -> Any:
    # ansible-core 2.18 has only the underscored names, 2.19 made them public.
    return getattr(result, name) if hasattr(result, name) else getattr(result, f"_{name}")
