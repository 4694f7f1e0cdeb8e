# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Links are watched over time, through the driver and the files of the kernel; the best look counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gpus import from_driver
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.link_samples import INTERVAL_SECONDS, sample
from nvml_child import in_child
from topologies import put

ADDRESS = "0000:01:00.0"
GPU = {"pci_address": ADDRESS, "uuid": None, "problem": None}


class Watch:
    """A clock that moves when somebody waits."""

    def __init__(self, *events: Any) -> None:
        self.now, self.events = 0.0, list(events)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.events:
            self.events.pop(0)()


def show(root: Path, speed: str, width: int) -> None:
    base = f"sys/bus/pci/devices/{ADDRESS}"
    put(root, {f"{base}/current_link_speed": f"{speed} GT/s PCIe", f"{base}/current_link_width": width})


def test_the_best_of_all_looks_counts_without_a_driver(tmp_path: Path) -> None:
    show(tmp_path, "2.5", 16)
    watch = Watch(lambda: show(tmp_path, "32.0", 8), lambda: show(tmp_path, "2.5", 4))
    found = sample(Host(str(tmp_path)), None, [GPU], 1, watch.clock, watch.wait)
    looks = round(1 / INTERVAL_SECONDS) + 1
    assert found == {ADDRESS: {"looks": looks, "generation": 5, "width": 16, "utilization_percent": None}}


def test_no_time_is_one_look(tmp_path: Path) -> None:
    watch = Watch()
    found = sample(Host(str(tmp_path)), None, [GPU], 0, watch.clock, watch.wait)
    assert found[ADDRESS]["looks"] == 1
    assert found[ADDRESS]["generation"] is None


def watched(folder: Path, *events: Any) -> Any:
    """One card watched through the stand-in driver, in a process of its own."""

    def piece() -> Any:
        nvml, watch = open_nvml(), Watch(*events)
        gpus = from_driver(nvml)
        return sample(Host(str(folder)), nvml, gpus, 1, watch.clock, watch.wait)

    return piece


def test_load_that_begins_while_watching_is_seen(tmp_path: Path) -> None:
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090"]) as machine:
        (idle,) = in_child(machine, watched(tmp_path)).values()
        assert (idle["generation"], idle["utilization_percent"]) == (1, 0)
        (busy,) = in_child(
            machine, watched(tmp_path, lambda: machine.set(load=1), lambda: machine.set(load=0))
        ).values()
        assert (busy["generation"], busy["width"]) == (5, 16)
        assert busy["utilization_percent"] > 90


def test_a_slot_that_holds_a_busy_card_back_shows(tmp_path: Path) -> None:
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090"], load=1) as machine:
        machine.set(0, pcie_width=8, pcie_gen_slot=3)
        (found,) = in_child(machine, watched(tmp_path)).values()
        assert (found["generation"], found["width"]) == (3, 8)
        assert found["utilization_percent"] > 90


def test_a_card_that_falls_off_the_bus_meanwhile_is_no_crash(tmp_path: Path) -> None:
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090"]) as machine:
        (found,) = in_child(machine, watched(tmp_path, lambda: machine.lose(0))).values()
        assert found["generation"] == 1
        assert found["looks"] > 2
