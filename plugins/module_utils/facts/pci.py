# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PCI devices of interest: displays and accelerators, NVMe drives, network cards.

Sources: Documentation/ABI/testing/sysfs-bus-pci, PCI/sysfs-pci.rst. A link's current speed falls while a
device idles; only its maximum is a property of the hardware.

An entry: {address, vendor, device, subsystem: hex text, class: hex text, kind: display|nvme|network, driver, numa_node,
link {current_gen current_width max_gen max_width}, upstream {address, link} or null (a root bus device),
bars [{index start size_bytes max_bytes assigned: bool}] (max_bytes: the largest size the card offers, resizable
BARs only; not assigned: the firmware left no room),
irqs [int], iommu_group, iommu_type}
"""

from __future__ import annotations

import posixpath
import re

from ..doors.host import Host
from .reading import Facts, node_number, number

DEVICES = "/sys/bus/pci/devices"
_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
# PCI class code prefixes (PCI Code and ID Assignment Specification).
_KINDS = {"0300": "display", "0302": "display", "0380": "display", "1200": "display", "0108": "nvme", "0200": "network"}
_KINDS.update({"0207": "network", "0280": "network"})
_GENERATIONS = {"2.5": 1, "5": 2, "5.0": 2, "8": 3, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
_LINK = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
_UNSET = 0x20000000  # IORESOURCE_UNSET of include/linux/ioport.h
_FILES = ("vendor", "device", "class", "numa_node", "resource", "subsystem_vendor", "subsystem_device", *_LINK)


def gather(host: Host) -> list[Facts]:
    """The `pci` section."""
    addresses = host.names(DEVICES)
    classes = host.many(f"{DEVICES}/{address}/class" for address in addresses)
    return [
        _device(host, address, _KINDS[(code or "")[2:6]])
        for address, code in zip(addresses, classes)
        if (code or "")[2:6] in _KINDS
    ]


def owners_of_irqs(host: Host) -> dict[int, tuple[str, str | None]]:
    """Interrupt number -> (PCI address, driver), for message interrupts of all PCI devices."""
    found: dict[int, tuple[str, str | None]] = {}
    for address in host.names(DEVICES):
        irqs = host.names(f"{DEVICES}/{address}/msi_irqs")
        if irqs:
            driver = _link_name(host, f"{DEVICES}/{address}/driver")
            found.update({int(irq): (address, driver) for irq in irqs if irq.isdigit()})
    return found


def generation(speed: str | None) -> int | None:
    """PCIe generation of "16.0 GT/s PCIe"; None for "Unknown"."""
    return _GENERATIONS.get((speed or "").partition(" ")[0])


def _device(host: Host, address: str, kind: str) -> Facts:
    base = f"{DEVICES}/{address}"
    values = dict(zip(_FILES, host.many(f"{base}/{name}" for name in _FILES)))
    group = _link_name(host, f"{base}/iommu_group")
    irqs = [int(irq) for irq in host.names(f"{base}/msi_irqs") if irq.isdigit()]
    return {
        "address": address,
        "vendor": _hex(values["vendor"]),
        "device": _hex(values["device"]),
        "subsystem": f"{_hex(values['subsystem_vendor'])}:{_hex(values['subsystem_device'])}",
        "class": _hex(values["class"]),
        "kind": kind,
        "driver": _link_name(host, f"{base}/driver"),
        "numa_node": node_number(values["numa_node"]),
        "link": _link([values[name] for name in _LINK]),
        "upstream": _upstream(host, base),
        "bars": _bars(host, base, values["resource"]),
        "irqs": sorted(irqs),
        "iommu_group": number(group),
        "iommu_type": host.text(f"/sys/kernel/iommu_groups/{group}/type") if group else None,
    }


def _hex(text: str | None) -> str:
    return (text or "").removeprefix("0x")


def _link_name(host: Host, path: str) -> str | None:
    target = host.link(path)
    return posixpath.basename(target) if target else None


def _link(texts: list[str | None]) -> Facts:
    current_speed, current_width, max_speed, max_width = texts
    return {
        "current_gen": generation(current_speed),
        "current_width": lanes(current_width),
        "max_gen": generation(max_speed),
        "max_width": lanes(max_width),
    }


def lanes(text: str | None) -> int | None:
    """Lanes; the kernel shows 0 or 255 where the device does not say."""
    found = number(text)
    return found if found and found <= 32 else None


def _upstream(host: Host, base: str) -> Facts | None:
    """The port that the device hangs on: its parent folder in /sys/devices."""
    parent = posixpath.dirname(host.resolve(base))
    address = posixpath.basename(parent)
    if not _ADDRESS.match(address):
        return None
    return {"address": address, "link": _link(host.many(f"{parent}/{name}" for name in _LINK))}


def _bars(host: Host, base: str, resource: str | None) -> list[Facts]:
    """The six base address registers: "start end flags" in hexadecimal, zeros for an unused one."""
    bars = []
    for index, line in enumerate((resource or "").splitlines()[:6]):
        words = line.split()
        if len(words) != 3:
            continue
        start, end, flags = (int(word, 16) for word in words)
        if flags and end > start:
            sizes = host.text(f"{base}/resource{index}_resize")
            bars.append(
                {
                    "index": index,
                    "start": start,
                    "size_bytes": end - start + 1,
                    "max_bytes": _largest(sizes),
                    "assigned": not flags & _UNSET,
                }
            )
    return bars


def _largest(sizes: str | None) -> int | None:
    """The largest size of a resizable BAR: bit n of the file stands for 2^(n+20) bytes."""
    try:
        bits = int(sizes or "0", 16)
    except ValueError:
        return None
    return 1 << (bits.bit_length() - 1 + 20) if bits else None
