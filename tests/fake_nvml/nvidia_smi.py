# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings the unmodified nvidia-smi program from Debian's non-free section, for tests and benchmarks.

It is kept below build/. Nothing is installed: the machine's package state stays as it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

KEPT = Path(__file__).resolve().parents[2] / "build" / "cache" / "nvidia-smi"
SUITE = "trixie"


def program() -> Path:
    """The program, downloaded when it is not here yet. Raises RuntimeError with the reason where it cannot be had."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _programs()
        if not found:
            try:
                _download()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                raise RuntimeError(f"nvidia-smi cannot be had: {error}") from error
            found = _programs()
    return found[0]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"{command[0]} exits with {done.returncode}"])[-1])
    return done.stdout


def _debian_mirror() -> str:
    """Where this machine takes Debian from: its own sources, read only."""
    for line in _run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]).splitlines():
        origin, label, uri = line.split("|")
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise RuntimeError("no Debian mirror among the package sources")


def _download() -> None:
    """Fetch the one package with lists of our own: the machine's package state stays as it is."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        raise RuntimeError("no Debian archive keyring")
    with_lists = KEPT / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (with_lists / part).mkdir(parents=True, exist_ok=True)
    sources = with_lists / "sources.list"
    sources.write_text(f"deb [signed-by={keyring}] {_debian_mirror()} {SUITE} non-free\n")
    apt = [
        "apt-get", "-q", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={with_lists}/lists", "-o", f"Dir::Cache={with_lists}/cache",
        "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0", "-o", "APT::Sandbox::User=root",
        "-o", "APT::Update::Error-Mode=any",
    ]  # fmt: skip
    _run([*apt, "update"])
    subprocess.run([*apt, "download", "nvidia-smi"], cwd=with_lists, capture_output=True, timeout=120, check=True)
    package = next(with_lists.glob("nvidia-smi_*.deb"))
    _run(["dpkg-deb", "-x", str(package), str(KEPT / "root")])
    shutil.rmtree(with_lists)


def _programs() -> list[Path]:
    return [path for path in KEPT.glob("root/usr/**/nvidia-smi") if path.is_file() and os.access(path, os.X_OK)]
