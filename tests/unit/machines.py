# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rest of a machine for tests of facts: PCI devices with their links, interrupts, SMBIOS tables."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topologies import GIB, MIB, put

PCI = "sys/bus/pci/devices"
MEMORY_FLAGS, UNSET = 0x14220C, 0x20000000


@dataclass(frozen=True)
class Link:
    """A PCIe link: GT/s and lanes, as they are and at most."""

    speed: str = "2.5"
    width: int = 16
    max_speed: str = "32.0"
    max_width: int = 16

    def files(self, base: str) -> dict[str, object]:
        return {
            f"{base}/current_link_speed": f"{self.speed} GT/s PCIe",
            f"{base}/current_link_width": self.width,
            f"{base}/max_link_speed": f"{self.max_speed} GT/s PCIe",
            f"{base}/max_link_width": self.max_width,
        }


@dataclass(frozen=True)
class Device:
    """A PCI device below a root port. BARs: (start, size, flags); an empty size is an unused one."""

    address: str = "0000:01:00.0"
    vendor: str = "0x10de"
    device: str = "0x2b85"
    code: str = "0x030000"
    driver: str = "nvidia"
    node: int = 0
    link: Link = field(default_factory=Link)
    port: Link | None = field(default_factory=Link)
    port_address: str = "0000:00:01.1"
    bars: Sequence[tuple[int, int, int]] = (
        (0xF0000000, 64 * MIB, MEMORY_FLAGS),
        (0x6000000000, 32 * GIB, MEMORY_FLAGS),
    )
    resizable: int = 0xFFC0  # bit n: 2^(n+20) bytes, so 64 MiB to 32 GiB
    irqs: Sequence[int] = ()
    iommu_group: int | None = None


def plug(root: Path | str, device: Device) -> None:
    """Put a device on the bus, with the port it hangs on."""
    top = "sys/devices/pci0000:00"
    port = f"{top}/{device.port_address}" if device.port else top
    base = f"{port}/{device.address}"
    files: dict[str, object] = {
        f"{base}/vendor": device.vendor,
        f"{base}/device": device.device,
        f"{base}/class": device.code,
        f"{base}/numa_node": device.node,
        f"{base}/subsystem_vendor": "0x1043",
        f"{base}/subsystem_device": "0x89e3",
        f"{base}/resource": _resource(device.bars),
        **device.link.files(base),
    }
    if device.port:
        files.update({f"{port}/class": "0x060400", f"{port}/vendor": "0x1022", **device.port.files(port)})
        _link(root, f"{PCI}/{device.port_address}", port)
    if device.resizable:
        files[f"{base}/resource1_resize"] = f"{device.resizable:016x}"
    files.update({f"{base}/msi_irqs/{irq}": "msix" for irq in device.irqs})
    put(root, files)
    _link(root, f"{PCI}/{device.address}", base)
    if device.driver:
        _link(root, f"{base}/driver", f"sys/bus/pci/drivers/{device.driver}")
    if device.iommu_group is not None:
        group = f"sys/kernel/iommu_groups/{device.iommu_group}"
        put(root, {f"{group}/type": "DMA-FQ"})
        _link(root, f"{base}/iommu_group", group)


def _resource(bars: Sequence[tuple[int, int, int]]) -> str:
    lines = [f"0x{start:016x} 0x{start + size - 1:016x} 0x{flags:016x}" for start, size, flags in bars]
    return "\n".join([*lines, *["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * (13 - len(lines))])


def _link(root: Path | str, path: str, target: str) -> None:
    whole, end = os.path.join(root, path), os.path.join(root, target)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    os.makedirs(end, exist_ok=True)
    if not os.path.lexists(whole):
        os.symlink(os.path.relpath(end, os.path.dirname(whole)), whole)


def write_interrupts(root: Path | str, cpus: int, lines: Sequence[tuple[int, str, str]]) -> None:
    """/proc/interrupts and /proc/irq for (number, chip with hardware number, device)."""
    width = max(3, *(len(str(irq)) for irq, _chip, _device in lines))
    head = " " * (width + 8) + "".join(f"CPU{cpu:<8d}" for cpu in range(cpus))
    rows = [
        f"{irq:>{width}}: "
        + "".join(f"{irq * 7919 * (cpu + 1) % 4000000000:>10} " for cpu in range(cpus))
        + f" {chip}      {device}"
        for irq, chip, device in lines
    ]
    rows.append(f"{'NMI':>{width}}: " + "".join(f"{0:>10} " for _cpu in range(cpus)) + "  Non-maskable interrupts")
    everyone = f"0-{cpus - 1}"
    files: dict[str, object] = {"proc/interrupts": "\n".join([head, *rows]), "proc/irq/default_smp_affinity": "f"}
    for irq, _chip, _device in lines:
        files[f"proc/irq/{irq}/smp_affinity_list"] = everyone
        files[f"proc/irq/{irq}/effective_affinity_list"] = irq % cpus
        files[f"proc/irq/{irq}/node"] = 0
    put(root, files)


# -- SMBIOS ----------------------------------------------------------------------------------------


def structure(kind: int, body: bytes, *strings: str) -> bytes:
    """One SMBIOS structure: header, body, strings."""
    head = struct.pack("<BBH", kind, len(body) + 4, kind << 8)
    return head + body + (b"".join(text.encode() + b"\0" for text in strings) or b"\0") + b"\0"


def dimm(
    locator: str, gib: int, rated: int, configured: int, kind: int = 0x22, part: str = "F5-6000J3040G32G"
) -> bytes:
    """A memory device of SMBIOS 3.3; no GiB is an empty slot."""
    size = 0x7FFF if gib >= 32 else gib * 1024
    extended = gib * 1024 if gib >= 32 else 0
    big_rated, big_configured = (rated, configured) if rated >= 0xFFFF else (0, 0)
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH",
        0x1000, 0xFFFE, 64, 64, size, 9, 0, 1, 2, kind, 0x80,
        0xFFFF if big_rated else rated, 3, 0, 0, 4, 2, extended, 0xFFFF if big_configured else configured,
        1100, 1100, 1100,
    )  # fmt: skip
    body += bytes(0x54 - 4 - len(body)) + struct.pack("<II", big_rated, big_configured)
    return structure(17, body, locator, "P0 CHANNEL A", "G Skill Intl", part)


def board(
    maker: str = "ASUSTeK COMPUTER INC.", product: str = "ROG CROSSHAIR X870E HERO", version: str = "1605"
) -> bytes:
    """BIOS, system, board, chassis, processor and memory array."""
    core_counts = bytes((16, 16, 32)) + struct.pack("<HHHHH", 0, 0, 16, 16, 32)
    processor = struct.pack("<BBBBQBBHHHBB", 1, 3, 0xFE, 2, 0, 3, 0x8A, 100, 5750, 4300, 0x41, 0x3F)
    system = struct.pack("<BBBB", 1, 2, 3, 4) + bytes(16) + bytes((6, 0, 5))
    return b"".join(
        (
            structure(
                0, struct.pack("<BBHBBQ", 1, 2, 0xF000, 3, 0xFF, 0), "American Megatrends Inc.", version, "09/05/26"
            ),
            structure(1, system, maker, "System Product Name", "1.0", "Default string", "Desktop"),
            structure(2, struct.pack("<BBBB", 1, 2, 3, 0), maker, product, "Rev 1.xx"),
            structure(3, struct.pack("<BB", 1, 0x83), maker),
            structure(4, processor + bytes(9) + core_counts, "AM5", "AMD", "AMD Ryzen 9 9950X"),
            structure(16, struct.pack("<BBBIHH", 3, 3, 3, 0x8000000, 0xFFFE, 4)),
        )
    )


def write_dmi(root: Path | str, *parts: bytes, entry: bytes = b"_SM3_\0\x18\x03\x07\0" + bytes(14)) -> None:
    folder = Path(root) / "sys/firmware/dmi/tables"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DMI").write_bytes(b"".join(parts) + structure(127, b""))
    (folder / "smbios_entry_point").write_bytes(entry)
