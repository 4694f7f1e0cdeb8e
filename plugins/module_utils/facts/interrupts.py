# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interrupts that devices registered, and whether the kernel lets anyone move them.

Sources: Documentation/core-api/irq/irq-affinity.rst, /proc/interrupts (filesystems/proc.rst),
ABI/testing/sysfs-bus-pci (msi_irqs), the state bits in /sys/kernel/debug/irq (kernel/irq/debugfs.c).

{default_affinity: CPU list, irqs [{irq, device, chip, pci_address, driver, affinity, effective_affinity,
 managed: bool or null where nothing tells, node}]}
"""

from __future__ import annotations

import re

from ..doors.host import Host
from ..values import cpu_list, cpu_mask
from .pci import owners_of_irqs
from .reading import Facts, node_number

_DEBUG = "/sys/kernel/debug/irq/irqs"
_COLUMN = 11  # /proc/interrupts prints a blank and ten digits for each online CPU
# Drivers whose vectors the kernel spreads and keeps (pci_alloc_irq_vectors_affinity), by action name.
_MANAGED = (
    re.compile(r"^nvme\d+q[1-9]\d*$"),
    re.compile(r"^virtio\d+-req(?:uest)?[.s]?\d*$"),
    re.compile(r"^megasas\d*-msix\d+$"),
    re.compile(r"^mpt[23]sas\d+-msix\d+$"),
)
_FREE = {
    "nvidia",
    "nouveau",
    "amdgpu",
    "ahci",
    "xhci_hcd",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "e1000e",
    "r8169",
    "atlantic",
    "mlx5_core",
    "bnxt_en",
    "snd_hda_intel",
    "pcieport",
    "thunderbolt",
}
_FREE_ACTIONS = re.compile(r"^(?:nvme\d+q0|virtio\d+-(?:config|control|event|input\.\d+|output\.\d+))$")


def gather(host: Host) -> Facts:
    """The `interrupts` section."""
    lines = registered(host.raw("/proc/interrupts"))
    owners = owners_of_irqs(host)
    files = ("smp_affinity_list", "effective_affinity_list", "node")
    texts = host.many(f"/proc/irq/{irq}/{name}" for irq, _chip, _device in lines for name in files)
    debug = _debug(host, [irq for irq, _chip, _device in lines])
    irqs = []
    for index, (irq, chip, device) in enumerate(lines):
        affinity, effective, node = texts[index * 3 : index * 3 + 3]
        address, driver = owners.get(irq, (None, None))
        irqs.append(
            {
                "irq": irq,
                "device": device,
                "chip": chip,
                "pci_address": address,
                "driver": driver,
                "affinity": affinity,
                "effective_affinity": effective,
                "managed": managed(device, driver, chip) if debug.get(irq) is None else debug[irq],
                "node": node_number(node),
            }
        )
    return {"default_affinity": _default(host), "irqs": irqs}


def registered(raw: bytes | None) -> list[tuple[int, str, str]]:
    """(number, chip, device) of each numbered line of /proc/interrupts that has a device.

    The counters are skipped by their width: splitting them would cost 256 words a line on 256 CPUs.
    """
    lines = (raw or b"").decode("utf-8", "replace").splitlines()
    cpus = len(lines[0].split()) if lines else 0
    found = []
    by_width: bool | None = None
    for line in lines[1:]:
        label, _colon, rest = line.partition(":")
        label = label.strip()
        if not label.isdigit():
            continue
        words = rest[_COLUMN * cpus :].split()
        if by_width is None:  # proven on the first line
            by_width = words == rest.split()[cpus:]
        chip, device = _chip_and_device(words if by_width else rest.split()[cpus:])
        if device:
            found.append((int(label), chip, device))
    return found


def _chip_and_device(words: list[str]) -> tuple[str, str]:
    """ "IR-PCI-MSIX-0000:01:00.0 0-edge nvidia": the hardware number ends where the trigger is named."""
    for index, word in enumerate(words[1:4], start=1):
        if word in {"Level", "Edge", "None"} or word.endswith(("-edge", "-level", "-fasteoi")):
            return words[0], " ".join(words[index + 1 :])
    return (words[0] if words else ""), " ".join(words[2:])


def managed(device: str, driver: str | None, chip: str) -> bool | None:
    """Whether the kernel keeps the affinity of an interrupt to itself; None where driver and name do not tell."""
    if any(pattern.match(device) for pattern in _MANAGED):
        return True
    if driver in _FREE or _FREE_ACTIONS.match(device) or "MSI" not in chip.upper():
        return False
    return None


def _debug(host: Host, irqs: list[int]) -> dict[int, bool | None]:
    """The kernel's own word, where debugfs is mounted and we may look."""
    if not host.is_dir(_DEBUG):
        return {}
    texts = host.many(f"{_DEBUG}/{irq}" for irq in irqs)
    return {irq: "IRQD_AFFINITY_MANAGED" in text for irq, text in zip(irqs, texts) if text}


def _default(host: Host) -> str | None:
    mask = host.text("/proc/irq/default_smp_affinity")
    try:
        return None if mask is None else cpu_list(cpu_mask(mask))
    except ValueError:
        return None
