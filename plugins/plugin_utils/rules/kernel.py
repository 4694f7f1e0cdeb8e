# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about the kernel: sysctls, boot parameters, what a guest does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from ...module_utils.errors import InputError
from ...module_utils.subjects.kernel_command_line import DANGEROUS
from ...module_utils.values import cpu_list
from ...module_utils.values import cpus as parse_cpus
from .base import ERROR, NOTE, WARNING, Finding, rule, said
from .context import Context

# The kernel's own values since 3.16 (include/uapi/linux/shm.h): ULONG_MAX less 2^24.
_SHM_DEFAULT = 18446744073692774399
# What a variable other than os_tuning_sysctl and os_tuning_sysfs sets.
_CPUFREQ = r"/sys/devices/system/cpu/(cpufreq/policy\d+|cpu\d+/cpufreq)"
_THP = "/sys/kernel/mm/transparent_hugepage"
_SET_BY = (
    (r"vm\.nr_hugepages(_mempolicy)?", "os_tuning_hugepages"),
    (r"/sys/(kernel/mm|devices/system/node/node\d+)/hugepages/hugepages-\d+kB/nr_hugepages", "os_tuning_hugepages"),
    (r"vm\.hugetlb_shm_group", "os_tuning_hugepages_group"),
    (f"{_THP}/enabled", "os_tuning_thp"),
    (f"{_THP}/defrag", "os_tuning_thp_defrag"),
    (f"{_THP}/shmem_enabled", "os_tuning_thp_shmem"),
    (f"{_CPUFREQ}/scaling_governor", "os_tuning_governor"),
    (f"{_CPUFREQ}/energy_performance_preference", "os_tuning_epp"),
    (f"{_CPUFREQ}/scaling_min_freq", "os_tuning_min_mhz"),
    (f"{_CPUFREQ}/scaling_max_freq", "os_tuning_max_mhz"),
    (r"/sys/devices/system/cpu/(.*/boost|intel_pstate/no_turbo)", "os_tuning_boost"),
    (r"/sys/devices/system/cpu/smt/control", "os_tuning_smt"),
    (
        r"/sys/devices/system/cpu/cpu\d+/(power/pm_qos_resume_latency_us|cpuidle/state\d+/disable)",
        "os_tuning_idle_latency_us",
    ),
)
_DISK_QUEUE = r"/sys/block/([^/]+)/queue/(\w+)"
_CPU_KNOBS = ("os_tuning_governor", "os_tuning_epp", "os_tuning_boost", "os_tuning_min_mhz", "os_tuning_max_mhz")


@rule(WARNING, "T29")
def isolated_cpus(ctx: Context) -> Iterator[Finding]:
    """isolcpus= on a machine whose services run several threads there."""
    planned = [value for value in ctx.kernel_parameters.get("isolcpus", []) if value]
    many = [service.name for service in ctx.services if service.cpus > 1]
    if planned and (many or not ctx.services):
        yield Finding(
            f"the kernel parameter isolcpus={planned[-1]} is wanted"
            + (f", and {said(many)} use several threads" if many else ""),
            "the kernel balances no load on isolated CPUs: all threads of a program stay on one of them",
            ("os_tuning_kernel_parameters", "workstation_services"),
            "leave isolcpus out and give the services exclusive CPUs, or pin each of their threads",
        )
        return
    try:
        isolated = set(parse_cpus("isolated", ctx.section("cpu", "isolated") or ""))
    except InputError:
        return
    placed = ctx.placement
    for name, service in sorted(placed["services"].items()) if isinstance(placed, Mapping) else ():
        common = isolated & set(parse_cpus("cpus", service["cpus"]))
        if len(common) > 1:
            yield Finding(
                f"service {name} is placed on the isolated CPUs {cpu_list(common)}",
                "the kernel balances no load on isolated CPUs: all threads of a program stay on one of them",
                (f"workstation_services: {name}",),
                "take isolcpus= from the kernel's command line, or pin each thread of the service",
            )


@rule(ERROR, "T32")
def shared_memory_lowered(ctx: Context) -> Iterator[Finding]:
    """kernel.shmmax or kernel.shmall below the kernel's default."""
    for name in ("kernel.shmmax", "kernel.shmall"):
        value = ctx.sysctl.get(name)
        if value is not None and str(value).isdigit() and int(str(value)) < _SHM_DEFAULT:
            yield Finding(
                f"{name} = {value} is below the kernel's own {_SHM_DEFAULT}",
                "it lowers a limit that is out of the way, and concerns System V shared memory, which PyTorch, NCCL "
                "and vLLM do not use",
                (f"os_tuning_sysctl['{name}']",),
                "leave it out; a container gets more shared memory by shm_size",
            )


@rule(ERROR, "T33")
def dropped_caches(ctx: Context) -> Iterator[Finding]:
    """Caches are to be dropped, once or by a timer."""
    places = ["os_tuning_sysctl['vm.drop_caches']"] if ctx.sysctl.get("vm.drop_caches") is not None else []
    places += [
        f"os_tuning_files: {item.get('path')}"
        for item in ctx.entries("os_tuning_files")
        if "drop_caches" in str(item.get("content"))
    ]
    places += ["os_tuning_sysfs"] if any("drop_caches" in str(path) for path in ctx.table("os_tuning_sysfs")) else []
    if places:
        yield Finding(
            "the page cache is to be dropped (vm.drop_caches)",
            "the loaded models are page cache: they are read from disk again at their next use",
            tuple(places),
            "leave it out; vm.dirty_bytes bounds what a download piles up",
        )


@rule(ERROR, "T33")
def strict_overcommit(ctx: Context) -> Iterator[Finding]:
    """vm.overcommit_memory=2 with CUDA."""
    cuda = bool(ctx.gpus) or any(service.uses_gpu for service in ctx.services)
    if cuda and str(ctx.sysctl.get("vm.overcommit_memory")) == "2":
        yield Finding(
            "vm.overcommit_memory = 2 on a machine with a GPU",
            "CUDA reserves address space far beyond the memory there is, and fails at its first call",
            ("os_tuning_sysctl['vm.overcommit_memory']",),
            "leave it at 0",
        )


@rule(ERROR, "T33", acceptable=False)
def dangerous_kernel_parameter(ctx: Context) -> Iterator[Finding]:
    """A kernel parameter that takes safety or much power, like mitigations=off or idle=poll."""
    accepted = {str(name).replace("-", "_") for name in ctx.value("os_tuning_kernel_parameters_accept") or ()}
    for name, values in ctx.kernel_parameters.items():
        meant, why = DANGEROUS.get(name, ((), ""))
        if not why or (meant and values[-1] not in meant):
            continue
        text = name if values[-1] is None else f"{name}={values[-1]}"
        yield Finding(
            f"the kernel parameter {text} is wanted",
            f"it {why}",
            ("os_tuning_kernel_parameters", "os_tuning_kernel_parameters_accept"),
            "nothing to do: it is accepted by name"
            if name in accepted
            else f"leave it out, or list {name} in os_tuning_kernel_parameters_accept",
            severity=WARNING if name in accepted else "",
            accepted=name in accepted,
        )


@rule(ERROR, "T30", acceptable=False)
def hardware_in_a_guest(ctx: Context) -> Iterator[Finding]:
    """The inventory names a hardware setting that this virtual machine or container does not have."""
    if not ctx.guest or ctx.section("cpu") is None:
        return
    missing = []
    if not ctx.section("cpu", "cpufreq", "policies"):
        missing += [name for name in _CPU_KNOBS if ctx.explicit(name)]
    if not ctx.section("cpu", "idle", "states") and ctx.explicit("os_tuning_idle_latency_us"):
        missing.append("os_tuning_idle_latency_us")
    control = ctx.section("cpu", "smt", "control")
    if control in (None, "notsupported", "notimplemented") and ctx.explicit("os_tuning_smt"):
        missing.append("os_tuning_smt")
    kind = "container" if ctx.section("kernel", "container") else "virtual machine"
    for name in missing:
        yield Finding(
            f"{name} is set, and this {kind} ({ctx.guest}) does not have what it sets",
            "the host decides it; what the inventory names must exist, what a profile names is skipped here",
            (name,),
            "set it for the host machines only, or leave it to the profile",
        )


def _set_by(ctx: Context, name: str) -> str:
    """The variable that sets this sysctl or file as well; "" where none does."""
    for pattern, variable in _SET_BY:
        if re.fullmatch(pattern, name):
            return "" if ctx.value(variable) in (None, []) else variable
    # A disk that is chosen by a path is known on the machine alone.
    queue = re.fullmatch(_DISK_QUEUE, name)
    for item in ctx.entries("os_tuning_block_devices") if queue else ():
        disk, attribute = queue.groups() if queue else ("", "")
        if item.get(attribute) is not None and fnmatchcase(disk, str(item.get("device") or "")):
            return "os_tuning_block_devices"
    return ""


@rule(ERROR, acceptable=False)
def two_variables_for_one_setting(ctx: Context) -> Iterator[Finding]:
    """A sysctl or a file below /sys that another variable sets as well."""
    files = [str(path) for path, value in ctx.table("os_tuning_sysfs").items() if value is not None]
    wanted = [*((name, "os_tuning_sysctl") for name in ctx.sysctl), *((path, "os_tuning_sysfs") for path in files)]
    for name, variable in wanted:
        if other := _set_by(ctx, name):
            yield Finding(
                f"{name} is set by {variable} and by {other}",
                "each run writes both values one after the other, and neither is known to last",
                (f"{variable}['{name}']", other),
                f"take it out of {variable} and say it in {other}, or set {other} to null",
            )


@rule(NOTE, "T31")
def numa_on_one_node(ctx: Context) -> Iterator[Finding]:
    """A NUMA setting on a machine with one node."""
    nodes = ctx.section("memory", "nodes")
    if nodes is not None and len(nodes) < 2 and ctx.sysctl.get("kernel.numa_balancing") is not None:
        yield Finding(
            "kernel.numa_balancing is set on a machine with one NUMA node",
            "the kernel balances between nodes; with one there is nothing to balance and nothing to gain",
            ("os_tuning_sysctl['kernel.numa_balancing']",),
            "leave it out for this machine",
        )
