# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who could have written a value: every kind of file, in the order in which it acts, and services."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts import writers
from fake_kernel import FakeKernel

GOVERNOR = "cpufreq:policy3/scaling_governor"
POLICY3 = "/sys/devices/system/cpu/cpufreq/policy3/scaling_governor"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def who(kernel: FakeKernel, key: str, live: str) -> list[str]:
    return writers.who(key, live, writers.look(kernel))


def activate(kernel: FakeKernel, unit: str) -> None:
    kernel.put(f"/usr/lib/systemd/system/{unit}", "[Service]\nExecStart=/usr/sbin/x")
    kernel.put(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", "1")


UNIT = "[Service]\nType=oneshot\nExecStart={}\n"


@pytest.mark.parametrize(("key", "live", "path", "text", "line", "value"), [
    ("sysctl:vm.swappiness", "60", "/etc/sysctl.d/50-a.conf", "# a\nvm.swappiness = 60", 2, "60"),
    ("sysctl:vm.swappiness", "60", "/usr/lib/sysctl.d/50-a.conf", "-vm/swappiness=60", 1, "60"),
    ("sysctl:vm.swappiness", "60", "/etc/sysctl.conf", "\nvm.swappiness=60", 2, "60"),
    ("sysctl:net.ipv4.conf.eth0/5.rp_filter", "2", "/run/sysctl.d/9.conf", "net.ipv4.conf.*.rp_filter=2", 1, "2"),
    ("sysctl:net.core.somaxconn", "1", "/etc/udev/rules.d/9.rules", 'A=="b", SYSCTL{net/core/somaxconn}="1"', 1, "1"),
    (f"sysfs:{THP}", "always", "/etc/tmpfiles.d/t.conf", f"w! {THP} - - - - always", 1, "always"),
    ("block:sda/scheduler", "none", "/etc/udev/rules.d/9.rules",
     'KERNEL=="sd*", ATTR{queue/rotational}=="0", \\\n  ATTR{queue/scheduler}="none"', 1, "none"),
    (GOVERNOR, "schedutil", "/etc/tmpfiles.d/g.conf",
     "w /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor - - - - schedutil", 1, "schedutil"),
    ("sysfs:/sys/module/zswap/parameters/enabled", "Y", "/etc/modprobe.d/z.conf", "options zswap enabled=Y", 1, "Y"),
    ("hugepages:2M", "9", "/etc/sysctl.d/9.conf", "vm.nr_hugepages=9", 1, "9"),
])  # fmt: skip
def test_a_line_that_sets_it_is_named_with_its_place(
    kernel: FakeKernel, key: str, live: str, path: str, text: str, line: int, value: str
) -> None:
    kernel.put("/sys/fs/cgroup/x", "")
    kernel.put(path, text)
    assert who(kernel, key, live) == [f"{path}:{line} sets it to {value}"]


@pytest.mark.parametrize(("key", "command"), [
    ("sysctl:vm.swappiness", "/sbin/sysctl -w vm.swappiness=60"),
    ("sysctl:vm.swappiness", "sh -c 'echo 60 > /proc/sys/vm/swappiness'"),
    (f"sysfs:{THP}", f"sh -c 'echo never >{THP}'"),
    (GOVERNOR, "/usr/bin/cpupower frequency-set --governor powersave"),
    (GOVERNOR, "sh -c 'echo powersave | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor'"),
    ("gpu:GPU-1/power_limit_mw", "/usr/bin/nvidia-smi -pl 300"),
    ("gpu:GPU-1/gpu_locked_clocks", "nvidia-smi --lock-gpu-clocks=300,900"),
    ("irq:0000:05:00.0/eth0", "/usr/local/bin/set_irq_affinity.sh 0 eth0"),
])  # fmt: skip
def test_commands_of_units_and_of_scripts_that_they_start(kernel: FakeKernel, key: str, command: str) -> None:
    path = "/etc/systemd/system/tune.service"
    kernel.put(path, UNIT.format(command))
    assert who(kernel, key, "60") == [f"{path}:3 sets it"]
    kernel.put(path, UNIT.format("/usr/local/bin/tune.sh --now"))
    kernel.put("/usr/local/bin/tune.sh", f"#!/bin/sh\n# {command}\nset -e\n{command}")
    assert who(kernel, key, "60") == ["/usr/local/bin/tune.sh:4 sets it"]


def test_others_are_not_suspected(kernel: FakeKernel) -> None:
    kernel.put_all(
        {
            "/etc/sysctl.d/50-a.conf": "vm.swappiness2=60\nvm.dirty_bytes=1",
            "/etc/sysctl.d/99-zz-ai-workstation.conf": "vm.swappiness=10",
            "/etc/udev/rules.d/9.rules": 'ATTR{queue/scheduler}=="none"',
            "/etc/systemd/system/a.service": UNIT.format("/usr/bin/nvidia-smi -q"),
            "/etc/systemd/system/b.service": UNIT.format("echo myvm.swappiness=1"),
        }
    )
    for key in ("sysctl:vm.swappiness", "block:sda/scheduler", "gpu:GPU-1/power_limit_mw", "file:/etc/x"):
        assert who(kernel, key, "60") == [writers.UNKNOWN]


def test_the_file_that_counts_and_the_value_that_is_there_come_first(kernel: FakeKernel) -> None:
    kernel.put_all(
        {
            "/usr/lib/sysctl.d/10-a.conf": "vm.swappiness=1",
            "/etc/sysctl.d/10-a.conf": "vm.swappiness=60",  # the same name: the other is not read
            "/etc/sysctl.d/70-b.conf": "vm.swappiness=70",
            "/etc/sysctl.conf": "vm.swappiness=90",
            "/proc/cmdline": "quiet sysctl.vm.swappiness=5",
        }
    )
    os.symlink("../sysctl.conf", kernel.at("/etc/sysctl.d/99-sysctl.conf"))
    assert who(kernel, "sysctl:vm.swappiness", "60") == [
        "/etc/sysctl.d/10-a.conf:1 sets it to 60",
        "/etc/sysctl.conf:1 sets it to 90",
        "/etc/sysctl.d/70-b.conf:1 sets it to 70",
        "/proc/cmdline (sysctl.vm.swappiness=5) sets it to 5",
    ]


def test_services_that_run_and_set_the_family_with_their_configuration(kernel: FakeKernel) -> None:
    activate(kernel, "power-profiles-daemon.service")
    kernel.put("/etc/default/cpufrequtils", 'ENABLE="true"\nGOVERNOR="ondemand"')
    assert who(kernel, GOVERNOR, "powersave") == [
        '/etc/default/cpufrequtils:2 (GOVERNOR="ondemand") sets it',
        "power-profiles-daemon.service is active and sets values like this",
    ]
    assert who(kernel, "sysctl:vm.swappiness", "60") == [writers.UNKNOWN]


def test_tuned_is_named_with_the_lines_of_its_profile_and_of_those_it_includes(kernel: FakeKernel) -> None:
    kernel.put("/etc/tuned/active_profile", "mine")
    kernel.put("/etc/tuned/mine/tuned.conf", "[main]\ninclude=throughput-performance\n[sysctl]\nvm.swappiness=30")
    kernel.put("/usr/lib/tuned/throughput-performance/tuned.conf", "[cpu]\ngovernor=performance\n[vm]\n")
    assert who(kernel, "sysctl:vm.swappiness", "30") == [writers.UNKNOWN]
    activate(kernel, "tuned.service")
    assert who(kernel, "sysctl:vm.swappiness", "30")[0] == "/etc/tuned/mine/tuned.conf:4 (tuned) sets it to 30"
    path = "/usr/lib/tuned/throughput-performance/tuned.conf"
    assert who(kernel, GOVERNOR, "performance") == [
        f"{path}:2 (tuned) (governor=performance) sets it",
        "tuned.service is active and sets values like this",
    ]
