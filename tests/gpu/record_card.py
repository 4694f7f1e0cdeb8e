# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write what a real card answers as a card file for the stand-in (tests/fake_nvml/cards). Reads only.

    .venv/bin/python tests/gpu/record_card.py [INDEX] > tests/fake_nvml/cards/NAME.card

Take it on an idle machine: what the card does under load is not recorded, and the lines at the end say
what has to be filled in by hand. Serial number and UUID are left out on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import Nvml, open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml_binding import NvmlError

MIB = 1 << 20
# Thresholds of nvml.h: shutdown, slowdown, GPU max, then the range of the target.
_THRESHOLDS = {"temp_shutdown": 0, "temp_slowdown": 1, "temp_gpu_max": 3}


def ladder(points: Sequence[int]) -> str:
    """A list of clocks as the card file has it: 180-3090/7.5, whose points are rounded down."""
    low, high = points[0], points[-1]
    for half in range(1, 400):
        step = half / 2
        made = [low + int(number * step) for number in range(len(points))]
        if made == list(points):
            return f"{low}-{high}/{step:g}"
    raise SystemExit(f"the clocks {points} are no even ladder; extend the card format first")


def record(nvml: Nvml, uuid: str) -> dict[str, Any]:
    """Every line of a card file that a getter can fill."""
    handle = nvml.handle(uuid)
    settings, hardware = nvml.settings(uuid), nvml.hardware(uuid)
    pci = nvml.call("nvmlDeviceGetPciInfo_v3", handle)

    def ask(function: str, *arguments: Any, of: Callable[[Any], Any] = lambda found: found) -> Any:
        try:
            found = nvml.ask(function, handle, *arguments)
        except NvmlError as error:
            sys.stderr.write(f"{function}: {error}\n")
            return None
        return None if found is None else of(found)

    power_range = settings["power_range_mw"] or (None, None)
    card: dict[str, Any] = {
        "name": ask("nvmlDeviceGetName"),
        "architecture": ask("nvmlDeviceGetArchitecture"),
        "brand": ask("nvmlDeviceGetBrand"),
        "compute_capability": hardware["compute_capability"],
        "pci_device_id": f"0x{pci.pciDeviceId >> 16:04x}",
        "pci_subsystem_id": f"0x{pci.pciSubSystemId:08x}",
        "vbios": hardware["vbios"],
        "inforom_image": ask("nvmlDeviceGetInforomImageVersion"),
        "inforom_oem": ask("nvmlDeviceGetInforomVersion", 0),
        "inforom_ecc": ask("nvmlDeviceGetInforomVersion", 1),
        "board_part": ask("nvmlDeviceGetBoardPartNumber"),
        "multi_gpu_board": ask("nvmlDeviceGetMultiGpuBoard"),
        "bus_type": ask("nvmlDeviceGetBusType"),
        "cores": ask("nvmlDeviceGetNumGpuCores"),
        "memory_bus_bits": ask("nvmlDeviceGetMemoryBusWidth"),
        "memory_mib": hardware["memory_bytes"] and hardware["memory_bytes"][0] // MIB,
        "bar1_mib": hardware["bar1_bytes"] and hardware["bar1_bytes"][0] // MIB,
        "display_mode": ask("nvmlDeviceGetDisplayMode"),
        "display_active": int(bool(hardware["display_active"])),
        "power_management": ask("nvmlDeviceGetPowerManagementMode"),
        "power_min_mw": power_range[0],
        "power_max_mw": power_range[1],
        "power_default_mw": settings["power_default_mw"],
        "idle_power_mw": hardware["power_draw_mw"],
        **_clocks(nvml, uuid, settings.values),
        "idle_pstate": hardware["performance_state"],
        "adaptive_clocking": ask("nvmlDeviceGetAdaptiveClockInfoStatus"),
        "persistence_mode": 0,
        "compute_mode": 0,
        "ecc_current": _mode(settings["ecc"]),
        "ecc_default": ask("nvmlDeviceGetDefaultEccMode", of=lambda found: found[0]),
        "mig_current": _mode(settings["mig"]),
        "mig_devices_max": ask("nvmlDeviceGetMaxMigDeviceCount") if settings["mig"] else None,
        "pcie_gen_card": hardware["pcie_generation_card"],
        "pcie_gen_idle": hardware["pcie_generation"],
        "pcie_width_max": hardware["pcie_width_max"],
        "temp_idle": hardware["temperature_celsius"],
        "temp_target": ask("nvmlDeviceGetTemperatureThreshold", 5),
        "fans": ask("nvmlDeviceGetNumFans"),
    }
    card.update({name: ask("nvmlDeviceGetTemperatureThreshold", kind) for name, kind in _THRESHOLDS.items()})
    return card


def _mode(pair: Sequence[str] | None) -> int | None:
    return None if pair is None else int(pair[0] == "on")


def _clocks(nvml: Nvml, uuid: str, settings: Any) -> dict[str, Any]:
    rungs = nvml.memory_clocks(uuid)
    clocks: dict[str, Any] = {"memory_clocks": " ".join(str(rung) for rung in reversed(rungs)) or None}
    if rungs:
        whole = ladder(nvml.graphics_clocks(uuid, rungs[-1]))
        clocks["graphics_clocks"] = whole
        for rung in rungs[:-1]:
            own = ladder(nvml.graphics_clocks(uuid, rung))
            if own != whole:
                clocks[f"graphics_clocks_{rung}"] = own
    if settings["default_application_clocks"]:
        memory, graphics = settings["default_application_clocks"].split(",")
        clocks["app_default_memory_mhz"], clocks["app_default_graphics_mhz"] = memory, graphics
    return {**clocks, "idle_graphics_mhz": settings["graphics_mhz"], "idle_memory_mhz": settings["memory_mhz"]}


def render(card: dict[str, Any], driver: str) -> str:
    lines = [f"# {card['name']}, recorded from a real card, driver {driver}", "# by tests/gpu/record_card.py"]
    lines += [f"{name}={'N/A' if value is None else value}" for name, value in card.items()]
    lines += [
        "# Fill in by hand: load_power_mw, load_graphics_mhz, load_memory_mhz, load_pstate, temp_load,",
        "# memory_reserved_mib, board_id, serial (a made-up one), offset_limit_mhz, power_mizer, tlimit_*,",
        "# mig_needs_reset, power_settable, graphics_lockable, memory_lockable.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    nvml = open_nvml(None)
    if nvml.state != "ok":
        sys.stderr.write(f"no driver to ask: {nvml.reason}\n")
        return 1
    index = int(arguments[0]) if arguments else 0
    gpus = nvml.devices()
    if index >= len(gpus):
        sys.stderr.write(f"no GPU {index}: there are {len(gpus)}\n")
        return 1
    sys.stdout.write(render(record(nvml, gpus[index].uuid), str(nvml.versions()["driver"])))
    nvml.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
