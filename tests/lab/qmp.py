# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""QEMU's control socket (QMP): one command at a time, each with its answer."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any


class QmpError(RuntimeError):
    """QEMU refused a command, or does not answer."""


class Qmp:
    """A connection to the control socket of a running QEMU."""

    def __init__(self, path: Path, timeout: float = 120) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._answer()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """The answer to one command."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = self._answer()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def human(self, line: str) -> str:
        """The answer to a line of the human monitor. What it says to savevm and loadvm is an error, or nothing."""
        return str(self("human-monitor-command", **{"command-line": line}))

    def migrated(self, timeout: float = 120) -> None:
        """Return when a migration has ended well."""
        deadline = time.monotonic() + timeout
        while (status := self("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise QmpError(f"the migration ended as {status}")
            time.sleep(0.05)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _answer(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise QmpError("QEMU closed its control socket")
        answer: dict[str, Any] = json.loads(line)
        return answer
