# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The unmodified nvidia-smi program reads and sets state through the stand-in.

It is NVIDIA's own client of NVML, so what it prints and the codes it exits with are the proof that
the stand-in answers as a driver does. The program comes from Debian's non-free section and is kept
below build/; where it cannot be had these tests are skipped.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import fake_nvml
import nvidia_smi
import pytest
from fake_nvml import Machine
from nvml_client import MEM, SM, Client, needs_root, one


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return nvidia_smi.program()
    except RuntimeError as error:
        pytest.skip(str(error))


class Smi:
    """nvidia-smi on a fake machine."""

    def __init__(self, program: Path, machine: Machine) -> None:
        self.program = program
        self.machine = machine
        self.user: int | None = None

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(self.program), *arguments],
            env=os.environ | self.machine.environment(smi=True),
            user=self.user, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def query(self, *fields: str) -> list[dict[str, str]]:
        out = self(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
        return [dict(zip(fields, (cell.strip() for cell in row), strict=True)) for row in csv.reader(out.splitlines())]


@pytest.fixture
def smi(program: Path, directory: Path) -> Smi:
    return Smi(program, Machine(directory, ["rtx5090", "h200", "rtx3090"]))


def test_it_lists_the_cards(smi: Smi) -> None:
    assert smi("-L").splitlines() == [
        f"GPU 0: NVIDIA GeForce RTX 5090 (UUID: {smi.machine.uuid(0)})",
        f"GPU 1: NVIDIA H200 (UUID: {smi.machine.uuid(1)})",
        f"GPU 2: NVIDIA GeForce RTX 3090 (UUID: {smi.machine.uuid(2)})",
    ]


def test_the_table_and_the_full_report(smi: Smi) -> None:
    assert "NVIDIA GeForce RTX 5090" in smi()
    report = smi("-q", "-i", "0")

    def values(name: str) -> list[str]:
        return re.findall(rf"^ *{re.escape(name)} +: (.*)$", report, re.MULTILINE)

    # As in the report captured from a real card.
    assert values("Max Power Limit") == ["600.00 W", "N/A"]  # of the GPU, and of a module it is not
    assert values("Min Power Limit") == ["400.00 W", "N/A"]
    assert values("Persistence Mode") == ["Disabled"]
    assert values("Auto Boost") == values("GPU Target Temperature") == values("Serial Number") == ["N/A"]
    assert values("VBIOS Version") == ["98.02.2E.40.61"]
    assert values("Idle") == ["Active"]
    assert "Max                       : 5\n                Current                   : 1\n" in report


def test_the_clock_lists(smi: Smi) -> None:
    clocks = smi("-i", "0", "--query-supported-clocks=mem,gr", "--format=csv,noheader,nounits").splitlines()
    rungs = [line.split(",")[0] for line in clocks]
    assert [(rung, rungs.count(rung)) for rung in dict.fromkeys(rungs)] == [
        ("14001", 389), ("13801", 389), ("7001", 389), ("810", 389), ("405", 95),
    ]  # fmt: skip
    # The report has no room for so long a ladder in this version of the program; that of a 3090 fits.
    report = smi("-q", "-i", "2", "-d", "SUPPORTED_CLOCKS")
    assert re.findall(r"Memory +: (\d+) MHz", report) == ["9751", "9501", "5001", "810", "405"]
    assert len(re.findall(r"Graphics +: \d+ MHz", report)) == 4 * 127 + 15


def test_a_query_reads_what_pynvml_reads(smi: Smi) -> None:
    fields = ("uuid", "power.limit", "power.min_limit", "power.max_limit", "clocks.max.sm", "clocks.sm", "memory.total")
    rows = smi.query(*fields)
    with Client(smi.machine) as nvml:
        for gpu, row in enumerate(rows):
            lowest, highest = nvml("nvmlDeviceGetPowerManagementLimitConstraints", gpu)
            assert row["uuid"] == nvml("nvmlDeviceGetUUID", gpu)
            assert float(row["power.limit"]) * 1000 == nvml("nvmlDeviceGetPowerManagementLimit", gpu)
            assert (float(row["power.min_limit"]) * 1000, float(row["power.max_limit"]) * 1000) == (lowest, highest)
            assert int(row["clocks.max.sm"]) == nvml("nvmlDeviceGetMaxClockInfo", gpu, SM)
            assert int(row["clocks.sm"]) == nvml("nvmlDeviceGetClockInfo", gpu, SM)
            assert int(row["memory.total"]) << 20 == nvml("nvmlDeviceGetMemoryInfo", gpu)["total"]


# arguments, getter of pynvml, its arguments, value after
SETTINGS = [
    (["-pm", "1"], "nvmlDeviceGetPersistenceMode", [], 1),
    (["-pl", "450"], "nvmlDeviceGetPowerManagementLimit", [], 450000),
    (["-lgc", "1200,1500"], "nvmlDeviceGetClockInfo", [SM], 1200),
    (["-lmc", "7001,7001"], "nvmlDeviceGetClockInfo", [MEM], 7001),
    (["-c", "EXCLUSIVE_PROCESS"], "nvmlDeviceGetComputeMode", [], 3),
    (["-c", "PROHIBITED"], "nvmlDeviceGetComputeMode", [], 2),
]


@needs_root
@pytest.mark.parametrize(("arguments", "getter", "key", "after"), SETTINGS)
def test_it_sets_what_pynvml_then_reads(
    smi: Smi, arguments: list[str], getter: str, key: list[int], after: int
) -> None:
    smi("-i", "0", "-pm", "1")  # else each run of the program takes its setting along
    assert "All done." in smi("-i", "0", *arguments)
    with Client(smi.machine) as nvml:
        assert nvml(getter, 0, *key) == after
        assert nvml(getter, 2, *key) != after  # the other card was not meant


@needs_root
def test_it_resets_locks(smi: Smi) -> None:
    smi("-pm", "1")
    for lock, reset, clock in (("-lgc", "-rgc", SM), ("-lmc", "-rmc", MEM)):
        with Client(smi.machine) as nvml:
            idle = nvml("nvmlDeviceGetClockInfo", 0, clock)
            smi("-i", "0", lock, "1000,1500" if clock == SM else "7001,14001")
            assert nvml("nvmlDeviceGetClockInfo", 0, clock) > idle
            smi("-i", "0", reset)
            assert nvml("nvmlDeviceGetClockInfo", 0, clock) == idle


@needs_root
def test_a_setting_without_persistence_is_gone_when_the_program_ends(smi: Smi) -> None:
    smi("-i", "0", "-pl", "450")
    assert float(smi.query("power.limit")[0]["power.limit"]) == 575.0


@needs_root
def test_data_centre_settings(smi: Smi) -> None:
    smi("-pm", "1")
    assert "Reboot required" in smi("-i", "1", "-e", "0")
    smi("-i", "1", "-ac", "3201,1200")
    smi("-i", "1", "-mig", "1")
    with Client(smi.machine) as nvml:
        assert nvml("nvmlDeviceGetEccMode", 1) == [1, 0]
        assert nvml("nvmlDeviceGetApplicationsClock", 1, SM) == 1200
        assert nvml("nvmlDeviceGetMigMode", 1) == [1, 1]


@needs_root
def test_refusals_have_the_words_and_codes_of_a_real_machine(smi: Smi) -> None:
    assert "should be between 400.00 W and 600.00 W" in smi("-i", "0", "-pl", "900", code=2)
    # The false success that a recipe takes for proof, and the option that tells the truth.
    assert "not supported" in smi("-i", "0", "-ac", "14001,2400")
    smi("-i", "0", "-ac", "14001,2400", "-eow", code=3)


@needs_root
def test_without_root_it_may_read_and_not_set(smi: Smi, program: Path) -> None:
    smi.user = 65534
    if not os.access(program, os.X_OK) or _unreachable(program) or _unreachable(fake_nvml.BUILD):
        pytest.skip("an unprivileged user cannot enter the checkout")
    assert "RTX 5090" in smi("-L")
    assert "nsufficient" in smi("-i", "0", "-pl", "450", code=4)


def _unreachable(path: Path) -> bool:
    return any(not parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def test_driver_trouble_has_its_exit_codes(program: Path, directory: Path) -> None:
    smi = Smi(program, one(directory, init_rc=9))
    smi(code=9)
    smi.machine.set(init_rc=18)
    assert "version mismatch" in smi(code=18)
    smi.machine.set(init_rc=0)
    smi.machine.lose(0)
    assert "lost" in smi("-q", code=15).lower()
