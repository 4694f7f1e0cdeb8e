# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What brings back, after a boot, a resume or a driver load, the values that nothing native keeps.

The program (engine/program.py), one unit that runs it, and what starts the unit again. Sources: systemd.unit(5),
systemd.path(5), systemd.exec(5), systemd.special(7), udev(7).

A driver that was bound leaves a flag in /run, and a path unit starts the service as long as the flag is there. The
service takes the flag away before it looks at anything: what is bound while it works is a new flag, and so a new
run. Ten events are one run or two, and none is lost. What was not there (a network card asks for its interrupts when
it is brought up, and no event says so) is looked for again a few times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine import program
from ..engine.change import Draft
from ..engine.machine import Machine
from ..engine.switch import PATH as UNCONFIRMED
from . import managed_files
from .drop_in import FileLook, look_file, want_folders

if TYPE_CHECKING:
    # What is named here travels with the call: it is inside the program.
    from ..facts import writers  # noqa: F401
    from ..on_host import main  # noqa: F401
    from . import (  # noqa: F401
        block_device_settings,
        cpu_governor,
        hugepages,
        irq_affinity,
        kernel_command_line,
        kernel_settings,
        nvidia_gpu_state,
        unit_state,
    )

NAME = "boot_unit"

_KEY = f"program:{program.PATH}"
SERVICE, WATCH, LATER = "ai-workstation.service", "ai-workstation.path", "ai-workstation-later.service"
RESTORE = "ai-workstation-restore.service"
_UNITS = "/etc/systemd/system"
_RULES = "/etc/udev/rules.d/90-ai-workstation-events.rules"
_FLAG = "/run/ai-workstation.event"
_SLEEP = "suspend.target hibernate.target hybrid-sleep.target suspend-then-hibernate.target"

# Not here: tlp.service, which starts after multi-user.target. To wait for it would be a cycle.
_WRITERS = (
    "nvidia-persistenced.service nvidia-powerd.service irqbalance.service tuned.service "
    "power-profiles-daemon.service cpufrequtils.service"
)

_SERVICE_TEXT = f"""\
[Unit]
Description=CPU, interrupt and GPU settings of the AI workstation
# Drivers and those who write the same values come first; network cards ask for their interrupts when they are up.
After=systemd-modules-load.service systemd-sysctl.service network-online.target
After={_WRITERS}
# A sleep target is reached when the machine is awake again.
After={_SLEEP}
Before=docker.service
OnFailure={LATER}
# Many drivers bound at once are no fault of this unit.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStartPre=/usr/bin/rm -f {_FLAG}
ExecStart={program.PATH} boot
TimeoutStartSec=120
ProtectSystem=strict
ReadWritePaths=/run /var/lib/ai-workstation
ProtectHome=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target {_SLEEP}
"""

_LATER_TEXT = f"""\
[Unit]
Description=Another try of {SERVICE}
# Not for ever: a GPU that is gone stays gone.
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=oneshot
ExecStart=/usr/bin/sleep 10
ExecStart=/usr/bin/touch {_FLAG}
"""

# Not shut in as the unit above is: what goes back may be any of our files.
_RESTORE_TEXT = f"""\
[Unit]
Description=Changes that nobody has confirmed go back
ConditionPathExists={UNCONFIRMED}
Before={SERVICE}

[Service]
Type=oneshot
ExecStart={program.PATH} restore --boot
TimeoutStartSec=600

[Install]
WantedBy=multi-user.target
"""

_WATCH_TEXT = f"""\
[Unit]
Description=Drivers that were bound, for {SERVICE}

[Path]
PathExists={_FLAG}

[Install]
WantedBy=multi-user.target
"""

_RULES_TEXT = f"""\
ACTION=="bind", SUBSYSTEM=="pci|virtio", RUN+="/usr/bin/touch {_FLAG}"
ACTION=="online", SUBSYSTEM=="cpu", RUN+="/usr/bin/touch {_FLAG}"
"""

_FILES = managed_files.parse(
    {
        "files": [
            {"path": f"{_UNITS}/{SERVICE}", "content": _SERVICE_TEXT, "actions": ["daemon-reload"]},
            {"path": f"{_UNITS}/{LATER}", "content": _LATER_TEXT, "actions": ["daemon-reload"]},
            {"path": f"{_UNITS}/{WATCH}", "content": _WATCH_TEXT, "actions": ["daemon-reload"]},
            {"path": f"{_UNITS}/{RESTORE}", "content": _RESTORE_TEXT, "actions": ["daemon-reload"]},
            {"path": _RULES, "content": _RULES_TEXT, "actions": ["udev-reload"]},
        ],
        "units": [
            {"name": SERVICE, "unit_file": "enabled"},
            {"name": WATCH, "unit_file": "enabled", "active": True},
            {"name": RESTORE, "unit_file": "enabled"},
        ],
    }
)


@dataclass(frozen=True)
class Desired:
    enabled: bool
    only_join: bool


@dataclass(frozen=True)
class Snapshot:
    """why_not: why this machine cannot have it. live, wanted: the program, by what is inside."""

    why_not: str
    folder: FileLook | None = None
    foreign: bool = False
    live: str | None = None
    wanted: str = ""
    files: managed_files.Snapshot | None = None


def parse(params: Mapping[str, Any]) -> Desired:
    return Desired(bool(params.get("enabled")), bool(params.get("only_join")))


def look(machine: Machine, desired: Desired) -> Snapshot:
    host = machine.host
    if not desired.enabled:
        return Snapshot("")
    if not host.is_dir("/run/systemd/system"):
        return Snapshot("systemd does not run here")
    if not host.exists(program.PYTHON):
        return Snapshot(f"there is no {program.PYTHON}, which the program runs with")
    live = program.read(machine, program.PATH)
    return Snapshot(
        "",
        look_file(machine, program.PATH),
        live is not None and not program.is_ours(machine, program.PATH) and _KEY not in machine.ledger.entries,
        live,
        program.wanted(machine),
        managed_files.look(machine, _FILES),
    )


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(shared=True)
    if not desired.enabled:
        return draft
    if snapshot.why_not or snapshot.folder is None or snapshot.files is None:
        draft.skip(NAME, snapshot.why_not)
        return draft
    if snapshot.folder.read_only:
        draft.cannot(_KEY, "the file system is read-only")
    elif snapshot.foreign:
        draft.cannot(_KEY, "this file exists and is not ours; move it away")
    else:
        want_folders(draft, snapshot.folder)
        draft.want(_KEY, "program", program.PATH, snapshot.live, snapshot.wanted, scope="persistent")
    rest = managed_files.decide(_FILES, snapshot.files)
    draft.changes += rest.changes
    draft.holds += rest.holds
    draft.refusals += rest.refusals
    draft.skipped += rest.skipped
    draft.covered |= rest.covered
    if desired.only_join:
        draft.changes.clear()
    return draft
