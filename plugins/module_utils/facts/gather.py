# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All facts of a machine: `gather()` composes the sections.

The schema. A value that the machine does not tell is null (a list: empty); nothing raises. Names end in
their unit. "cpus" texts are kernel CPU lists ("0-7,16"). The module's RETURN has the same list.

cpu          model vendor family model_number stepping microcode: str|int; virtualization: svm|vmx|"";
             hypervisor: bool; online present offline isolated: CPU list;
             smt {control: on|off|forceoff|notsupported|notimplemented, active: bool, threads_per_core: int};
             cpus [{cpu core package die: int, l3: CPU list, l3_size_bytes, node: int, siblings: CPU list,
             core_type: performance|efficiency|"", online: bool, max_mhz}];
             l3_domains [{cpus, size_bytes}];
             cpufreq {driver, policies [{policy: int, cpus, governor, governors [], epp, epps [], min_mhz,
             max_mhz, hardware_min_mhz, hardware_max_mhz, boost: bool}]};
             idle {driver, governor, states [{name, latency_us, disabled: bool, disabled_cpus}]}
memory       total_bytes available_bytes; nodes [{node, cpus, total_bytes, free_bytes, distances [int],
             huge_pages [{size_bytes total free surplus}]}]; huge_pages [{size_bytes total free reserved surplus}];
             swap [{device type size_bytes used_bytes priority}]; zram [{device size_bytes algorithm used_bytes}];
             zswap: bool; thp {enabled defrag shmem}; dimms [{locator bank size_bytes type rated_mts
             configured_mts manufacturer part rank}]
gpus         [...] see gpus.py
gpu_driver   {...} see gpus.py
pci          [...] see pci.py
storage      {disks [...], mounts [...]} see storage.py
interrupts   {default_affinity, irqs [...]} see interrupts.py
firmware     smbios; bios {vendor version date}; system {manufacturer product version family};
             board {manufacturer product version}; chassis {manufacturer type};
             sockets [{socket version populated max_mhz cores cores_enabled threads}];
             memory_error_correction; efi: bool; secure_boot: bool; iommu {units [], groups: int, types []};
             menu_vendor: asus|msi|gigabyte|asrock|...|""
kernel       release architecture cmdline; os {id version_id codename name family}; modules [];
             loadable []: of the modules that settings need, those that are loaded, compiled in or on disk;
             virtualization: none|kvm|docker|lxc|...; hypervisor: the same below a container; container: bool;
             systemd: bool; python_version; boot_id; machine_id (derived from the machine's own);
             pending_reboots [{owner key reason}]: what our changes in this boot wait for (root only);
             root: bool (facts of a non-root call lack DIMMs and more)
docker       present active: bool; version; config; config_problem; cgroup_driver; runtimes []; default_runtime;
             cdi {enabled: bool, specs []}; nvidia_container_toolkit: version
systemd      version cgroup: int; services [active unit]; swap_units [{unit, device: as /proc/swaps names it}]
owners       [{name unit installed enabled active masked command writes []}], always the same names
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Callable

from ..doors.host import Host
from ..errors import InputError
from . import cpu, gpus, interrupts, memory, owners, pci, smbios, storage, system, systemd
from .reading import Facts

OpenDriver = Callable[[], Any]


class Sources:
    """What several sections need, read once and only when a section asks."""

    def __init__(self, host: Host, open_driver: OpenDriver | None = None) -> None:
        self.host = host
        self.open_driver = open_driver

    @cached_property
    def dmi(self) -> bytes | None:
        """The SMBIOS table: root alone may read it."""
        return self.host.raw(smbios.TABLE)

    @cached_property
    def pci(self) -> list[Facts]:
        """The `pci` section: the GPUs' section starts from it."""
        return pci.gather(self.host)


# The sections in the order in which they are gathered.
_SECTIONS: dict[str, Callable[[Sources], Facts]] = {
    "cpu": lambda sources: {"cpu": cpu.gather(sources.host)},
    "memory": lambda sources: {"memory": memory.gather(sources.host, smbios.dimms(sources.dmi))},
    "gpus": lambda sources: gpus.gather(sources.host, sources.pci, sources.open_driver),
    "pci": lambda sources: {"pci": sources.pci},
    "storage": lambda sources: {"storage": storage.gather(sources.host)},
    "interrupts": lambda sources: {"interrupts": interrupts.gather(sources.host)},
    "firmware": lambda sources: {"firmware": system.firmware(sources.host, sources.dmi)},
    "kernel": lambda sources: {"kernel": system.kernel(sources.host)},
    "docker": lambda sources: {"docker": system.docker(sources.host)},
    "systemd": lambda sources: {"systemd": systemd.gather(sources.host)},
    "owners": lambda sources: {"owners": owners.gather(sources.host)},
}
SECTIONS = tuple(_SECTIONS)


def subset(names: Sequence[str] | None) -> tuple[str, ...]:
    """The sections asked for, in our order; "all" or nothing means all."""
    asked = set(names or ["all"])
    unknown = sorted(asked - {"all", *SECTIONS})
    if unknown:
        raise InputError(f"gather_subset: {unknown[0]!r} is not one of all, {', '.join(SECTIONS)}")
    return SECTIONS if "all" in asked else tuple(name for name in SECTIONS if name in asked)


def gather(host: Host, names: Sequence[str] | None = None, open_driver: OpenDriver | None = None) -> Facts:
    """The facts of the sections asked for. `open_driver` opens the NVML door (doors/nvml.py)."""
    sources = Sources(host, open_driver)
    found: Facts = {}
    for name in subset(names):
        found.update(_SECTIONS[name](sources))
    return found
