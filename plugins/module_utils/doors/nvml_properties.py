# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can be asked of one GPU and set on it: names, canonical forms and the NVML calls behind them.

Three tables: PROPERTIES (read and write, for the engine), SETTINGS and HARDWARE (read together). A
getter takes the session of doors/nvml.py and the driver's handle of a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from .nvml_binding import NvmlError

if TYPE_CHECKING:
    from .nvml import Nvml

Getter = Callable[["Nvml", Any], Any]
Setter = Callable[["Nvml", Any, Any], None]

_COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
_GRAPHICS, _SM, _MEMORY = 0, 1, 2  # nvmlClockType_t
_OFF_ON = ("off", "on")


def _get(function: str, *arguments: Any) -> Getter:
    return lambda nvml, handle: nvml.call(function, handle, *arguments)


def _part(function: str, index: int, table: tuple[str, ...] | None = None) -> Getter:
    """One of the two numbers that a getter returns, as a word of the table."""

    def getter(nvml: Nvml, handle: Any) -> Any:
        number = nvml.call(function, handle)[index]
        return table[number] if table else number

    return getter


def _read_nothing(_nvml: Nvml, _handle: Any) -> None:
    return None


def _read_persistence(nvml: Nvml, handle: Any) -> str:
    return _OFF_ON[nvml.call("nvmlDeviceGetPersistenceMode", handle)]


def _write_persistence(nvml: Nvml, handle: Any, value: Any) -> None:
    nvml.call("nvmlDeviceSetPersistenceMode", handle, _OFF_ON.index(value))


def _write_power_limit(nvml: Nvml, handle: Any, value: Any) -> None:
    nvml.call("nvmlDeviceSetPowerManagementLimit", handle, int(value))


def _clock_lock(setter: str, reset: str) -> Setter:
    """A writer of "min-max" in MHz. "reset" takes the lock off.

    So does "unknown", what the engine puts back when nobody knows what was before: on a card
    without such a lock there is nothing to put back.
    """

    def write(nvml: Nvml, handle: Any, value: Any) -> None:
        if value == "unknown":
            nvml.ask(reset, handle)
        elif value == "reset":
            nvml.call(reset, handle)
        else:
            low, _dash, high = str(value).partition("-")
            nvml.call(setter, handle, int(low), int(high))

    return write


def _read_compute_mode(nvml: Nvml, handle: Any) -> str:
    mode = nvml.call("nvmlDeviceGetComputeMode", handle)
    return _COMPUTE_MODES.get(mode, f"mode {mode}")


def _write_compute_mode(nvml: Nvml, handle: Any, value: Any) -> None:
    codes = {word: code for code, word in _COMPUTE_MODES.items()}
    nvml.call("nvmlDeviceSetComputeMode", handle, codes[value])


def _write_ecc(nvml: Nvml, handle: Any, value: Any) -> None:
    nvml.call("nvmlDeviceSetEccMode", handle, _OFF_ON.index(value))


def _write_mig(nvml: Nvml, handle: Any, value: Any) -> None:
    status = nvml.call("nvmlDeviceSetMigMode", handle, _OFF_ON.index(value))
    # The mode may be stored and its activation fail: IN_USE and RESET_REQUIRED say "pending", which
    # read-back sees as the pending mode; anything else is a failure of the call.
    if status not in (0, 16, 19):
        raise NvmlError(int(status), "nvmlDeviceSetMigMode (activation)")


def _application_clocks(function: str) -> Getter:
    def getter(nvml: Nvml, handle: Any) -> str:
        return f"{nvml.call(function, handle, _MEMORY)},{nvml.call(function, handle, _GRAPHICS)}"

    return getter


_default_application_clocks = _application_clocks("nvmlDeviceGetDefaultApplicationsClock")


def _write_application_clocks(nvml: Nvml, handle: Any, value: Any) -> None:
    if value == _default_application_clocks(nvml, handle):
        nvml.call("nvmlDeviceResetApplicationsClocks", handle)
        return
    memory, _comma, graphics = str(value).partition(",")
    nvml.call("nvmlDeviceSetApplicationsClocks", handle, int(memory), int(graphics))


# name -> (read, write). Canonical forms: "on" or "off", mW, "min-max" in MHz or "reset", a word,
# "memory,graphics" in MHz. Of ECC and MIG it is the pending mode that can be set.
PROPERTIES: dict[str, tuple[Getter, Setter]] = {
    "persistence": (_read_persistence, _write_persistence),
    "power_limit_mw": (_get("nvmlDeviceGetPowerManagementLimit"), _write_power_limit),
    "gpu_locked_clocks": (
        _read_nothing,
        _clock_lock("nvmlDeviceSetGpuLockedClocks", "nvmlDeviceResetGpuLockedClocks"),
    ),
    "memory_locked_clocks": (
        _read_nothing,
        _clock_lock("nvmlDeviceSetMemoryLockedClocks", "nvmlDeviceResetMemoryLockedClocks"),
    ),
    "compute_mode": (_read_compute_mode, _write_compute_mode),
    "ecc": (_part("nvmlDeviceGetEccMode", 1, _OFF_ON), _write_ecc),
    "mig": (_part("nvmlDeviceGetMigMode", 1, _OFF_ON), _write_mig),
    "application_clocks": (_application_clocks("nvmlDeviceGetApplicationsClock"), _write_application_clocks),
}


def _power_range(nvml: Nvml, handle: Any) -> list[int]:
    return [int(limit) for limit in nvml.call("nvmlDeviceGetPowerManagementLimitConstraints", handle)]


# What settings() returns; powers in mW.
SETTINGS: dict[str, Getter] = {
    "persistence": _read_persistence,
    "power_limit_mw": _get("nvmlDeviceGetPowerManagementLimit"),
    "power_enforced_mw": _get("nvmlDeviceGetEnforcedPowerLimit"),
    "power_default_mw": _get("nvmlDeviceGetPowerManagementDefaultLimit"),
    "power_range_mw": _power_range,
    "compute_mode": _read_compute_mode,
    "ecc": lambda nvml, handle: [_OFF_ON[mode] for mode in nvml.call("nvmlDeviceGetEccMode", handle)],
    "mig": lambda nvml, handle: [_OFF_ON[mode] for mode in nvml.call("nvmlDeviceGetMigMode", handle)],
    "application_clocks": _application_clocks("nvmlDeviceGetApplicationsClock"),
    "default_application_clocks": _default_application_clocks,
    "graphics_mhz": _get("nvmlDeviceGetClockInfo", _GRAPHICS),
    "sm_mhz": _get("nvmlDeviceGetClockInfo", _SM),
    "memory_mhz": _get("nvmlDeviceGetClockInfo", _MEMORY),
}


def _bytes(function: str, *fields: str) -> Getter:
    return lambda nvml, handle: [
        int(getattr(found, name)) for found in [nvml.call(function, handle)] for name in fields
    ]


def processes(nvml: Nvml, handle: Any) -> list[dict[str, Any]]:
    """The processes that use a GPU, by pid; type C, G or CG as nvidia-smi prints it."""
    found: dict[int, dict[str, Any]] = {}
    for kind in ("Compute", "Graphics"):
        for process in nvml.ask(f"nvmlDeviceGet{kind}RunningProcesses_v3", handle) or []:
            entry = found.setdefault(process.pid, {"pid": process.pid, "type": "", "used_bytes": process.usedGpuMemory})
            entry["type"] += kind[0]
    return [found[pid] for pid in sorted(found)]


# What hardware() returns: sizes in bytes, clocks in MHz, link generations and lanes as numbers.
HARDWARE: dict[str, Getter] = {
    "memory_bytes": _bytes("nvmlDeviceGetMemoryInfo", "total", "used"),
    "bar1_bytes": _bytes("nvmlDeviceGetBAR1MemoryInfo", "bar1Total", "bar1Used"),
    "pcie_generation": _get("nvmlDeviceGetCurrPcieLinkGeneration"),
    "pcie_generation_max": _get("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_generation_card": _get("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
    "pcie_width": _get("nvmlDeviceGetCurrPcieLinkWidth"),
    "pcie_width_max": _get("nvmlDeviceGetMaxPcieLinkWidth"),
    "graphics_mhz_max": _get("nvmlDeviceGetMaxClockInfo", _GRAPHICS),
    "memory_mhz_max": _get("nvmlDeviceGetMaxClockInfo", _MEMORY),
    "performance_state": _get("nvmlDeviceGetPerformanceState"),
    "event_reasons": _get("nvmlDeviceGetCurrentClocksEventReasons"),
    "temperature_celsius": _get("nvmlDeviceGetTemperature", 0),
    "power_draw_mw": _get("nvmlDeviceGetPowerUsage"),
    "compute_capability": lambda nvml, handle: ".".join(
        str(part) for part in nvml.call("nvmlDeviceGetCudaComputeCapability", handle)
    ),
    "vbios": _get("nvmlDeviceGetVbiosVersion"),
    "minor_number": _get("nvmlDeviceGetMinorNumber"),
    "numa_node": _get("nvmlDeviceGetNumaNodeId"),
    "display_active": lambda nvml, handle: bool(nvml.call("nvmlDeviceGetDisplayActive", handle)),
    "processes": processes,
}


def _utilization(nvml: Nvml, handle: Any) -> int:
    return int(nvml.call("nvmlDeviceGetUtilizationRates", handle).gpu)


# What changes from one moment to the next: the link, and how busy the card is (percent of the last sample period).
LINK: dict[str, Getter] = {
    "pcie_generation": HARDWARE["pcie_generation"],
    "pcie_width": HARDWARE["pcie_width"],
    "utilization_percent": _utilization,
}


def _ecc_errors(kind: int) -> Getter:
    """Memory errors since the driver was loaded; nvmlMemoryErrorType_t, then nvmlEccCounterType_t (0: volatile)."""
    return _get("nvmlDeviceGetTotalEccErrors", kind, 0)


# What a monitor asks for every few seconds.
MOMENT: dict[str, Getter] = {
    **LINK,
    "pcie_generation_max": HARDWARE["pcie_generation_max"],
    "pcie_width_max": HARDWARE["pcie_width_max"],
    "power_draw_mw": HARDWARE["power_draw_mw"],
    "power_limit_mw": SETTINGS["power_limit_mw"],
    "temperature_celsius": HARDWARE["temperature_celsius"],
    "sm_mhz": SETTINGS["sm_mhz"],
    "memory_mhz": SETTINGS["memory_mhz"],
    "memory_bytes": HARDWARE["memory_bytes"],
    "event_reasons": HARDWARE["event_reasons"],
    "ecc_corrected": _ecc_errors(0),
    "ecc_uncorrected": _ecc_errors(1),
}
