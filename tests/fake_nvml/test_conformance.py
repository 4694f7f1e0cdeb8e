# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stand-in behaves like a driver, seen through the real, unmodified pynvml in other processes."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import fake_nvml
import pynvml
import pytest
from fake_nvml import Machine
from nvml_client import (
    GRAPHICS,
    IN_USE,
    INVALID,
    MEM,
    NOT_FOUND,
    PERMISSION,
    RESET,
    SM,
    UNSUPPORTED,
    VERSION,
    Client,
    needs_root,
    one,
    state_seen,
)

# --- the library ------------------------------------------------------------------------------


def exported() -> set[str]:
    out = subprocess.run(
        ["nm", "-D", "--defined-only", str(fake_nvml.build())], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1] for line in out.splitlines()}


def header_names() -> set[str]:
    lines = (fake_nvml.HERE / "nvml_symbols.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_it_exports_the_names_of_the_header_and_no_other() -> None:
    assert exported() == header_names()


def test_the_list_of_names_agrees_with_pynvml() -> None:
    """pynvml is newer than the header by a few functions; those are missing as with a driver of its
    day. Everything else it can call is there."""
    calls = re.findall(r'_nvmlGetFunctionPointer\("(nvml\w+)"', Path(pynvml.__file__).read_text())
    missing = set(calls) - header_names()
    assert len(set(calls)) > 350
    assert all(re.search(r"_v\d$|EventSet|FabricInfo", name) for name in missing), missing
    assert len(missing) < 20


def test_a_missing_name_is_an_old_driver_to_pynvml(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        assert nvml.code("code", 0, "nvmlDeviceGetMemoryLimits_v1") == 13


def test_every_source_file_is_short() -> None:
    for path in [*fake_nvml.HERE.glob("src/*"), *fake_nvml.HERE.glob("*.py")]:
        assert len(path.read_text().splitlines()) < 600, path


# --- cards ------------------------------------------------------------------------------------

# name, architecture, compute capability, power min/default/max W, memory rungs, top graphics clock,
# PCIe generation, ECC, MIG
CARDS = {
    "a100": ("NVIDIA A100 80GB PCIe", 7, [8, 0], (150, 300, 300), [1512], 1410, 4, [1, 1], [0, 0]),
    "h200": ("NVIDIA H200", 9, [9, 0], (200, 700, 700), [3201, 1593], 1980, 5, [1, 1], [0, 0]),
    "laptop": (
        "NVIDIA GeForce RTX 4090 Laptop GPU", 8, [8, 9], (5, 80, 175),
        [9001, 8751, 5001, 810, 405], 3105, 4, None, None,
    ),
    "rtx3090": (
        "NVIDIA GeForce RTX 3090", 7, [8, 6], (100, 350, 350), [9751, 9501, 5001, 810, 405], 2100, 4, None, None,
    ),
    "rtx4090": (
        "NVIDIA GeForce RTX 4090", 8, [8, 9], (150, 450, 600), [10501, 10251, 5001, 810, 405], 3105, 4, [0, 0], None,
    ),
    "rtx5090": (
        "NVIDIA GeForce RTX 5090", 10, [12, 0], (400, 575, 600), [14001, 13801, 7001, 810, 405], 3090, 5, None, None,
    ),
    "rtxpro6000": (
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 10, [12, 0], (150, 600, 600),
        [14001, 13801, 7001, 810, 405], 3090, 5, [1, 1], [0, 0],
    ),
}  # fmt: skip


def test_every_card_file_has_a_row() -> None:
    assert fake_nvml.cards() == sorted(CARDS)


@pytest.mark.parametrize("card", sorted(CARDS))
def test_what_a_card_says_of_itself(directory: Path, card: str) -> None:
    name, architecture, capability, watts, rungs, top, generation, ecc, mig = CARDS[card]
    with one(directory, card) as machine, Client(machine) as nvml:
        assert nvml("nvmlDeviceGetName", 0) == name
        assert nvml("nvmlDeviceGetUUID", 0) == machine.uuid()
        assert nvml("nvmlDeviceGetArchitecture", 0) == architecture
        assert nvml("nvmlDeviceGetCudaComputeCapability", 0) == capability
        lowest, highest = nvml("nvmlDeviceGetPowerManagementLimitConstraints", 0)
        default = nvml("nvmlDeviceGetPowerManagementDefaultLimit", 0)
        assert (lowest / 1000, default / 1000, highest / 1000) == watts
        assert nvml("nvmlDeviceGetPowerManagementLimit", 0) == default
        assert nvml("nvmlDeviceGetSupportedMemoryClocks", 0) == rungs
        assert nvml("nvmlDeviceGetMaxClockInfo", 0, GRAPHICS) == top
        assert nvml("nvmlDeviceGetMaxClockInfo", 0, MEM) == rungs[0]
        assert nvml("nvmlDeviceGetGpuMaxPcieLinkGeneration", 0) == generation
        for function, modes in (("nvmlDeviceGetEccMode", ecc), ("nvmlDeviceGetMigMode", mig)):
            if modes is None:
                assert nvml.code(function, 0) == UNSUPPORTED
            else:
                assert nvml(function, 0) == modes
        memory = nvml("nvmlDeviceGetMemoryInfo", 0, pynvml.nvmlMemory_v2)
        assert memory["total"] == memory["used"] + memory["free"] + memory["reserved"] > 15 << 30
        assert nvml("nvmlDeviceGetBAR1MemoryInfo", 0)["bar1Total"] >= 256 << 20
        assert nvml("nvmlDeviceGetPersistenceMode", 0) == nvml("nvmlDeviceGetComputeMode", 0) == 0


def test_the_5090_ladder_has_the_389_points_of_the_real_card(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        for rung in (14001, 13801, 7001, 810):
            ladder = nvml("nvmlDeviceGetSupportedGraphicsClocks", 0, rung)
            assert len(ladder) == 389
            assert ladder == sorted(set(ladder), reverse=True)
            assert (ladder[0], ladder[1], ladder[-1]) == (3090, 3082, 180)
        short = nvml("nvmlDeviceGetSupportedGraphicsClocks", 0, 405)
        assert (short[0], short[-1]) == (885, 180)
        assert nvml.code("nvmlDeviceGetSupportedGraphicsClocks", 0, 3002) == NOT_FOUND


def test_machines_of_several_cards_are_found_by_every_name(directory: Path) -> None:
    machine = Machine(directory, ["rtx3090", "h200", "h200"])
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetCount") == 3
        assert nvml("nvmlDeviceGetHandleByUUID", None, machine.uuid(2)) == 2
        for name in ("0000:02:00.0", "00000000:02:00.0", "02:00.0"):
            assert nvml("nvmlDeviceGetHandleByPciBusId", None, name) == 1
        assert nvml("nvmlDeviceGetHandleBySerial", None, nvml("nvmlDeviceGetSerial", 2)) == 2
        assert nvml.code("nvmlDeviceGetSerial", 0) == UNSUPPORTED
        assert nvml.code("nvmlDeviceGetHandleByUUID", None, "GPU-none") == NOT_FOUND
        assert nvml.code("nvmlDeviceGetHandleByPciBusId", None, "0000:77:00.0") == NOT_FOUND
        assert nvml.code("nvmlDeviceGetHandleByPciBusId", None, "slot two") == INVALID
        assert nvml.code("nvmlDeviceGetHandleByIndex", None, 3) == INVALID
        info = nvml("nvmlDeviceGetPciInfo", 1)
        assert (info["busId"], info["busIdLegacy"]) == ("00000000:02:00.0", "0000:02:00.0")
        assert (info["bus"], info["pciDeviceId"]) == (2, 0x233510DE)


def test_a_machine_without_gpus_has_a_driver_all_the_same(directory: Path) -> None:
    with Client(Machine(directory)) as nvml:
        assert nvml("nvmlDeviceGetCount") == 0
        assert nvml("nvmlSystemGetDriverVersion") == "580.95.05"


def test_a_card_can_be_changed_for_one_test(directory: Path) -> None:
    machine = one(directory)
    machine.set(gpu=0, bar1_mib=256, pcie_width=8, pcie_gen_slot=4, power_max_mw=575000)
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetBAR1MemoryInfo", 0)["bar1Total"] == 256 << 20
        assert nvml("nvmlDeviceGetCurrPcieLinkWidth", 0) == 8
        assert nvml("nvmlDeviceGetMaxPcieLinkGeneration", 0) == 4
        assert nvml("nvmlDeviceGetGpuMaxPcieLinkGeneration", 0) == 5
        assert nvml("nvmlDeviceGetPowerManagementLimitConstraints", 0)[1] == 575000


def test_processes_are_listed_by_kind(directory: Path) -> None:
    machine = one(directory)
    machine.set(gpu=0, processes="4242:C:5000,99:G:100")
    with Client(machine) as nvml:
        compute = nvml("nvmlDeviceGetComputeRunningProcesses", 0)
        assert [(p["pid"], p["usedGpuMemory"]) for p in compute] == [(4242, 5000 << 20)]
        assert [p["pid"] for p in nvml("nvmlDeviceGetGraphicsRunningProcesses", 0)] == [99]
        machine.set(gpu=0, processes=None)
        assert nvml("nvmlDeviceGetComputeRunningProcesses", 0) == []


def test_field_values_carry_their_own_code(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        low, unknown = nvml("nvmlDeviceGetFieldValues", 0, [187, 9999])
        assert (low["nvmlReturn"], unknown["nvmlReturn"]) == (0, UNSUPPORTED)


# --- settings ---------------------------------------------------------------------------------

# setter, arguments, getter, what it then answers
SETTINGS = [
    ("nvmlDeviceSetPersistenceMode", [1], "nvmlDeviceGetPersistenceMode", [], 1),
    ("nvmlDeviceSetPowerManagementLimit", [500000], "nvmlDeviceGetPowerManagementLimit", [], 500000),
    ("nvmlDeviceSetPowerManagementLimit", [500000], "nvmlDeviceGetEnforcedPowerLimit", [], 500000),
    ("nvmlDeviceSetComputeMode", [3], "nvmlDeviceGetComputeMode", [], 3),
    ("nvmlDeviceSetGpuLockedClocks", [1200, 1500], "nvmlDeviceGetClockInfo", [SM], 1200),
    ("nvmlDeviceSetMemoryLockedClocks", [7001, 14001], "nvmlDeviceGetClockInfo", [MEM], 7001),
    ("nvmlDeviceSetFanSpeed_v2", [1, 55], "nvmlDeviceGetFanSpeed_v2", [1], 55),
]


@needs_root
@pytest.mark.parametrize(("setter", "values", "getter", "key", "expected"), SETTINGS)
def test_a_setting_shows_is_volatile_and_is_for_root(
    directory: Path, setter: str, values: list[int], getter: str, key: list[int], expected: int
) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        before = nvml(getter, 0, *key)
        assert before != expected
        nvml("nvmlDeviceSetPersistenceMode", 0, 1)
        nvml(setter, 0, *values)
        assert nvml(getter, 0, *key) == expected
        nvml("setuid", None, 65534)
        assert nvml(getter, 0, *key) == expected
        assert nvml.code(setter, 0, *values) == PERMISSION
    with Client(machine) as nvml:  # persistence mode keeps it over the last client
        assert nvml(getter, 0, *key) == expected
    machine.reload_driver()
    with Client(machine) as nvml:
        assert nvml(getter, 0, *key) == before


OUT_OF_RANGE = [
    ("rtx5090", "nvmlDeviceSetPowerManagementLimit", [399999], INVALID),
    ("rtx5090", "nvmlDeviceSetPowerManagementLimit", [600001], INVALID),
    ("rtx3090", "nvmlDeviceSetPowerManagementLimit", [600000], INVALID),
    ("laptop", "nvmlDeviceSetPowerManagementLimit", [80000], UNSUPPORTED),
    ("rtx3090", "nvmlDeviceSetGpuLockedClocks", [2400, 2550], INVALID),
    ("rtx3090", "nvmlDeviceSetGpuLockedClocks", [1500, 1200], INVALID),
    ("rtx3090", "nvmlDeviceSetGpuLockedClocks", [0xFFFFFF01, 1200], INVALID),
    ("rtx3090", "nvmlDeviceSetMemoryLockedClocks", [405, 9999], INVALID),
    ("a100", "nvmlDeviceSetMemoryLockedClocks", [1512, 1512], UNSUPPORTED),
    ("rtx3090", "nvmlDeviceSetComputeMode", [1], INVALID),
    ("rtx3090", "nvmlDeviceSetComputeMode", [9], INVALID),
    ("rtx3090", "nvmlDeviceSetPersistenceMode", [2], INVALID),
    ("rtx3090", "nvmlDeviceSetEccMode", [1], UNSUPPORTED),
    ("rtx5090", "nvmlDeviceSetMigMode", [1], UNSUPPORTED),
    ("rtx5090", "nvmlDeviceSetApplicationsClocks", [14001, 2400], UNSUPPORTED),
    ("h200", "nvmlDeviceSetApplicationsClocks", [3201, 1981], INVALID),
    ("h200", "nvmlDeviceSetApplicationsClocks", [3000, 1980], INVALID),
    ("h200", "nvmlDeviceSetFanSpeed_v2", [0, 50], UNSUPPORTED),
    ("rtx3090", "nvmlDeviceSetTemperatureThreshold", [5, 92], INVALID),
    ("rtx3090", "nvmlDeviceSetTemperatureThreshold", [0, 80], UNSUPPORTED),
    ("rtx5090", "nvmlDeviceSetTemperatureThreshold", [5, 80], UNSUPPORTED),
    ("rtx5090", "nvmlDeviceSetAutoBoostedClocksEnabled", [0], UNSUPPORTED),
]


@needs_root
@pytest.mark.parametrize(("card", "setter", "values", "code"), OUT_OF_RANGE)
def test_what_the_driver_refuses_it_does_not_keep(
    directory: Path, card: str, setter: str, values: list[int], code: int
) -> None:
    machine = one(directory, card)
    with Client(machine) as nvml:
        nvml("nvmlDeviceSetPersistenceMode", 0, 1)
        state = (directory / "state").read_text()
        assert nvml.code(setter, 0, *values) == code
        assert (directory / "state").read_text() == state


@needs_root
def test_temperature_target_and_application_clocks(directory: Path) -> None:
    machine = Machine(directory, ["rtx3090", "h200"])
    with Client(machine) as nvml:
        nvml("nvmlDeviceSetTemperatureThreshold", 0, 5, 75)
        assert nvml("nvmlDeviceGetTemperatureThreshold", 0, 5) == 75
        nvml("nvmlDeviceSetApplicationsClocks", 1, 3201, 1200)
        assert nvml("nvmlDeviceGetApplicationsClock", 1, SM) == 1200
        assert nvml("nvmlDeviceGetDefaultApplicationsClock", 1, SM) == 1980
        nvml("nvmlDeviceResetApplicationsClocks", 1)
        assert nvml("nvmlDeviceGetApplicationsClock", 1, SM) == 1980


@needs_root
def test_blackwell_geforce_accepts_a_memory_lock_above_its_clock(directory: Path) -> None:
    """The real driver does, to the harm of the card: refusing it is our module's part."""
    with Client(one(directory)) as nvml:
        assert nvml.code("nvmlDeviceSetMemoryLockedClocks", 0, 405, 15000) == 0


OFFSET = {"version": 0x1000018, "type": GRAPHICS, "pstate": 0, "clockOffsetMHz": 150}


@needs_root
def test_structures_that_pynvml_does_not_check(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        name = "c_nvmlClockOffset_t"
        nvml("raw", 0, "nvmlDeviceSetClockOffsets", name, OFFSET)
        info = nvml("raw", 0, "nvmlDeviceGetClockOffsets", name, OFFSET | {"clockOffsetMHz": 0})
        assert (info["clockOffsetMHz"], info["minClockOffsetMHz"], info["maxClockOffsetMHz"]) == (150, -1000, 1000)
        assert nvml.code("raw", 0, "nvmlDeviceSetClockOffsets", name, OFFSET | {"clockOffsetMHz": 1001}) == INVALID
        assert nvml.code("raw", 0, "nvmlDeviceSetClockOffsets", name, OFFSET | {"version": 1}) == VERSION
        mizer = "c_nvmlDevicePowerMizerModes_v1_t"
        nvml("raw", 0, "nvmlDeviceSetPowerMizerMode_v1", mizer, {"mode": 1})
        assert nvml("raw", 0, "nvmlDeviceGetPowerMizerMode_v1", mizer, {})["currentMode"] == 1
        assert nvml.code("raw", 0, "nvmlDeviceSetPowerMizerMode_v1", mizer, {"mode": 4}) == INVALID
        power = {"version": 0x200000C, "powerScope": 0, "powerValueMw": 450000}
        assert nvml.code("raw", 0, "nvmlDeviceSetPowerManagementLimit_v2", "c_nvmlPowerValue_v2_t", power) == 0
        assert nvml("nvmlDeviceGetPowerManagementLimit", 0) == 450000
        power["version"] = 0x1000008
        assert nvml.code("raw", 0, "nvmlDeviceSetPowerManagementLimit_v2", "c_nvmlPowerValue_v2_t", power) == VERSION


def test_versioned_getters_check_the_version(directory: Path) -> None:
    with Client(one(directory)) as nvml:
        for function, structure in (
            ("nvmlDeviceGetMemoryInfo_v2", "c_nvmlMemory_v2_t"),
            ("nvmlDeviceGetMarginTemperature", "c_nvmlMarginTemperature_v1_t"),
            ("nvmlDeviceGetTemperatureV", "c_nvmlTemperature_v1_t"),
        ):
            assert nvml.code("raw", 0, function, structure, {"version": 0x7000001}) == VERSION
        assert nvml("nvmlDeviceGetMarginTemperature", 0) == 90 - nvml("nvmlDeviceGetTemperature", 0, 0)
        assert nvml("nvmlDeviceGetTemperatureV", 0, 0) == 32


# --- what a lock does, though nothing reads it back -------------------------------------------


@needs_root
def test_locks_and_caps_show_in_the_clocks(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:

        def clocks() -> tuple[int, int]:
            return nvml("nvmlDeviceGetClockInfo", 0, SM), nvml("nvmlDeviceGetClockInfo", 0, MEM)

        assert clocks() == (180, 405)
        assert nvml("nvmlDeviceGetPerformanceState", 0) == 8
        assert nvml("nvmlDeviceGetCurrPcieLinkGeneration", 0) == 1
        nvml("nvmlDeviceSetGpuLockedClocks", 0, 180, 1500)
        assert clocks()[0] == 180  # a cap does not show at idle
        machine.set(load=1)
        assert clocks() == (1500, 14001)
        assert nvml("nvmlDeviceGetCurrentClocksEventReasons", 0) == 0x2
        assert nvml("nvmlDeviceGetCurrPcieLinkGeneration", 0) == 5
        nvml("nvmlDeviceResetGpuLockedClocks", 0)
        assert clocks()[0] > 2400
        assert nvml("nvmlDeviceGetCurrentClocksEventReasons", 0) == 0
        nvml("nvmlDeviceSetGpuLockedClocks", 0, 2400, 2400)
        nvml("nvmlDeviceSetPowerManagementLimit", 0, 400000)
        assert clocks()[0] < 1800  # the power cap wins over the lock
        assert nvml("nvmlDeviceGetCurrentClocksEventReasons", 0) & 0x4
        assert nvml("nvmlDeviceGetPowerUsage", 0) == 400000
        nvml("nvmlDeviceSetMemoryLockedClocks", 0, 405, 3002)
        assert clocks()[1] == 810
        nvml("nvmlDeviceResetMemoryLockedClocks", 0)
        assert clocks()[1] == 14001
        machine.set(load=0)
        nvml("nvmlDeviceSetGpuLockedClocks", 0, 1200, 1500)
        assert clocks() == (1200, 810)  # a floor shows at idle, and needs a memory rung that can
        nvml("nvmlDeviceSetGpuLockedClocks", 0, 0xFFFFFF02, 0xFFFFFF02)  # unlimited: no lock
        assert clocks()[0] == 180


def test_no_call_reads_a_lock_back() -> None:
    assert not [name for name in exported() if "Get" in name and "Locked" in name]


# --- lifetimes --------------------------------------------------------------------------------


def lock_and_limit(nvml: Client) -> None:
    nvml("nvmlDeviceSetPowerManagementLimit", 0, 450000)
    nvml("nvmlDeviceSetGpuLockedClocks", 0, 1200, 1500)


@needs_root
def test_without_persistence_the_last_client_takes_the_settings_along(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        lock_and_limit(nvml)
        assert state_seen(machine) == (450000, 1200)  # another client came and went
    assert state_seen(machine) == (575000, 180)


@needs_root
def test_a_client_that_dies_takes_them_along_too(directory: Path) -> None:
    machine = one(directory)
    nvml = Client(machine).__enter__()
    lock_and_limit(nvml)
    nvml.child.kill()
    nvml.child.communicate()
    assert state_seen(machine) == (575000, 180)


@needs_root
def test_a_computing_process_keeps_the_gpu_initialised(directory: Path) -> None:
    machine = one(directory)
    machine.set(gpu=0, processes="4242:C:5000")
    with Client(machine) as nvml:
        lock_and_limit(nvml)
    assert state_seen(machine) == (450000, 1200)
    machine.set(gpu=0, processes=None)
    assert state_seen(machine) == (575000, 180)


@needs_root
def test_persistence_is_per_gpu(directory: Path) -> None:
    machine = Machine(directory, ["rtx5090", "rtx5090"])
    with Client(machine) as nvml:
        nvml("nvmlDeviceSetPersistenceMode", 1, 1)
        for gpu in (0, 1):
            nvml("nvmlDeviceSetPowerManagementLimit", gpu, 450000)
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetPowerManagementLimit", 0) == 575000
        assert nvml("nvmlDeviceGetPowerManagementLimit", 1) == 450000


@needs_root
def test_nested_init_counts(directory: Path) -> None:
    machine = one(directory)
    with Client(machine) as nvml:
        nvml("nvmlInit")
        lock_and_limit(nvml)
        nvml("nvmlShutdown")
        assert nvml("nvmlDeviceGetPowerManagementLimit", 0) == 450000


def test_the_driver_is_not_unloaded_under_a_client(directory: Path) -> None:
    machine = one(directory)
    first = machine.driver_load_id()
    with Client(machine), pytest.raises(fake_nvml.DriverInUseError):
        machine.reload_driver()
    assert machine.driver_load_id() == first
    fake_nvml.reload_driver(directory)
    assert machine.driver_load_id() == first + 1


def test_a_reload_shows_in_proc_and_sys(directory: Path, tmp_path: Path) -> None:
    machine = Machine(directory, ["rtx5090", "rtx3090"])
    machine.show_in(tmp_path)
    seen = [
        tmp_path / "sys/module/nvidia", tmp_path / "proc/driver/nvidia/gpus/0000:02:00.0",
    ]  # fmt: skip
    before = [path.stat().st_ino for path in seen]
    machine.reload_driver()
    assert all(path.stat().st_ino != inode for path, inode in zip(seen, before, strict=True))
    assert "580.95.05" in (tmp_path / "proc/driver/nvidia/version").read_text()
    assert "RTX 3090" in (seen[1] / "information").read_text()


@needs_root
def test_ecc_takes_effect_at_the_next_load_and_stays(directory: Path) -> None:
    machine = one(directory, "rtxpro6000")
    with Client(machine) as nvml:
        nvml("nvmlDeviceSetEccMode", 0, 0)
        assert nvml("nvmlDeviceGetEccMode", 0) == [1, 0]
    for _turn in range(2):
        machine.reload_driver()
        with Client(machine) as nvml:
            assert nvml("nvmlDeviceGetEccMode", 0) == [0, 0]
            assert nvml("nvmlDeviceGetDefaultEccMode", 0) == [1]


def set_mig(nvml: Client, mode: int) -> int:
    return int(nvml("nvmlDeviceSetMigMode", 0, mode))


@needs_root
def test_mig_on_hopper_is_immediate_when_idle_and_lost_at_reload(directory: Path) -> None:
    machine = one(directory, "h200")
    with Client(machine) as nvml:
        machine.set(gpu=0, processes="4242:C:5000")
        assert set_mig(nvml, 1) == IN_USE
        assert nvml("nvmlDeviceGetMigMode", 0) == [0, 1]
        machine.set(gpu=0, processes=None)
        assert set_mig(nvml, 1) == 0
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetMigMode", 0) == [1, 1]
    machine.reload_driver()
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetMigMode", 0) == [0, 0]


@needs_root
def test_mig_on_ampere_needs_a_reset_and_stays(directory: Path) -> None:
    machine = one(directory, "a100")
    with Client(machine) as nvml:
        assert set_mig(nvml, 1) == RESET
        assert nvml("nvmlDeviceGetMigMode", 0) == [0, 1]
        machine.reset_gpu()
        assert nvml("nvmlDeviceGetMigMode", 0) == [1, 1]
    machine.reload_driver()
    with Client(machine) as nvml:
        assert nvml("nvmlDeviceGetMigMode", 0) == [1, 1]


def test_no_product_test_reads_the_state_but_through_nvml() -> None:
    """Only this folder may know the files of the state directory."""
    tests = fake_nvml.HERE.parent
    for path in tests.rglob("*.py"):
        if fake_nvml.HERE in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(graphics|memory)_lock_m|\b[vdp]\.GPU-", node.value), path
