# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every metric of ours: its name with the unit, its type, what it says. The page docs/monitoring.md is made of it."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "ai_workstation_"


@dataclass(frozen=True)
class Metric:
    """One family. source: which command prints it. labels: those that each of its samples has."""

    name: str
    kind: str
    what: str
    labels: tuple[str, ...] = ("pci",)
    source: str = "gpu"


_GPU = (
    ("gpu_up", "gauge", "1 where the driver answers for the card, 0 where the card is there and it does not"),
    ("gpu_power_watts", "gauge", "power drawn now"),
    ("gpu_power_limit_watts", "gauge", "power limit set on the card"),
    ("gpu_temperature_celsius", "gauge", "temperature of the chip"),
    ("gpu_sm_clock_hertz", "gauge", "clock of the multiprocessors"),
    ("gpu_memory_clock_hertz", "gauge", "clock of the memory"),
    ("gpu_utilization_ratio", "gauge", "part of the last sample period in which a kernel ran, 0 to 1"),
    ("gpu_memory_total_bytes", "gauge", "memory of the card"),
    ("gpu_memory_used_bytes", "gauge", "memory in use, the driver's own share included"),
    ("gpu_pcie_link_generation", "gauge", "PCIe generation now; it falls while the card rests"),
    ("gpu_pcie_link_max_generation", "gauge", "PCIe generation that card and slot can have together"),
    ("gpu_pcie_link_width_lanes", "gauge", "PCIe lanes in use"),
    ("gpu_pcie_link_max_width_lanes", "gauge", "PCIe lanes that card and slot can have together"),
)

METRICS = (
    Metric("gpus", "gauge", "NVIDIA cards on PCI", ()),
    Metric("driver_up", "gauge", "1 where the driver answers; told only where there is a card", ()),
    Metric("driver_info", "gauge", "versions of the driver; always 1", ("version", "nvml", "cuda")),
    Metric("gpu_info", "gauge", "what the card is; always 1", ("pci", "uuid", "name", "architecture")),
    *(Metric(*row) for row in _GPU),
    Metric("gpu_clock_event", "gauge", "1 while this reason holds the clocks down", ("pci", "reason")),
    Metric("gpu_ecc_errors_total", "counter", "memory errors since the driver was loaded", ("pci", "kind")),
    Metric(
        "gpu_xid_last_timestamp_seconds", "gauge", "Unix time of the last such line in the kernel's log", ("pci", "xid")
    ),
    Metric("drift_keys", "gauge", "settings that are not as recorded", (), "drift"),
    Metric("drift_unchecked_parts", "gauge", "parts of the record that could not be checked", (), "drift"),
    Metric("drift_recorded", "gauge", "1 where there is a record to compare with", (), "drift"),
)

BY_NAME = {metric.name: metric for metric in METRICS}
