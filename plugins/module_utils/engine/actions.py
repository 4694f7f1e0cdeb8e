# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must run after our files changed, each once per call. They hold no state of their own.

The ledger notes them before the first write and drops them after they ran, so a run that was killed
in between is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..doors.host import Host
from ..errors import ApplyError


@dataclass(frozen=True)
class Action:
    """A command, and the path without which it has no meaning on this machine."""

    argv: tuple[str, ...]
    needs: str


# In the order in which they run.
ACTIONS = {
    "daemon-reload": Action(("systemctl", "daemon-reload"), "/run/systemd/system"),
    "restart-irqbalance": Action(("systemctl", "try-restart", "irqbalance.service"), "/run/systemd/system"),
    "udev-reload": Action(("udevadm", "control", "--reload-rules"), "/run/udev/control"),
    "udev-trigger-block": Action(
        ("udevadm", "trigger", "--subsystem-match=block", "--action=change", "--settle"), "/run/udev/control"
    ),
    "update-initramfs": Action(("update-initramfs", "-u"), "/usr/sbin/update-initramfs"),
    "update-grub": Action(("update-grub",), "/usr/sbin/update-grub"),
}

# restart:UNIT restarts a unit that runs and reads its file only when it starts; after all the others.
_RESTART = "restart:"
# stop:UNIT stops one whose file is about to go, or is gone.
_STOP = "stop:"
_NO_SUCH_UNIT = 5  # what systemctl answers for a unit that it does not know; one that is gone is as wanted


def restart(unit: str) -> str:
    """The action that restarts a unit, if it runs."""
    return _RESTART + unit


def stop(unit: str) -> str:
    """The action that stops a unit."""
    return _STOP + unit


def _action(name: str) -> Action:
    if name.startswith(_RESTART):
        return Action(("systemctl", "try-restart", name[len(_RESTART) :]), "/run/systemd/system")
    if name.startswith(_STOP):
        return Action(("systemctl", "stop", name[len(_STOP) :]), "/run/systemd/system")
    return ACTIONS[name]


def due(host: Host, names: Iterable[str]) -> list[str]:
    """Those of the named actions that have a meaning on this machine, in the order in which they run."""
    wanted = set(names)
    ordered = [name for name in ACTIONS if name in wanted] + sorted(name for name in wanted if name not in ACTIONS)
    return [name for name in ordered if host.exists(_action(name).needs)]


def run_actions(host: Host, names: Iterable[str]) -> list[str]:
    """Run the named actions and return those that ran. Raises ApplyError with the command's last words."""
    done = due(host, names)
    for name in done:
        argv = _action(name).argv
        result = host.act(argv)
        if result.code and not (name.startswith((_RESTART, _STOP)) and result.code == _NO_SUCH_UNIT):
            words = (result.err or result.out).strip().splitlines()
            raise ApplyError(f"{' '.join(argv)} failed with code {result.code}: {words[-1] if words else 'no message'}")
    return done
