# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Prometheus is told of this machine, as the text that the node exporter's textfile collector reads.

`gpu`: cards and driver, a few milliseconds beside opening the driver. `drift`: the machine beside its record, which
costs more and is asked for less often. Nothing is set, and no driver is loaded. What a card does not have is left out.
Format: Prometheus text exposition 0.0.4. Xid lines: NVIDIA's "Xid Errors", `NVRM: Xid (PCI:0000:01:00): 79, ...`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..doors import kernel_log
from ..doors.host import FileState, Host
from ..doors.nvml import Gpu, Reading, normal_pci
from ..engine.machine import Machine
from ..engine.record import PATH as RECORD
from ..facts.gpus import CLOCK_EVENTS, reasons
from . import verify
from .metric_table import METRICS, PREFIX

Sample = tuple[str, dict[str, str], float]

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)")
_DEVICES = "/sys/bus/pci/devices"
_MEGA = 1e6


def text(machine: Machine, source: str) -> str:
    """All metrics of a source, `gpu` or `drift`. Raises RefusedError where the record cannot be read."""
    found = list(_gpu(machine) if source == "gpu" else _drift(machine))
    return "".join(_family(source, found))


def put(machine: Machine, source: str, path: str) -> None:
    """Put the text in place at once, whole, for every user to read."""
    machine.host.write_file(path, FileState(text(machine, source), 0o644, *machine.host.ids()))


def _family(source: str, found: Iterable[Sample]) -> Iterator[str]:
    by_name: dict[str, list[Sample]] = {}
    for sample in found:
        by_name.setdefault(sample[0], []).append(sample)
    for metric in METRICS:
        if metric.source == source and metric.name in by_name:
            yield f"# HELP {PREFIX}{metric.name} {metric.what}\n# TYPE {PREFIX}{metric.name} {metric.kind}\n"
            yield from (_line(*sample) for sample in by_name[metric.name])


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
    return f"{PREFIX}{name}{{{inside}}} {value:.15g}\n" if inside else f"{PREFIX}{name} {value:.15g}\n"


def _escaped(word: str) -> str:
    return word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# -- cards and driver --------------------------------------------------------------------------------


def _gpu(machine: Machine) -> Iterator[Sample]:
    host, nvml = machine.host, machine.nvml()
    listed: list[Gpu] = nvml.devices()
    named = [gpu for gpu in listed if gpu.pci]
    silent = sorted(_on_pci(host) - {gpu.pci for gpu in named})
    # A card that fell off the bus may not even tell its address: it is one of those on PCI that nobody else is.
    nameless = [f"index {gpu.index}" for gpu in listed if not gpu.pci]
    lost = [*silent, *nameless[len(silent) :]]
    yield "gpus", {}, len(named) + len(lost)
    if named or lost:
        yield "driver_up", {}, nvml.state == "ok"
    if nvml.state == "ok":
        versions = nvml.versions()
        yield "driver_info", {name: str(versions[key] or "") for name, key in _VERSIONS.items()}, 1
    for gpu in named:
        yield from _card(nvml, gpu)
    yield from (("gpu_up", {"pci": address}, 0) for address in lost)
    yield from _xids(host)


_VERSIONS = {"version": "driver", "nvml": "nvml", "cuda": "cuda"}


def _on_pci(host: Host) -> set[str]:
    """Addresses of NVIDIA's displays; class 03 of the PCI code list."""
    found = set()
    for name in host.names(_DEVICES):
        vendor, kind = host.many([f"{_DEVICES}/{name}/vendor", f"{_DEVICES}/{name}/class"])
        if vendor == "0x10de" and (kind or "").startswith("0x03"):
            found.add(name)
    return found


def _card(nvml: Any, gpu: Gpu) -> Iterator[Sample]:
    pci = {"pci": gpu.pci}
    reading = None
    if not gpu.problem:
        # It may be lost while we look; gpu_up says so.
        with contextlib.suppress(OSError):
            reading = nvml.moment(gpu.uuid)
    yield "gpu_up", pci, reading is not None
    if reading is None:
        return
    yield "gpu_info", {**pci, "uuid": gpu.uuid, "name": gpu.name, "architecture": gpu.architecture}, 1
    yield from ((name, pci, value) for name, value in _values(reading) if value is not None)
    if reading["event_reasons"] is not None:
        now = set(reasons(reading["event_reasons"]))
        yield from (("gpu_clock_event", {**pci, "reason": word}, word in now) for word in CLOCK_EVENTS)
    for kind in ("corrected", "uncorrected"):
        if reading[f"ecc_{kind}"] is not None:
            yield "gpu_ecc_errors_total", {**pci, "kind": kind}, reading[f"ecc_{kind}"]


def _values(reading: Reading) -> Iterator[tuple[str, float | None]]:
    """Base units, as Prometheus wants them."""
    for name, key, factor in _SCALED:
        value = reading[key]
        yield name, None if value is None else value * factor
    total, used = reading["memory_bytes"] or (None, None)
    yield "gpu_memory_total_bytes", total
    yield "gpu_memory_used_bytes", used


_SCALED = (
    ("gpu_power_watts", "power_draw_mw", 0.001),
    ("gpu_power_limit_watts", "power_limit_mw", 0.001),
    ("gpu_temperature_celsius", "temperature_celsius", 1),
    ("gpu_sm_clock_hertz", "sm_mhz", _MEGA),
    ("gpu_memory_clock_hertz", "memory_mhz", _MEGA),
    ("gpu_utilization_ratio", "utilization_percent", 0.01),
    ("gpu_pcie_link_generation", "pcie_generation", 1),
    ("gpu_pcie_link_max_generation", "pcie_generation_max", 1),
    ("gpu_pcie_link_width_lanes", "pcie_width", 1),
    ("gpu_pcie_link_max_width_lanes", "pcie_width_max", 1),
)


def _xids(host: Host) -> Iterator[Sample]:
    """The last of each Xid of each card that is still in the kernel's log."""
    last: dict[tuple[str, str], float] = {}
    for seconds, line in kernel_log.records(host):
        found = _XID.search(line)
        if found:
            address = normal_pci(found[1]) or found[1]
            last[address, found[2]] = seconds
    booted = _boot_time(host)
    for (pci, xid), seconds in sorted(last.items()):
        yield "gpu_xid_last_timestamp_seconds", {"pci": pci, "xid": xid}, booted + seconds


def _boot_time(host: Host) -> int:
    """Unix time of the boot, as /proc/stat tells it."""
    told = (line.split() for line in host.lines("/proc/stat"))
    return next((int(words[1]) for words in told if words[:1] == ["btime"]), 0)


# -- drift -------------------------------------------------------------------------------------------


def _drift(machine: Machine) -> Iterator[Sample]:
    recorded = machine.host.exists(RECORD)
    yield "drift_recorded", {}, recorded
    if recorded:
        report = verify.against_record(machine)
        yield "drift_keys", {}, len(report["drift"])
        yield "drift_unchecked_parts", {}, len(report["not_checked"])
