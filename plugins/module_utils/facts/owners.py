# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services that write the knobs we write, and whether they run. Read from files, no command is run.

systemd marks what is active with the unit's control group and with /run/systemd/units/invocation:UNIT
(for a oneshot that remains active without a process). Enabled is what a *.wants link pulls in.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..doors.host import Host
from .reading import Facts

# name -> (units, knobs it writes). Several units: distributions name the same service differently.
_KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tuned": (("tuned.service",), ("governor", "epp", "idle_states", "sysctl", "thp", "block", "irq_affinity")),
    "tuned_ppd": (("tuned-ppd.service",), ("governor", "epp")),
    "power_profiles_daemon": (("power-profiles-daemon.service",), ("governor", "epp", "boost")),
    "tlp": (("tlp.service",), ("governor", "epp", "boost", "block")),
    "auto_cpufreq": (("auto-cpufreq.service",), ("governor", "epp", "boost")),
    "thermald": (("thermald.service",), ("max_frequency", "boost")),
    "cpufrequtils": (("cpufrequtils.service",), ("governor", "max_frequency")),
    "cpupower": (("cpupower.service", "linux-cpupower.service"), ("governor", "epp", "max_frequency")),
    "ondemand": (("ondemand.service",), ("governor",)),
    "irqbalance": (("irqbalance.service",), ("irq_affinity",)),
    "systemd_oomd": (("systemd-oomd.service",), ("oom",)),
    "earlyoom": (("earlyoom.service",), ("oom",)),
    "zramswap": (("zramswap.service", "systemd-zram-setup@zram0.service"), ("swap",)),
    "our_zram": (("ai-workstation-zram.service",), ("swap",)),
    "nvidia_persistenced": (("nvidia-persistenced.service",), ("gpu_persistence",)),
    "nvidia_powerd": (("nvidia-powerd.service",), ("gpu_power_limit",)),
    "docker": (("docker.service",), ("containers",)),
}
_ETC, _RUN = "/etc/systemd/system", "/run/systemd/system"
FOLDERS = (_ETC, _RUN, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
GENERATED = ("/run/systemd/generator", "/run/systemd/generator.late")
_GROUPS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/unified/system.slice", "/sys/fs/cgroup/systemd/system.slice")


@dataclass(frozen=True)
class _Units:
    """Names of units by what was seen of them."""

    installed: frozenset[str]
    enabled: frozenset[str]
    active: frozenset[str]


def gather(host: Host) -> list[Facts]:
    """The `owners` section."""
    units = _look(host)
    return [_owner(host, name, *known, units) for name, known in _KNOWN.items()]


def unit_active(host: Host, unit: str) -> bool:
    """Whether one service is active, by the same files."""
    return unit in active_units(host)


def _look(host: Host) -> _Units:
    installed: set[str] = set()
    enabled: set[str] = set()
    for folder in (*FOLDERS, *GENERATED):
        for name in host.names(folder):
            if name.endswith((".wants", ".requires")):
                enabled.update(host.names(f"{folder}/{name}"))
            else:
                installed.add(name)
    return _Units(frozenset(installed), frozenset(enabled), active_units(host))


def active_units(host: Host) -> frozenset[str]:
    """Names of what is active, services above all."""
    invoked = (name.partition(":")[2] for name in host.names("/run/systemd/units") if name.startswith("invocation:"))
    grouped = (name for folder in _GROUPS for name in host.names(folder))
    return frozenset((*invoked, *grouped))


def _owner(host: Host, name: str, candidates: tuple[str, ...], writes: tuple[str, ...], units: _Units) -> Facts:
    unit = next((unit for unit in candidates if _template(unit) in units.installed or unit in units.active), None)
    unit = unit or candidates[0]
    masked = any(host.link(f"{folder}/{unit}") == "/dev/null" for folder in (_ETC, _RUN))
    return {
        "name": name,
        "unit": unit,
        "installed": _template(unit) in units.installed and not _only_masked(host, unit, masked),
        "enabled": unit in units.enabled and not masked,
        "active": unit in units.active,
        "masked": masked,
        "command": _command(host, unit) if unit in units.installed else None,
        "writes": list(writes),
    }


def _command(host: Host, unit: str) -> str | None:
    """ExecStart of the packaged unit, without drop-ins: what a drop-in of ours starts from."""
    for folder in FOLDERS:
        for line in (host.text(f"{folder}/{unit}") or "").splitlines():
            if line.startswith("ExecStart=") and len(line) > len("ExecStart="):
                return line.partition("=")[2].strip()
    return None


def _template(unit: str) -> str:
    stem, at, _instance = unit.partition("@")
    return f"{stem}@.service" if at else unit


def _only_masked(host: Host, unit: str, masked: bool) -> bool:
    """A mask stands for a unit that need not be installed."""
    return masked and not any(host.exists(f"{folder}/{unit}") for folder in (*FOLDERS[2:], *GENERATED))
