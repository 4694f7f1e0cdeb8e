# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading GPUs: which ones a call means, what they have, and whether our record of their locks still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..doors.nvml import Gpu, Nvml, Reading, normal_pci
from ..doors.nvml_binding import NvmlError
from ..engine.machine import Machine
from .nvidia_settings import Wanted

LOCKS = ("gpu_locked_clocks", "memory_locked_clocks")
PROPERTY_NAMES = ("persistence", "power_limit_mw", *LOCKS, "application_clocks", "compute_mode", "ecc", "mig")
UNKNOWN = "unknown"  # no getter and no record: what the lock is nobody can say
_DAEMON = "/run/nvidia-persistenced/nvidia-persistenced.pid"


@dataclass(frozen=True)
class Card:
    """One GPU with all that a decision about it needs. `problem`: why it cannot be asked."""

    gpu: Gpu
    settings: Reading
    graphics_clocks: tuple[int, ...] = ()
    memory_clocks: tuple[int, ...] = ()
    application_graphics: tuple[int, ...] = ()
    processes: int = 0
    locks: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""
    problem: str = ""


def select(name: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs that a user's word means: "all", UUID, PCI address, index, else a part of the name."""
    text = name.strip()
    if text.lower() == "all":
        return list(gpus)
    if text.isdigit():
        return [gpu for gpu in gpus if gpu.index == int(text)]
    exact = [gpu for gpu in gpus if gpu.uuid.lower() == text.lower() or (gpu.pci and gpu.pci == normal_pci(text))]
    whole = [gpu for gpu in gpus if gpu.name.lower() == text.lower()]
    return exact or whole or [gpu for gpu in gpus if text and text.lower() in gpu.name.lower()]


def load_identity(machine: Machine, pci: str, driver: str) -> str:
    """What stays the same as long as the driver keeps what we set on a GPU.

    Boot, driver version, start of nvidia-persistenced, and the inodes of the directories that the
    kernel makes anew when the driver is loaded or the GPU is reset. Inodes rather than times: the
    times of these file systems move whenever the kernel drops an inode from its cache.
    """
    host = machine.host
    daemon = host.text(_DAEMON) or ""
    status = (host.text(f"/proc/{daemon}/stat") or "").rpartition(")")[2].split() if daemon.isdigit() else []
    parts = [
        host.boot_id(),
        driver,
        (host.text("/proc/driver/nvidia/version") or "").partition("\n")[0],
        str(host.inode("/sys/module/nvidia") or ""),
        str(host.inode(f"/proc/driver/nvidia/gpus/{pci}") or ""),
        f"{daemon}@{status[19]}" if len(status) > 19 else "",  # field 22 of proc_pid_stat(5): start time
    ]
    return "|".join(parts)


def daemon_forbids_persistence(machine: Machine) -> bool:
    """Whether nvidia-persistenced runs and was told to leave persistence mode off, as Ubuntu starts it."""
    daemon = machine.host.text(_DAEMON) or ""
    return daemon.isdigit() and "--no-persistence-mode" in (machine.host.text(f"/proc/{daemon}/cmdline") or "")


def look_card(machine: Machine, gpu: Gpu, wanted: Wanted, driver: str) -> Card:
    """Read one GPU; only the lists that the wanted settings are checked against."""
    if gpu.problem:
        return Card(gpu, Reading({}), problem=gpu.problem)
    nvml: Nvml = machine.nvml()
    try:
        settings = nvml.settings(gpu.uuid)
        memory = tuple(nvml.memory_clocks(gpu.uuid)) if _needs_lists(wanted) else ()
        app = wanted.application_clocks
        at_app = app.memory if app and app.memory in memory else None
        identity = load_identity(machine, gpu.pci, driver)
        busy = wanted.mig is not None and settings["mig"] is not None
        return Card(
            gpu,
            settings,
            # At the highest memory clock the list is whole; at the idle ones it ends early.
            graphics_clocks=tuple(nvml.graphics_clocks(gpu.uuid, memory[-1])) if memory else (),
            memory_clocks=memory,
            application_graphics=tuple(nvml.graphics_clocks(gpu.uuid, at_app)) if at_app else (),
            processes=len(nvml.processes(gpu.uuid)) if busy else 0,
            locks=_locks(machine, gpu, settings, identity),
            refusals=_refusals(machine, gpu),
            identity=identity,
        )
    except NvmlError as error:
        return Card(gpu, Reading({}), problem=str(error))


def _needs_lists(wanted: Wanted) -> bool:
    asked = (wanted.gpu_clocks, wanted.memory_clocks, wanted.application_clocks)
    return any(item is not None and not item.reset for item in asked)


def _locks(machine: Machine, gpu: Gpu, settings: Reading, identity: str) -> dict[str, str]:
    """What we last made of each lock, as far as that can still be true."""
    found = {name: machine.ledger.recorded(key_of(gpu, name), identity) or UNKNOWN for name in LOCKS}
    if settings["persistence"] != "on":
        # The driver may have let go of the idle GPU, and of a lock with it.
        found = {name: value if value == "reset" else UNKNOWN for name, value in found.items()}
    return found


def _refusals(machine: Machine, gpu: Gpu) -> dict[str, str]:
    found = {key: machine.ledger.refusal(key) for key in (key_of(gpu, name) for name in PROPERTY_NAMES)}
    return {key: reason for key, reason in found.items() if reason}


def key_of(gpu: Gpu, name: str) -> str:
    """The key of one property of one GPU in plan and ledger."""
    return f"gpu:{gpu.uuid}/{name}"


def describe(card: Card) -> dict[str, Any]:
    """What the driver has on one GPU, as the module returns it; watts and MHz."""
    found: dict[str, Any] = {"uuid": card.gpu.uuid, "name": card.gpu.name, "pci": card.gpu.pci, "index": card.gpu.index}
    if card.problem:
        return {**found, "problem": card.problem}
    values = card.settings
    low, high = values["power_range_mw"] or (None, None)
    limits = {"limit": values["power_limit_mw"], "enforced": values["power_enforced_mw"]}
    limits.update({"default": values["power_default_mw"], "min": low, "max": high})
    return {
        **found,
        "persistence": values["persistence"],
        "power_watts": {name: None if limit is None else limit / 1000 for name, limit in limits.items()},
        "clocks_mhz": {name: values[f"{name}_mhz"] for name in ("graphics", "sm", "memory")},
        "locked_clocks": {
            "gpu": card.locks.get(LOCKS[0], UNKNOWN),
            "memory": card.locks.get(LOCKS[1], UNKNOWN),
            "source": "our record: the driver has no getter, so this is not verifiable",
        },
        "application_clocks": values["application_clocks"],
        "compute_mode": values["compute_mode"],
        "ecc": _modes(values["ecc"]),
        "mig": _modes(values["mig"]),
    }


def _modes(pair: Sequence[str] | None) -> dict[str, str] | None:
    return None if pair is None else {"current": pair[0], "pending": pair[1]}
