# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which interrupts a rule means, which CPUs it gives them, and which interrupts cannot be moved."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.interrupts import Interrupt
from ..errors import InputError
from ..values import cpu_list, cpus

_PCI = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
MATCHES = ("pci", "driver", "interface", "name")


@dataclass(frozen=True)
class Rule:
    """One entry of `rules`. cpus None: all online CPUs. match: field -> value, all of which must hold."""

    match: tuple[tuple[str, str], ...]
    cpus: tuple[int, ...] | None
    node_local: bool
    exclude: tuple[int, ...]
    spread: bool
    optional: bool

    @property
    def words(self) -> str:
        return ",".join(f"{field}={value}" for field, value in self.match)

    def matches(self, interrupt: Interrupt) -> bool:
        return all(
            any(fnmatch.fnmatchcase(name, value) for name in values_of(field, interrupt))
            if field == "name"
            else value in values_of(field, interrupt)
            for field, value in self.match
        )


def values_of(field: str, interrupt: Interrupt) -> Iterable[str]:
    """What an interrupt offers to one field of a match."""
    device = interrupt.device
    if field == "name":
        return interrupt.names
    if device is None:
        return ()
    return {"pci": (device.address,), "driver": device.drivers, "interface": device.interfaces}[field]


def parse_rule(item: Mapping[str, Any], optional: frozenset[str]) -> Rule:
    match = []
    for field in MATCHES:
        value = item.get(field)
        if value is None:
            continue
        text = str(value).strip()
        if not text:
            raise InputError(f"rules: {field} is empty; give a value, or leave it out")
        if field == "pci":
            text = text.lower()
            if not _PCI.fullmatch(text):
                raise InputError(f"rules: pci {value!r} is not a PCI address; write one like '0000:01:00.0'")
            text = text if text.count(":") == 2 else f"0000:{text}"
        match.append((field, text))
    if not match:
        raise InputError(f"rules: an entry says nothing about which interrupts; give one of {', '.join(MATCHES)}")
    words = ",".join(f"{field}={value}" for field, value in match)
    chosen = None if item.get("cpus") is None else cpus(f"rules {words}: cpus", item["cpus"])
    exclude = cpus(f"rules {words}: exclude", item["exclude"]) if item.get("exclude") is not None else ()
    if chosen == ():
        raise InputError(f"rules {words}: cpus is empty; name at least one CPU")
    if chosen is None and not exclude and not item.get("node_local"):
        raise InputError(f"rules {words}: says nothing about CPUs; give cpus, node_local: true or exclude")
    spared = bool(item.get("optional")) or bool(optional.intersection({words, *(value for _field, value in match)}))
    return Rule(tuple(match), chosen, bool(item.get("node_local")), exclude, bool(item.get("spread")), spared)


def nearest(rule: Rule, interrupts: Iterable[Interrupt]) -> str:
    """A hint for a rule that matches nothing."""
    everything = list(interrupts)
    for field, value in rule.match:
        offered = sorted({text for interrupt in everything for text in values_of(field, interrupt)})
        if not (fnmatch.filter(offered, value) if field == "name" else value in offered):
            near = difflib.get_close_matches(value, offered, 3, 0.5)
            return f"; nearest {field}: {', '.join(near)}" if near else f"; none has a {field} like that"
    return "; each of the values is there, but no interrupt has all of them"


@dataclass(frozen=True)
class Cpus:
    """CPUs of the machine: online ones (as planned), all that can be, and the online ones of each node."""

    online: frozenset[int]
    possible: frozenset[int]
    nodes: Mapping[int, frozenset[int]]


def obstacle(rule: Rule, there: Cpus) -> str:
    """Why these CPUs cannot be had; empty when they can."""
    named = set(rule.cpus or ())
    unknown = (named | set(rule.exclude)) - there.possible
    if unknown:
        return f"CPUs {cpu_list(unknown)} do not exist; there are {cpu_list(there.possible)}"
    if named - there.online:
        return f"CPUs {cpu_list(named - there.online)} are offline; online are {cpu_list(there.online)}"
    return ""


def target(rule: Rule, interrupt: Interrupt, there: Cpus) -> tuple[tuple[int, ...], str]:
    """The CPUs a rule gives to an interrupt, and a note where its node is not known."""
    chosen = frozenset(rule.cpus) if rule.cpus is not None else there.online
    note = ""
    if rule.node_local:
        local = there.nodes.get(interrupt.device.node if interrupt.device else -1, frozenset()) & there.online
        if local:
            chosen &= local
        else:
            note = "the device is near no NUMA node in particular: every online CPU counts as local"
    return tuple(sorted(chosen - set(rule.exclude))), note


@dataclass(frozen=True)
class _ManagedBy:
    """Interrupts that a driver leaves to the kernel, known by driver and name. Source: where the driver asks for it."""

    driver: str
    name: str
    source: str


# Only what the drivers' source shows beyond doubt. What is missing here is found out at the write (EIO before
# Linux 6.12, EPERM since), skipped and remembered.
_MANAGED = (
    _ManagedBy("nvme", r"nvme\d+q[1-9]\d*", "drivers/nvme/host/pci.c, nvme_setup_irqs: all but the admin queue"),
    _ManagedBy("virtio_blk", r"virtio\d+-req\.\d+", "drivers/block/virtio_blk.c, init_vq"),
    _ManagedBy("virtio_scsi", r"virtio\d+-request", "drivers/scsi/virtio_scsi.c, virtscsi_init: pre_vectors = 2"),
)


def managed(interrupt: Interrupt, debug: str | None) -> str:
    """Why the kernel alone places an interrupt; empty when it may be moved. debug: its file in debugfs, if readable."""
    if debug is not None:
        return "managed by the kernel (IRQD_AFFINITY_MANAGED)" if "IRQD_AFFINITY_MANAGED" in debug else ""
    drivers = interrupt.device.drivers if interrupt.device else frozenset()
    for entry in _MANAGED:
        if entry.driver in drivers and all(re.fullmatch(entry.name, name) for name in interrupt.names):
            return f"managed by the kernel: {entry.driver} leaves its queues to it ({entry.source})"
    return ""
