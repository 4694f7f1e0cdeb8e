# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interrupts by the device they belong to: their numbers change with every boot and driver load.

Sources: Documentation/ABI/testing/sysfs-kernel-irq, Documentation/ABI/testing/sysfs-bus-pci (msi_irqs, irq),
Documentation/core-api/irq/irq-affinity.rst.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from .machine import Machine

_DEVICES = "/sys/bus/pci/devices"


@dataclass(frozen=True)
class Device:
    """A PCI device. driver: its own (the name that irqbalance knows). drivers: with that of its virtio child."""

    address: str
    driver: str
    drivers: frozenset[str]
    interfaces: frozenset[str]
    node: int


@dataclass(frozen=True)
class Interrupt:
    """One interrupt that a driver has requested. identity: device/names, with #n where a device has several alike."""

    identity: str
    number: int
    names: tuple[str, ...]
    device: Device | None

    @property
    def path(self) -> str:
        return f"/proc/irq/{self.number}"


def interrupts(machine: Machine) -> dict[str, Interrupt]:
    """All interrupts with a user, by identity. Read once per call."""
    known: dict[str, Interrupt] | None = machine.memo.get("interrupts")
    if known is None:
        known = machine.memo["interrupts"] = _read(machine)
    return known


def _read(machine: Machine) -> dict[str, Interrupt]:
    host = machine.host
    devices = _devices(machine)
    alike: dict[str, list[int]] = {}
    names: dict[int, tuple[str, ...]] = {}
    for number in sorted(int(name) for name in host.names("/proc/irq") if name.isdigit()):
        text = host.text(f"/sys/kernel/irq/{number}/actions")
        if not text or text == "(null)":
            continue
        names[number] = tuple(text.split(","))
        device = devices.get(number)
        alike.setdefault(f"{device.address if device else '-'}/{text}", []).append(number)
    found: dict[str, Interrupt] = {}
    for stem, numbers in sorted(alike.items()):
        if len(numbers) > 1:
            # The vector's place in its device stays when the driver is loaded again; the number does not.
            numbers.sort(key=lambda number: (host.number(f"/sys/kernel/irq/{number}/hwirq") or 0, number))
        for place, number in enumerate(numbers):
            identity = f"{stem}#{place}" if len(numbers) > 1 else stem
            found[identity] = Interrupt(identity, number, names[number], devices.get(number))
    return found


def _devices(machine: Machine) -> dict[int, Device]:
    """PCI devices by interrupt number."""
    host = machine.host
    found: dict[int, Device] = {}
    for address in host.names(_DEVICES):
        folder = f"{_DEVICES}/{address}"
        numbers = [int(name) for name in host.names(f"{folder}/msi_irqs") if name.isdigit()]
        if not numbers:
            line = host.number(f"{folder}/irq") or 0
            numbers = [line] if line > 0 else []
        if not numbers:
            continue
        children = [f"{folder}/{name}" for name in host.names(folder) if re.match(r"^virtio\d+$", name)]
        driver = posixpath.basename(host.link(f"{folder}/driver") or "")
        links = [host.link(f"{child}/driver") or "" for child in children]
        device = Device(
            address,
            driver,
            frozenset(filter(None, [driver, *map(posixpath.basename, links)])),
            frozenset(name for child in (folder, *children) for name in host.names(f"{child}/net")),
            -1 if (node := host.number(f"{folder}/numa_node")) is None else node,
        )
        for number in numbers:
            found.setdefault(number, device)
    return found
