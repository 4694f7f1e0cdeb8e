# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, in words a user can act on. Every message is one line."""

from __future__ import annotations

from typing import Any


class WorkstationError(Exception):
    """Anything that ends a call; `details` travels to the caller beside the message."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(" ".join(message.split()))
        self.details = details


class InputError(WorkstationError):
    """A parameter the user wrote is wrong: names parameter, value and what is allowed."""


class RefusedError(WorkstationError):
    """The request is well formed, but this machine (or the state it is in) must not get it."""


class ApplyError(WorkstationError):
    """A write failed midway; `details` says what was restored and what could not be."""
