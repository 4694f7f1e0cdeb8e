# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long workstation_facts works on a large machine: 256 CPUs, 8 nodes, 512 interrupts, in a folder.

rows() measures; run alone it prints. NVML is not part of it. The files are ordinary ones here: the
kernel makes sysfs texts anew at each read, which costs about as much as opening them.
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
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import SECTIONS, gather  # noqa: E402
from machines import Device, board, dimm, plug, write_dmi, write_interrupts  # noqa: E402
from topologies import epyc, write_tree  # noqa: E402

RUNS, CPUS, IRQS = 7, 256, 512
_PACKAGE = "ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather"
_IMPORT = f"import sys, time; sys.path[:0] = {sys.path[:2]!r}; t = time.perf_counter(); import {_PACKAGE}; "
_IMPORT += "print(time.perf_counter() - t)"


def build(root: Path) -> None:
    """The machine: two packages with 64 cores, 8 GPUs, 8 drives with a queue for each of 32 CPUs, one card with 32."""
    write_tree(epyc(), root)
    irqs = iter(range(64, 64 + IRQS))
    lines: list[tuple[int, str, str]] = []
    kinds = [
        ("nvidia", "0x030200", "nvidia", 24, 8),
        ("nvme{n}q{q}", "0x010802", "nvme", 32, 8),
        ("mlx5_comp{q}", "0x020000", "mlx5_core", 64, 1),
    ]
    for kind, (name, code, driver, vectors, count) in enumerate(kinds):
        for number in range(count):
            own = [next(irqs) for _vector in range(vectors)]
            address = f"0000:{0x40 + 0x20 * kind + number:02x}:00.0"
            plug(
                root,
                Device(address, code=code, driver=driver, irqs=own, port_address=f"0000:{kind:02x}:{number:02x}.1"),
            )
            lines += [
                (irq, f"IR-PCI-MSIX-{address} {index}-edge", name.format(n=number, q=index))
                for index, irq in enumerate(own)
            ]
    write_interrupts(root, CPUS, lines)
    write_dmi(root, board(), *(dimm(f"P0_DIMM{slot}", 64, 4800, 4800) for slot in range(24)))


def rows() -> list[dict[str, Any]]:
    """Work and import time as rows of build/bench.json."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        host = Host(folder)
        facts = gather(host)
        work = [_timed(lambda: gather(host)) for _run in range(RUNS)]
        parts = {name: _timed(lambda name=name: gather(host, [name])) for name in SECTIONS}  # type: ignore[misc]
    cpus, nodes, irqs = facts["cpu"]["cpus"], facts["memory"]["nodes"], facts["interrupts"]["irqs"]
    seen = f"{len(cpus)} CPUs, {len(nodes)} nodes, {len(irqs)} interrupts"
    slowest = ", ".join(f"{name} {parts[name]:.1f}" for name in sorted(parts, key=lambda name: -parts[name])[:3])
    imports = [
        float(subprocess.check_output([sys.executable, "-c", _IMPORT], text=True)) * 1000 for _run in range(RUNS)
    ]
    return [
        _row(
            "workstation_facts work", work, 150, f"median of {RUNS}, {seen}, without NVML; slowest sections: {slowest}"
        ),
        _row("workstation_facts import", imports, 100, f"median of {RUNS} fresh processes, byte code cached"),
    ]


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _row(name: str, values: list[float], goal: int, detail: str) -> dict[str, Any]:
    value = round(statistics.median(values), 1)
    return {"name": name, "value": value, "unit": "ms", "goal": goal, "better": "lower", "detail": detail}


if __name__ == "__main__":
    for row in rows():
        print("{name}: {value} {unit} (goal {goal}, {better} is better): {detail}".format(**row))
