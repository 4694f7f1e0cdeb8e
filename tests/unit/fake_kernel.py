# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine in a folder that answers writes as a kernel does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed, Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.plan import converge

Rule = Callable[["FakeKernel", str], str]
Program = Callable[["FakeKernel", list[str]], Completed]


class Killed(BaseException):
    """The end of the process, which nothing catches."""


class FakeKernel(Host):
    """A Host on a folder. `rules` maps a path to what a write makes of the text (or raises OSError)."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.rules: dict[str, Rule] = {}
        self.read_only: set[str] = set()
        # Endings of files that take a value at once and show it later, and what they have taken.
        self.late: tuple[str, ...] = ()
        self.taken: list[tuple[str, str]] = []
        self.writes: list[str] = []
        self.commands: dict[str, Completed] = {}
        self.programs: dict[str, Program] = {}
        self.acted: list[str] = []
        self.root_user = True
        self.before_write = self.writes.append
        self.put("/proc/sys/kernel/random/boot_id", "boot-1")
        for folder in (
            "/etc/sysctl.d",
            "/etc/tmpfiles.d",
            "/etc/udev/rules.d",
            "/etc/modprobe.d",
            "/etc/modules-load.d",
            "/etc/systemd/system",
            "/run/systemd/system",
            "/var/lib",
        ):
            os.makedirs(self.at(folder), exist_ok=True)

    # -- arranging ---------------------------------------------------------------------------------

    def put(self, path: str, text: str, rule: Rule | None = None) -> None:
        """Create a file as the kernel (or another program) would."""
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        Path(self.at(path)).write_text(text + "\n", encoding="utf-8")
        if rule:
            self.rules[path] = rule

    def put_all(self, values: dict[str, Any]) -> None:
        for path, text in values.items():
            self.put(path, str(text))

    def reboot(self, boot_id: str = "boot-2") -> None:
        self.put("/proc/sys/kernel/random/boot_id", boot_id)

    # -- the kernel's side -------------------------------------------------------------------------

    def write_value(self, path: str, text: str) -> None:
        self.before_write(path)
        if path in self.read_only:
            raise OSError(errno.EROFS, "Read-only file system", path)
        if not os.path.exists(self.at(path)):
            raise OSError(errno.ENOENT, "No such file or directory", path)
        if self.late and path.endswith(self.late):
            self.taken.append((path, text))
        else:
            self._take(path, text)

    def pause(self, seconds: float) -> None:
        """What was taken is shown."""
        for path, text in self.taken:
            self._take(path, text)
        self.taken.clear()

    def _take(self, path: str, text: str) -> None:
        old = self.text(path) or ""
        if path in self.rules:
            text = self.rules[path](self, text)
        elif "[" in old:
            text = choose(old, text)
        Path(self.at(path)).write_text(text + "\n", encoding="utf-8")

    def writable(self, path: str) -> bool:
        return path not in self.read_only and os.path.exists(self.at(path))

    def is_root(self) -> bool:
        return self.root_user

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}"

    def run(self, argv: Any, timeout: float = 120, text: str = "") -> Completed:
        line = " ".join(argv)
        if argv[0] in self.programs and line not in self.commands:
            return self.programs[argv[0]](self, list(argv[1:]))
        return self.commands.get(line, Completed(0, "", ""))

    def act(self, argv: Any, timeout: float = 600) -> Completed:
        self.acted.append(" ".join(argv))
        return super().act(argv, timeout)


def choose(old: str, wanted: str) -> str:
    """Move the brackets of a choice file; EINVAL for a word that it does not offer."""
    offered = old.replace("[", "").replace("]", "").split()
    if wanted not in offered:
        raise OSError(errno.EINVAL, "Invalid argument")
    return " ".join(f"[{word}]" if word == wanted else word for word in offered)


def clamp(low: int, high: int) -> Rule:
    """A rule: numbers outside the range are pulled into it, silently, as many sysctls do."""
    return lambda _kernel, text: str(min(max(int(text), low), high))


def refuse(code: int) -> Rule:
    """A rule: every write fails with this errno."""

    def rule(_kernel: FakeKernel, _text: str) -> str:
        raise OSError(code, os.strerror(code))

    return rule


def killed(kernel: FakeKernel, step: Callable[[], object], nth: int = 1, point: str = "") -> bool:
    """Run a step that ends before its nth write (to `point`, where one is named); False where it has fewer."""
    record, seen = kernel.before_write, 0

    def stop(path: str) -> None:
        nonlocal seen
        record(path)
        seen += point in ("", path)
        # Not only at the nth: what is dead does not write on its way out either.
        if seen >= nth:
            raise Killed(path)

    kernel.before_write = stop
    try:
        step()
    except Killed:
        return True
    finally:
        kernel.before_write = record
    return False


def run_module(subject: Any, kernel: Host, check: bool = False, driver: Any = None, **params: Any) -> dict[str, Any]:
    """One call of a state module, without Ansible around it. `driver` opens the NVML door."""
    machine = Machine(kernel, driver)
    try:
        return converge(subject, params, check, machine)
    finally:
        machine.close()
