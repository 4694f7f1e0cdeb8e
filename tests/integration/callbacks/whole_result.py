# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the result of the last task to the file named by WHOLE_RESULT, with diff and invocation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: whole_result
type: aggregate
short_description: Result of the last task as JSON
description: For tests. The callbacks that Ansible brings leave parts out.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "whole_result"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, failed=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, failed=True)

    def _write(self, result: Any, failed: bool) -> None:
        whole = {**result._result, "failed": failed}
        Path(os.environ["WHOLE_RESULT"]).write_text(json.dumps(whole, default=str), encoding="utf-8")
