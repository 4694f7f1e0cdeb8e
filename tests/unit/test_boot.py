# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the boot unit brings back: volatile values, all that is there, and with the ledger right afterwards."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_present
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import PATH as RECORD
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import Record
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import boot
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    cpu_governor,
    irq_affinity,
    kernel_settings,
    managed_files,
    nvidia_gpu_state,
)
from fake_cpus import FakeCpus
from fake_kernel import FakeKernel, refuse, run_module
from gpu_box import FULL
from nvml_child import in_child

SWAP = "/proc/sys/vm/swappiness"
DEFAULT = "/proc/irq/default_smp_affinity"
IRQ = "/proc/irq/{}/smp_affinity_list"


class Bed:
    """CPUs, two interrupts and a sysctl, tuned by two owners; a reboot makes everything as the kernel makes it."""

    def __init__(self, folder: Path) -> None:
        self.kernel = FakeKernel(folder)
        self.boots = 0
        self.start("powersave")

    def start(self, governor: str, numbers: tuple[int, int] = (30, 31)) -> None:
        self.boots += 1
        self.kernel.reboot(f"boot-{self.boots}")
        self.cpus = FakeCpus(self.kernel, default_governor=governor)
        for path in self.kernel.glob("/sys/kernel/irq/*/actions"):
            os.unlink(self.kernel.at(path))
        self.kernel.put_all({SWAP: "60", DEFAULT: "ff", "/sys/devices/system/cpu/possible": "0-7"})
        for number, name in zip(numbers, ("eth0-rx", "eth0-tx"), strict=True):
            self.kernel.put_all({f"/sys/kernel/irq/{number}/actions": name, IRQ.format(number): "0-7"})

    def tune(self) -> None:
        rules = [{"name": "eth0-*", "cpus": "2-3"}]
        run_module(cpu_governor, self.kernel, owner="os_tuning", governor="performance", idle_latency_us=20)
        run_module(kernel_settings, self.kernel, owner="os_tuning", sysctl={"vm.swappiness": 10}, persist=False)
        files = [{"path": "/etc/systemd/journald.conf.d/50-a.conf", "content": "[Journal]\n"}]
        run_module(managed_files, self.kernel, owner="os_tuning", files=files)
        run_module(irq_affinity, self.kernel, owner="other", rules=rules, default_cpus="0-3")
        self.kernel.writes.clear()

    def boot(self) -> list[str]:
        return list(boot.run(Machine(self.kernel)))

    def entries(self) -> dict:
        return json.loads(self.kernel.text(LEDGER) or "{}")["entries"]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def values(lines: list[str]) -> list[str]:
    return [line for line in lines if " -> " in line]


def test_governor_idle_states_and_interrupts_come_back_and_files_are_not_touched(bed: Bed) -> None:
    bed.tune()
    bed.start("powersave", numbers=(77, 78))
    os.unlink(bed.kernel.at("/etc/systemd/journald.conf.d/50-a.conf"))
    lines = bed.boot()
    assert {bed.cpus.read(cpu, "scaling_governor") for cpu in range(8)} == {"performance"}
    assert [bed.kernel.text(IRQ.format(number)) for number in (77, 78)] == ["2-3", "2-3"]
    assert bed.kernel.text(DEFAULT) == "f"
    assert "<5>irq:default: 0-7 -> 0-3" in lines
    assert lines[-1] == f"<5>{len(values(lines))} values brought back"
    # A sysctl has a file that the system reads by itself; who set persist: false has none, and wants none.
    assert bed.kernel.text(SWAP) == "60"
    assert not bed.kernel.exists("/etc/systemd/journald.conf.d/50-a.conf")


def test_a_second_run_and_the_roles_next_run_change_nothing(bed: Bed) -> None:
    bed.tune()
    bed.start("powersave")
    bed.boot()
    bed.kernel.writes.clear()
    assert bed.boot() == ["<5>all is as recorded"]
    assert bed.kernel.writes == []
    assert (
        run_module(cpu_governor, bed.kernel, owner="os_tuning", governor="performance", idle_latency_us=20)["changed"]
        is False
    )


def test_what_was_taken_back_while_it_waited_for_its_turn_does_not_come_again(bed: Bed, monkeypatch) -> None:
    bed.tune()
    bed.start("powersave")
    turn = bed.kernel.lock

    @contextmanager
    def after_another_run(path: str) -> Iterator[None]:
        with turn(path):
            os.unlink(bed.kernel.at(RECORD))
            yield

    monkeypatch.setattr(bed.kernel, "lock", after_another_run)
    assert bed.boot() == ["<5>nothing is recorded on this machine"]
    assert {bed.cpus.read(cpu, "scaling_governor") for cpu in range(8)} == {"powersave"}


def test_the_original_is_what_this_boot_gave_and_the_owners_stay(bed: Bed) -> None:
    bed.tune()
    # Another owner wants the same value of the same key.
    run_module(irq_affinity, bed.kernel, owner="third", default_cpus="0-3")
    bed.start("powersave")
    bed.kernel.put(DEFAULT, "3f")
    bed.boot()
    entry = bed.entries()["irq:default"]
    assert (entry["original"], entry["ours"], entry["boot_id"]) == ("0-5", "0-3", "boot-2")
    assert sorted([entry["owner"], *entry["also"]]) == ["other/irq_affinity", "third/irq_affinity"]
    run_module(irq_affinity, bed.kernel, owner="other")
    assert bed.kernel.text(DEFAULT) == "f"
    run_module(irq_affinity, bed.kernel, owner="third")
    assert bed.kernel.text(DEFAULT) == "3f"


def test_one_value_that_cannot_be_had_does_not_keep_the_others(bed: Bed) -> None:
    bed.tune()
    bed.start("powersave")
    bed.kernel.rules[bed.cpus.policy(3, "scaling_governor")] = refuse(errno.EBUSY)
    lines = bed.boot()
    (warning,) = [line for line in lines if boot.is_warning(line)]
    assert "policy3/scaling_governor" in warning
    assert {bed.cpus.read(cpu, "scaling_governor") for cpu in (0, 1, 2, 4, 7)} == {"performance"}
    assert bed.kernel.text(DEFAULT) == "f"
    assert all(not entry["intent"] for entry in bed.entries().values())


def test_a_part_that_breaks_does_not_keep_the_others(bed: Bed) -> None:
    bed.tune()
    record = json.loads(bed.kernel.text(RECORD) or "")
    record["wanted"]["os_tuning"]["cpu_governor"]["idle_latency_us"] = "soon"
    bed.kernel.put(RECORD, json.dumps(record))
    bed.start("powersave")
    lines = bed.boot()
    assert next(line for line in lines if boot.is_warning(line)).startswith("<4>cpu_governor of os_tuning: ")
    assert bed.kernel.text(DEFAULT) == "f"


def test_a_device_that_is_not_there_yet_is_said_and_placed_when_it_comes(bed: Bed) -> None:
    bed.tune()
    bed.start("powersave")
    for number in (30, 31):
        bed.kernel.put(f"/sys/kernel/irq/{number}/actions", "")
    assert any(boot.is_warning(line) and "no interrupt matches" in line for line in bed.boot())
    for number in (30, 31):
        bed.kernel.put(f"/sys/kernel/irq/{number}/actions", f"eth0-{number}")
    assert len(values(bed.boot())) == 2


def test_what_the_kernel_never_takes_is_no_warning(bed: Bed) -> None:
    bed.tune()
    bed.start("powersave")
    bed.kernel.rules[IRQ.format(30)] = refuse(errno.EIO)
    lines = bed.boot()
    assert not any(boot.is_warning(line) for line in lines)
    assert any(line.startswith("<5>skipped: irq:-/eth0-rx: ") for line in lines)


def test_keys_that_were_taken_back_one_by_one_stay_so(bed: Bed) -> None:
    bed.tune()
    record = Record(bed.kernel)
    record.leave_alone(["irq:default"])
    record.save()
    bed.start("powersave")
    bed.boot()
    assert bed.kernel.text(DEFAULT) == "ff"
    assert bed.kernel.text(IRQ.format(30)) == "2-3"


def test_what_a_killed_run_left_to_do_waits_for_the_next_run(bed: Bed) -> None:
    bed.tune()
    ledger = json.loads(bed.kernel.text(LEDGER) or "")
    ledger["pending_actions"] = ["update-initramfs"]
    bed.kernel.put(LEDGER, json.dumps(ledger))
    bed.kernel.put("/usr/sbin/update-initramfs", "")
    bed.start("powersave")
    bed.boot()
    assert bed.kernel.acted == []
    assert json.loads(bed.kernel.text(LEDGER) or "")["pending_actions"] == ["update-initramfs"]


def test_without_a_record_there_is_nothing_to_do_and_a_damaged_one_is_an_error(bed: Bed) -> None:
    assert bed.boot() == ["<5>nothing is recorded on this machine"]
    bed.kernel.put(RECORD, "{")
    with pytest.raises(RefusedError, match="cannot be read"):
        bed.boot()


# -- the driver ------------------------------------------------------------------------------------


def gpu_boot(box, driver=open_present):
    return in_child(box.driver, lambda: list(boot.run(Machine(box.kernel, lambda: driver(box.kernel)))))


@pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")
@pytest.mark.parametrize("event", ["reload_driver", "reboot"])
def test_gpu_values_come_back_after_a_reload_and_a_reboot(make_box, event: str) -> None:
    box = make_box("rtx3090", "rtx4090")
    settings = {**FULL, "gpu_clocks": {"min_mhz": 420, "max_mhz": 1800}}
    box.run(**settings)
    wanted = box.state()
    getattr(box.driver, event)()
    if event == "reboot":
        box.kernel.reboot()
    assert box.state() != wanted
    lines = gpu_boot(box)
    assert len(values(lines)) == 8
    assert box.state() == wanted
    box.setters()
    assert gpu_boot(box) == ["<5>all is as recorded"]
    assert box.setters() == []
    assert box.run(**settings)["changed"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")
def test_a_gpu_that_is_lost_does_not_keep_the_other_from_its_limit(make_box) -> None:
    box = make_box("rtx3090", "rtx4090")
    box.run(persistence=True, power_limit="80%")
    box.driver.reload_driver()
    box.driver.lose(0)
    lines = gpu_boot(box)
    assert any(boot.is_warning(line) and "GPU_IS_LOST" in line for line in lines), lines
    assert f"<5>gpu:{box.uuid(1)}/power_limit_mw: 450000 -> 360000" in lines


def test_boot_does_not_load_a_driver_that_nobody_asked_for(make_box) -> None:
    box = make_box()
    box.kernel.put("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de")
    with_driver = in_child(box.driver, lambda: open_present(box.kernel).state)
    os.rename(box.kernel.at("/sys/module/nvidia"), box.kernel.at("/sys/module/gone"))
    without = in_child(box.driver, lambda: open_present(box.kernel).state)
    assert (with_driver, without) == ("ok", "not_loaded")


def test_volatile_parts_are_parts(make_box) -> None:
    subjects = {subject.NAME for subject in (cpu_governor, irq_affinity, nvidia_gpu_state)}
    assert set(boot.VOLATILE) == subjects
