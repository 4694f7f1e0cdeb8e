# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""irq_affinity: devices and not numbers, managed interrupts, irqbalance, NUMA locality, many interrupts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import irq_affinity
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.irqbalance import DROP_IN, ENVIRONMENT
from fake_kernel import FakeKernel, refuse, run_module

GPU, NIC, NVME, DISK = "0000:01:00.0", "0000:05:00.0", "0000:02:00.0", "0000:00:03.0"
UNIT = (
    "[Service]\nEnvironmentFile=-/usr/lib/irqbalance/defaults.env\nEnvironmentFile=-/etc/default/irqbalance\n"
    "ExecStart=/usr/sbin/irqbalance --foreground $IRQBALANCE_ARGS"
)
FREE = {"stopped": True}


def add_device(kernel: FakeKernel, address: str, driver: str, node: int, child: str = "", interface: str = "") -> None:
    folder = f"/sys/bus/pci/devices/{address}"
    kernel.put(f"{folder}/numa_node", str(node))
    os.symlink(f"../../../bus/pci/drivers/{driver}", kernel.at(f"{folder}/driver"))
    if child:
        os.makedirs(kernel.at(f"{folder}/virtio0"))
        os.symlink(f"../../../bus/virtio/drivers/{child}", kernel.at(f"{folder}/virtio0/driver"))
    if interface:
        os.makedirs(kernel.at(f"{folder}/net/{interface}"))


def add_irq(kernel: FakeKernel, number: int, name: str, address: str | None = None, hwirq: int = 0) -> None:
    kernel.put(f"/sys/kernel/irq/{number}/actions", name)
    kernel.put(f"/sys/kernel/irq/{number}/hwirq", str(hwirq))
    kernel.put(f"/proc/irq/{number}/smp_affinity_list", "0-7")
    kernel.put(f"/proc/irq/{number}/effective_affinity_list", "0")
    if address:
        kernel.put(f"/sys/bus/pci/devices/{address}/msi_irqs/{number}", "msix")


def drop_irq(kernel: FakeKernel, number: int, address: str) -> None:
    for path in (f"/sys/kernel/irq/{number}/actions", f"/sys/bus/pci/devices/{address}/msi_irqs/{number}"):
        os.unlink(kernel.at(path))


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    """Eight CPUs in two nodes, a GPU, a network card with two queues, an NVMe disk, a virtio disk."""
    kernel = FakeKernel(tmp_path)
    kernel.put_all(
        {
            "/sys/devices/system/cpu/online": "0-7",
            "/sys/devices/system/cpu/possible": "0-9",
            "/sys/devices/system/node/node0/cpulist": "0-3",
            "/sys/devices/system/node/node1/cpulist": "4-9",
            "/proc/irq/default_smp_affinity": "ff",
            "/proc/irq/0/spurious": "",
        }
    )
    add_device(kernel, GPU, "nvidia", 1)
    add_device(kernel, NIC, "igc", -1, interface="enp5s0")
    add_device(kernel, NVME, "nvme", 0)
    add_device(kernel, DISK, "virtio-pci", 0, child="virtio_blk")
    add_irq(kernel, 24, "acpi")
    add_irq(kernel, 40, "nvidia", GPU)
    add_irq(kernel, 50, "enp5s0-TxRx-0", NIC)
    add_irq(kernel, 51, "enp5s0-TxRx-1", NIC)
    add_irq(kernel, 60, "nvme0q0", NVME)
    add_irq(kernel, 61, "nvme0q1", NVME)
    add_irq(kernel, 70, "virtio0-config", DISK)
    add_irq(kernel, 71, "virtio0-req.0", DISK)
    return kernel


@pytest.fixture
def balanced(kernel: FakeKernel) -> FakeKernel:
    """The same with irqbalance installed and active."""
    kernel.put("/lib/systemd/system/irqbalance.service", UNIT)
    kernel.put("/etc/default/irqbalance", "")
    kernel.commands["systemctl is-active irqbalance.service"] = Completed(0, "active\n", "")
    return kernel


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(irq_affinity, kernel, check, **params)


def placed(kernel: FakeKernel, number: int) -> str | None:
    return kernel.text(f"/proc/irq/{number}/smp_affinity_list")


def entries(kernel: FakeKernel) -> dict:
    return json.loads(kernel.text(LEDGER))["entries"]


ALL = {
    "rules": [
        {"driver": "nvidia", "node_local": True},
        {"interface": "enp5s0", "cpus": "2-3", "spread": True},
        {"pci": "02:00.0", "exclude": "0-1"},
    ],
    "default_cpus": "0-1",
}


def test_places_by_device_reads_back_and_is_idempotent(kernel: FakeKernel) -> None:
    first = call(kernel, **ALL)
    assert [placed(kernel, number) for number in (24, 40, 50, 51, 60, 61)] == ["0-7", "4-7", "2", "3", "2-7", "0-7"]
    assert kernel.text("/proc/irq/default_smp_affinity") == "3"
    assert [skip["key"] for skip in first["skipped_keys"]] == [f"irq:{NVME}/nvme0q1"]
    row = next(row for row in first["interrupts"] if row["irq"] == 40)
    assert (row["key"], row["cpus"], row["effective_cpus"], row["node"]) == (f"irq:{GPU}/nvidia", "4-7", "0", 1)
    writes = len(kernel.writes)
    second = call(kernel, **ALL)
    assert (second["changed"], second["changes"], len(kernel.writes)) == (False, [], writes)


def test_check_mode_writes_nothing_and_predicts_the_result(kernel: FakeKernel) -> None:
    predicted = call(kernel, check=True, **ALL)
    assert kernel.writes == []
    assert predicted == call(kernel, **ALL)


def test_what_is_no_longer_wanted_goes_back(kernel: FakeKernel) -> None:
    call(kernel, **ALL)
    call(kernel, rules=[{"driver": "nvidia", "cpus": "1"}])
    assert [placed(kernel, number) for number in (40, 50, 51, 60)] == ["1", "0-7", "0-7", "0-7"]
    call(kernel)
    assert (placed(kernel, 40), kernel.text("/proc/irq/default_smp_affinity")) == ("0-7", "ff")
    assert entries(kernel) == {}


def test_a_new_number_is_the_same_interrupt(kernel: FakeKernel) -> None:
    call(kernel, rules=[{"driver": "nvidia", "cpus": "1"}])
    drop_irq(kernel, 40, GPU)
    add_irq(kernel, 90, "nvidia", GPU)
    add_irq(kernel, 40, "other")
    outcome = call(kernel, rules=[{"driver": "nvidia", "cpus": "1"}])
    assert [change["key"] for change in outcome["changes"]] == [f"irq:{GPU}/nvidia"]
    assert (placed(kernel, 90), placed(kernel, 40)) == ("1", "0-7")
    call(kernel)
    assert (placed(kernel, 90), placed(kernel, 40)) == ("0-7", "0-7")


def test_vectors_of_one_name_keep_their_place_in_the_device(kernel: FakeKernel) -> None:
    drop_irq(kernel, 40, GPU)
    add_irq(kernel, 80, "nvidia", GPU, hwirq=1)
    add_irq(kernel, 81, "nvidia", GPU, hwirq=0)
    outcome = call(kernel, rules=[{"driver": "nvidia", "cpus": "4,6", "spread": True}])
    assert {row["key"]: row["irq"] for row in outcome["interrupts"]} == {
        f"irq:{GPU}/nvidia#0": 81,
        f"irq:{GPU}/nvidia#1": 80,
    }
    assert (placed(kernel, 81), placed(kernel, 80)) == ("4", "6")


def test_without_locality_every_online_cpu_is_local_and_a_note_says_so(kernel: FakeKernel) -> None:
    outcome = call(kernel, rules=[{"interface": "enp5s0", "node_local": True, "exclude": "0"}])
    assert placed(kernel, 50) == "1-7"
    assert "no NUMA node in particular" in outcome["interrupts"][0]["note"]


def test_a_node_without_online_cpus_counts_as_no_locality(kernel: FakeKernel) -> None:
    outcome = call(kernel, rules=[{"driver": "nvidia", "node_local": True}], online_cpus="0-3")
    assert placed(kernel, 40) == "0-3"
    assert "no NUMA node in particular" in outcome["interrupts"][0]["note"]


def test_only_online_cpus_of_the_planned_state(kernel: FakeKernel) -> None:
    call(kernel, rules=[{"driver": "nvidia", "node_local": True}], online_cpus="0-5")
    assert placed(kernel, 40) == "4-5"
    with pytest.raises(RefusedError, match="CPUs 6 are offline; online are 0-5"):
        call(kernel, rules=[{"driver": "nvidia", "cpus": "5-6"}], online_cpus="0-5")


def test_debugfs_decides_over_the_table(kernel: FakeKernel) -> None:
    kernel.put("/sys/kernel/debug/irq/irqs/61", "affinity: 0-7\ndstate: 0x1\n            IRQD_SETAFFINITY")
    kernel.put("/sys/kernel/debug/irq/irqs/50", "dstate: 0x1\n            IRQD_AFFINITY_MANAGED")
    outcome = call(kernel, rules=[{"driver": "nvme", "cpus": "1"}, {"interface": "enp5s0", "cpus": "1"}])
    assert [placed(kernel, number) for number in (61, 50, 51)] == ["1", "0-7", "1"]
    assert [skip["key"] for skip in outcome["skipped_keys"]] == [f"irq:{NIC}/enp5s0-TxRx-0"]


def test_virtio_queues_are_managed_but_the_config_interrupt_is_not(kernel: FakeKernel) -> None:
    outcome = call(kernel, rules=[{"driver": "virtio_blk", "cpus": "1"}])
    assert (placed(kernel, 70), placed(kernel, 71)) == ("1", "0-7")
    assert "virtio_blk leaves its queues" in outcome["skipped_keys"][0]["reason"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM])
def test_a_surprise_at_the_write_is_skipped_and_remembered(kernel: FakeKernel, code: int) -> None:
    kernel.rules["/proc/irq/50/smp_affinity_list"] = refuse(code)
    wanted = {"rules": [{"interface": "enp5s0", "cpus": "2-3", "spread": True}]}
    first = call(kernel, **wanted)
    assert (placed(kernel, 50), placed(kernel, 51)) == ("0-7", "3")
    assert [skip["key"] for skip in first["skipped_keys"]] == [f"irq:{NIC}/enp5s0-TxRx-0"]
    kernel.writes.clear()
    second = call(kernel, **wanted)
    assert (second["changed"], kernel.writes) == (False, [])
    assert "earlier in this boot" in second["skipped_keys"][0]["reason"]
    kernel.reboot()
    del kernel.rules["/proc/irq/50/smp_affinity_list"]
    call(kernel, **wanted)
    assert placed(kernel, 50) == "2"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSPC, errno.EBUSY, errno.EROFS])
def test_any_other_refusal_takes_the_whole_call_back(kernel: FakeKernel, code: int) -> None:
    kernel.rules["/proc/irq/51/smp_affinity_list"] = refuse(code)
    with pytest.raises(ApplyError, match="enp5s0-TxRx-1: writing '3' failed.*nothing of this call remains"):
        call(kernel, **ALL)
    assert [placed(kernel, number) for number in (40, 50, 60)] == ["0-7", "0-7", "0-7"]
    assert entries(kernel) == {}


def test_a_pin_that_irqbalance_would_move_is_refused(balanced: FakeKernel) -> None:
    rules = [{"driver": "nvidia", "cpus": "1"}, {"interface": "enp5s0", "cpus": "2"}]
    with pytest.raises(RefusedError, match=r"would move the interrupts of igc again; add these drivers"):
        call(balanced, rules=rules, irqbalance={"banned_modules": ["nvidia"]})
    assert balanced.writes == []
    assert call(balanced, check=True, rules=rules, irqbalance=FREE)["changed"]
    balanced.put("/etc/default/irqbalance", 'IRQBALANCE_ARGS="--banmod=igc -m nvidia"')
    assert call(balanced, rules=rules)["changed"]


def test_irqbalance_is_told_before_the_first_pin_and_once(balanced: FakeKernel) -> None:
    balanced.put(
        "/etc/default/irqbalance", '# own\nIRQBALANCE_ARGS="--powerthresh=1 --banmod=nvme"\nIRQBALANCE_BANNED_CPULIST=0'
    )
    wanted = {
        "rules": [{"driver": "nvidia", "cpus": "1"}],
        "irqbalance": {"banned_cpus": "4-7", "banned_modules": ["nvidia", "nvme"]},
    }
    predicted = call(balanced, check=True, **wanted)
    first = call(balanced, **wanted)
    assert predicted == first
    text = balanced.text(ENVIRONMENT)
    assert 'IRQBALANCE_ARGS="--powerthresh=1 --banmod=nvme --banmod=nvidia"' in text
    assert "IRQBALANCE_BANNED_CPULIST=0,4-7" in text
    assert f"EnvironmentFile=-{ENVIRONMENT}" in balanced.text(DROP_IN)
    assert first["actions"] == ["daemon-reload", "restart-irqbalance"]
    assert balanced.acted == ["systemctl daemon-reload", "systemctl try-restart irqbalance.service"]
    order = [balanced.writes.index(name) for name in (DROP_IN, balanced.acted[1], "/proc/irq/40/smp_affinity_list")]
    assert order == sorted(order)
    balanced.acted.clear()
    assert (call(balanced, **wanted)["changed"], balanced.acted) == (False, [])
    call(balanced)
    assert not any(map(balanced.exists, (ENVIRONMENT, DROP_IN, os.path.dirname(DROP_IN))))
    assert balanced.acted == ["systemctl daemon-reload", "systemctl try-restart irqbalance.service"]
    assert entries(balanced) == {}


def test_a_failing_restart_takes_the_files_back_before_any_pin(balanced: FakeKernel) -> None:
    balanced.commands["systemctl try-restart irqbalance.service"] = Completed(1, "", "Job failed")
    with pytest.raises(ApplyError, match="try-restart irqbalance.service failed with code 1: Job failed"):
        call(balanced, rules=[{"driver": "nvidia", "cpus": "1"}], irqbalance={"banned_modules": ["nvidia"]})
    assert not balanced.exists(ENVIRONMENT)
    assert "/proc/irq/40/smp_affinity_list" not in balanced.writes


def test_an_old_mask_of_others_does_not_win_and_options_is_known(balanced: FakeKernel) -> None:
    balanced.put("/lib/systemd/system/irqbalance.service", UNIT.replace("IRQBALANCE_ARGS", "OPTIONS"))
    balanced.put("/etc/default/irqbalance", "IRQBALANCE_BANNED_CPUS=3\nOPTIONS=-j")
    call(balanced, irqbalance={"banned_cpus": "4", "banned_modules": ["nvidia"]})
    text = balanced.text(ENVIRONMENT)
    assert "IRQBALANCE_BANNED_CPUS=13\nIRQBALANCE_BANNED_CPULIST=0-1,4\n" in text
    assert 'OPTIONS="-j --banmod=nvidia"' in text


def test_without_irqbalance_there_is_nothing_to_keep_away(kernel: FakeKernel) -> None:
    outcome = call(kernel, irqbalance={"banned_modules": ["nvidia"]})
    assert (outcome["changed"], outcome["skipped_keys"][0]["key"]) == (False, "irqbalance")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rules": [{"name": "enp5-*", "cpus": "1"}]}, "no interrupt matches; nearest name: enp5s0-TxRx-"),
        ({"rules": [{"driver": "nvidai", "cpus": "1"}]}, "no interrupt matches; nearest driver: nvidia"),
        ({"rules": [{"pci": "0000:99:00.0", "cpus": "1"}]}, "no interrupt matches; nearest pci: 0000:"),
        ({"rules": [{"driver": "nvidia", "interface": "enp5s0", "cpus": "1"}]}, "no interrupt has all of them"),
        ({"rules": [{"driver": "nvidia", "cpus": "30-31"}]}, "CPUs 30-31 do not exist; there are 0-9"),
        ({"rules": [{"driver": "nvidia", "cpus": "7-8"}]}, "CPUs 8 are offline; online are 0-7"),
        ({"rules": [{"driver": "nvidia", "exclude": "77"}]}, "CPUs 77 do not exist"),
        ({"rules": [{"driver": "nvidia", "exclude": "0-9"}]}, "leaves no online CPU for it"),
        ({"default_cpus": "8"}, "default_cpus 8 are not online; online are 0-7"),
        (
            {"rules": [{"driver": "nvidia", "cpus": "1"}, {"name": "nvid*", "cpus": "2"}]},
            "rules driver=nvidia and name=nvid\\* both match 0000:01:00.0/nvidia and give it 1 and 2",
        ),
    ],
)
def test_what_the_machine_lacks_is_refused(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)
    assert kernel.writes == []


@pytest.mark.parametrize(("banned", "message"), [("0-7", "leaves no online CPU"), ("44", "44 do not exist")])
def test_banned_cpus_are_checked(balanced: FakeKernel, banned: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        call(balanced, irqbalance={"banned_cpus": banned})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rules": [{"driver": "nvidia", "cpus": "0-3,,9"}]}, "rules driver=nvidia: cpus: '0-3,,9' is not a CPU list"),
        ({"rules": [{"cpus": "0"}]}, "says nothing about which interrupts; give one of pci, driver, interface, name"),
        ({"rules": [{"driver": "nvidia"}]}, "says nothing about CPUs; give cpus, node_local: true or exclude"),
        ({"rules": [{"driver": "nvidia", "cpus": ""}]}, "cpus is empty"),
        ({"rules": [{"driver": " ", "cpus": "1"}]}, "driver is empty"),
        ({"rules": [{"pci": "GPU0", "cpus": "1"}]}, "pci 'GPU0' is not a PCI address"),
        ({"default_cpus": "a"}, "default_cpus: 'a' is not a CPU list"),
        ({"online_cpus": ""}, "online_cpus: is empty"),
        ({"irqbalance": {"banned_modules": ["a b"]}}, "banned_modules: 'a b' is not a driver name"),
        ({"irqbalance": {"banned_cpus": "3-1"}}, "irqbalance: banned_cpus: the range '3-1'"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)


def test_an_optional_rule_is_skipped_with_the_reason(kernel: FakeKernel) -> None:
    rules = [{"driver": "mlx5_core", "cpus": "1", "optional": True}, {"name": "foo*", "cpus": "1"}]
    outcome = call(kernel, rules=rules, optional=["foo*"])
    assert [skip["key"] for skip in outcome["skipped_keys"]] == ["irq_rule:driver=mlx5_core", "irq_rule:name=foo*"]


def test_a_read_only_proc_is_a_reason(kernel: FakeKernel) -> None:
    kernel.read_only |= {"/proc/irq/40/smp_affinity_list", "/proc/irq/default_smp_affinity"}
    wanted = {"rules": [{"driver": "nvidia", "cpus": "1"}], "default_cpus": "1"}
    with pytest.raises(RefusedError, match="read-only here"):
        call(kernel, **wanted)
    outcome = call(kernel, **wanted, optional=["nvidia", "default_cpus"])
    assert (outcome["changed"], len(outcome["skipped_keys"])) == (False, 2)


def test_without_root_there_is_one_line(kernel: FakeKernel) -> None:
    kernel.root_user = False
    with pytest.raises(RefusedError, match="needs root; run the task with become: true"):
        call(kernel, rules=[{"driver": "nvidia", "cpus": "1"}])


def test_two_thousand_interrupts_in_one_call(kernel: FakeKernel) -> None:
    for number in range(1000, 3000):
        add_irq(kernel, number, f"enp5s0-TxRx-{number}", NIC)
    reads: list[str] = []
    text = kernel.text
    kernel.text = lambda path: reads.append(path) or text(path)  # type: ignore[method-assign, func-returns-value]
    outcome = call(kernel, rules=[{"interface": "enp5s0", "cpus": "1-4", "spread": True}])
    assert len(outcome["changes"]) == 2002
    assert {placed(kernel, number) for number in range(1000, 3000)} == {"1", "2", "3", "4"}
    # A bounded number of reads for each interrupt: nothing is looked up once per pair of interrupts.
    assert len(reads) < 2010 * 14
