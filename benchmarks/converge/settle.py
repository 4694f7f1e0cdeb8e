"""What a kernel does after a write and a plain file cannot: runs inside the test host, between two runs.

Choices get their brackets back, mask and list of an interrupt agree again, the views of a huge page
pool show one number, and a limit in bytes zeroes the one in percent. Prints every value of the tree.
Standard library only: it is piped into the host's own Python.
"""

from __future__ import annotations

import json
import pathlib

BED = pathlib.Path("/bed")
MANIFEST = json.loads((BED / "manifest.json").read_text())


def read(path: str) -> str:
    return (BED / path[1:]).read_text().strip()


def write(path: str, text: str) -> None:
    (BED / path[1:]).write_text(text + "\n")


def newest(paths: list[str]) -> str:
    """The file that was written last, among several views of one value."""
    return max(paths, key=lambda path: (BED / path[1:]).stat().st_mtime_ns)


def numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _dash, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def cpu_list(mask: int) -> str:
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    runs: list[list[int]] = []
    for bit in bits:
        if runs and bit == runs[-1][1] + 1:
            runs[-1][1] = bit
        else:
            runs.append([bit, bit])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def settle() -> None:
    for path, offered in MANIFEST["choices"].items():
        chosen = read(path)
        if "[" not in chosen:
            write(path, " ".join(f"[{word}]" if word == chosen else word for word in offered))
    for number in MANIFEST["interrupts"]:
        mask, words = (f"/proc/irq/{number}/{name}" for name in ("smp_affinity", "smp_affinity_list"))
        if newest([mask, words]) == mask:
            bits = int(read(mask).replace(",", ""), 16)
        else:
            bits = sum(1 << cpu for cpu in numbers(read(words)))
        write(mask, f"{bits:08x}")
        write(words, cpu_list(bits))
        write(f"/proc/irq/{number}/effective_affinity_list", str(min(numbers(cpu_list(bits)))))
        write(f"/proc/irq/{number}/effective_affinity", f"{bits & -bits:x}")
    pages = read(newest(MANIFEST["pools"]))
    for path in MANIFEST["pools"] + MANIFEST["free"]:
        write(path, pages)
    for name in ("dirty", "dirty_background"):
        if read(f"/proc/sys/vm/{name}_bytes") != "0":
            write(f"/proc/sys/vm/{name}_ratio", "0")


settle()
tree = {}
for path in sorted(BED.rglob("*")):
    if path.is_file():
        tree["/" + str(path.relative_to(BED))] = " ".join(path.read_text(errors="replace").split())
print(json.dumps(tree))
