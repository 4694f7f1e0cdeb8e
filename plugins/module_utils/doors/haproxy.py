# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to HAProxy's admin socket (HAProxy management guide, Unix Socket commands)."""

from __future__ import annotations

import socket

from ..errors import RefusedError

_PATIENCE_S = 10


class AdminSocket:
    """One gateway. Each command is a connection of its own, as the socket wants it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """What HAProxy answers to a command; RefusedError where nobody does."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
                talk.settimeout(_PATIENCE_S)
                talk.connect(self.path)
                talk.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: talk.recv(65536), b"")).decode("utf-8", "replace")
        except OSError as error:
            raise RefusedError(
                f"socket: {self.path}: {error.strerror or error}; is the gateway running, and is this its admin_socket?"
            ) from error

    def tell(self, command: str) -> None:
        """A command that is silent when it worked."""
        answer = self.ask(command).strip()
        if answer:
            raise RefusedError(f"the gateway refuses {command!r}: {answer}")
