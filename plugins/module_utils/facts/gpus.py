# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""NVIDIA GPUs: from the driver through NVML where it answers, else from PCI and /proc/driver/nvidia.

gpus [{uuid, name, pci_address, device_id "10de:2b85", source: nvml|pci,
 problem (why the driver does not answer for it), vram_bytes, vram_used_bytes, bar1_bytes,
 link {current_gen current_width max_gen max_width (card and slot together) gpu_max_gen (the card alone)},
 power {limit_watts default_watts min_watts max_watts enforced_watts draw_watts},
 clocks {graphics_mhz sm_mhz mem_mhz max_graphics_mhz max_sm_mhz max_mem_mhz}, application_clocks, temperature_celsius,
 persistence: bool, compute_mode, ecc {current pending: on|off|null}, mig {current pending},
 architecture, brand, compute_capability, performance_state, vbios, display_active: bool, numa_node,
 processes [{pid, type: C|G|CG, memory_bytes}], throttle_reasons [str]}]
gpu_driver {state: ok|no_device|not_loaded|no_library|no_binding|mismatch|no_permission|unknown, reason, version,
 nvml_version, cuda_version, module: open|proprietary|""}

Sources: nvml.h (API 13); README of the driver, chapter on /proc/driver/nvidia.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..doors.host import Host
from .reading import Facts, table

_VERSION = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")
# nvmlClocksEventReason* of nvml.h. Bit 0 (idle) and the application clocks are states, not limits, and are
# named all the same: a reader wants to know why a clock is low.
_REASONS = (
    (0x1, "idle"),
    (0x2, "applications_clocks_setting"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
)
CLOCK_EVENTS = tuple(word for _bit, word in _REASONS)
_NO_MEMORY_COUNT = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE as the binding passes it on


def on_pci(devices: Sequence[Facts]) -> list[Facts]:
    """The NVIDIA displays among the `pci` section."""
    return [device for device in devices if device["vendor"] == "10de" and device["kind"] == "display"]


def gather(host: Host, devices: Sequence[Facts], open_driver: Any = None) -> Facts:
    """The `gpus` and `gpu_driver` sections. `devices`: the `pci` section."""
    cards = on_pci(devices)
    version_text = host.text("/proc/driver/nvidia/version")
    driver = _driver(host, version_text)
    nvml = open_driver() if open_driver else None
    try:
        answered = from_driver(nvml) if nvml is not None else []
        _judge(driver, nvml, len(cards), bool(answered), version_text is not None)
    finally:
        if nvml is not None:
            nvml.close()
    return {"gpus": _merge(host, cards, answered), "gpu_driver": driver}


def from_driver(nvml: Any) -> list[Facts]:
    """What NVML tells of each GPU; of one that does not answer, who it is and why."""
    found = []
    for gpu in nvml.devices():
        facts = _empty(gpu.pci or None, "nvml")
        facts.update(uuid=gpu.uuid or None, name=gpu.name, architecture=gpu.architecture, brand=gpu.brand)
        facts.update(device_id=gpu.device_id or None, problem=gpu.problem or None)
        if not gpu.problem:
            try:
                settings, hardware = nvml.settings(gpu.uuid), nvml.hardware(gpu.uuid)
            except OSError as error:
                facts["problem"] = str(error.strerror or error)
            else:
                facts.update(_values({**hardware.values, **settings.values}))
        found.append(facts)
    return found


def _values(values: Facts) -> Facts:
    memory, bar1 = values.get("memory_bytes") or [None, None], values.get("bar1_bytes") or [None, None]
    power_range = values.get("power_range_mw") or [None, None]
    persistence = values.get("persistence")
    return {
        "vram_bytes": memory[0],
        "vram_used_bytes": memory[1],
        "bar1_bytes": bar1[0],
        "link": {
            "current_gen": values.get("pcie_generation"),
            "current_width": values.get("pcie_width"),
            "max_gen": values.get("pcie_generation_max"),
            "max_width": values.get("pcie_width_max"),
            "gpu_max_gen": values.get("pcie_generation_card"),
        },
        "power": {
            "limit_watts": _watts(values.get("power_limit_mw")),
            "default_watts": _watts(values.get("power_default_mw")),
            "min_watts": _watts(power_range[0]),
            "max_watts": _watts(power_range[1]),
            "enforced_watts": _watts(values.get("power_enforced_mw")),
            "draw_watts": _watts(values.get("power_draw_mw")),
        },
        "clocks": {
            "graphics_mhz": values.get("graphics_mhz"),
            "sm_mhz": values.get("sm_mhz"),
            "mem_mhz": values.get("memory_mhz"),
            "max_graphics_mhz": values.get("graphics_mhz_max"),
            "max_sm_mhz": values.get("sm_mhz_max", values.get("graphics_mhz_max")),
            "max_mem_mhz": values.get("memory_mhz_max"),
        },
        "application_clocks": values.get("application_clocks"),
        "temperature_celsius": values.get("temperature_celsius"),
        "persistence": None if persistence is None else persistence == "on",
        "compute_mode": values.get("compute_mode"),
        "ecc": _pair(values.get("ecc")),
        "mig": _pair(values.get("mig")),
        "compute_capability": values.get("compute_capability"),
        "performance_state": values.get("performance_state"),
        "vbios": values.get("vbios"),
        "display_active": values.get("display_active"),
        "numa_node": values.get("numa_node"),
        "processes": [_process(process) for process in values.get("processes") or []],
        "throttle_reasons": reasons(values.get("event_reasons")),
    }


def reasons(bits: int | None) -> list[str]:
    """The words of a clocks event bit mask."""
    known = [word for bit, word in _REASONS if (bits or 0) & bit]
    rest = (bits or 0) & ~sum(bit for bit, _word in _REASONS)
    return [*known, hex(rest)] if rest else known


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _pair(modes: list[str] | None) -> Facts:
    current, pending = modes or (None, None)
    return {"current": current, "pending": pending}


def _process(process: Facts) -> Facts:
    used = process.get("used_bytes")
    return {
        "pid": process["pid"],
        "type": process.get("type", ""),
        "memory_bytes": None if used is None or used >= _NO_MEMORY_COUNT else used,
    }


def _empty(address: str | None, source: str) -> Facts:
    return {
        "uuid": None,
        "name": None,
        "pci_address": address,
        "device_id": None,
        "source": source,
        "problem": None,
        "architecture": None,
        "brand": None,
        **_values({}),
    }


def _merge(host: Host, cards: Sequence[Facts], answered: list[Facts]) -> list[Facts]:
    """The driver's GPUs, with what only PCI knows; then the cards that the driver does not list."""
    by_address = {card["address"]: card for card in cards}
    for gpu in answered:
        card = by_address.pop(gpu["pci_address"], None)
        if card:
            _fill(gpu, card)
    silent = [_from_files(host, card) for card in by_address.values()]
    # A GPU that fell off the bus may not even tell its address: it is the card that nobody else is.
    nameless = [gpu for gpu in answered if gpu["pci_address"] is None]
    if len(nameless) == len(silent):
        answered = [gpu for gpu in answered if gpu["pci_address"] is not None]
        for card, gpu in zip(silent, nameless):
            card["problem"] = gpu["problem"]
    return sorted((*answered, *silent), key=lambda gpu: gpu["pci_address"] or "~")


def _from_files(host: Host, card: Facts) -> Facts:
    """A card as PCI and the driver's files show it."""
    facts = _empty(card["address"], "pci")
    told = table(host.text(f"/proc/driver/nvidia/gpus/{card['address']}/information"))
    uuid = told.get("GPU UUID", "")
    facts.update(name=told.get("Model"), uuid=uuid if uuid.startswith("GPU-") and "?" not in uuid else None)
    facts["vbios"] = told.get("Video BIOS") if "?" not in told.get("Video BIOS", "?") else None
    _fill(facts, card)
    return facts


def _fill(gpu: Facts, card: Facts) -> None:
    """Put in from PCI what the driver left open."""
    gpu["device_id"] = gpu["device_id"] or f"{card['vendor']}:{card['device']}"
    gpu["numa_node"] = card["numa_node"] if gpu["numa_node"] is None else gpu["numa_node"]
    if gpu["bar1_bytes"] is None:
        gpu["bar1_bytes"] = next((window["size_bytes"] for window in card["bars"] if window["index"] == 1), None)
    link, port = card["link"], (card["upstream"] or {}).get("link") or {}
    known = {
        "current_gen": link["current_gen"],
        "current_width": link["current_width"],
        "max_gen": _lower(link["max_gen"], port.get("max_gen")),
        "max_width": _lower(link["max_width"], port.get("max_width")),
        "gpu_max_gen": link["max_gen"],
    }
    gpu["link"] = {key: known[key] if value is None else value for key, value in gpu["link"].items()}


def _lower(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _driver(host: Host, version_text: str | None) -> Facts:
    first = (version_text or "").partition("\n")[0]
    version = _VERSION.search(first)
    return {
        "state": "unknown",
        "reason": "",
        "version": version.group(1) if version else host.text("/sys/module/nvidia/version"),
        "nvml_version": None,
        "cuda_version": None,
        "module": "" if not first else "open" if "Open Kernel Module" in first else "proprietary",
    }


def _judge(driver: Facts, nvml: Any, cards: int, answered: bool, loaded: bool) -> None:
    """Put state and reason in: the most basic lack first."""
    state = "no_binding" if nvml is None else nvml.state
    if state == "ok":
        versions = nvml.versions()
        driver.update(nvml_version=versions["nvml"], cuda_version=versions["cuda"])
        driver["version"] = versions["driver"] or driver["version"]
    if answered:
        driver["state"] = "ok"
    elif not cards:
        driver.update(state="no_device", reason="no NVIDIA GPU is visible on PCI or to the driver")
    elif not loaded and state in {"no_library", "not_loaded", "no_binding"}:
        driver.update(state="not_loaded", reason="an NVIDIA GPU is there, but the nvidia kernel module is not loaded")
    elif nvml is None:
        driver.update(state=state, reason="the driver was not asked: this call was given no way to NVML")
    elif state == "ok":
        reason = f"the driver is loaded but lists none of the {cards} NVIDIA GPUs on PCI; see NVRM lines in dmesg"
        driver.update(state="no_device", reason=reason)
    else:
        driver.update(state=state, reason=nvml.reason)
