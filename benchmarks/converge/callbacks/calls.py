"""Counts what Ansible does on the far side of the connection, where it does it: in ActionBase.

A remote call is one execution of a module there (ActionBase._execute_module), so a copy task counts
its stat, its file transfer does not, and every item of a loop counts by itself. Beside it the commands and file
transfers of the connection are counted. The lines go to the file named by BENCH_CALLS; the workers are
forks of the process that loads this plugin, and each line is one append.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: calls
type: aggregate
short_description: Count remote calls
description: [Writes one line per task, module execution, command and file transfer.]
"""


def note(what: str, **details: Any) -> None:
    line = json.dumps({"what": what, "at": time.monotonic(), **details})
    with open(os.environ["BENCH_CALLS"], "a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def counted(what: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = kwargs.get("module_name") or (args[0] if what == "module" and args else None) or self._task.action
        note(what, name=name if what == "module" else "", task=self._task.get_name())
        return method(self, *args, **kwargs)

    return run


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "calls"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        methods = {"module": "_execute_module", "command": "_low_level_execute_command", "transfer": "_transfer_file"}
        for what, name in methods.items():
            setattr(ActionBase, name, counted(what, getattr(ActionBase, name)))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        note("play", name=play.get_name())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 Ansible's signature
        note("task", task=task.get_name(), action=task.action, tags=list(task.tags))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        note("task", task=task.get_name(), action=task.action, tags=list(task.tags))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        changed = {host: stats.summarize(host) for host in stats.processed}
        note("end", stats=changed)
