# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine that is reached over SSH at a port of 127.0.0.1, as root."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path


class MachineError(AssertionError):
    """The machine did not do what it was told, with the last lines of its console."""


class Remote:
    """folder: where the shared connection has its socket. A short path: names of sockets are limited to 107 bytes."""

    def __init__(self, folder: Path, key: Path, port: int = 0) -> None:
        self.folder, self.key, self.port = folder, key, port

    def console(self, lines: int = 15) -> str:
        """What the machine last said by itself, where there is something."""
        return ""

    def error(self, what: str) -> MachineError:
        console = self.console()
        return MachineError(f"{what}\nits console ends with:\n{console}" if console else what)

    def ssh_options(self) -> list[str]:
        """Options for ssh, shared with Ansible: one connection serves all."""
        return [
            *("-i", str(self.key), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=90"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=12"),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o", f"ControlPath={self.folder}/ssh"),
        ]

    def _ssh_command(self, command: str) -> list[str]:
        return ["ssh", *self.ssh_options(), "-p", str(self.port), "root@127.0.0.1", command]

    def try_ssh(self, command: str, text: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell command as root, its input given as text; how it ended. 255: no connection, 124: no end."""
        try:
            return subprocess.run(
                self._ssh_command(command), input=text, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(error.cmd, 124, str(error.stdout or ""), f"no end within {timeout:g} s")

    def ssh(self, command: str, text: str = "", timeout: float = 120, check: bool = True) -> str:
        """The output of a shell command as root; MachineError when it fails, unless check is False."""
        done = self.try_ssh(command, text, timeout)
        if check and done.returncode:
            raise self.error(f"{command}: status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start_ssh(self, command: str) -> subprocess.Popen[str]:
        """A shell command that goes on beside the test."""
        return subprocess.Popen(
            self._ssh_command(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def python(self, program: str, *arguments: str, timeout: float = 120) -> str:
        """The output of a Python program that runs in the machine."""
        return self.ssh(shlex.join(["python3", "-", *arguments]), program, timeout)
