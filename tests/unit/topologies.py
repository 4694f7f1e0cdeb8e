# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processors as sysfs shows them: a Topology describes one, write_tree() puts it into a folder.

    write_tree(ryzen_9950x(), tmp_path)
    write_tree(ryzen_9950x().without(3, 19), tmp_path)      two CPUs offline

CPU numbers follow the kernel: on AMD and Intel servers the second threads come after all first threads,
on Intel hybrids the two threads of a performance core are neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpu_list

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Core:
    """One core. `l3` numbers the cache domain (None: the core has no shared L3)."""

    cpus: tuple[int, ...]
    package: int = 0
    die: int = 0
    l3: int | None = 0
    node: int = 0
    kind: str = ""
    max_mhz: int = 5000


@dataclass(frozen=True)
class Cpufreq:
    driver: str
    governors: str = "performance powersave"
    governor: str = "powersave"
    epp: str = "balance_performance"
    min_mhz: int = 600


@dataclass(frozen=True)
class Topology:
    model: str
    vendor: str
    cores: tuple[Core, ...]
    l3_bytes: dict[int, int]
    cpufreq: Cpufreq | None = None
    smt: str = "on"
    node_bytes: int = 64 * GIB
    flags: str = "fpu svm"
    idle: tuple[tuple[str, int], ...] = (("POLL", 0), ("C1", 1), ("C2", 18), ("C3", 350))
    offline: frozenset[int] = frozenset()

    @property
    def present(self) -> list[int]:
        return sorted(cpu for core in self.cores for cpu in core.cpus)

    @property
    def online(self) -> list[int]:
        return [cpu for cpu in self.present if cpu not in self.offline]

    @property
    def nodes(self) -> list[int]:
        return sorted({core.node for core in self.cores})

    def alive(self, cpus: Iterable[int]) -> str:
        """Those of the CPUs that are online, as the kernel prints a list."""
        return cpu_list(set(cpus) - self.offline)

    def where(self, **fields: object) -> list[int]:
        """CPUs of the cores whose fields have these values."""
        found = [core for core in self.cores if all(getattr(core, key) == value for key, value in fields.items())]
        return [cpu for core in found for cpu in core.cpus]

    def without(self, *cpus: int) -> Topology:
        """The same machine with these CPUs offline."""
        return replace(self, offline=self.offline | set(cpus))

    def without_smt(self) -> Topology:
        """The same machine after `echo off > smt/control`: the second threads are offline."""
        return replace(self.without(*(cpu for core in self.cores for cpu in core.cpus[1:])), smt="off")


# -- machines --------------------------------------------------------------------------------------


def ryzen_9950x() -> Topology:
    """16 cores, SMT, two CCDs with 32 MiB L3 each: CCD0 has CPUs 0-7 and 16-23."""
    cores = tuple(Core((core, core + 16), l3=core // 8, max_mhz=5752) for core in range(16))
    return Topology(
        "AMD Ryzen 9 9950X 16-Core Processor",
        "AuthenticAMD",
        cores,
        {0: 32 * MIB, 1: 32 * MIB},
        Cpufreq("amd-pstate-epp"),
        node_bytes=128 * GIB,
    )


def ryzen_9950x3d() -> Topology:
    """The first CCD carries 64 MiB more cache and clocks lower."""
    base = ryzen_9950x()
    cores = tuple(replace(core, max_mhz=5550 if core.l3 == 0 else 5752) for core in base.cores)
    return replace(
        base, model="AMD Ryzen 9 9950X3D 16-Core Processor", cores=cores, l3_bytes={0: 96 * MIB, 1: 32 * MIB}
    )


def epyc(packages: int = 2, cores_per_package: int = 64, nodes_per_package: int = 4) -> Topology:
    """A server with SMT, NPS4 and eight cores on each L3: 256 CPUs on eight nodes as it comes."""
    total = packages * cores_per_package
    cores = tuple(
        Core(
            (core, core + total),
            package=core // cores_per_package,
            l3=core // 8,
            node=core * nodes_per_package // cores_per_package,
            max_mhz=4121,
        )
        for core in range(total)
    )
    l3 = {core.l3: 32 * MIB for core in cores if core.l3 is not None}
    governors = "conservative ondemand userspace powersave performance schedutil"
    return Topology("AMD EPYC 9554 64-Core Processor", "AuthenticAMD", cores, l3, Cpufreq("acpi-cpufreq", governors))


def intel_hybrid() -> Topology:
    """Eight performance cores with two threads and sixteen efficiency cores, one L3 for all."""
    big = [Core((2 * core, 2 * core + 1), kind="performance", max_mhz=5800) for core in range(8)]
    small = [Core((16 + core,), kind="efficiency", max_mhz=4300) for core in range(16)]
    model = "13th Gen Intel(R) Core(TM) i9-13900K"
    return Topology(model, "GenuineIntel", (*big, *small), {0: 36 * MIB}, Cpufreq("intel_pstate"), flags="fpu vmx")


def small_vm() -> Topology:
    """Two virtual CPUs: no cpufreq, no idle states, SMT control without meaning."""
    cores = (Core((0,)), Core((1,)))
    return Topology(
        "AMD EPYC", "AuthenticAMD", cores, {0: 32 * MIB}, smt="notsupported", flags="fpu hypervisor", idle=()
    )


# -- trees -----------------------------------------------------------------------------------------


def put(root: Path | str, values: dict[str, object]) -> None:
    """Files with one line each; an existing one is replaced."""
    made = set()
    for path, text in values.items():
        whole = os.path.join(root, path.lstrip("/"))
        if (folder := os.path.dirname(whole)) not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        with open(whole, "wb", buffering=0) as handle:
            handle.write(f"{text}\n".encode())


def write_tree(topology: Topology, root: Path | str) -> None:
    """Write /sys/devices/system/{cpu,node}, /proc/cpuinfo and /proc/meminfo of the machine."""
    put(
        root,
        {
            f"{CPU}/present": cpu_list(topology.present),
            f"{CPU}/possible": cpu_list(topology.present),
            f"{CPU}/online": cpu_list(topology.online),
            f"{CPU}/offline": cpu_list(topology.offline),
            f"{CPU}/isolated": "",
            f"{CPU}/smt/control": topology.smt,
            f"{CPU}/smt/active": int(any(len(set(core.cpus) - topology.offline) > 1 for core in topology.cores)),
            f"{CPU}/cpuidle/current_driver": "acpi_idle" if topology.idle else "none",
            "proc/cpuinfo": _cpuinfo(topology),
            "proc/meminfo": _meminfo(topology.node_bytes * len(topology.nodes)),
        },
    )
    for number, core in enumerate(topology.cores):
        for cpu in set(core.cpus) - topology.offline:
            put(root, _cpu_files(topology, number, core, cpu))
    for node in topology.nodes:
        put(root, _node_files(topology, node))
    for kind, pmu in (("performance", "cpu_core"), ("efficiency", "cpu_atom")):
        if topology.where(kind=kind):
            put(root, {f"sys/devices/{pmu}/cpus": topology.alive(topology.where(kind=kind))})


def _cpu_files(topology: Topology, number: int, core: Core, cpu: int) -> dict[str, object]:
    base = f"{CPU}/cpu{cpu}"
    siblings = topology.alive(core.cpus)
    files: dict[str, object] = {
        f"{base}/topology/core_id": number,
        f"{base}/topology/physical_package_id": core.package,
        f"{base}/topology/die_id": core.die,
        f"{base}/topology/thread_siblings_list": siblings,
        f"{base}/power/pm_qos_resume_latency_us": 0,
    }
    for index, (level, shared, size) in enumerate(((1, siblings, "48K"), (1, siblings, "32K"), (2, siblings, "1024K"))):
        files.update(_cache(base, index, level, shared, size))
    if core.l3 is not None:
        size = f"{topology.l3_bytes[core.l3] // 1024}K"
        files.update(_cache(base, 3, 3, topology.alive(topology.where(l3=core.l3)), size))
    for index, (name, latency) in enumerate(topology.idle):
        state = f"{base}/cpuidle/state{index}"
        files.update({f"{state}/name": name, f"{state}/latency": latency, f"{state}/disable": 0})
    if topology.cpufreq:
        files.update(_policy_files(topology.cpufreq, core, cpu))
    return files


def _cache(base: str, index: int, level: int, shared: str, size: str) -> dict[str, object]:
    folder = f"{base}/cache/index{index}"
    return {f"{folder}/level": level, f"{folder}/shared_cpu_list": shared, f"{folder}/size": size}


def _policy_files(cpufreq: Cpufreq, core: Core, cpu: int) -> dict[str, object]:
    policy = f"{CPU}/cpufreq/policy{cpu}"
    files: dict[str, object] = {
        f"{policy}/affected_cpus": cpu,
        f"{policy}/related_cpus": cpu,
        f"{policy}/scaling_driver": cpufreq.driver,
        f"{policy}/scaling_governor": cpufreq.governor,
        f"{policy}/scaling_available_governors": cpufreq.governors,
        f"{policy}/scaling_min_freq": cpufreq.min_mhz * 1000,
        f"{policy}/scaling_max_freq": core.max_mhz * 1000,
        f"{policy}/cpuinfo_min_freq": cpufreq.min_mhz * 1000,
        f"{policy}/cpuinfo_max_freq": core.max_mhz * 1000,
    }
    if cpufreq.driver in {"amd-pstate-epp", "intel_pstate"}:
        words = "default performance balance_performance balance_power power"
        files[f"{policy}/energy_performance_available_preferences"] = words
        files[f"{policy}/energy_performance_preference"] = cpufreq.epp
    if cpufreq.driver == "intel_pstate":
        files[f"{CPU}/intel_pstate/no_turbo"] = 0
    elif cpufreq.driver == "amd-pstate-epp":
        files[f"{policy}/boost"] = 1
    else:
        files[f"{CPU}/cpufreq/boost"] = 1
    return files


def _node_files(topology: Topology, node: int) -> dict[str, object]:
    base = f"{NODE}/node{node}"
    kib = topology.node_bytes // 1024
    return {
        f"{base}/cpulist": topology.alive(topology.where(node=node)),
        f"{base}/meminfo": f"Node {node} MemTotal:  {kib} kB\nNode {node} MemFree:  {kib // 2} kB",
        f"{base}/distance": " ".join("10" if other == node else "12" for other in topology.nodes),
        f"{base}/hugepages/hugepages-2048kB/nr_hugepages": 0,
        f"{base}/hugepages/hugepages-2048kB/free_hugepages": 0,
        f"{base}/hugepages/hugepages-2048kB/surplus_hugepages": 0,
    }


def _cpuinfo(topology: Topology) -> str:
    one = (
        "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: 26\nmodel\t\t: 68\nmodel name\t: {model}\n"
        "stepping\t: 0\nmicrocode\t: 0xb404023\nflags\t\t: {flags}\n"
    )
    values = {"vendor": topology.vendor, "model": topology.model, "flags": topology.flags}
    return "\n".join(one.format(cpu=cpu, **values) for cpu in topology.online)


def _meminfo(total: int) -> str:
    return f"MemTotal:       {total // 1024} kB\nMemFree:        {total // 2048} kB\nMemAvailable:   {total // 1536} kB"
