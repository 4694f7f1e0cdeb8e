# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A kernel command line that boots once on trial before it becomes the default.

Our script in /etc/grub.d adds the default entry once more, with the new parameters, and next_entry in GRUB's
environment block boots it once: GRUB clears that before it loads the kernel, so whatever happens then, the next boot is
the old one. A kernel that panics, oopses or hangs reboots by itself; a machine that comes up and is not confirmed in
time (its network is gone) is rebooted by a service that only the trial's entry names (systemd.wants). A mark on the
command line says which trial runs.

Sources: GRUB's manual (next_entry, environment block), 00_header of Debian and Ubuntu, kernel-parameters.rst,
kernel-command-line(7).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..doors.host import Host
from ..engine.actions import stop
from ..engine.change import Draft, Place
from ..engine.grub import GRUBENV, grub_environment
from ..engine.machine import Machine
from .command_line import Parameter, by_name, print_command_line
from .drop_in import HEADER, FileLook, look_file, sysctl_overrides, sysctl_path, want_file
from .grub_menu import Entry, default_entry, on_trial, reads_next_entry

ID = "ai-workstation-trial"
SCRIPT = f"/etc/grub.d/99_{ID}"  # after all others: a default that is a number stays what it is
SERVICE = f"{ID}.service"
_UNIT = f"/etc/systemd/system/{SERVICE}"
_GRUB_CFG = "/boot/grub/grub.cfg"
_MARK = "ai_workstation.trial"  # with a dot: the kernel takes it for the option of a module that is not there
_TRIES = "# tries: "
_END = "AI_WORKSTATION_TRIAL"
_NEXT = Place("grub:next_entry", "grub_next_entry", GRUBENV)

# File systems (as grub-probe names them) in which GRUB can write the environment block.
_WRITABLE = ("ext2", "fat", "xfs")

# What makes a kernel that is stuck reboot: parameter, value, sysctl, the sysctl's value by the parameter's.
_SAFETY: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("panic", "30", "kernel.panic", {}),
    ("oops", "panic", "kernel.panic_on_oops", {"panic": "1"}),
    ("softlockup_panic", "1", "kernel.softlockup_panic", {}),
    ("hung_task_panic", "1", "kernel.hung_task_panic", {}),
)
_WATCHDOG = ("systemd.watchdog_sec", "180")

_SERVICE_TEXT = f"""{HEADER}# Only the boot menu's entry on trial starts it; the next call after a good boot stops it.
[Unit]
Description=Go back to the old kernel command line unless the one on trial is confirmed
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/bin/sh -c 'sleep {{seconds}}; systemctl reboot || systemctl --force reboot'
"""


@dataclass(frozen=True)
class TrialLook:
    """What there is of a trial. tries: the parameters of the one that our script has; tried: GRUB has booted it.

    resets: sysctls that the running trial has set, each with the value it has and the one without the trial.
    """

    script: FileLook
    service: FileLook
    next_entry: str | None
    chosen: bool  # by us, as the ledger knows
    back: str | None  # next_entry as it was before us
    tries: str
    tried: bool
    in_menu: bool
    running: str
    resets: tuple[tuple[str, str, str], ...] = ()
    obstacle: str = ""
    default: Entry | None = None
    watchdog: bool = False


def mark(present: Sequence[Parameter], path: str) -> str:
    """Names one set of parameters, short enough for the command line."""
    return hashlib.sha256(f"{path} {print_command_line(present)}".encode()).hexdigest()[:12]


def look_trial(machine: Machine, running: Sequence[Parameter], wanted: bool) -> TrialLook:
    """`wanted`: a trial is to be made, so that whether it can be made is worth asking."""
    host = machine.host
    script, service = look_file(machine, SCRIPT), look_file(machine, _UNIT)
    text = script.state.content if script.state and script.ours else ""
    environment = grub_environment(host) or {}
    live, entry = environment.get("next_entry"), machine.ledger.entries.get(_NEXT.key)
    # GRUB leaves it empty, not absent. A run that was killed before it came to next_entry has started no trial.
    booted = live == "" and entry is not None and not (entry.intent and entry.original == "")
    menu = host.text(_GRUB_CFG) or ""
    default = default_entry(menu, environment.get("saved_entry", "")) if wanted else None
    return TrialLook(
        script,
        service,
        live,
        entry is not None,
        entry.original if entry else (None if live == ID else live),
        next((line[len(_TRIES) :] for line in text.splitlines() if line.startswith(_TRIES)), ""),
        bool(text) and booted,
        f"'{ID}'" in menu,
        str((by_name(running).get(_MARK) or [""])[-1]),
        tuple(_resets(machine, running)),
        _obstacle(host, menu, running, default, live) if wanted else "",
        default,
        host.exists("/dev/watchdog0"),
    )


def _obstacle(host: Host, menu: str, running: Sequence[Parameter], default: Entry | None, live: str | None) -> str:
    """Why no trial can be made here; nothing of it may be left to chance at a boot."""
    environment = _no_environment(host)
    if "BOOT_IMAGE" not in by_name(running):
        return "this machine was not booted through GRUB (no BOOT_IMAGE on the running command line)"
    if environment:
        return environment
    if not reads_next_entry(menu):
        return f"{_GRUB_CFG} does not read next_entry; let update-grub make it"
    if default is None or not default.boots_linux:
        return f"the default entry of {_GRUB_CFG} is not one with a Linux kernel"
    if live not in (None, "", ID):
        return f"next_entry is {live!r} already, set by someone else; boot that first, or unset it with grub-editenv"
    return ""


def _no_environment(host: Host) -> str:
    """Why GRUB cannot write its environment block here."""
    if not host.which("grub-editenv") or grub_environment(host) is None:
        return f"{GRUBENV} is no environment block that GRUB can write (make one: grub-editenv {GRUBENV} create)"
    layers = host.run(("grub-probe", "--target=abstraction", "/boot/grub")).out.split()
    system = host.run(("grub-probe", "--target=fs", "/boot/grub")).out.strip()
    if layers or system not in _WRITABLE:
        where = " and ".join([*layers, *([] if system in _WRITABLE else [system or "an unknown file system"])])
        return f"/boot/grub is on {where}, where GRUB cannot clear next_entry, and would boot the trial again and again"
    return ""


def _resets(machine: Machine, running: Sequence[Parameter]) -> list[tuple[str, str, str]]:
    """(sysctl, its value, its value without the trial) where the trial's parameter is what set it."""
    shown = by_name(running)
    if _MARK not in shown:
        return []
    found = []
    for name, value, sysctl, words in _SAFETY:
        live, values = machine.host.text(sysctl_path(sysctl)) or "", shown.get(name, [])
        earlier = str(values[-2]) if len(values) > 1 else "0"
        back = words.get(earlier, earlier)
        configured = sysctl in sysctl_overrides(machine, "", {sysctl: ""})
        if values[-1:] == [value] and live == words.get(value, value) != back and not configured:
            found.append((sysctl, live, back))
    return found


def want_trial(draft: Draft, trial: TrialLook, present: Sequence[Parameter], own: str, path: str, seconds: int) -> None:
    """State that the next boot tries these parameters. own: those that our drop-in has put on the default entry."""
    shown = by_name(present)
    more = [print_command_line(present), f"{_MARK}={mark(present, path)}", f"systemd.wants={SERVICE}"]
    safety = [(name, value) for name, value, _sysctl, _words in _SAFETY]
    safety += [_WATCHDOG] if trial.watchdog else []
    more += [f"{name}={value}" for name, value in safety if name not in shown]
    entry = on_trial(
        trial.default or Entry("", ""), "AI workstation: kernel command line on trial", ID, own.split(), more
    )
    tries = print_command_line(present)
    script = f"#!/bin/sh\n{HEADER}{_TRIES}{tries}\ncat <<'{_END}'\n{entry}{_END}\n"
    units: dict[str, Any] = {"actions": ("daemon-reload", stop(SERVICE)), "scope": "boot"}
    want_file(draft, trial.service, _SERVICE_TEXT.format(seconds=seconds), **units)
    # The entry is in the menu before it is chosen.
    menu: dict[str, Any] = {"actions": ("update-grub",), "scope": "boot", "reboot_required": True, "at_once": True}
    want_file(draft, trial.script, script, 0o755, **menu)
    draft.want(*_next(trial, ID), scope="boot")
    if not trial.in_menu:
        draft.actions.add("update-grub")
    if trial.tried:
        draft.warnings.append(f"the trial of {trial.tries} did not come up and is replaced by this one")
    draft.reboot_reasons.append(f"the next boot tries the kernel command line {tries}")


def _next(trial: TrialLook, value: str | None) -> tuple[str, str, str, Any, Any]:
    return _NEXT.key, _NEXT.kind, _NEXT.address, trial.next_entry, value


def end_choice(draft: Draft, trial: TrialLook) -> None:
    """The first half of the end of a trial: it is not chosen any more, and the kernel is as without it."""
    draft.covered.add(_NEXT.key)
    if trial.next_entry == ID or (trial.next_entry == "" and trial.chosen):
        draft.want(*_next(trial, trial.back), scope="boot", reason="the trial is over")
    for sysctl, live, back in trial.resets:
        key = f"trial:{sysctl}"
        draft.want(key, "text", sysctl_path(sysctl), live, back, original=back, reason="the trial is over")


def end_files(draft: Draft, trial: TrialLook, removed: Sequence[str] = ()) -> None:
    """The second half: its files go, and with them the service that would reboot."""
    for look, action in ((trial.service, ("daemon-reload", stop(SERVICE))), (trial.script, ("update-grub",))):
        if look.state and look.ours:
            more: dict[str, Any] = {"scope": "boot", "actions": action, "reason": "the trial is over"}
            if look is trial.script:
                more["until_reboot"] = tuple(removed)
            want_file(draft, look, None, **more)
        draft.covered.add(f"file:{look.path}")


def trial_keys() -> set[str]:
    """All keys of a trial that act at the next boot."""
    return {_NEXT.key, f"file:{SCRIPT}", f"file:{_UNIT}"}
