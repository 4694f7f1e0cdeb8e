# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a reboot, a driver load and a resume take away comes back by itself, and verify sees what does not."""

from __future__ import annotations

import json

import pytest
from plays import Controller
from vm import Vm

GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
CARD = "vmxnet3"
WANTED = {
    "workstation_profile": "balanced",
    "os_tuning_governor": "performance",  # the kernel starts with schedutil
    "os_tuning_interrupts": [{"driver": CARD, "cpus": "1"}],
    "os_tuning_irqbalance": {"banned_modules": [CARD]},
    "gpu_tuning_power_limit": "80%",
}
# The kernel's side of it: the governor, then the masks of the card's interrupts, in one line.
LOOK = f"""\
echo $(cat {GOVERNOR}; for irq in $(ls /sys/bus/pci/drivers/{CARD}/0000*/msi_irqs); do
    cat /proc/irq/$irq/smp_affinity_list
done 2>/dev/null | sort -u)"""
AS_WANTED = "performance 1"
IS_AS_WANTED = f'[ "$({LOOK})" = "{AS_WANTED}" ]'
# The card has interrupts while it is up.
CARD_UP = f"for card in /sys/bus/pci/drivers/{CARD}/0000*/net/*; do ip link set ${{card##*/}} up; done"
NETWORK = "[Match]\nDriver=vmxnet3\n[Network]\nLinkLocalAddressing=no\n[Link]\nRequiredForOnline=no\n"
UNIT = "ai-workstation.service"
# Stands for Docker: it keeps what it found when it started.
DOCKER = f"""[Unit]
After=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat {GOVERNOR} >/root/at-docker'
[Install]
WantedBy=multi-user.target
"""


def install_docker(vm: Vm) -> None:
    command = "cat >/etc/systemd/system/docker.service && systemctl daemon-reload && systemctl enable docker"
    vm.ssh(command, DOCKER.replace("$", "$$"))


def verify(vm: Vm) -> tuple[int, dict]:
    done = vm.try_ssh("/usr/local/sbin/ai-workstation verify --json")
    return done.returncode, json.loads(done.stdout)


def drifted(vm: Vm) -> set[str]:
    return {row["key"].rpartition("/")[2] for row in verify(vm)[1]["drift"]}


@pytest.fixture
def tuned(vm: Vm, controller: Controller) -> Vm:
    vm.ssh("cat >/etc/systemd/network/90-card.network", NETWORK)
    vm.ssh(CARD_UP)
    controller.play("site.yml", WANTED).ok()
    assert vm.ssh(LOOK).strip() == AS_WANTED
    return vm


def test_after_a_reboot_all_is_back_before_docker_and_a_second_run_changes_nothing(
    tuned: Vm, controller: Controller, proof
) -> None:
    vm = tuned
    install_docker(vm)
    vm.reboot()
    vm.ssh("systemctl is-system-running --wait", check=False, timeout=500)
    assert vm.ssh("cat /root/at-docker") == "performance\n"
    vm.await_true(IS_AS_WANTED, limit=240)
    journal = vm.ssh(f"journalctl --boot --unit {UNIT} --output cat")
    assert "cpufreq:policy0/scaling_governor: schedutil -> performance" in journal
    assert "/power_limit_mw: " in journal
    vm.await_true("/usr/local/sbin/ai-workstation verify >/dev/null", limit=240)
    again = controller.play("site.yml", WANTED).ok()
    assert again.changed == []
    used = vm.ssh("bash -c 'TIMEFORMAT=%U; time /usr/local/sbin/ai-workstation boot' 2>&1 >/dev/null")
    proof(boot_unit_cpu_seconds_emulated=float(used))


def test_a_driver_load_a_resume_and_a_cpu_that_comes_back_start_it_again(tuned: Vm) -> None:
    vm = tuned
    # Several at once: the last one must not be lost.
    vm.ssh(
        f"cd /sys/bus/pci/drivers/{CARD}; card=$(echo 0000*); "
        f"for n in 1 2 3; do echo $card >unbind; echo $card >bind; done; {CARD_UP}"
    )
    vm.await_true(IS_AS_WANTED, limit=240)
    vm.await_true("[ ! -e /run/ai-workstation.event ]")
    assert vm.ssh("systemctl is-active ai-workstation.path").strip() == "active"

    # The driver of the GPU forgets, while no late try for the card is under way; what it is bound to says so.
    vm.ssh(f"systemctl stop ai-workstation.path ai-workstation-later.service {UNIT}")
    vm.ssh("systemctl restart nvidia-stand-in")
    assert "power_limit_mw" in drifted(vm)
    vm.ssh("touch /run/ai-workstation.event && systemctl start ai-workstation.path")
    vm.await_true("/usr/local/sbin/ai-workstation verify >/dev/null", limit=240)

    # A sleep that ends at once.
    sleep = "/run/systemd/system/systemd-suspend.service.d"
    vm.ssh(f"mkdir -p {sleep} && cat >{sleep}/lab.conf", "[Service]\nExecStart=\nExecStart=/bin/true\n")
    vm.ssh(f"systemctl daemon-reload; echo schedutil >{GOVERNOR}; systemctl start suspend.target")
    vm.await_true(IS_AS_WANTED, limit=240)

    cpu = "/sys/devices/system/cpu/cpu1/online"
    vm.ssh(f"echo 0 >{cpu}; echo schedutil >{GOVERNOR}; echo 1 >{cpu}")
    vm.await_true(f"[ $(cat {GOVERNOR}) = performance ]", limit=240)


def test_a_unit_that_cannot_do_its_work_blocks_nothing_and_drift_is_named(tuned: Vm) -> None:
    vm = tuned
    vm.ssh("sysctl -qw vm.swappiness=77; echo vm.swappiness=77 >/etc/sysctl.d/70-vendor.conf")
    (row,) = verify(vm)[1]["drift"]
    assert (row["key"], row["live"], row["writers"]) == (
        "sysctl:vm.swappiness",
        "77",
        ["/etc/sysctl.d/70-vendor.conf:1 sets it to 77"],
    )
    install_docker(vm)
    vm.ssh("echo '{' >/var/lib/ai-workstation/record.json")
    vm.reboot()
    vm.ssh("systemctl is-system-running --wait", check=False, timeout=500)
    assert vm.ssh(f"systemctl is-active docker multi-user.target {UNIT}", check=False).split() == [
        "active",
        "active",
        "failed",
    ]
    assert "record.json cannot be read" in vm.ssh(f"journalctl --boot --unit {UNIT} --output cat")
