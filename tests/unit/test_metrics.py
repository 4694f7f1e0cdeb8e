# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai-workstation metrics: what Prometheus is told, from the stand-in driver, the kernel's log and the record."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors import kernel_log
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import main as program
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import metrics
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host.metric_table import BY_NAME, PREFIX
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_settings
from fake_kernel import FakeKernel, run_module
from gpu_box import CARDS, Box
from nvml_child import in_child

DISPLAY = {"vendor": "0x10de", "class": "0x030000"}
SWAP = "/proc/sys/vm/swappiness"
_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, "label=value", ...) -> value, for all lines but comments; two of one name and labels fail."""
    found: dict[tuple[str, ...], float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = _SAMPLE.match(line).groups()
        key = (name.removeprefix(PREFIX), *sorted(re.findall(r'(\w+="(?:[^"\\]|\\.)*")', labels or "")))
        assert key not in found, line
        found[key] = float(value)
    return found


def gpu_text(box: Box) -> str:
    return in_child(box.driver, lambda: metrics.text(Machine(box.kernel, lambda: open_nvml(None)), "gpu"))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    tmp_path.chmod(0o755)
    return Box(tmp_path, ["rtx5090", "h200"])


def of(found: dict[tuple[str, ...], float], name: str, pci: str = "", **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in (labels | ({"pci": pci} if pci else {})).items()]
    return found[(name, *sorted(wanted))]


@pytest.mark.parametrize("card", CARDS)
def test_all_of_it_is_documented_and_in_base_units(tmp_path: Path, card: str) -> None:
    tmp_path.chmod(0o755)
    box = Box(tmp_path, [card])
    box.driver.set(load=1)
    found = samples(gpu_text(box))
    for name, *labels in found:
        assert [label.partition("=")[0] for label in labels] == sorted(BY_NAME[name].labels), name
    (pci,) = {label[5:-1] for _name, *labels in found for label in labels if label.startswith("pci=")}
    (gpu,) = box.ask(lambda nvml: nvml.devices())
    told = box.ask(lambda nvml: nvml.hardware(nvml.devices()[0].uuid).values)
    assert pci == gpu.pci
    assert of(found, "gpu_up", pci) == of(found, "driver_up") == of(found, "gpus") == 1
    assert of(found, "gpu_memory_total_bytes", pci) == told["memory_bytes"][0]
    assert of(found, "gpu_power_watts", pci) == told["power_draw_mw"] / 1000
    assert of(found, "gpu_pcie_link_max_generation", pci) == told["pcie_generation_max"]
    assert 1e8 < of(found, "gpu_sm_clock_hertz", pci) < 1e10
    assert 0.9 <= of(found, "gpu_utilization_ratio", pci) <= 1


def test_what_holds_the_clocks_down_has_its_name(box: Box) -> None:
    addresses = [gpu.pci for gpu in box.ask(lambda nvml: nvml.devices())]
    found = samples(gpu_text(box))
    assert of(found, "gpu_clock_event", addresses[0], reason="idle") == 1
    assert of(found, "gpu_clock_event", addresses[0], reason="hw_slowdown") == 0


def test_ecc_is_counted_only_where_there_is_ecc(box: Box) -> None:
    geforce, hopper = (gpu.pci for gpu in box.ask(lambda nvml: nvml.devices()))
    found = samples(gpu_text(box))
    assert of(found, "gpu_ecc_errors_total", hopper, kind="uncorrected") == 0
    with pytest.raises(KeyError):
        of(found, "gpu_ecc_errors_total", geforce, kind="uncorrected")


def test_a_narrow_link_is_seen(box: Box) -> None:
    address = box.ask(lambda nvml: nvml.devices())[0].pci
    box.driver.set(0, pcie_width=8)
    found = samples(gpu_text(box))
    assert of(found, "gpu_pcie_link_width_lanes", address) == 8
    assert of(found, "gpu_pcie_link_max_width_lanes", address) == 16


def test_a_lost_card_is_down_and_the_other_one_is_not(box: Box) -> None:
    lost, other = (gpu.pci for gpu in box.ask(lambda nvml: nvml.devices()))
    box.driver.lose(0)
    # Nobody but PCI knows the address of a card that is gone.
    found = samples(gpu_text(box))
    assert (of(found, "gpu_up", "index 0"), of(found, "gpus")) == (0, 2)
    for address in (lost, other):
        box.kernel.put_all({f"/sys/bus/pci/devices/{address}/{name}": text for name, text in DISPLAY.items()})
    found = samples(gpu_text(box))
    assert of(found, "gpu_up", lost) == 0
    assert of(found, "gpu_up", other) == 1
    assert of(found, "gpus") == 2
    assert not any(f'pci="{lost}"' in key and key[0] != "gpu_up" for key in found)


def test_a_card_that_is_lost_while_we_look_is_down(box: Box) -> None:
    box.driver.fault(fn="nvmlDeviceGetTemperature*", rc=15)
    assert {value for (name, *_labels), value in samples(gpu_text(box)).items() if name == "gpu_up"} == {0}


def test_a_card_without_a_driver_is_down(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.put_all(
        {
            **{f"/sys/bus/pci/devices/0000:01:00.0/{name}": text for name, text in DISPLAY.items()},
            "/sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de",
            "/sys/bus/pci/devices/0000:01:00.1/class": "0x040300",
        }
    )
    found = in_child(None, lambda: samples(metrics.text(Machine(kernel, lambda: open_nvml(None)), "gpu")))
    assert found == {("gpus",): 1, ("driver_up",): 0, ("gpu_up", 'pci="0000:01:00.0"'): 0}


def test_a_machine_without_a_card_has_no_driver_that_could_be_down(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    found = in_child(None, lambda: samples(metrics.text(Machine(kernel, lambda: open_nvml(None)), "gpu")))
    assert found == {("gpus",): 0}


LOG = """\
6,1,5000000,-;NVRM: loading NVIDIA UNIX Open Kernel Module
4,2,7500000,-;NVRM: Xid (PCI:0000:01:00): 31, pid=1234, name=python, Ch 00000008
 SUBSYSTEM=pci
4,3,9500000,-;NVRM: Xid (PCI:0000:01:00): 31, pid=1235, name=python, Ch 00000008
4,4,9600000,c;NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', GPU has fallen off the bus.
4,5,9700000,-;someone: Xid of nothing
"""


def test_the_last_xid_of_each_kind_has_its_time(box: Box) -> None:
    box.kernel.put_all({"/dev/kmsg": LOG, "/proc/stat": "cpu 1 2 3\nbtime 1700000000\n"})
    found = samples(gpu_text(box))
    assert {key: value for key, value in found.items() if key[0] == "gpu_xid_last_timestamp_seconds"} == {
        ("gpu_xid_last_timestamp_seconds", 'pci="0000:01:00.0"', 'xid="31"'): 1700000009.5,
        ("gpu_xid_last_timestamp_seconds", 'pci="0000:02:00.0"', 'xid="79"'): 1700000009.6,
    }


def test_the_log_is_read_to_its_end_and_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    """/dev/kmsg answers one record at a time, EPIPE where records were overwritten, EAGAIN at the end."""
    answers: list[Any] = [b"4,1,1000000,-;one\n", BrokenPipeError(errno.EPIPE, ""), b"4,9,2000000,-;two\n"]

    def read(_handle: int, _size: int) -> bytes:
        answer = answers.pop(0) if answers else BlockingIOError(errno.EAGAIN, "")
        if isinstance(answer, OSError):
            raise answer
        return answer

    kernel = FakeKernel(tmp_path)
    kernel.put_all({"/dev/kmsg": ""})
    monkeypatch.setattr(os, "read", read)
    assert list(kernel_log.records(kernel)) == [(1.0, "one"), (2.0, "two")]


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="the kernel's log is not for this user")
def test_the_log_of_this_machine_ends() -> None:
    assert isinstance(list(kernel_log.records(Host())), list)


def test_a_log_that_nobody_may_read_is_an_empty_one(tmp_path: Path) -> None:
    assert list(kernel_log.records(FakeKernel(tmp_path))) == []


def test_labels_are_escaped() -> None:
    assert metrics._line("gpu_info", {"name": 'a"b\\c\nd'}, 1) == PREFIX + 'gpu_info{name="a\\"b\\\\c\\nd"} 1\n'


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put_all({SWAP: 60})
    monkeypatch.setattr(program, "Host", lambda: kernel)
    return kernel


def drift(kernel: FakeKernel) -> dict[tuple[str, ...], float]:
    return samples(metrics.text(Machine(kernel), "drift"))


def test_drift_is_counted_from_the_record(kernel: FakeKernel) -> None:
    assert drift(kernel) == {("drift_recorded",): 0}
    run_module(kernel_settings, kernel, owner="os_tuning", sysctl={"vm.swappiness": 10}, persist=False)
    assert drift(kernel) == {("drift_recorded",): 1, ("drift_keys",): 0, ("drift_unchecked_parts",): 0}
    kernel.write_value(SWAP, "60")
    assert drift(kernel)["drift_keys",] == 1
    assert kernel.text(SWAP) == "60"


def test_the_program_prints_it_or_puts_it_into_a_file_for_all(kernel: FakeKernel, capsys) -> None:
    run_module(kernel_settings, kernel, owner="os_tuning", sysctl={"vm.swappiness": 10}, persist=False)
    assert program.main(["metrics", "drift"]) == 0
    printed = capsys.readouterr().out
    assert f"# TYPE {PREFIX}drift_keys gauge\n{PREFIX}drift_keys 0\n" in printed
    os.makedirs(kernel.at("/run/m"))
    assert program.main(["metrics", "drift", "--output", "/run/m/drift.prom"]) == 0
    assert kernel.raw("/run/m/drift.prom").decode() == printed
    assert kernel.file("/run/m/drift.prom").mode == 0o644
    assert kernel.names("/run/m") == ["drift.prom"]
