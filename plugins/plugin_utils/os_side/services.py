# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services a workstation does not need, and merging of equal memory for single units.

Sources: systemctl(1), mask; systemd.exec(5), MemoryKSM; Documentation/admin-guide/mm/ksm.rst.
"""

from __future__ import annotations

import re

from ...module_utils.errors import InputError
from .parts import Parts, Wishes

# What can be missed on a machine that serves models: name -> the units that start it. They are masked, because D-Bus,
# sockets and paths start a unit that is only disabled.
NOT_NEEDED: dict[str, tuple[str, ...]] = {
    "ModemManager": ("ModemManager.service",),
    "apport": ("apport.service", "apport-autoreport.path", "apport-autoreport.timer"),
    "avahi-daemon": ("avahi-daemon.service", "avahi-daemon.socket"),
    "bluetooth": ("bluetooth.service",),
    "colord": ("colord.service",),
    "cups": ("cups.service", "cups.socket", "cups.path", "cups-browsed.service"),
    "geoclue": ("geoclue.service",),
    "kerneloops": ("kerneloops.service",),
    "motd-news": ("motd-news.timer", "motd-news.service"),
    "popularity-contest": ("popularity-contest.timer",),
    "switcheroo-control": ("switcheroo-control.service",),
    "tracker-miner-fs-3": ("tracker-miner-fs-3.service",),
    "ua-timer": ("ua-timer.timer",),
    "whoopsie": ("whoopsie.service", "whoopsie.path"),
    "wpa_supplicant": ("wpa_supplicant.service",),
}
# Without these a machine does not boot, is not reached, or does not log.
_VITAL = re.compile(
    r"^(ssh|sshd|dbus(-broker)?|NetworkManager|networking|polkit|getty|serial-getty|user|init|docker|containerd|"
    r"nvidia-persistenced|systemd-(?!oomd|timesyncd|resolved)[a-z-]+)([@.].*)?$"
)
_KSM_SYSTEMD = 254


def disabled(wishes: Wishes) -> Parts:
    """os_tuning_services_disabled: names of our list, and others that os_tuning_services_accept names as well."""
    wanted = wishes.names("os_tuning_services_disabled")
    accepted = set(wishes.names("os_tuning_services_accept"))
    parts = Parts()
    for name in wanted:
        units = NOT_NEEDED.get(name.removesuffix(".service")) or (name if "." in name else f"{name}.service",)
        if _VITAL.match(name):
            raise InputError(f"os_tuning_services_disabled: {name} is never stopped, the machine needs it")
        if name.removesuffix(".service") not in NOT_NEEDED and name not in accepted:
            raise InputError(
                f"os_tuning_services_disabled: {name} is not one of {', '.join(NOT_NEEDED)}; "
                "name it in os_tuning_services_accept as well when nothing on this machine needs it"
            )
        parts.units += [{"name": unit, "unit_file": "masked", "active": False} for unit in units]
        parts.optional += units
    running = list(wishes.fact("systemd", "services") or [])
    parts.running = running
    parts.not_needed = [
        name for name, units in NOT_NEEDED.items() if name not in wanted and any(unit in running for unit in units)
    ]
    return parts


def ksm(wishes: Wishes) -> Parts:
    """os_tuning_ksm_units: units of one security domain whose equal anonymous pages the kernel may merge.

    Merging is visible to a neighbour by its timing and never helps model files, which are page cache. It is switched on
    in the kernel only with the units that asked for it, and a unit takes part from its next start on.
    """
    name = "os_tuning_ksm_units"
    units = wishes.names(name)
    if not units:
        return Parts()
    version = wishes.fact("systemd", "version")
    if version is not None and version < _KSM_SYSTEMD:
        reason = f"MemoryKSM needs systemd {_KSM_SYSTEMD}, this machine has {version}"
        return wishes.impossible(name, "ksm", reason)
    parts = Parts(sysfs={"/sys/kernel/mm/ksm/run": 1})
    for unit in units:
        if not re.fullmatch(r"[A-Za-z0-9:_.\\@-]+\.service", unit):
            raise InputError(f"{name}: {unit!r} is not the name of a service; write one like 'agents.service'")
        parts.drop_in(f"/etc/systemd/system/{unit}.d/50-ai-workstation-ksm.conf", "[Service]", "MemoryKSM=yes")
    return parts
