"""The kernel files of the test host: plain files that lie over the real ones inside its container.

A container shares the kernel of the machine that runs it: a write to the real files would tune that
machine. So the host gets copies, as a workstation with 32 CPUs, two GPUs, an NVMe disk and a network
card with eight queues would show them. What the kernel does after a write, which a plain file cannot do,
settle.py makes up for between two runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from machines import Device, board, dimm, plug, write_dmi

CPUS = 32
GIB = 1 << 20  # in the KiB that /proc/meminfo counts in

# What is laid over, in this order, as far as the machine below has it. All else in /proc and /sys stays what the
# engine makes of it: read-only.
MOUNTS = (
    "/proc/sys",
    "/proc/irq",
    "/proc/interrupts",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/driver",
    "/sys/firmware",
    "/sys/class/dmi",
    "/sys/devices/pci0000:00",
    "/sys/devices/system/clocksource",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/irq",
    "/sys/kernel/mm",
    "/sys/module",
    "/sys/block",
    "/sys/bus/pci",
)

CPU = "/sys/devices/system/cpu"
THP = "/sys/kernel/mm/transparent_hugepage"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
NODE_POOL = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB"
NIC = "0000:05:00.0"

# Files that print their choices, with the chosen one in brackets.
CHOICES = {
    f"{THP}/enabled": "[always] madvise never",
    f"{THP}/defrag": "always defer defer+madvise [madvise] never",
    f"{THP}/shmem_enabled": "always within_size advise [never] deny force",
    "/sys/block/nvme0n1/queue/scheduler": "none [mq-deadline]",
}

# Interrupts: number, chip, name. Those of the disk's queues are the kernel's own (managed).
_NVME = [(41 + queue, "PCI-MSIX-0000:04:00.0", f"nvme0q{queue}") for queue in range(9)]
_NICS = [(60 + queue, f"PCI-MSIX-{NIC}", f"enp5s0-TxRx-{queue}") for queue in range(8)]
INTERRUPTS = (
    (9, "IO-APIC", "acpi"),
    (35, "PCI-MSI-0000:03:00.0", "xhci_hcd"),
    *_NVME,
    *_NICS,
    (140, "PCI-MSI-0000:01:00.0", "nvidia"),
    (141, "PCI-MSI-0000:02:00.0", "nvidia"),
)

# Keys that some kernels are built without; the values are the kernel's defaults.
_SYSCTL_DEFAULTS = {
    "kernel.numa_balancing": "1",
    "kernel.sched_autogroup_enabled": "1",
    "kernel.nmi_watchdog": "1",
    "kernel.watchdog": "1",
    "kernel.timer_migration": "1",
    "net.core.busy_poll": "0",
    "net.core.default_qdisc": "pfifo_fast",
    "net.ipv4.tcp_congestion_control": "cubic",
    "net.ipv4.tcp_available_congestion_control": "reno cubic bbr",
    "vm.compaction_proactiveness": "20",
    "vm.nr_hugepages": "0",
    "vm.zone_reclaim_mode": "0",
    "vm.dirty_bytes": "0",
    "vm.dirty_background_bytes": "0",
    "vm.dirty_ratio": "20",
    "vm.dirty_background_ratio": "10",
}

_DEVICES = (
    Device("0000:01:00.0", irqs=[140], port_address="0000:00:01.1"),
    Device("0000:02:00.0", irqs=[141], port_address="0000:00:01.2"),
    *(
        Device(address, vendor, device, code, driver, port_address=port, bars=(), resizable=0, irqs=irqs)
        for address, vendor, device, code, driver, port, irqs in (
            ("0000:03:00.0", "0x1022", "0x43fd", "0x0c0330", "xhci_hcd", "0000:00:02.1", [35]),
            ("0000:04:00.0", "0x144d", "0xa80c", "0x010802", "nvme", "0000:00:02.2", [row[0] for row in _NVME]),
            (NIC, "0x8086", "0x1563", "0x020000", "ixgbe", "0000:00:02.3", [row[0] for row in _NICS]),
        )
    ),
)


def build(folder: Path) -> None:
    """Write the tree below `folder`, and beside it manifest.json for settle.py."""
    files = dict(_files())
    for path, text in files.items():
        _put(folder / path[1:], text)
    for path, target in _links():
        link = folder / path[1:]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for device in _DEVICES:
        plug(folder, device)
    write_dmi(folder, board(), *(dimm(f"DIMM_{slot}", 32, 6000, 6000) for slot in ("A1", "A2", "B1", "B2")))
    manifest = {
        "choices": {path: text.replace("[", "").replace("]", "").split() for path, text in CHOICES.items()},
        "interrupts": [number for number, _chip, _name in INTERRUPTS],
        "pools": ["/proc/sys/vm/nr_hugepages", f"{POOL}/nr_hugepages", f"{NODE_POOL}/nr_hugepages"],
        "free": [f"{POOL}/free_hugepages", f"{NODE_POOL}/free_hugepages"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def _files() -> Iterator[tuple[str, str]]:
    yield from _sysctls()
    yield from _cpus()
    yield from _memory()
    yield from _interrupts()
    yield from _devices()
    yield from CHOICES.items()


def _sysctls() -> Iterator[tuple[str, str]]:
    for key, value in _SYSCTL_DEFAULTS.items():
        yield f"/proc/sys/{key.replace('.', '/')}", value
    for folder, folders, names in os.walk("/proc/sys"):
        # binfmt_misc would be mounted by systemd; per-interface settings are many and nobody's subject here.
        folders[:] = [name for name in folders if name not in ("binfmt_misc", "conf", "neigh")]
        for name in names:
            path = Path(folder, name)
            if path.as_posix().removeprefix("/proc/sys/").replace("/", ".") not in _SYSCTL_DEFAULTS:
                text = ""  # what can only be written
                with contextlib.suppress(OSError):
                    text = path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
                yield str(path), text


def _cpus() -> Iterator[tuple[str, str]]:
    every = f"0-{CPUS - 1}"
    for name in ("online", "present", "possible"):
        yield f"{CPU}/{name}", every
    for name in ("offline", "isolated", "nohz_full"):
        yield f"{CPU}/{name}", ""
    yield f"{CPU}/smt/control", "on"
    yield f"{CPU}/smt/active", "1"
    yield f"{CPU}/cpufreq/boost", "1"
    yield f"{CPU}/cpuidle/current_driver", "acpi_idle"
    for cpu in range(CPUS):
        core, half = cpu % (CPUS // 2), CPUS // 4
        folder, first = f"{CPU}/cpu{cpu}", core // half * half
        yield f"{folder}/topology/core_id", str(core)
        yield f"{folder}/topology/physical_package_id", "0"
        yield f"{folder}/topology/die_id", "0"
        yield f"{folder}/topology/thread_siblings_list", f"{core},{core + CPUS // 2}"
        yield f"{folder}/cache/index3/level", "3"
        yield f"{folder}/cache/index3/size", "32768K"
        shared = f"{first}-{first + half - 1},{first + CPUS // 2}-{first + CPUS // 2 + half - 1}"
        yield f"{folder}/cache/index3/shared_cpu_list", shared
        yield f"{folder}/power/pm_qos_resume_latency_us", "0"
        for state, (name, latency) in enumerate((("POLL", 0), ("C1", 1), ("C2", 18), ("C3", 350))):
            yield f"{folder}/cpuidle/state{state}/name", name
            yield f"{folder}/cpuidle/state{state}/latency", str(latency)
            yield f"{folder}/cpuidle/state{state}/disable", "0"
        policy = f"{CPU}/cpufreq/policy{cpu}"
        for name, text in {
            "affected_cpus": str(cpu),
            "related_cpus": str(cpu),
            "scaling_driver": "amd-pstate",
            "scaling_governor": "schedutil",
            "scaling_available_governors": "conservative ondemand userspace powersave performance schedutil",
            "scaling_min_freq": "600000",
            "scaling_max_freq": "5752000",
            "cpuinfo_min_freq": "600000",
            "cpuinfo_max_freq": "5752000",
        }.items():
            yield f"{policy}/{name}", text
    paragraph = "processor\t: {cpu}\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 68\n"
    paragraph += "model name\t: AMD Ryzen 9 9950X 16-Core Processor\nstepping\t: 0\nmicrocode\t: 0xb404023\n"
    paragraph += "physical id\t: 0\nsiblings\t: 32\ncore id\t\t: {core}\ncpu cores\t: 16\nflags\t\t: svm\n"
    yield "/proc/cpuinfo", "\n".join(paragraph.format(cpu=cpu, core=cpu % (CPUS // 2)) for cpu in range(CPUS))


def _memory() -> Iterator[tuple[str, str]]:
    sizes = {"MemTotal": 125 * GIB, "MemFree": 118 * GIB, "MemAvailable": 121 * GIB, "Buffers": 0, "Cached": 2 * GIB}
    sizes |= {"SwapCached": 0, "Shmem": 0, "SwapTotal": 0, "SwapFree": 0}
    lines = [f"{name + ':':<16}{size:>8} kB" for name, size in sizes.items()]
    pages = [
        "HugePages_Total:       0",
        "HugePages_Free:        0",
        "HugePages_Rsvd:        0",
        "Hugepagesize:    2048 kB",
    ]
    yield "/proc/meminfo", "\n".join(lines + pages)
    node = "/sys/devices/system/node"
    yield f"{node}/online", "0"
    yield f"{node}/node0/cpulist", f"0-{CPUS - 1}"
    yield f"{node}/node0/distance", "10"
    found = {"MemTotal": 125 * GIB, "MemFree": 118 * GIB, "FilePages": 2 * GIB, "Shmem": 0}
    yield f"{node}/node0/meminfo", "\n".join(f"Node 0 {name}: {size} kB" for name, size in found.items())
    for pool in (POOL, NODE_POOL):
        for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
            yield f"{pool}/{name}", "0"
    yield f"{POOL}/resv_hugepages", "0"
    for name, text in {
        f"{THP}/khugepaged/defrag": "1",
        f"{THP}/khugepaged/pages_to_scan": "4096",
        f"{THP}/khugepaged/scan_sleep_millisecs": "10000",
        f"{THP}/khugepaged/alloc_sleep_millisecs": "60000",
        f"{THP}/khugepaged/max_ptes_none": "511",
        "/sys/kernel/mm/ksm/run": "0",
        "/sys/kernel/mm/ksm/sleep_millisecs": "20",
        "/sys/kernel/mm/ksm/pages_to_scan": "100",
        "/sys/kernel/mm/lru_gen/min_ttl_ms": "0",
        "/sys/kernel/mm/numa/demotion_enabled": "false",
        "/sys/kernel/mm/swap/vma_ra_enabled": "true",
        "/sys/module/zswap/parameters/enabled": "N",
        "/sys/module/zswap/parameters/max_pool_percent": "20",
        "/sys/module/nvme_core/parameters/default_ps_max_latency_us": "100000",
    }.items():
        yield name, text


def _interrupts() -> Iterator[tuple[str, str]]:
    yield "/proc/irq/default_smp_affinity", "ffffffff"
    head = "".join(f"{f'CPU{cpu}':>11}" for cpu in range(CPUS))
    lines = [f"     {head}"]
    for hardware, (number, chip, name) in enumerate(INTERRUPTS):
        yield f"/sys/kernel/irq/{number}/actions", name
        yield f"/sys/kernel/irq/{number}/chip_name", chip
        yield f"/sys/kernel/irq/{number}/hwirq", str(hardware)
        counts = "".join(f"{0:>11}" for _cpu in range(CPUS))
        lines.append(f"{number:>4}:{counts}  {chip}   {number}-edge      {name}")
        folder = f"/proc/irq/{number}"
        yield f"{folder}/node", "0"
        yield f"{folder}/smp_affinity", "ffffffff"
        yield f"{folder}/smp_affinity_list", f"0-{CPUS - 1}"
        yield f"{folder}/effective_affinity", "1"
        yield f"{folder}/effective_affinity_list", "0"
    yield "/proc/interrupts", "\n".join(lines)


def _devices() -> Iterator[tuple[str, str]]:
    for driver in sorted({device.driver for device in _DEVICES}):
        yield f"/sys/module/{driver}/refcnt", "1"
    yield "/sys/module/nvidia/version", "580.95.05"
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
    yield "/proc/driver/nvidia/version", version
    for address in ("0000:01:00.0", "0000:02:00.0"):
        yield f"/proc/driver/nvidia/gpus/{address}/information", "Model: \t\t NVIDIA GeForce RTX 5090"
    yield "/sys/class/dmi/id/sys_vendor", "ASUSTeK COMPUTER INC."
    yield "/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"
    yield "/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"
    disk = "/sys/block/nvme0n1"
    for name, text in {"dev": "259:0", "size": "7814037168", "ro": "0", "removable": "0"}.items():
        yield f"{disk}/{name}", text
    for name, text in {"read_ahead_kb": "128", "rotational": "0", "nr_requests": "1023", "add_random": "0"}.items():
        yield f"{disk}/queue/{name}", text


def _links() -> Iterator[tuple[str, str]]:
    for cpu in range(CPUS):
        yield f"{CPU}/cpu{cpu}/cpufreq", f"../cpufreq/policy{cpu}"
