# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long the boot unit's program takes on a large machine: 256 CPUs and 512 interrupts, in a folder.

rows() measures the whole process, from the start of Python over the import from the one file to the last write, once
after a boot that forgot everything and once where nothing is left to do. GPUs are not part of it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ansible/collections"), str(ROOT / "tests/unit")]

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine import program  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import cpu_governor, irq_affinity  # noqa: E402
from fake_cpus import FakeCpus  # noqa: E402
from fake_kernel import FakeKernel, run_module  # noqa: E402

RUNS, CORES, IRQS = 5, 128, 512
GOAL = 1000  # ms: a boot must not wait for it
_BOOT = """
import sys
sys.path.insert(0, sys.argv[1])
from ai_workstation.doors.host import Host
from ai_workstation.engine.machine import Machine
from ai_workstation.on_host import boot
print(list(boot.run(Machine(Host(sys.argv[2]))))[-1])
"""


def _start(kernel: FakeKernel) -> None:
    """The machine as a boot makes it."""
    FakeCpus(kernel, cores=CORES)
    last = 2 * CORES - 1
    kernel.put_all({"/proc/irq/default_smp_affinity": ",".join(["ffffffff"] * (2 * CORES // 32))})
    kernel.put_all({"/sys/devices/system/cpu/possible": f"0-{last}"})
    for number in range(30, 30 + IRQS):
        kernel.put_all(
            {f"/sys/kernel/irq/{number}/actions": f"nic-{number}", f"/proc/irq/{number}/smp_affinity_list": f"0-{last}"}
        )


def rows() -> list[dict[str, Any]]:
    """After a boot, and with nothing to do, as rows of build/bench.json."""
    forgotten: list[float] = []
    nothing: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        kernel = FakeKernel(Path(folder, "root"))
        kernel.reboot("boot-0")
        _start(kernel)
        run_module(cpu_governor, kernel, governor="performance", idle_latency_us=20)
        run_module(irq_affinity, kernel, rules=[{"name": "nic-*", "cpus": "0-15"}], default_cpus="0-15")
        machine = Machine(Host(folder))
        archive = Path(folder, "program")
        archive.write_bytes(program.packed(machine))
        said = ""
        for run in range(1, RUNS + 1):
            kernel.reboot(f"boot-{run}")
            _start(kernel)
            took, said = _timed(archive, kernel)
            forgotten.append(took)
            nothing.append(_timed(archive, kernel)[0])
    detail = f"median of {RUNS} processes, {2 * CORES} CPUs, {IRQS} interrupts"
    return [
        _row("boot unit, all forgotten", forgotten, f"{detail}: {said}"),
        _row("boot unit, nothing to do", nothing, detail),
    ]


def _timed(archive: Path, kernel: FakeKernel) -> tuple[float, str]:
    """Milliseconds, and the last line."""
    argv = [sys.executable, "-IS", "-c", _BOOT, str(archive), kernel.root]
    start = time.perf_counter()
    said = subprocess.check_output(argv, text=True)
    return (time.perf_counter() - start) * 1000, said.strip().removeprefix("<5>")


def _row(name: str, values: list[float], detail: str) -> dict[str, Any]:
    value = round(statistics.median(values), 1)
    return {"name": name, "value": value, "unit": "ms", "goal": GOAL, "better": "lower", "detail": detail}


if __name__ == "__main__":
    for row in rows():
        print("{name}: {value} {unit} (goal {goal}, {better} is better): {detail}".format(**row))
