# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The doors of one machine and its ledger, opened when first asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, Protocol

from ..doors.host import FileState, Host
from .change import Change, Place, Value
from .ledger import Ledger


class Driver(Protocol):
    """What the engine needs of the NVIDIA driver: one property of one GPU, read and written."""

    def read(self, uuid: str, name: str) -> Any: ...

    def write(self, uuid: str, name: str, value: Any) -> None: ...

    def close(self) -> None: ...


class Guard(Protocol):
    """What watches over the writes of a call (switch.py)."""

    def foresee(self, changes: Iterable[Change]) -> None: ...

    def before_writes(
        self, machine: Machine, changes: list[Change], touched: list[tuple[Place, Value, str]], risky: bool
    ) -> None: ...

    def after_writes(self, machine: Machine) -> None: ...

    def complete(self, machine: Machine) -> None: ...

    def obstacle(self, host: Host) -> str: ...

    def public(self) -> dict[str, Any] | None: ...

    @property
    def armed(self) -> bool: ...


class Machine:
    """One call's view of a machine: the host door, one NVML session, the ledger.

    `binding` gives the source of nvidia-ml-py as it came with the call, None where it did not.
    """

    def __init__(
        self,
        host: Host,
        open_driver: Callable[[], Any] | None = None,
        binding: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self.host = host
        self._open_driver = open_driver
        self.binding = binding
        self._driver: Any = None
        self._ledger: Ledger | None = None
        # What a call looks up once and may use again: interrupt numbers by device.
        self.memo: dict[str, Any] = {}
        # Files that this call replaced and whose bytes the ledger does not hold, by value (program.py).
        self.replaced: dict[str, FileState] = {}
        # The dead-man switch of a call that has one.
        self.switch: Guard | None = None

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(self.host)
        return self._ledger

    def reload_ledger(self) -> Ledger:
        self._ledger = None
        return self.ledger

    def nvml(self) -> Any:
        """The one NVML session of this call (doors/nvml.py)."""
        if self._driver is None:
            if self._open_driver is None:
                raise OSError("this call was given no way to reach the NVIDIA driver")
            self._driver = self._open_driver()
        return self._driver

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
