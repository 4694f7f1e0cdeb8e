# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflict rules about CPUs, memory, kernel and firmware: each where it fires, and where it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ruling import GIB, Case, check, cpus, fires, machine, memory, owner, silent


def warns(rule: str, says: str, facts=None, **variables) -> Case:
    return replace(fires(rule, says, facts, **variables), severity="warning")


def notes(rule: str, says: str, facts=None, **variables) -> Case:
    return replace(fires(rule, says, facts, **variables), severity="note")


def sysctl(**values) -> dict:
    return {"os_tuning_sysctl": {name.replace("__", "."): value for name, value in values.items()}}


SMT_OFF = {"control": "off", "active": False, "threads_per_core": 1}
NO_CPUFREQ = {**cpus(), "cpufreq": {"driver": None, "policies": []}, "idle": {"driver": None, "states": []},
              "smt": {"control": "notsupported", "active": False, "threads_per_core": 1}}  # fmt: skip
VM = {"kernel": {"virtualization": "kvm", "container": False, "cmdline": ""}, "cpu": NO_CPUFREQ}
GPU_IRQ = {"os_tuning_interrupts": [{"driver": "nvidia", "cpus": "0-1"}]}
BALANCER = {"owners": [owner("irqbalance")]}
STOPPED = {
    "os_tuning_units": [{"name": "irqbalance.service", "active": False}],
    "os_tuning_irqbalance": {"stopped": True},
}
SMALL = {"memory": memory(total_bytes=16 * GIB)}
UNGUARDED = {"owners": [owner("earlyoom", installed=False, active=False)]}
NO_ZRAM = {"virtualization": "none", "container": False, "loadable": ["loop"], "release": "6.8.0"}
GUARDED = {"os_tuning_oom_guard": "earlyoom"}
POOL = {"os_tuning_hugepages": [{"size": "2M", "count": 1024}]}
THP = "/sys/kernel/mm/transparent_hugepage"
HUGE_USER = {"workstation_services": [{"name": "one", "uses_hugetlb": True}]}

CPU = [
    # T08
    fires("cpu_not_online", "CPUs 16-17 are not online", os_tuning_interrupts=[{"driver": "nvme", "cpus": "15-17"}]),
    fires("cpu_not_online", "CPUs 8-9 are not online after SMT",
          os_tuning_smt="off", os_tuning_interrupts=[{"driver": "nvme", "cpus": "7-9"}]),
    fires("cpu_not_online", "os_tuning_default_interrupt_cpus: CPUs 64", os_tuning_default_interrupt_cpus="64"),
    fires("cpu_not_online", "os_tuning_irqbalance.banned_cpus", os_tuning_irqbalance={"banned_cpus": "0,99"}),
    fires("cpu_not_online", "os_tuning_slices.ai.allowed_cpus: CPUs 40",
          os_tuning_slices={"ai": {"allowed_cpus": "40"}}),
    fires("cpu_not_online", "os_tuning_cpus", os_tuning_cpus="0-31"),
    silent("cpu_not_online", os_tuning_cpus="all", os_tuning_interrupts=[{"driver": "nvme", "cpus": "0-15"}]),
    silent("cpu_not_online", {"cpu": {**cpus(), "online": "0-7", "smt": SMT_OFF}},
           os_tuning_smt="on", os_tuning_default_interrupt_cpus="15"),
    silent("cpu_not_online", {"cpu": {}}, os_tuning_default_interrupt_cpus="15"),
    # T09
    fires("cpu_placement", "they do not fit together", workstation_services=[
        {"name": name, "cpus": 6, "exclusive": True} for name in ("one", "two")]),
    silent("cpu_placement", workstation_services=[
        {"name": name, "cpus": 3, "exclusive": True} for name in ("one", "two")]),
    warns("cpu_placement_costs", "span 2 L3 domains", workstation_services=[
        {"name": "one", "cpus": 6, "exclusive": True}]),
    silent("cpu_placement_costs", workstation_services=[{"name": "one", "cpus": 3, "exclusive": True}]),
    # T20
    fires("governor_writers", "tuned.service writes", {"owners": [owner("tuned")]}),
    fires("governor_writers", "tlp.service and auto-cpufreq.service write",
          {"owners": [owner("auto_cpufreq"), owner("tlp")]}, os_tuning_governor=None, os_tuning_epp=None),
    silent("governor_writers", {"owners": [owner("tuned")]}, os_tuning_governor=None, os_tuning_epp=None),
    silent("governor_writers", {"owners": [owner("tuned", active=False), owner("thermald")]}),
    silent("governor_writers", {"owners": [owner("tuned")]},
           os_tuning_units=[{"name": "tuned.service", "unit_file": "masked", "active": False}]),
    silent("governor_writers", {"owners": [owner("tuned")], "cpu": NO_CPUFREQ}),
    fires("preference_with_performance", "os_tuning_epp power",
          os_tuning_governor="performance", os_tuning_epp="power"),
    silent("preference_with_performance", os_tuning_governor="performance", os_tuning_epp="performance"),
    silent("preference_with_performance", os_tuning_governor="powersave", os_tuning_epp="power"),
    silent("preference_with_performance", os_tuning_governor="performance"),
    silent("preference_with_performance", os_tuning_governor="performance", workstation_profile="conservative"),
    # T21
    fires("interrupts_with_irqbalance", "os_tuning_interrupts[0]", BALANCER, **GPU_IRQ),
    fires("interrupts_with_irqbalance", "os_tuning_interrupts[0]", BALANCER,
          os_tuning_interrupts=[{"pci": "01:00.0", "cpus": "0"}]),
    fires("interrupts_with_irqbalance", "os_tuning_interrupts[0]", BALANCER, **GPU_IRQ,
          os_tuning_units=STOPPED["os_tuning_units"]),
    silent("interrupts_with_irqbalance", BALANCER, **GPU_IRQ, os_tuning_irqbalance={"banned_modules": ["nvidia"]}),
    silent("interrupts_with_irqbalance", BALANCER, **GPU_IRQ, **STOPPED),
    fires("interrupts_with_irqbalance", "os_tuning_interrupts[0]", BALANCER, **GPU_IRQ,
          os_tuning_irqbalance={"stopped": True}),
    silent("interrupts_with_irqbalance", BALANCER, os_tuning_interrupts=[{"pci": "0000:05:00.0", "cpus": "0"}]),
    silent("interrupts_with_irqbalance", BALANCER, os_tuning_interrupts=[{"driver": "nvme", "cpus": "0"}]),
    silent("interrupts_with_irqbalance", {"owners": [owner("irqbalance", active=False)]}, **GPU_IRQ),
]  # fmt: skip

MEMORY = [
    # T10
    fires("memory_overcommitted", "service llama 96.0 GiB and huge pages 30.0 GiB", **{
        **HUGE_USER, "workstation_services": [{"name": "llama", "memory_bytes": "96G"}],
        "os_tuning_hugepages": [{"size": "1G", "count": 30}]}),
    fires("memory_overcommitted", "1.0 GiB more", workstation_services=[{"name": "a", "memory_bytes": "113G"}],
          os_tuning_zram={"size": "8G"}),
    fires("memory_overcommitted", "files in /tmp", workstation_services=[{"name": "a", "memory_bytes": "113G"}],
          os_tuning_tmp_size="8G"),
    silent("memory_overcommitted", workstation_services=[{"name": "a", "memory_bytes": "120G"}]),
    silent("memory_overcommitted", SMALL, os_tuning_zram={"size": "64G"}),
    # A profile's zram is at most a quarter of the memory: 4 of 16 GiB.
    silent("memory_overcommitted", {"memory": memory(total_bytes=16 * GIB, swap=[])},
           workstation_services=[{"name": "a", "memory_bytes": "4G"}]),
    fires("memory_overcommitted", "zram 4.0 GiB", {"memory": memory(total_bytes=16 * GIB, swap=[])},
          workstation_services=[{"name": "a", "memory_bytes": "5G"}]),
    silent("memory_overcommitted", {"memory": memory(total_bytes=16 * GIB, swap=[]), "kernel": NO_ZRAM},
           workstation_services=[{"name": "a", "memory_bytes": "8G"}]),
    silent("memory_overcommitted", **HUGE_USER, os_tuning_hugepages=[{"size": "1G", "count": 120}]),
    fires("huge_pages_without_user", "2.0 GiB", **POOL),
    fires("huge_pages_without_user", "2.0 GiB", os_tuning_kernel_parameters={"hugepages": 1024}),
    fires("huge_pages_without_user", "6.0 GiB",
          os_tuning_kernel_parameters={"hugepagesz": ["1G", "2M"], "hugepages": [4, 1024]}),
    fires("huge_pages_without_user", "2.0 GiB", os_tuning_hugepages=[{"size": "odd", "count": 1024}]),
    fires("huge_pages_without_user", "4.0 GiB", os_tuning_kernel_parameters={"hugepagesz": "1G", "hugepages": 4}),
    fires("huge_pages_without_user", "2.0 GiB", **sysctl(vm__nr_hugepages=1024)),
    silent("huge_pages_without_user", **POOL, **HUGE_USER),
    silent("huge_pages_without_user", os_tuning_hugepages=[{"size": "2M", "count": 0}]),
    # T11
    fires("swap_off_is_unsafe", "only 16.0 GiB", SMALL, **GUARDED, os_tuning_swap="off"),
    fires("swap_off_is_unsafe", "hibernation", {"kernel": {"cmdline": "quiet resume=UUID=1"}}, **GUARDED,
          os_tuning_swap="off"),
    fires("swap_off_is_unsafe", "6.0 GiB are swapped out",
          {"memory": memory(available_bytes=5 * GIB, swap=[{"device": "/swapfile", "used_bytes": 6 * GIB}])},
          **GUARDED, os_tuning_swap="off"),
    fires("swap_off_is_unsafe", "earlyoom does not watch", UNGUARDED, os_tuning_swap="off"),
    fires("swap_off_is_unsafe", "earlyoom does not watch", {"owners": [owner("earlyoom")]}, os_tuning_swap="off",
          os_tuning_oom_guard="none"),
    silent("swap_off_is_unsafe", **GUARDED, os_tuning_swap="off"),
    silent("swap_off_is_unsafe", {"owners": [owner("earlyoom")]}, os_tuning_swap="off"),
    silent("swap_off_is_unsafe", SMALL, os_tuning_swap="keep"),
    # T12
    fires("oomd_without_swap", "there is no swap", {"memory": memory(swap=[])}, os_tuning_oom_guard="systemd-oomd",
          os_tuning_zram=None),
    fires("oomd_without_swap", "there is no swap", {"memory": memory(swap=[]), "owners": [owner("systemd_oomd")]},
          os_tuning_oom_guard=None, os_tuning_zram=None),
    fires("oomd_without_swap", "there is no swap",
          {"memory": memory(swap=[]), "owners": [owner("systemd_oomd"), *UNGUARDED["owners"]]}, os_tuning_zram=None),
    fires("oomd_without_swap", "there is no swap", {"memory": memory(swap=[]), "kernel": NO_ZRAM},
          os_tuning_oom_guard="systemd-oomd"),
    fires("oomd_without_swap", "there is no swap", os_tuning_oom_guard="systemd-oomd", os_tuning_swap="off"),
    silent("oomd_without_swap", os_tuning_oom_guard="systemd-oomd"),
    silent("oomd_without_swap", {"memory": memory(swap=[])}, os_tuning_oom_guard="systemd-oomd",
           os_tuning_zram={"size": "8G"}),
    silent("oomd_without_swap", {"memory": memory(swap=[])}, **GUARDED),
    silent("oomd_without_swap", {"memory": memory(swap=[]), "owners": [owner("systemd_oomd"), owner("earlyoom")]},
           os_tuning_oom_guard=None, os_tuning_zram=None),
    # T13
    fires("zram_and_zswap", "both on", os_tuning_zram={"size": "8G"}, os_tuning_zswap=True),
    fires("zram_and_zswap", "both on", {"memory": memory(zswap=True)}, os_tuning_zram={"size": "8G"},
          os_tuning_zswap=None),
    fires("zram_and_zswap", "both on", {"memory": memory(zram=[{"device": "/dev/zram0"}])},
          os_tuning_kernel_parameters={"zswap.enabled": 1}, os_tuning_zswap=None),
    warns("zram_and_zswap", "both on", {"memory": memory(zram=[{"device": "/dev/zram0"}], zswap=True)},
          os_tuning_zswap=None),
    silent("zram_and_zswap", {"memory": memory(zram=[{"device": "/dev/zram0"}], zswap=True)}),
    silent("zram_and_zswap", {"memory": memory(zswap=True)}, os_tuning_zram={"size": "8G"}, os_tuning_zswap=False),
    silent("zram_and_zswap", os_tuning_zram={"size": "8G"}),
    silent("zram_and_zswap", os_tuning_zswap=True),
    # T23
    fires("thp_never_with_wish", "service one wants huge pages", os_tuning_thp="never",
          workstation_services=[{"name": "one", "uses_thp": True}]),
    fires("thp_never_with_wish", "service one wants huge pages", os_tuning_thp="never",
          workstation_services=[{"name": "one", "engine": "llama_cpp", "flags": ["--no-mmap"]}]),
    silent("thp_never_with_wish", os_tuning_thp="never", **HUGE_USER),
    silent("thp_never_with_wish", workstation_services=[{"name": "one", "uses_thp": True}]),
    fires("thp_stalls", "both always", os_tuning_thp="always", os_tuning_thp_defrag="always"),
    silent("thp_stalls", os_tuning_thp="always"),
    silent("thp_stalls", os_tuning_thp="always", os_tuning_thp_defrag="always", workstation_profile="conservative"),
    # T25
    fires("locked_model_too_large", "locks a model of 20.0 GiB",
          workstation_services=[{"name": "one", "mlock": True, "memory_bytes": "16G", "model_bytes": "20G"}]),
    silent("locked_model_too_large",
           workstation_services=[{"name": "one", "mlock": True, "memory_bytes": "20G", "model_bytes": "20G"}]),
    silent("locked_model_too_large",
           workstation_services=[{"name": "one", "memory_bytes": "16G", "model_bytes": "20G"}]),
    fires("locked_memory_too_much", "one 60.0 GiB and two 50.0 GiB", workstation_services=[
        {"name": "one", "mlock": True, "memory_bytes": "60G"}, {"name": "two", "mlock": True, "model_bytes": "50G"}]),
    silent("locked_memory_too_much", workstation_services=[
        {"name": "one", "mlock": True, "memory_bytes": "60G"}, {"name": "two", "memory_bytes": "50G"}]),
]  # fmt: skip

CACHE_TIMER = {"path": "/etc/cron.d/x", "content": "0 * * * * root echo 3 > /proc/sys/vm/drop_caches"}
KERNEL = [
    # One setting, two variables
    fires("two_variables_for_one_setting", "vm.nr_hugepages is set by os_tuning_sysctl and by os_tuning_hugepages",
          **{**HUGE_USER, **POOL, **sysctl(vm__nr_hugepages=512)}),
    fires("two_variables_for_one_setting", "by os_tuning_hugepages",
          **{**HUGE_USER, **POOL, "os_tuning_sysctl": {"vm/nr_hugepages": 512}}),
    fires("two_variables_for_one_setting", "hugepage/enabled is set by os_tuning_sysfs and by os_tuning_thp",
          os_tuning_sysfs={f"{THP}/enabled": "always"}),
    fires("two_variables_for_one_setting", "by os_tuning_boost", os_tuning_boost=False,
          os_tuning_sysfs={"/sys/devices/system/cpu/cpufreq/boost": 1}),
    fires("two_variables_for_one_setting", "by os_tuning_block_devices",
          os_tuning_sysfs={"/sys/block/nvme0n1/queue/scheduler": "kyber"}),
    fires("two_variables_for_one_setting", "by os_tuning_hugepages", **HUGE_USER, **POOL,
          os_tuning_sysfs={"/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": 9}),
    silent("two_variables_for_one_setting", **HUGE_USER, **sysctl(vm__nr_hugepages=512)),
    silent("two_variables_for_one_setting", os_tuning_thp=None, os_tuning_sysfs={f"{THP}/enabled": "always"}),
    silent("two_variables_for_one_setting", os_tuning_sysfs={f"{THP}/enabled": None, "/sys/kernel/mm/ksm/run": 1}),
    silent("two_variables_for_one_setting", os_tuning_sysfs={
        "/sys/block/sda/queue/scheduler": "none", "/sys/block/nvme0n1/queue/read_ahead_kb": 128}),
    # T29
    warns("isolated_cpus", "isolcpus=4-7", os_tuning_kernel_parameters={"isolcpus": "4-7"}),
    warns("isolated_cpus", "and one use several threads", os_tuning_kernel_parameters={"isolcpus": "4-7"},
          workstation_services=[{"name": "one", "cpus": 4}]),
    warns("isolated_cpus", "service one is placed on the isolated CPUs 4-7", {"cpu": {**cpus(), "isolated": "0-15"}},
          workstation_services=[{"name": "one", "cpus": 4, "exclusive": True, "smt": "one_per_core"}]),
    silent("isolated_cpus", os_tuning_kernel_parameters={"isolcpus": "4-7"},
           workstation_services=[{"name": "one", "cpus": 1}]),
    silent("isolated_cpus", {"cpu": {**cpus(), "isolated": "15"}}, workstation_services=[{"name": "one", "cpus": 4}]),
    # T30
    fires("hardware_in_a_guest", "os_tuning_governor is set, and this virtual machine (kvm)", VM,
          os_tuning_governor="performance"),
    fires("hardware_in_a_guest", "os_tuning_smt is set", VM, os_tuning_smt="off"),
    fires("hardware_in_a_guest", "os_tuning_idle_latency_us", VM, os_tuning_idle_latency_us=20),
    silent("hardware_in_a_guest", VM),
    silent("hardware_in_a_guest", {**VM, "cpu": cpus()}, os_tuning_governor="performance", os_tuning_smt="off"),
    silent("hardware_in_a_guest", {"cpu": NO_CPUFREQ}, os_tuning_governor="performance"),
    # T31
    notes("numa_on_one_node", "one NUMA node", **sysctl(kernel__numa_balancing=0)),
    silent("numa_on_one_node", {"memory": memory(nodes=[{"node": 0}, {"node": 1}])},
           **sysctl(kernel__numa_balancing=0)),
    silent("numa_on_one_node"),
    # T32
    fires("shared_memory_lowered", "kernel.shmmax = 68719476736", **sysctl(kernel__shmmax=68719476736)),
    fires("shared_memory_lowered", "kernel.shmall", os_tuning_sysctl={"kernel/shmall": "4294967296"}),
    silent("shared_memory_lowered", **sysctl(kernel__shmmax=18446744073692774399)),
    silent("shared_memory_lowered", **sysctl(kernel__shmmni=8192)),
    # T33
    fires("dropped_caches", "page cache", **sysctl(vm__drop_caches=3)),
    fires("dropped_caches", "page cache", os_tuning_files=[CACHE_TIMER]),
    fires("dropped_caches", "page cache", os_tuning_sysfs={"/proc/sys/vm/drop_caches": 3}),
    silent("dropped_caches", os_tuning_files=[{"path": "/etc/x", "content": "cache"}]),
    fires("strict_overcommit", "vm.overcommit_memory = 2", **sysctl(vm__overcommit_memory="2")),
    silent("strict_overcommit", **sysctl(vm__overcommit_memory=1)),
    silent("strict_overcommit", {"gpus": []}, **sysctl(vm__overcommit_memory=2)),
    fires("dangerous_kernel_parameter", "mitigations=off", os_tuning_kernel_parameters={"mitigations": "off"}),
    fires("dangerous_kernel_parameter", "idle=poll", os_tuning_kernel_parameters={"idle": "poll"}),
    warns("dangerous_kernel_parameter", "mitigations=off", os_tuning_kernel_parameters={"mitigations": "off"},
          os_tuning_kernel_parameters_accept=["mitigations"]),
    silent("dangerous_kernel_parameter", os_tuning_kernel_parameters={"mitigations": "auto", "iommu": "pt"}),
]  # fmt: skip


STABLE = {"workstation_profile": "conservative"}


def dimms(count: int, speed: int = 5600) -> dict:
    rows = [{"size_bytes": 32 * GIB, "type": "DDR5", "rated_mts": 6000, "configured_mts": speed}] * count
    return {"memory": memory(dimms=[*rows, {"size_bytes": None, "type": None}])}


FIRMWARE = [
    # T28
    warns("c_states_off_with_boost", "idle states", bios_verification_expect_c_states="disabled"),
    silent("c_states_off_with_boost", bios_verification_expect_c_states="disabled", os_tuning_boost=False),
    silent("c_states_off_with_boost", bios_verification_expect_c_states="enabled"),
    warns("memory_overclock_for_stability", "6000 MT/s", dimms(2, 6000), **STABLE),
    warns("memory_overclock_for_stability", "6400 MT/s", dimms(2), **STABLE, bios_verification_expect_memory_mts=6400),
    silent("memory_overclock_for_stability", dimms(2), **STABLE),
    silent("memory_overclock_for_stability", dimms(2, 6000)),
    # T31
    warns("memory_speed_with_four_dimms", "6000 MT/s are expected", dimms(4), bios_verification_expect_memory_mts=6000),
    silent("memory_speed_with_four_dimms", dimms(2), bios_verification_expect_memory_mts=6000),
    silent("memory_speed_with_four_dimms", dimms(4), bios_verification_expect_memory_mts=4800),
    silent("memory_speed_with_four_dimms", {**dimms(4), "firmware": {"sockets": [{}, {}]}},
           bios_verification_expect_memory_mts=6000),
]  # fmt: skip


@pytest.mark.parametrize("case", [*CPU, *MEMORY, *KERNEL, *FIRMWARE], ids=str)
def test_rule(case: Case) -> None:
    check(case)


def test_every_reason_against_switching_swap_off_is_named_at_once() -> None:
    facts = {**SMALL, **UNGUARDED, "kernel": {"cmdline": "resume=/dev/sda2"}}
    check(fires("swap_off_is_unsafe", "hibernation is configured", facts, os_tuning_swap="off"))
    check(fires("swap_off_is_unsafe", "only 16.0 GiB of memory, ", facts, os_tuning_swap="off"))
    check(fires("swap_off_is_unsafe", "and earlyoom does not watch", facts, os_tuning_swap="off"))


def test_a_machine_with_a_second_thread_offline_keeps_the_others_in_the_plan() -> None:
    facts = machine()["cpu"]
    rows = [{**row, "siblings": "", "online": False} if row["cpu"] == 9 else row for row in facts["cpus"]]
    rows[1] = {**rows[1], "siblings": "1"}
    cpu = {**facts, "cpus": rows, "online": "0-8,10-15", "offline": "9"}
    check(fires("cpu_not_online", "CPUs 9 are not online", {"cpu": cpu}, os_tuning_default_interrupt_cpus="1,9"))
    check(silent("cpu_not_online", {"cpu": cpu}, os_tuning_default_interrupt_cpus="0-7", os_tuning_smt="off"))
