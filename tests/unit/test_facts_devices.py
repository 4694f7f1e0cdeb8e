# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of GPUs (through the real nvidia-ml-py on the stand-in driver, and without a driver), PCI and interrupts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_nvml
import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts import gpus, interrupts, pci
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from hypothesis import given
from hypothesis import strategies as st
from machines import MEMORY_FLAGS, UNSET, Device, Link, plug, write_interrupts
from nvml_child import in_child
from topologies import GIB, MIB, put

FIRST, SECOND = "0000:01:00.0", "0000:02:00.0"
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@build)\nGCC version: 13"
)
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Fri Apr 11 14:05:00 UTC 2026"


@pytest.fixture
def driver() -> Iterator[fake_nvml.Machine]:
    with (
        tempfile.TemporaryDirectory() as folder,
        fake_nvml.Machine(f"{folder}/gpu", ["rtx5090", "rtx3090"]) as made,
    ):
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plug(tmp_path, Device(FIRST, irqs=(70, 71)))
    plug(tmp_path, Device(SECOND, device="0x2204", port_address="0000:00:01.2", link=Link(width=8, max_speed="16.0")))
    put(tmp_path, {"proc/driver/nvidia/version": OPEN})
    return tmp_path


def without_driver(root: Path) -> dict[str, Any]:
    return gather(Host(str(root)), ["gpus"])


def with_driver(root: Path, driver: fake_nvml.Machine | None) -> dict[str, Any]:
    return in_child(driver, lambda: gather(Host(str(root)), ["gpus"], open_nvml))


# -- GPUs ------------------------------------------------------------------------------------------


def test_the_driver_tells_of_each_card(root: Path, driver: fake_nvml.Machine) -> None:
    driver.set(0, processes="1234:C:5000")
    found = with_driver(root, driver)
    assert found["gpu_driver"] == {
        "state": "ok",
        "reason": "",
        "version": "580.95.05",
        "nvml_version": "13.580.95.05",
        "cuda_version": "13.0",
        "module": "open",
    }
    one, two = found["gpus"]
    assert (one["source"], one["problem"]) == ("nvml", None)
    assert (one["name"], one["uuid"]) == ("NVIDIA GeForce RTX 5090", driver.uuid(0))
    assert (one["pci_address"], one["device_id"]) == (FIRST, "10de:2b85")
    assert (one["architecture"], one["compute_capability"]) == ("blackwell", "12.0")
    assert one["vram_bytes"] == 32607 * MIB
    assert one["bar1_bytes"] == 32 * GIB
    power = {key: one["power"][f"{key}_watts"] for key in ("limit", "default", "min", "max", "enforced")}
    assert power == {"limit": 575.0, "default": 575.0, "min": 400.0, "max": 600.0, "enforced": 575.0}
    assert one["clocks"]["max_mem_mhz"] == 14001
    assert (one["persistence"], one["compute_mode"]) == (False, "default")
    assert one["ecc"] == one["mig"] == {"current": None, "pending": None}
    assert one["processes"] == [{"pid": 1234, "type": "C", "memory_bytes": 5000 * MIB}]
    assert one["link"]["gpu_max_gen"] == 5
    assert two["name"] == "NVIDIA GeForce RTX 3090"
    json.dumps(found)


def test_facts_follow_a_change_of_the_driver(root: Path, driver: fake_nvml.Machine) -> None:
    def change() -> dict[str, Any]:
        nvml = open_nvml()
        nvml.write(driver.uuid(0), "power_limit_mw", 450000)
        nvml.write(driver.uuid(0), "persistence", "on")
        nvml.close()
        return gather(Host(str(root)), ["gpus"], open_nvml)

    one = in_child(driver, change)["gpus"][0]
    assert (one["power"]["limit_watts"], one["persistence"]) == (450.0, True)


def test_a_lost_card_is_listed_with_its_problem(root: Path, driver: fake_nvml.Machine) -> None:
    driver.lose(0)
    found = with_driver(root, driver)
    one, two = found["gpus"]
    assert "GPU_IS_LOST" in one["problem"]
    assert (one["pci_address"], one["vram_bytes"], one["link"]["gpu_max_gen"]) == (FIRST, None, 5)
    assert (two["problem"], two["vram_bytes"] is None) == (None, False)
    assert found["gpu_driver"]["state"] == "ok"


def test_a_card_that_the_driver_does_not_list_comes_from_pci(root: Path, driver: fake_nvml.Machine) -> None:
    plug(root, Device("0000:41:00.0", port_address="0000:00:05.1"))
    found = with_driver(root, driver)["gpus"]
    assert [(gpu["pci_address"], gpu["source"]) for gpu in found] == [
        (FIRST, "nvml"),
        (SECOND, "nvml"),
        ("0000:41:00.0", "pci"),
    ]


def test_library_and_driver_of_different_versions(root: Path, driver: fake_nvml.Machine) -> None:
    driver.set(init_rc=18)
    found = with_driver(root, driver)
    assert found["gpu_driver"]["state"] == "mismatch"
    assert "reboot" in found["gpu_driver"]["reason"]
    assert [gpu["source"] for gpu in found["gpus"]] == ["pci", "pci"]


def test_no_library_and_no_module(root: Path) -> None:
    found = with_driver(root, None)["gpu_driver"]
    assert (found["state"], found["module"], found["version"]) == ("no_library", "open", "580.95.05")
    (root / "proc/driver/nvidia/version").unlink()
    found = with_driver(root, None)["gpu_driver"]
    assert (found["state"], found["module"]) == ("not_loaded", "")


def test_a_driver_that_lists_no_card_is_told_apart_from_no_card(tmp_path: Path) -> None:
    class Nothing:
        state, reason = "ok", ""

        def devices(self):
            return []

        def versions(self):
            return {"driver": "550.163.01", "nvml": "12.550.163.01", "cuda": "12.4"}

        def close(self):
            pass

    put(tmp_path, {"proc/driver/nvidia/version": CLOSED})
    found = gpus.gather(Host(str(tmp_path)), [], Nothing)["gpu_driver"]
    assert (found["state"], found["module"]) == ("no_device", "proprietary")
    assert found["reason"].startswith("no NVIDIA GPU is visible")
    plug(tmp_path, Device())
    host = Host(str(tmp_path))
    found = gpus.gather(host, pci.gather(host), Nothing)["gpu_driver"]
    assert found["state"] == "no_device"
    assert found["reason"].startswith("the driver is loaded but lists none of the 1 NVIDIA GPUs")


def test_pci_and_the_drivers_files_without_nvml(root: Path) -> None:
    information = (
        "Model: \t\t NVIDIA GeForce RTX 5090\nIRQ:   \t\t 140\nGPU UUID: \t GPU-5c1b\nVideo BIOS: \t ??.??.??.??.??\n"
    )
    put(root, {f"proc/driver/nvidia/gpus/{FIRST}/information": information})
    found = without_driver(root)
    one, two = found["gpus"]
    assert (one["name"], one["uuid"], one["vbios"]) == ("NVIDIA GeForce RTX 5090", "GPU-5c1b", None)
    assert (one["source"], one["bar1_bytes"], one["device_id"]) == ("pci", 32 * GIB, "10de:2b85")
    assert two["link"] == {"current_gen": 1, "current_width": 8, "max_gen": 4, "max_width": 16, "gpu_max_gen": 4}
    assert (two["name"], two["device_id"]) == (None, "10de:2204")
    assert found["gpu_driver"]["state"] == "no_binding"


def test_other_displays_and_functions_are_no_gpus(tmp_path: Path) -> None:
    plug(tmp_path, Device("0000:0a:00.0", vendor="0x1002", driver="amdgpu"))
    plug(tmp_path, Device("0000:01:00.1", code="0x040300", driver="snd_hda_intel"))  # the card's audio
    assert without_driver(tmp_path)["gpus"] == []


def test_words_for_throttle_reasons() -> None:
    assert gpus.reasons(0x4 | 0x40) == ["sw_power_cap", "hw_thermal_slowdown"]
    assert gpus.reasons(0x1 | 0x8000) == ["idle", "0x8000"]
    assert gpus.reasons(None) == []


def test_several_nameless_gpus_are_not_taken_for_a_card(root: Path, driver: fake_nvml.Machine) -> None:
    plug(root, Device("0000:41:00.0", port_address="0000:00:05.1"))
    driver.lose(0)
    found = with_driver(root, driver)["gpus"]
    assert [(gpu["pci_address"], gpu["problem"] is None) for gpu in found] == [
        (FIRST, True),
        (SECOND, True),
        ("0000:41:00.0", True),
        (None, False),
    ]


# -- PCI -------------------------------------------------------------------------------------------


def test_a_device_with_its_port_bars_and_vectors(tmp_path: Path) -> None:
    plug(tmp_path, Device(irqs=(71, 70), iommu_group=13, port=Link(max_speed="16.0", max_width=8), node=-1))
    (one,) = gather(Host(str(tmp_path)), ["pci"])["pci"]
    assert one["upstream"] == {
        "address": "0000:00:01.1",
        "link": {"current_gen": 1, "current_width": 16, "max_gen": 4, "max_width": 8},
    }
    assert (one["irqs"], one["driver"], one["kind"]) == ([70, 71], "nvidia", "display")
    assert (one["iommu_group"], one["iommu_type"], one["numa_node"]) == (13, "DMA-FQ", None)
    assert one["bars"][1] == {
        "index": 1,
        "start": 0x6000000000,
        "size_bytes": 32 * GIB,
        "max_bytes": 32 * GIB,
        "assigned": True,
    }
    assert len(one["bars"]) == 2


def test_unknown_links_unplaced_bars_and_root_devices(tmp_path: Path) -> None:
    plug(
        tmp_path,
        Device(
            "0000:00:02.0",
            vendor="0x1af4",
            code="0x020000",
            driver="",
            port=None,
            resizable=0,
            link=Link("Unknown", 0, "Unknown", 255),
            bars=((0, MIB, MEMORY_FLAGS | UNSET),),
        ),
    )
    (one,) = gather(Host(str(tmp_path)), ["pci"])["pci"]
    assert (one["upstream"], one["driver"]) == (None, None)
    assert set(one["link"].values()) == {None}
    assert one["bars"] == [{"index": 0, "start": 0, "size_bytes": MIB, "max_bytes": None, "assigned": False}]


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ("2.5 GT/s PCIe", 1),
        ("5.0 GT/s PCIe", 2),
        ("5 GT/s", 2),
        ("8.0 GT/s PCIe", 3),
        ("16.0 GT/s PCIe", 4),
        ("32.0 GT/s PCIe", 5),
        ("64.0 GT/s PCIe", 6),
        ("Unknown", None),
        (None, None),
    ],
)
def test_generations(speed: str | None, expected: int | None) -> None:
    assert pci.generation(speed) == expected


# -- interrupts ------------------------------------------------------------------------------------

LINES = [
    (9, "IR-IO-APIC    9-fasteoi", "acpi"),
    (70, "IR-PCI-MSIX-0000:01:00.0    0-edge", "nvidia"),
    (71, "IR-PCI-MSI 524288-edge", "nvme0q0"),
    (72, "IR-PCI-MSI 524289-edge", "nvme0q1"),
    (80, "PCI-MSI 1-edge", "virtio1-req.0"),
    (81, "PCI-MSI 2-edge", "virtio2-input.0"),
    (82, "PCI-MSI 3-edge", "mystery"),
    (140, "GICv3 27 Level", "arch_timer"),
    (1000, "IR-IO-APIC 7-edge", "i2c_designware.0, idma64.0"),
]


def test_interrupts_with_device_driver_and_what_can_be_moved(tmp_path: Path) -> None:
    write_interrupts(tmp_path, 256, LINES)
    plug(tmp_path, Device(irqs=(70,)))
    found = gather(Host(str(tmp_path)), ["interrupts"])["interrupts"]
    assert found["default_affinity"] == "0-3"
    by_number = {entry["irq"]: entry for entry in found["irqs"]}
    assert by_number[70] == {
        "irq": 70,
        "device": "nvidia",
        "chip": "IR-PCI-MSIX-0000:01:00.0",
        "pci_address": FIRST,
        "driver": "nvidia",
        "affinity": "0-255",
        "effective_affinity": "70",
        "managed": False,
        "node": 0,
    }
    assert {irq: entry["managed"] for irq, entry in by_number.items()} == {
        9: False,
        70: False,
        71: False,
        72: True,
        80: True,
        81: False,
        82: None,
        140: False,
        1000: False,
    }
    assert by_number[1000]["device"] == "i2c_designware.0, idma64.0"
    assert by_number[140]["device"] == "arch_timer"


def test_debugfs_has_the_last_word(tmp_path: Path) -> None:
    write_interrupts(tmp_path, 4, LINES)
    debug = "sys/kernel/debug/irq/irqs"
    put(tmp_path, {f"{debug}/70": "dstate: 0x1\n  IRQD_AFFINITY_MANAGED", f"{debug}/72": "dstate: 0x2"})
    found = {
        entry["irq"]: entry["managed"] for entry in gather(Host(str(tmp_path)), ["interrupts"])["interrupts"]["irqs"]
    }
    assert (found[70], found[72], found[80]) == (True, False, True)


@given(
    counts=st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), min_size=1, max_size=5),
    blanks=st.integers(1, 30),
)
def test_counters_of_any_size_do_not_move_the_columns(counts: list[list[int]], blanks: int) -> None:
    rows = [
        f"{irq:>3}: " + "".join(f"{count:>10} " for count in row) + " " * blanks + f"PCI-MSI {irq}-edge      dev{irq}"
        for irq, row in enumerate(counts)
    ]
    text = "\n".join(["            CPU0       CPU1       CPU2       ", *rows, "ERR:          0"])
    assert interrupts.registered(text.encode()) == [(irq, "PCI-MSI", f"dev{irq}") for irq in range(len(counts))]


def test_other_widths_are_read_by_counting(tmp_path: Path) -> None:
    text = b"     CPU0 CPU1\n  5:   1   2 PCI-MSI 1-edge eth0\n  6: 1 2 PCI-MSI 2-edge\n"
    assert interrupts.registered(text) == [(5, "PCI-MSI", "eth0")]  # number 6 has no device
    assert interrupts.registered(None) == interrupts.registered(b"") == []
