# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Playbooks and single modules, run against a machine of the lab as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote import Remote

ROOT = Path(__file__).resolve().parents[2]
HOST = "lab"
PLAY_LIMIT = 1800  # seconds; on a busy machine emulation is ten times slower than on an idle one
# Done on the controller: they cost the machine nothing.
_LOCAL = ("set_fact", "include_role", "import_role", "include_tasks", "debug", "assert", "meta", "add_host", "group_by")


@dataclass
class Play:
    """How a run of ansible-playbook ended."""

    code: int
    output: str
    seconds: float
    # Of each task, in order: host, task, action, status, result.
    tasks: list[dict[str, Any]] = field(default_factory=list)
    # What the summary callback wrote about the host.
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Any]:
        """The change of every key, as the state modules returned it: key, before, after, scope."""
        return {
            change["key"]: change
            for task in self.tasks
            if task["status"] == "ok"
            for change in task["result"].get("changes", [])
        }

    @property
    def skipped(self) -> dict[str, str]:
        """Keys that were left out, with the reasons."""
        return {
            skip["key"]: skip["reason"]
            for task in self.tasks
            for skip in task["result"].get("skipped_keys", [])
        }  # fmt: skip

    @property
    def warnings(self) -> list[str]:
        """What the state modules warned of."""
        return [str(warning) for task in self.tasks for warning in task["result"].get("warnings", [])]

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that changed something."""
        return [task["task"] for task in self.tasks if task["status"] == "ok" and task["result"].get("changed")]

    @property
    def errors(self) -> list[str]:
        """Messages of the tasks that failed."""
        return [str(task["result"].get("msg")) for task in self.tasks if task["status"] in ("failed", "unreachable")]

    @property
    def remote_tasks(self) -> int:
        """Tasks that reached the machine."""
        done = [task["action"].rpartition(".")[2] for task in self.tasks if task["status"] != "skipped"]
        return sum(name not in _LOCAL for name in done)

    def ok(self) -> Play:
        """This play, which must have ended well."""
        assert self.code == 0, f"{self.errors}\n{self.output[-3000:]}"
        return self


class Controller:
    """Runs playbooks of the checkout against one machine."""

    def __init__(self, vm: Remote, folder: Path) -> None:
        self.vm = vm
        self.folder = folder
        self.variables: dict[str, Any] = {}  # of the host, in every play
        self.environment: dict[str, str] = {}  # of every ansible-playbook
        folder.mkdir(parents=True, exist_ok=True)

    def play(
        self, book: str | Path, variables: Mapping[str, Any] | None = None, *arguments: str, timeout: float = PLAY_LIMIT
    ) -> Play:
        """Run a playbook to its end: play("site.yml", {"workstation_profile": "balanced"}, "--check")."""
        running = self.start(book, variables, *arguments)
        return running.wait(timeout)

    def start(self, book: str | Path, variables: Mapping[str, Any] | None = None, *arguments: str) -> Running:
        """Start a playbook and go on beside it."""
        return Running(self, book, variables or {}, arguments)

    def module(self, name: str, arguments: Mapping[str, Any], *flags: str, owner: str = "") -> dict[str, Any]:
        """The result of one module of ours, failed or not."""
        given = {**arguments, "owner": owner} if owner else dict(arguments)
        task = {"name": name, f"ai_infra.workstation.{name}": given}
        book = self.folder / f"{name}.json"
        play = {"hosts": HOST, "gather_facts": False, "tasks": [task]}
        book.write_text(json.dumps([play]), encoding="utf-8")
        done = self.play(book, None, *flags)
        if not done.tasks:
            raise AssertionError(f"no result: {done.output}")
        result: dict[str, Any] = {"failed": done.code != 0, **done.tasks[-1]["result"]}
        return result

    def inventory(self, variables: Mapping[str, Any]) -> Path:
        """An inventory with the machine as the one workstation; variables are those of the host."""
        machine = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.vm.port,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": " ".join(self.vm.ssh_options()),
            **self.variables,
            **variables,
        }
        path = self.folder / "hosts.json"
        path.write_text(json.dumps({"workstations": {"hosts": {HOST: machine}}}), encoding="utf-8")
        return path


class Running:
    """A playbook that runs beside the test."""

    def __init__(
        self, controller: Controller, book: str | Path, variables: Mapping[str, Any], arguments: Sequence[str]
    ) -> None:
        folder = controller.folder
        self._results, self._report, self._log = folder / "results.jsonl", folder / "report.json", folder / "output"
        for left in (self._results, self._report):
            left.unlink(missing_ok=True)
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", controller.inventory(variables), book]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "every_result,ai_infra.workstation.summary",
            "ANSIBLE_SSH_ARGS": "",  # what ssh needs is in the inventory
            "ANSIBLE_TIMEOUT": "60",
            "AI_INFRA_WORKSTATION_REPORT": str(self._report),
            "EVERY_RESULT": str(self._results),
            **controller.environment,
        }
        self._started = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, timeout: float = PLAY_LIMIT) -> Play:
        """The end of the run."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = 124
        seconds = time.monotonic() - self._started
        lines = self._results.read_text(encoding="utf-8").splitlines() if self._results.exists() else []
        reports = json.loads(self._report.read_text(encoding="utf-8")) if self._report.exists() else {}
        output = self._log.read_text(encoding="utf-8", errors="replace")
        return Play(code, output, seconds, [json.loads(line) for line in lines], reports.get(HOST, {}))

    def abandon(self) -> None:
        """End it: the machine is gone."""
        self.process.kill()
        self.process.wait()
