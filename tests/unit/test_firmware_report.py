# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every rule of firmware_report with a machine that passes, one that fails and one that does not tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import firmware_report
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.firmware_menus import menu
from machines import MEMORY_FLAGS, UNSET, Device, Link, board, dimm, plug, write_dmi
from topologies import GIB, MIB, Topology, put, ryzen_9950x, write_tree

EFI = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
BUSY = Link(speed="32.0")
GOOD_DIMMS = (dimm("DIMM_A2", 48, 6000, 6000, part="F5-6000J3040G48G"), dimm("DIMM_B2", 48, 6000, 6000))
SMALL_BAR = ((0xF0000000, 64 * MIB, MEMORY_FLAGS), (0xD0000000, 256 * MIB, MEMORY_FLAGS))
ADDRESS = "0000:01:00.0"


class Machine:
    """A healthy workstation in a folder; the tests change one thing each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.topology: Topology = ryzen_9950x()
        self.written: Topology | None = None
        self.device: Device | None = Device(link=BUSY, port=BUSY)
        self.dimms: tuple[bytes, ...] = GOOD_DIMMS
        self.board: bytes = board()
        self.files: dict[str, Any] = {"sys/class/iommu/ivhd0/devices": "", "sys/module/nvidia/version": "580.95.05"}
        self.secure_boot: int | None = 0
        self.tables = True
        self.edit: Callable[[dict[str, Any]], None] = lambda _facts: None

    def facts(self) -> dict[str, Any]:
        if self.topology is not self.written:
            write_tree(self.topology, self.root)
            self.written = self.topology
        if self.device:
            plug(self.root, self.device)
        if self.tables:
            write_dmi(self.root, self.board, *self.dimms)
        put(self.root, {"sys/firmware/efi/fw_platform_size": 64, **self.files})
        if self.secure_boot is not None:
            put(self.root, {EFI: ""})
            (self.root / EFI).write_bytes(bytes((6, 0, 0, 0, self.secure_boot)))
        found = gather(Host(str(self.root)), firmware_report.SECTIONS)
        found["kernel"]["architecture"] = "x86_64"
        self.edit(found)
        return found

    def findings(self, ignore: tuple[str, ...] = (), **wish: Any) -> dict[str, firmware_report.Finding]:
        found = firmware_report.report(self.facts(), firmware_report.Wish(**wish), ignore)
        return {finding.id: finding for finding in found}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def expect(machine: Machine, name: str, result: str, words: str, **wish: Any) -> firmware_report.Finding:
    finding = machine.findings(**wish)[name]
    assert (finding.result, words in finding.why) == (result, True), finding
    assert finding.evidence
    return finding


def test_a_healthy_machine_fails_nothing(machine: Machine) -> None:
    found = machine.findings()
    assert list(found) == list(firmware_report.IDS)
    assert {name: finding.result for name, finding in found.items() if finding.result != "pass"} == {
        "pcie_bandwidth": "unknown",
        "boost_override": "unknown",
    }
    assert all(not finding.menu for finding in found.values() if finding.result == "pass")


# -- cards -----------------------------------------------------------------------------------------


def test_idle_link_is_unknown_and_asks_for_load(machine: Machine) -> None:
    machine.device = Device(link=Link(speed="2.5"), port=Link(speed="2.5"))
    finding = expect(
        machine,
        "pcie_link",
        "unknown",
        "the link runs at gen 1 and can do gen 5 while the card is idle: sample under load",
    )
    assert finding.item == f"PCIe generation and width, GPU {ADDRESS}"
    assert "gen 1 x16 now, gen 5 x16 at most; port 0000:00:01.1: gen 5 x16 at most" in finding.evidence


@pytest.mark.parametrize(
    ("link", "port", "words"),
    [
        (Link(), Link(max_speed="16.0"), "the port can do gen 4, the card gen 5"),
        (Link(width=4), Link(width=4, max_width=4), "the port has 4 lanes, the card 16"),
    ],
)
def test_a_port_that_can_do_less_than_the_card_fails_even_when_idle(
    machine: Machine, link: Link, port: Link, words: str
) -> None:
    machine.device = Device(link=link, port=port)
    finding = expect(machine, "pcie_link", "fail", words)
    assert finding.menu == menu("pcie_link", "asus")
    assert "riser" in finding.advice


def test_lost_lanes_of_an_idle_card_are_unknown_and_named(machine: Machine) -> None:
    machine.device = Device(link=Link(width=8), port=Link(width=8))
    finding = expect(machine, "pcie_link", "unknown", "only 8 of 16 lanes work while the card is idle")
    assert "the width seldom falls at rest, so look at slot and riser" in finding.why


def sampled(machine: Machine, generation: int, width: int, percent: int | None) -> None:
    """What some seconds of watching the card brought."""
    seen = {"looks": 11, "generation": generation, "width": width, "utilization_percent": percent}

    def edit(facts: dict[str, Any]) -> None:
        facts["gpus"][0]["samples"] = seen

    machine.device = Device(link=Link(speed="2.5", width=8), port=Link(speed="2.5", width=8))
    machine.edit = edit


def test_a_busy_card_below_its_best_fails(machine: Machine) -> None:
    sampled(machine, 4, 16, 97)
    finding = expect(
        machine, "pcie_link", "fail", "the link runs at gen 4 and can do gen 5, though the card was busy (97 %)"
    )
    assert "gen 4 x16 at best in 11 looks, card at most 97 % busy" in finding.evidence
    sampled(machine, 5, 8, 97)
    expect(machine, "pcie_link", "fail", "only 8 of 16 lanes work, though the card was busy")


@pytest.mark.parametrize("percent", [None, 0, firmware_report.BUSY_PERCENT - 1])
def test_a_card_that_was_idle_all_the_time_is_never_failed(machine: Machine, percent: int | None) -> None:
    sampled(machine, 1, 8, percent)
    expect(machine, "pcie_link", "unknown", "while the card is idle")


def test_the_best_look_counts(machine: Machine) -> None:
    sampled(machine, 5, 16, 3)
    expect(machine, "pcie_link", "pass", "gen 5 x16")


def test_expected_generation_and_width(machine: Machine) -> None:
    machine.device = Device(link=Link("16.0", 8, "16.0", 8), port=Link("16.0", 16))
    expect(machine, "pcie_link", "pass", "gen 4 x8")
    expect(machine, "pcie_link", "fail", "gen 5 is expected and gen 4 possible", pcie_generation=5)
    expect(machine, "pcie_link", "fail", "16 lanes are expected and 8 possible", pcie_width=16)


def test_link_without_values_is_unknown(machine: Machine) -> None:
    machine.device = Device(link=Link("Unknown", 0, "Unknown", 255), port=None)
    expect(machine, "pcie_link", "unknown", "does not tell")


def test_bandwidth_is_arithmetic_and_never_a_claim(machine: Machine) -> None:
    expect(machine, "pcie_bandwidth", "unknown", "gen 5 x16 carries at most 63 GB/s each way")


def test_resizable_bar(machine: Machine) -> None:
    expect(machine, "resizable_bar", "pass", "largest size")

    def vram(facts: dict[str, Any]) -> None:
        facts["gpus"][0].update(vram_bytes=34190917632, architecture="blackwell")

    machine.edit = vram
    expect(machine, "resizable_bar", "pass", "whole memory")
    machine.device = Device(link=BUSY, port=BUSY, bars=SMALL_BAR)
    finding = expect(machine, "resizable_bar", "fail", "a window of 256MiB")
    sizes = "resource1: 256MiB, resource1_resize: at most 32GiB; memory of the card: 31.8 GiB"
    assert finding.evidence == f"/sys/bus/pci/devices/{ADDRESS}/{sizes}"
    assert "Re-Size BAR" in finding.menu[0]


def test_resizable_bar_of_a_card_without_it_is_unknown(machine: Machine) -> None:
    machine.device = Device(link=BUSY, port=BUSY, bars=SMALL_BAR, resizable=0)
    machine.edit = lambda facts: facts["gpus"][0].update(vram_bytes=8 * GIB, architecture="turing")
    expect(machine, "resizable_bar", "unknown", "no other size")
    machine.edit = lambda facts: facts["gpus"][0].update(vram_bytes=24 * GIB, architecture="ampere")
    expect(machine, "resizable_bar", "fail", "Resizable BAR is off")


def test_above_4g(machine: Machine) -> None:
    expect(machine, "above_4g", "pass", "above 4 GiB")
    machine.device = Device(bars=SMALL_BAR)
    assert expect(machine, "above_4g", "fail", "below 4 GiB").evidence.endswith("resource, line 2: 0xd0000000")
    machine.device = Device(bars=(SMALL_BAR[0], (0, 32 * GIB, MEMORY_FLAGS | UNSET)))
    expect(machine, "above_4g", "fail", "no room")
    machine.device = Device(bars=())
    expect(machine, "above_4g", "unknown", "as root")


def test_no_gpu_is_unknown_with_the_reason(machine: Machine) -> None:
    machine.device = None
    for name in ("pcie_link", "pcie_bandwidth", "resizable_bar", "above_4g"):
        expect(machine, name, "unknown", "no NVIDIA GPU")


def test_each_card_has_its_own_finding(machine: Machine) -> None:
    slot = Link(width=4, max_width=4)
    plug(machine.root, Device("0000:02:00.0", link=Link(width=4), port=slot, port_address="0000:00:03.1"))
    found = firmware_report.report(machine.facts(), firmware_report.Wish())
    results = {finding.device: finding.result for finding in found if finding.id == "pcie_link"}
    assert results == {ADDRESS: "pass", "0000:02:00.0": "fail"}


# -- the machine -----------------------------------------------------------------------------------


def test_memory_below_its_rated_speed(machine: Machine) -> None:
    machine.dimms = (dimm("DIMM_A2", 48, 6000, 4800),)
    finding = expect(machine, "memory_speed", "fail", "DIMM_A2 runs at 4800 of 6000 MT/s")
    assert "rated 6000 configured 4800 MT/s" in finding.evidence
    assert "EXPO" in finding.menu[0]


def test_memory_profile_is_read_from_the_part_number(machine: Machine) -> None:
    """With the profile off, SMBIOS calls the JEDEC speed the rated one."""
    for part, speed in (("F5-6000J3040G32G", 6000), ("CMK64GX5M2B5600C40", 5600), ("KF560C36BBE2-32", 6000)):
        machine.dimms = (dimm("A", 32, 4800, 4800, part=part),)
        expect(machine, "memory_speed", "fail", f"4800 of {speed} MT/s")
    machine.dimms = (dimm("A", 32, 4800, 4800, part="M425R4GA3BB0-CQKOD"),)
    expect(machine, "memory_speed", "pass", "all 1 DIMMs")


def test_four_dimms_are_told_that_slower_may_be_right(machine: Machine) -> None:
    machine.dimms = tuple(dimm(f"DIMM_{slot}", 32, 6000, 3600) for slot in ("A1", "A2", "B1", "B2"))
    assert "often train slower" in expect(machine, "memory_speed", "fail", "3600 of 6000").advice


def test_memory_expectation_and_missing_tables(machine: Machine) -> None:
    expect(machine, "memory_speed", "pass", "all 2 DIMMs")
    expect(machine, "memory_speed", "fail", "6000 of 6400", memory_mts=6400)
    machine.dimms = (dimm("A1", 0, 0, 0),)
    expect(machine, "memory_speed", "unknown", "no DIMM" if machine.facts()["kernel"]["root"] else "as root")


def test_boost_override_is_never_claimed(machine: Machine) -> None:
    assert "Precision Boost Overdrive" in expect(machine, "boost_override", "unknown", "cannot be proven").menu[0]


def test_c_states(machine: Machine) -> None:
    expect(machine, "c_states", "pass", "enabled")
    expect(machine, "c_states", "fail", "deep states are there (C2, C3)", c_states="disabled")
    machine.files["proc/cmdline"] = "quiet processor.max_cstate=1"
    expect(machine, "c_states", "unknown", "command line hides")


@pytest.mark.parametrize("states", [(("POLL", 0), ("C1", 1)), (("POLL", 0), ("C1_ACPI", 1), ("C1E", 2))])
def test_c_states_off_in_the_firmware(machine: Machine, states: tuple) -> None:
    machine.topology = replace(machine.topology, idle=states)
    expect(machine, "c_states", "fail", "only POLL and C1")
    expect(machine, "c_states", "pass", "disabled", c_states="disabled")


def test_c10_is_a_deep_state_and_no_driver_is_unknown(machine: Machine) -> None:
    machine.topology = replace(machine.topology, idle=(("POLL", 0), ("C1E", 2), ("C10", 890)))
    expect(machine, "c_states", "pass", "enabled")


def test_no_idle_driver_is_unknown(machine: Machine) -> None:
    machine.topology = replace(machine.topology, idle=())
    expect(machine, "c_states", "unknown", "no idle driver")


def test_smt(machine: Machine) -> None:
    expect(machine, "smt", "pass", "SMT is on, either is fine")
    expect(machine, "smt", "fail", "SMT is on, expected is off", smt="off")
    machine.topology = ryzen_9950x().without_smt()  # the kernel did that, the firmware still offers it
    expect(machine, "smt", "pass", "as expected", smt="on")


def test_smt_not_offered(machine: Machine) -> None:
    base = ryzen_9950x()
    machine.topology = replace(
        base, cores=tuple(replace(core, cpus=core.cpus[:1]) for core in base.cores), smt="notsupported"
    )
    expect(machine, "smt", "unknown", "no SMT, or the firmware switched it off")
    expect(machine, "smt", "fail", "expected is on", smt="on")
    expect(machine, "smt", "pass", "as expected", smt="off")


def test_virtualization(machine: Machine) -> None:
    expect(machine, "virtualization", "pass", "virtualization is on")
    machine.topology = replace(machine.topology, flags="fpu")
    expect(machine, "virtualization", "pass", "is off, either is fine")
    expect(machine, "virtualization", "fail", "is off, expected is on", virtualization="on")
    machine.edit = lambda facts: facts["kernel"].update(architecture="aarch64")
    expect(machine, "virtualization", "unknown", "aarch64")


def test_iommu(machine: Machine) -> None:
    machine.device = Device(iommu_group=13)
    finding = expect(machine, "iommu", "pass", "the IOMMU is on")
    assert "iommu=pt" in finding.advice
    assert finding.evidence == "/sys/class/iommu: ivhd0; 1 groups (DMA-FQ)"
    expect(machine, "iommu", "fail", "is on, expected is off", iommu="off")


def test_iommu_without_a_unit_is_off(machine: Machine) -> None:
    machine.files.pop("sys/class/iommu/ivhd0/devices")
    expect(machine, "iommu", "fail", "is off, expected is on", iommu="on")


def test_secure_boot(machine: Machine) -> None:
    expect(machine, "secure_boot", "pass", "Secure Boot is off")
    machine.secure_boot = 1
    expect(machine, "secure_boot", "pass", "Secure Boot is on")
    expect(machine, "secure_boot", "fail", "expected is off", secure_boot="off")
    (machine.root / "sys/module/nvidia/version").unlink()
    (machine.root / "sys/module/nvidia").rmdir()
    machine.files.pop("sys/module/nvidia/version")
    assert "mokutil" in expect(machine, "secure_boot", "fail", "no NVIDIA module is loaded").advice


def test_secure_boot_without_its_variable_is_unknown(machine: Machine) -> None:
    machine.secure_boot = None
    expect(machine, "secure_boot", "unknown", "efivarfs")


def test_cores(machine: Machine) -> None:
    expect(machine, "cores", "pass", "all 16 cores")
    expect(machine, "cores", "fail", "32 cores are expected, the kernel has 16", cores=32)
    machine.topology = ryzen_9950x().without(5, 21)
    (machine.root / "sys").rename(machine.root / "before")
    expect(machine, "cores", "fail", "uses 15 of 16 cores")


def test_cores_that_the_firmware_keeps_off(machine: Machine) -> None:
    machine.board = machine.board.replace(bytes((16, 16, 32)), bytes((16, 8, 16)))
    expect(machine, "cores", "fail", "keeps 8 of 16 cores off")


def test_cores_without_tables_are_unknown_unless_expected(machine: Machine) -> None:
    machine.tables = False
    expect(machine, "cores", "unknown", "do not count")
    expect(machine, "cores", "pass", "all 16", cores=16)


# -- the report ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"sys/devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock"}, "virtual machine (kvm)"),
        ({".dockerenv": ""}, "container: run it on the host"),
    ],
)
def test_where_the_board_is_hidden_everything_is_unknown(machine: Machine, files: dict, words: str) -> None:
    machine.files.update(files)
    found = machine.findings(smt="off", cores=99)
    assert {finding.result for finding in found.values()} == {"unknown"}
    assert all(words in finding.why and not finding.menu for finding in found.values())


def test_an_empty_machine_does_not_crash(tmp_path: Path) -> None:
    found = firmware_report.report(gather(Host(str(tmp_path)), firmware_report.SECTIONS), firmware_report.Wish())
    assert {finding.result for finding in found} <= {"unknown", "pass"}


def test_menus_of_the_board_or_of_all() -> None:
    for name in firmware_report.IDS:
        if name != "pcie_bandwidth":
            assert [entry.split(":")[0] for entry in menu(name, "")] == ["ASUS", "MSI", "Gigabyte", "ASRock"]
            assert [entry.split(":")[0] for entry in menu(name, "msi")] == ["MSI"]


def never(_facts: Any, _seconds: int) -> Any:
    raise AssertionError("sampled without being asked")


def params(**given: Any) -> dict[str, Any]:
    wish = {
        f"expect_{name}": getattr(firmware_report.Wish(), name) for name in firmware_report.Wish.__dataclass_fields__
    }
    return {"ignore": [], "fail_on": [], "sample_seconds": 0, **wish, **given}


def test_links_are_watched_for_the_seconds_asked(machine: Machine) -> None:
    machine.device = Device(link=Link(speed="16.0"), port=Link(speed="16.0"))
    asked: list[int] = []

    def sample(_facts: Any, seconds: int) -> dict[str, Any]:
        asked.append(seconds)
        return {ADDRESS: {"looks": 9, "generation": 4, "width": 16, "utilization_percent": 80}}

    outcome = firmware_report.run(params(sample_seconds=3), machine.facts, sample)
    assert asked == [3]
    assert outcome["findings"][0]["result"] == "fail"
    assert outcome["machine"]["menu_vendor"] == "asus"
    machine.device = None
    (machine.root / "sys/bus/pci/devices" / ADDRESS).unlink()
    firmware_report.run(params(sample_seconds=3), machine.facts, never)  # no card, nothing to watch


def test_ignored_items_are_left_out_by_name_and_number(machine: Machine) -> None:
    outcome = firmware_report.run(params(ignore=["smt", "B09"]), machine.facts, never)
    left = {finding["id"] for finding in outcome["findings"]}
    assert left == set(firmware_report.IDS) - {"smt", "virtualization", "iommu"}
    assert sum(outcome["summary"].values()) == len(outcome["findings"])


def test_fail_on_names_what_failed_and_still_returns_the_findings(machine: Machine) -> None:
    machine.device = Device(bars=SMALL_BAR)
    with pytest.raises(RefusedError, match=r"^fail_on: Resizable BAR, GPU 0000:01:00.0: the CPU reaches") as caught:
        firmware_report.run(params(fail_on=["resizable_bar", "smt"]), machine.facts, never)
    assert caught.value.details["summary"]["fail"] == 2
    assert "Above 4G" not in str(caught.value)
    firmware_report.run(
        params(fail_on=["smt", "boost_override"]), machine.facts, never
    )  # pass and unknown are no failure


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ignore": ["rebar"]}, r"^ignore: 'rebar' is not one of pcie_link, pcie_bandwidth, resizable_bar, "),
        ({"fail_on": ["B12"]}, r"^fail_on: 'B12' is not one of "),
        ({"expect_memory_mts": -1}, r"^expect_memory_mts: -1 is not a whole number from 1 to "),
        ({"sample_seconds": 601}, r"^sample_seconds: 601 is not a whole number from 0 to 600 seconds"),
        ({"expect_cores": 0}, r"^expect_cores: 0 is not a whole number from 1 to 8192 cores"),
    ],
)
def test_bad_input_is_one_line(machine: Machine, given: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        firmware_report.run(params(**given), machine.facts, never)
