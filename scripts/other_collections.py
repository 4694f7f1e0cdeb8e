# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring collections of others into build/collections, for benchmarks and tests; print that path.

    python scripts/other_collections.py ansible.posix

The product needs none of them. They come out of the pinned `ansible` package, so that a machine which
reaches a Python package index needs no Galaxy server. Only the named collections are unpacked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "collections.lock"
TARGET = ROOT / "build" / "collections"


def folder(collection: str) -> str:
    namespace, name = collection.split(".")
    return f"ansible_collections/{namespace}/{name}/"


def unpack(wheel: Path, collections: Sequence[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for collection in collections:
            members = [name for name in names if name.startswith(folder(collection))]
            if not members:
                raise SystemExit(f"{collection} is not in {wheel.name}")
            archive.extractall(TARGET, members)


def main(wanted: Sequence[str]) -> None:
    stamp = TARGET / "lock"
    lock = LOCK.read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != lock:
        shutil.rmtree(TARGET, ignore_errors=True)  # what is there came from another version
    missing = [name for name in wanted if not (TARGET / folder(name) / "MANIFEST.json").is_file()]
    if missing:
        with tempfile.TemporaryDirectory() as temporary:
            pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--require-hashes"]
            subprocess.run([*pip, "--dest", temporary, "--requirement", LOCK], check=True)
            unpack(next(Path(temporary).glob("*.whl")), missing)
        stamp.write_text(lock, encoding="utf-8")
    print(TARGET)


if __name__ == "__main__":
    main(sys.argv[1:])
