# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of processors, memory, the system and other writers, from trees of known machines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import SECTIONS, gather
from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpu_list, cpus
from topologies import GIB, MIB, Topology, epyc, intel_hybrid, put, ryzen_9950x, ryzen_9950x3d, small_vm, write_tree

ALL = [ryzen_9950x(), ryzen_9950x3d(), epyc(), intel_hybrid(), small_vm(), ryzen_9950x().without(3, 19)]


def facts(root: Path, *sections: str) -> dict:
    return gather(Host(str(root)), list(sections))


def cpu_facts(topology: Topology, root: Path) -> dict:
    write_tree(topology, root)
    return facts(root, "cpu")["cpu"]


@pytest.mark.parametrize("topology", ALL, ids=lambda topology: f"{topology.model[:20]}-{len(topology.online)}")
def test_every_cpu_is_where_the_machine_has_it(topology: Topology, tmp_path: Path) -> None:
    found = cpu_facts(topology, tmp_path)
    assert found["online"] == cpu_list(topology.online)
    assert found["model"] == topology.model
    assert [entry["cpu"] for entry in found["cpus"]] == topology.present
    core_of = {cpu: core for core in topology.cores for cpu in core.cpus}
    for entry in found["cpus"]:
        core = core_of[entry["cpu"]]
        if entry["cpu"] in topology.offline:
            assert (entry["online"], entry["core"], entry["siblings"], entry["l3"]) == (False, None, "", None)
            continue
        assert entry["package"] == core.package
        assert entry["node"] == core.node
        assert entry["siblings"] == topology.alive(core.cpus)
        assert entry["core_type"] == core.kind
        assert entry["l3"] == topology.alive(topology.where(l3=core.l3))
        assert entry["l3_size_bytes"] == topology.l3_bytes[core.l3]
        assert entry["max_mhz"] == (core.max_mhz if topology.cpufreq else None)


def test_ccds_of_a_ryzen_are_its_l3_domains(tmp_path: Path) -> None:
    assert cpu_facts(ryzen_9950x3d(), tmp_path)["l3_domains"] == [
        {"cpus": "0-7,16-23", "size_bytes": 96 * MIB},
        {"cpus": "8-15,24-31", "size_bytes": 32 * MIB},
    ]


def test_l3_is_found_by_its_level_not_by_its_index(tmp_path: Path) -> None:
    write_tree(small_vm(), tmp_path)
    for cpu in (0, 1):
        cache = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cache"
        (cache / "index3").rename(cache / "index9")
        (cache / "index2").rename(cache / "index3")  # a level 2 cache under the usual name
    assert facts(tmp_path, "cpu")["cpu"]["l3_domains"] == [{"cpus": "0-1", "size_bytes": 32 * MIB}]


def test_cores_without_l3_belong_to_no_domain(tmp_path: Path) -> None:
    write_tree(small_vm(), tmp_path)
    for cpu in (0, 1):
        (tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cache/index3/level").write_text("2\n")
    found = facts(tmp_path, "cpu")["cpu"]
    assert found["l3_domains"] == []
    assert [entry["l3"] for entry in found["cpus"]] == [None, None]


def test_smt_off_leaves_one_thread_and_lists_the_others_offline(tmp_path: Path) -> None:
    found = cpu_facts(ryzen_9950x().without_smt(), tmp_path)
    assert found["smt"] == {"control": "off", "active": False, "threads_per_core": 1}
    assert (found["online"], found["offline"], found["present"]) == ("0-15", "16-31", "0-31")
    assert found["l3_domains"][0]["cpus"] == "0-7"


def test_a_cpu_that_the_board_could_hold_is_not_offline(tmp_path: Path) -> None:
    write_tree(small_vm(), tmp_path)
    put(tmp_path, {"sys/devices/system/cpu/offline": "2-127"})
    assert facts(tmp_path, "cpu")["cpu"]["offline"] == ""


def test_frequency_policies_in_mhz_with_boost_from_each_driver(tmp_path: Path) -> None:
    amd = cpu_facts(ryzen_9950x(), tmp_path / "amd")["cpufreq"]
    assert amd["driver"] == "amd-pstate-epp"
    assert amd["policies"][31] == {
        "policy": 31,
        "cpus": "31",
        "governor": "powersave",
        "governors": ["performance", "powersave"],
        "epp": "balance_performance",
        "epps": ["default", "performance", "balance_performance", "balance_power", "power"],
        "min_mhz": 600,
        "max_mhz": 5752,
        "hardware_min_mhz": 600,
        "hardware_max_mhz": 5752,
        "boost": True,
    }
    put(tmp_path / "amd", {"sys/devices/system/cpu/cpufreq/policy4/boost": 0})
    amd = facts(tmp_path / "amd", "cpu")["cpu"]["cpufreq"]["policies"]
    assert [policy["policy"] for policy in amd if not policy["boost"]] == [4]
    write_tree(intel_hybrid(), tmp_path / "intel")
    put(tmp_path / "intel", {"sys/devices/system/cpu/intel_pstate/no_turbo": 1})
    intel = facts(tmp_path / "intel", "cpu")["cpu"]["cpufreq"]["policies"]
    assert {policy["boost"] for policy in intel} == {False}
    server = cpu_facts(epyc(1, 8, 1), tmp_path / "server")["cpufreq"]["policies"]
    assert (server[0]["boost"], server[0]["epp"], server[0]["epps"]) == (True, None, [])


def test_idle_states_name_the_cpus_that_may_not_enter(tmp_path: Path) -> None:
    write_tree(ryzen_9950x(), tmp_path)
    put(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/cpuidle/state3/disable": 1 for cpu in range(32)})
    put(tmp_path, {"sys/devices/system/cpu/cpu5/cpuidle/state2/disable": 2})
    states = facts(tmp_path, "cpu")["cpu"]["idle"]["states"]
    assert [(state["name"], state["latency_us"]) for state in states] == [
        ("POLL", 0),
        ("C1", 1),
        ("C2", 18),
        ("C3", 350),
    ]
    assert [(state["disabled"], state["disabled_cpus"]) for state in states] == [
        (False, ""),
        (False, ""),
        (False, "5"),
        (True, "0-31"),
    ]


def test_arm_cores_are_told_apart_by_capacity(tmp_path: Path) -> None:
    write_tree(small_vm(), tmp_path)
    put(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": value for cpu, value in ((0, 1024), (1, 446))})
    assert [cpu["core_type"] for cpu in facts(tmp_path, "cpu")["cpu"]["cpus"]] == ["performance", "efficiency"]


def test_each_file_of_a_large_machine_is_read_once(tmp_path: Path) -> None:
    class Counting(Host):
        def many(self, paths):
            paths = list(paths)
            seen.extend(path for path in paths if "/cpu/cpu" in path)
            return super().many(paths)

    seen: list[str] = []
    write_tree(epyc(), tmp_path)
    gather(Counting(str(tmp_path)), ["cpu"])
    assert len(seen) == len(set(seen))
    assert len(seen) < 256 * 16


def test_memory_of_nodes_pools_and_swap(tmp_path: Path) -> None:
    write_tree(epyc(2, 8, 4), tmp_path)
    pool = "sys/kernel/mm/hugepages/hugepages-1048576kB"
    put(
        tmp_path,
        {
            f"{pool}/nr_hugepages": 4,
            f"{pool}/free_hugepages": 3,
            f"{pool}/resv_hugepages": 2,
            f"{pool}/surplus_hugepages": 1,
            "sys/devices/system/node/node5/hugepages/hugepages-2048kB/nr_hugepages": 512,
            "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 8388604 1024 100",
            "sys/block/zram0/disksize": 8 * GIB,
            "sys/block/zram0/comp_algorithm": "lzo lz4 [zstd]",
            "sys/block/zram0/mm_stat": "4096 80 12288 0 12288 0 0 0 0",
            "sys/block/zram1/disksize": 0,
            "sys/module/zswap/parameters/enabled": "N",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
            "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never",
        },
    )
    found = facts(tmp_path, "memory")["memory"]
    assert found["total_bytes"] == 8 * 64 * GIB
    assert found["nodes"][5]["total_bytes"] == 64 * GIB
    assert found["nodes"][5]["distances"] == [12, 12, 12, 12, 12, 10, 12, 12]
    assert found["nodes"][5]["huge_pages"] == [{"size_bytes": 2 * MIB, "total": 512, "free": 0, "surplus": 0}]
    assert found["huge_pages"] == [{"size_bytes": GIB, "total": 4, "free": 3, "reserved": 2, "surplus": 1}]
    assert found["swap"][0]["size_bytes"] == 8388604 * 1024
    assert found["zram"] == [{"device": "/dev/zram0", "size_bytes": 8 * GIB, "algorithm": "zstd", "used_bytes": 12288}]
    assert found["zswap"] is False
    assert found["thp"] == {"enabled": "madvise", "defrag": "madvise", "shmem": None}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ("none", "", False)),
        ({".dockerenv": ""}, ("docker", "", True)),
        ({"run/.containerenv": ""}, ("podman", "", True)),
        ({"proc/1/environ": "HOME=/\0container=lxc\0"}, ("lxc", "", True)),
        ({"run/systemd/container": "systemd-nspawn"}, ("systemd-nspawn", "", True)),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1"}, ("kubernetes", "", True)),
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, ("qemu", "qemu", False)),
        ({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2"}, ("wsl", "wsl", False)),
        (
            {
                "sys/devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock tsc",
                "sys/class/dmi/id/sys_vendor": "Amazon EC2",
                ".dockerenv": "",
            },
            ("docker", "kvm", True),
        ),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor"}, ("vm", "vm", False)),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm"}, ("kvm", "kvm", False)),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2"}, ("none", "", False)),  # a metal instance
    ],
)
def test_kind_of_machine(files: dict, expected: tuple, tmp_path: Path) -> None:
    put(tmp_path, files)
    found = facts(tmp_path, "kernel")["kernel"]
    assert (found["virtualization"], found["hypervisor"], found["container"]) == expected


def test_the_machine_is_known_again_without_telling_its_identity(tmp_path: Path) -> None:
    assert facts(tmp_path, "kernel")["kernel"]["machine_id"] is None
    put(tmp_path, {"etc/machine-id": "0123456789abcdef0123456789abcdef"})
    one = facts(tmp_path, "kernel")["kernel"]["machine_id"]
    put(tmp_path, {"etc/machine-id": "1123456789abcdef0123456789abcdef"})
    other = facts(tmp_path, "kernel")["kernel"]["machine_id"]
    assert len({one, other, "0123456789abcdef0123456789abcdef"}) == 3
    assert len(one) == 32


def test_distribution_and_modules(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian',
            "sys/module/nvidia/version": "580.95.05",
            "proc/sys/kernel/osrelease": "6.8.0-52-generic",
            "run/systemd/system/.keep": "",
        },
    )
    found = facts(tmp_path, "kernel")["kernel"]
    assert found["os"]["id"] == "ubuntu"
    assert found["os"]["family"] == "debian"
    assert found["os"]["version_id"] == "24.04"
    assert found["modules"] == ["nvidia"]
    assert (found["release"], found["systemd"]) == ("6.8.0-52-generic", True)


def owner(root: Path, name: str) -> dict:
    return next(entry for entry in facts(root, "owners")["owners"] if entry["name"] == name)


def test_owners_from_unit_files_links_and_control_groups(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "usr/lib/systemd/system/irqbalance.service": "[Unit]",
            "sys/fs/cgroup/system.slice/irqbalance.service/cgroup.procs": "1",
            "usr/lib/systemd/system/zramswap.service": "[Unit]",
            "usr/lib/systemd/system/systemd-zram-setup@.service": "[Unit]",
            "usr/lib/systemd/system/tlp.service": "[Unit]",
            "run/systemd/units/.keep": "",
            "etc/systemd/system/multi-user.target.wants/.keep": "",
        },
    )
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    os.symlink("/usr/lib/systemd/system/irqbalance.service", wants / "irqbalance.service")
    os.symlink("0123456789abcdef", tmp_path / "run/systemd/units/invocation:zramswap.service")
    os.symlink("/dev/null", tmp_path / "etc/systemd/system/tlp.service")
    os.symlink("/dev/null", tmp_path / "etc/systemd/system/tuned.service")
    states = {
        name: {key for key in ("installed", "enabled", "active", "masked") if owner(tmp_path, name)[key]}
        for name in ("irqbalance", "zramswap", "tlp", "tuned", "earlyoom")
    }
    assert states == {
        "irqbalance": {"installed", "enabled", "active"},
        "zramswap": {"installed", "active"},  # a oneshot that remains active has no processes
        "tlp": {"installed", "masked"},
        "tuned": {"masked"},  # masked ahead of an installation
        "earlyoom": set(),
    }
    assert owner(tmp_path, "irqbalance")["writes"] == ["irq_affinity"]


def test_systemd_from_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.9.so": "",
            "run/systemd/generator/dev-disk-by\\x2duuid-1.swap": "[Swap]\nWhat=/dev/disk/by-uuid/1\nPriority=5",
            "run/systemd/generator.late/swapfile.swap": "[Swap]\nWhat=/swapfile",
            "etc/systemd/system/.keep": "",
            "dev/sda2": "",
            "dev/disk/by-uuid/.keep": "",
            "run/systemd/units/.keep": "",
            "proc/sys/kernel/osrelease": "6.12.1",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu",
            "lib/modules/6.12.1/modules.dep": "kernel/net/ipv4/tcp_bbr.ko.zst: kernel/x.ko",
            "lib/modules/6.12.1/modules.builtin": "kernel/drivers/block/zram/zram.ko",
        },
    )
    os.symlink("../../sda2", tmp_path / "dev/disk/by-uuid/1")
    os.symlink("/dev/null", tmp_path / "etc/systemd/system/swapfile.swap")
    for unit in ("cups.service", "tmp.mount"):
        os.symlink("0123456789abcdef", tmp_path / f"run/systemd/units/invocation:{unit}")
    found = facts(tmp_path, "systemd", "kernel")
    assert found["systemd"] == {
        "version": 257,
        "cgroup": 2,
        "services": ["cups.service"],
        "swap_units": [
            {"unit": "dev-disk-by\\x2duuid-1.swap", "device": "/dev/sda2"},
            {"unit": "swapfile.swap", "device": "/swapfile"},
        ],
    }
    assert found["kernel"]["loadable"] == ["zram", "tcp_bbr"]


def test_docker_from_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "usr/sbin/dockerd": "",
            "sys/fs/cgroup/cgroup.controllers": "cpu",
            "etc/docker/daemon.json": json.dumps(
                {
                    "exec-opts": ["native.cgroupdriver=cgroupfs"],
                    "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
                    "features": {"cdi": True},
                }
            ),
            "etc/cdi/nvidia.yaml": "",
            "var/lib/dpkg/status": "Package: docker.io-doc\nStatus: install ok installed\nVersion: 1\n\n"
            "Package: docker.io\nStatus: install ok installed\nVersion: 26.1.5+dfsg1-9\n\n"
            "Package: nvidia-container-toolkit\nStatus: deinstall ok config-files\nVersion: 1.18.0-1\n",
        },
    )
    found = facts(tmp_path, "docker")["docker"]
    assert (found["present"], found["version"], found["cgroup_driver"]) == (True, "26.1.5+dfsg1-9", "cgroupfs")
    assert (found["runtimes"], found["cdi"]) == (["nvidia"], {"enabled": True, "specs": ["/etc/cdi/nvidia.yaml"]})
    assert found["nvidia_container_toolkit"] is None
    put(tmp_path, {"etc/docker/daemon.json": "{,}"})
    found = facts(tmp_path, "docker")["docker"]
    assert found["config_problem"].startswith("/etc/docker/daemon.json is not JSON")
    assert found["cgroup_driver"] == "systemd"


def test_disks_and_mounts_through_a_mapping(tmp_path: Path) -> None:
    nvme = "sys/devices/pci0000:00/0000:00:02.1/0000:02:00.0/nvme/nvme0/nvme0n1"
    put(
        tmp_path,
        {
            f"{nvme}/dev": "259:0",
            f"{nvme}/size": 4000797360,
            f"{nvme}/queue/scheduler": "[none] mq-deadline",
            f"{nvme}/queue/rotational": 0,
            f"{nvme}/queue/read_ahead_kb": 128,
            f"{nvme}/device/model": "Samsung SSD 990 PRO 2TB",
            f"{nvme}/nvme0n1p2/dev": "259:2",
            "sys/devices/virtual/block/dm-0/dev": "254:0",
            "sys/devices/virtual/block/dm-0/size": 8,
            "sys/devices/virtual/block/dm-0/slaves/nvme0n1p2": "",
            "proc/self/mountinfo": "22 1 259:2 / / rw,noatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro\n"
            "30 22 254:0 / /srv/my\\040models rw - xfs /dev/mapper/models rw\n"
            "31 22 0:40 / /proc rw - proc proc rw\n"
            "32 22 0:50 / /mnt rw - nfs4 nas:/m rw",
        },
    )
    for name, target in (("nvme0n1", f"../../{nvme[4:]}"), ("dm-0", "../devices/virtual/block/dm-0")):
        (tmp_path / "sys/block").mkdir(exist_ok=True)
        os.symlink(target.replace("../../", "../"), tmp_path / "sys/block" / name)
    (tmp_path / "sys/class/block").mkdir(parents=True)
    os.symlink(f"../../{nvme[4:]}/nvme0n1p2", tmp_path / "sys/class/block/nvme0n1p2")
    (tmp_path / "srv/my models").mkdir(parents=True)
    found = facts(tmp_path, "storage")["storage"]
    disks = {disk["name"]: disk for disk in found["disks"]}
    assert disks["nvme0n1"]["mounts"] == ["/", "/srv/my models"]
    assert (disks["nvme0n1"]["transport"], disks["dm-0"]["transport"]) == ("nvme", "virtual")
    assert (disks["nvme0n1"]["scheduler"], disks["nvme0n1"]["schedulers"]) == ("none", ["none", "mq-deadline"])
    assert disks["nvme0n1"]["size_bytes"] == 4000797360 * 512
    mounts = {mount["path"]: mount for mount in found["mounts"]}
    assert mounts["/srv/my models"]["disks"] == ["dm-0", "nvme0n1"]
    assert "noatime" in mounts["/"]["options"]
    assert mounts["/"]["size_bytes"] > 0
    assert mounts["/mnt"]["size_bytes"] is None  # a dead server would hang the question
    assert "/proc" not in mounts


def test_an_empty_machine_has_all_sections_and_no_crash(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert set(found) == {*SECTIONS, "gpu_driver"}
    json.dumps(found, allow_nan=False)
    assert found["cpu"]["cpus"] == found["memory"]["nodes"] == found["gpus"] == found["pci"] == []
    assert found["firmware"]["efi"] is None


def test_garbage_in_kernel_files_is_no_crash(tmp_path: Path) -> None:
    write_tree(ryzen_9950x(), tmp_path)
    for folder, _folders, files in os.walk(tmp_path):
        for name in files:
            Path(folder, name).write_bytes(b"\xff (null) -1,\n: [\n")
    json.dumps(facts(tmp_path))


def test_only_the_asked_sections_are_gathered(tmp_path: Path) -> None:
    assert set(facts(tmp_path, "kernel", "cpu")) == {"kernel", "cpu"}
    assert set(facts(tmp_path, "gpus")) == {"gpus", "gpu_driver"}
    with pytest.raises(InputError, match=r"^gather_subset: 'cpus' is not one of all, cpu, "):
        facts(tmp_path, "cpus")


def test_trees_speak_kernel_lists(tmp_path: Path) -> None:
    """The helper itself: every list it writes is one that the kernel could print."""
    write_tree(ryzen_9950x().without(3), tmp_path)
    text = (tmp_path / "sys/devices/system/cpu/cpu19/topology/thread_siblings_list").read_text()
    assert cpus("", text) == (19,)
    assert not (tmp_path / "sys/devices/system/cpu/cpu3").exists()
