# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What /sys/devices/system/cpu says: frequency policies, idle states, SMT, and what an earlier call of ours set.

Sources: Documentation/admin-guide/pm/{cpufreq,intel_pstate,amd-pstate,cpuidle}.rst,
Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-devices-power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine import knobs
from ..engine.change import Place
from ..engine.machine import Machine
from ..values import cpus

CPU = "/sys/devices/system/cpu"
GOVERNOR = "scaling_governor"
EPP = "energy_performance_preference"
MIN, MAX = "scaling_min_freq", "scaling_max_freq"  # kHz
BOOST = "boost"
SMT_CONTROL = f"{CPU}/smt/control"
GLOBAL_BOOST = f"{CPU}/cpufreq/boost"
NO_TURBO = f"{CPU}/intel_pstate/no_turbo"

# Who else writes these files, and what shows that it runs: a control group, or for one-shot units a folder.
_WRITERS = {
    "tuned.service": "",
    "power-profiles-daemon.service": "",
    "auto-cpufreq.service": "",
    "tlp.service": "/run/tlp",
}


@dataclass(frozen=True)
class Policy:
    """One cpufreq policy: the CPUs that share a clock, its driver and its files by name."""

    name: str
    cpus: tuple[int, ...]
    driver: str
    files: Mapping[str, str]
    read_only: frozenset[str] = frozenset()
    appears: bool = False

    def path(self, attribute: str) -> str:
        return f"{CPU}/cpufreq/{self.name}/{attribute}"

    def khz(self, attribute: str) -> int:
        text = self.files.get(attribute, "")
        return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class IdleState:
    """One idle state of one CPU: its folder, its exit latency in microseconds, its `disable` file."""

    folder: str
    latency_us: int
    disable: str
    writable: bool


@dataclass(frozen=True)
class Idle:
    """The idle states of one CPU and its resume latency bound ("0": none, "n/a": no latency at all)."""

    states: tuple[IdleState, ...]
    pm_qos: str | None
    writable: bool


@dataclass(frozen=True)
class Owned:
    """A key that an earlier call of the same owner set: where it was and whether it is still as we left it."""

    place: Place
    original: Any
    live: Any
    ours: bool
    touched_by: str


@dataclass(frozen=True)
class Snapshot:
    online: tuple[int, ...]
    present: tuple[int, ...]
    siblings: Mapping[int, tuple[int, ...]]
    smt: str | None
    boost: tuple[str, str] | None
    policies: tuple[Policy, ...]
    idle: Mapping[int, Idle]
    owned: Mapping[str, Owned]
    read_only: frozenset[str] = frozenset()
    writers: tuple[str, ...] = ()
    dynamic_epp: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)

    def online_after(self, smt: str | None) -> tuple[int, ...]:
        """The CPUs that are online once SMT is as given: `off` keeps the first thread of each core."""
        if smt in ("off", "forceoff"):
            return tuple(cpu for cpu in self.online if cpu == min(self.siblings.get(cpu) or (cpu,)))
        if smt == "on" and self.smt == "off":
            return tuple(sorted({*self.online, *self.present}))
        return self.online


def look_cpus(machine: Machine, owner: str, with_idle: bool) -> Snapshot:
    """Read what a decision needs; the idle states (five and more files per CPU) only when asked for."""
    host = machine.host
    online = cpus("online", host.text(f"{CPU}/online") or "")
    present = cpus("present", host.text(f"{CPU}/present") or "")
    switches = [path for path in (GLOBAL_BOOST, NO_TURBO) if host.text(path) is not None]
    policies = tuple(
        policy
        for name in sorted(host.names(f"{CPU}/cpufreq"), key=_number)
        if name.startswith("policy")
        for policy in [_look_policy(machine, name)]
        if policy
    )
    return Snapshot(
        online=online,
        present=present,
        siblings={cpu: _siblings(machine, cpu) for cpu in online},
        smt=host.text(SMT_CONTROL),
        boost=(switches[0], host.text(switches[0]) or "") if switches else None,
        policies=policies,
        idle={cpu: _look_idle(machine, cpu) for cpu in {*online, *present}} if with_idle else {},
        owned=_look_owned(machine, owner),
        read_only=frozenset(path for path in (SMT_CONTROL, *switches) if not host.writable(path)),
        writers=tuple(unit for unit, sign in _WRITERS.items() if _runs(machine, unit, sign)),
        dynamic_epp=host.text(f"{CPU}/amd_pstate/dynamic_epp") == "enabled",
        refused={
            key: reason
            for policy in policies
            for key in [f"cpufreq:{policy.name}/{EPP}"]
            for reason in [machine.ledger.refusal(key)]
            if reason
        },
    )


def _number(name: str) -> tuple[int, str]:
    digits = "".join(ch for ch in name if ch.isdigit())
    return int(digits or 0), name


def _siblings(machine: Machine, cpu: int) -> tuple[int, ...]:
    folder = f"{CPU}/cpu{cpu}/topology"
    text = machine.host.text(f"{folder}/thread_siblings_list")
    return cpus(folder, text) if text else (cpu,)


def _look_policy(machine: Machine, name: str) -> Policy | None:
    """None for a policy whose CPUs are all offline: the kernel answers its files with EBUSY."""
    host, folder = machine.host, f"{CPU}/cpufreq/{name}"
    governor = host.text(f"{folder}/{GOVERNOR}")
    if governor is None:
        return None
    files = {GOVERNOR: governor}
    for attribute in (
        EPP,
        MIN,
        MAX,
        BOOST,
        "cpuinfo_min_freq",
        "cpuinfo_max_freq",
        "base_frequency",
        "scaling_available_governors",
        "energy_performance_available_preferences",
    ):
        text = host.text(f"{folder}/{attribute}")
        if text is not None:
            files[attribute] = text
    return Policy(
        name,
        cpus(folder, (host.text(f"{folder}/related_cpus") or "").split()),
        host.text(f"{folder}/scaling_driver") or "unknown",
        files,
        frozenset(
            item for item in (GOVERNOR, EPP, MIN, MAX, BOOST) if item in files and not host.writable(f"{folder}/{item}")
        ),
    )


def _look_idle(machine: Machine, cpu: int) -> Idle:
    host, folder = machine.host, f"{CPU}/cpu{cpu}/cpuidle"
    states = []
    for name in sorted(host.names(folder), key=_number):
        latency, disable = host.number(f"{folder}/{name}/latency"), host.text(f"{folder}/{name}/disable")
        if latency is not None and disable is not None:
            states.append(IdleState(name, latency, disable, host.writable(f"{folder}/{name}/disable")))
    bound = f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us"
    return Idle(tuple(states), host.text(bound), host.writable(bound))


def _look_owned(machine: Machine, owner: str) -> dict[str, Owned]:
    found = {}
    for key, entry in machine.ledger.owned_by(owner):
        place = Place(key, entry.kind, entry.address)
        live = knobs.read(machine, place)
        found[key] = Owned(place, entry.original, live, entry.is_ours(live), entry.touched_by)
    return found


def _runs(machine: Machine, unit: str, sign: str) -> bool:
    groups = (f"/sys/fs/cgroup/system.slice/{unit}", f"/sys/fs/cgroup/systemd/system.slice/{unit}")
    return any(machine.host.is_dir(path) for path in (*groups, sign) if path)


def taken_away_with(place: Place) -> tuple[str, int]:
    """What a place belongs to and goes offline with: ("policy", 8), ("cpu", 8), or ("", -1) for what stays."""
    parts = place.address.split("/")
    if "/cpuidle/" in place.address:
        return "cpu", int(parts[5][len("cpu") :])
    if place.address.startswith(f"{CPU}/cpufreq/policy"):
        return "policy", int(parts[6][len("policy") :])
    return "", -1
