# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What reading a file from memory instead of the disk saves: one file, cold and warm, on the disk of this checkout.

rows() measures; run alone it prints. Cold means that the kernel was asked to forget this one file and has, which is
checked; no other file of the machine loses its place. A cache below the kernel (of a controller, of a hypervisor)
counts as the disk. With a fast disk the ratio is near one, and preloading models is worth little.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ansible/collections")]

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors import page_cache  # noqa: E402

RUNS, MIB = 5, 256


def rows() -> list[dict[str, Any]]:
    """One row of build/bench.json."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=ROOT / "build", prefix="page-cache-") as stream:
        for _block in range(MIB):
            stream.write(os.urandom(1 << 20))  # nothing that a disk could compress
        stream.flush()
        os.fsync(stream.fileno())  # what is not on the disk yet cannot be forgotten
        pairs = [(_cold(stream.name), _warm(stream.name)) for _run in range(RUNS)]
    cold, warm = (statistics.median(times) for times in zip(*pairs, strict=True))
    return [
        {
            "name": "warm read of a file",
            "value": round(cold / warm, 1),
            "unit": "times",
            "goal": None,
            "better": "higher",
            "detail": f"as fast as a cold one: {MIB / warm:.0f} MiB/s against {MIB / cold:.0f}, "
            f"median of {RUNS}, a file of {MIB} MiB",
        }
    ]


def _cold(path: str) -> float:
    page_cache.drop(path)
    kept, size = page_cache.resident(path)
    if kept:
        raise RuntimeError(f"the kernel keeps {kept >> 20} of {size >> 20} MiB of {path} in memory: is it on a tmpfs?")
    return page_cache.read_in(path)


def _warm(path: str) -> float:
    page_cache.read_in(path)  # a first read may leave a few pages out
    kept, size = page_cache.resident(path)
    if kept < 0.99 * size:
        raise RuntimeError(f"only {kept >> 20} of {size >> 20} MiB of {path} stay in memory: too little is free")
    return page_cache.read_in(path)


if __name__ == "__main__":
    for row in rows():
        print("{name}: {value} {unit} (goal {goal}, {better} is better): {detail}".format(**row))
