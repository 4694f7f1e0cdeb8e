# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The machine that the tests run on: its packages, its container engine, its Pythons, its settings."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# A command, or a file with an absolute path, and the Debian and Ubuntu package that brings it. The order
# counts: in some releases docker.io brings the client, in others it is a package of its own.
PACKAGES = {
    "git": "git",
    "gcc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    KEYRING: "debian-archive-keyring",
    "ssh": "openssh-client",
    "haproxy": "haproxy",
    "curl": "curl",
    "promtool": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "amtool": "prometheus-alertmanager",
    "openssl": "openssl",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "iasl": "acpica-tools",
    "sfdisk": "fdisk",
    "mke2fs": "e2fsprogs",
    "make": "make",
}


class NotRun(Exception):  # noqa: N818 not an error: the reason why a suite does not run
    """Why a suite cannot run on this machine."""


def _quiet(command: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={**os.environ, **extra}
    )


# --- packages --------------------------------------------------------------------------------------


def _present(thing: str) -> bool:
    return Path(thing).exists() if thing.startswith("/") else shutil.which(thing) is not None


def install(things: Sequence[str]) -> dict[str, str]:
    """Install what is missing where that is allowed; return what is still missing, with the reason."""
    missing = {}
    updated = False
    for thing in things:
        if _present(thing):
            continue
        package = PACKAGES[thing]
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            missing[thing] = f"needs the package {package} (sudo apt-get install {package})"
            continue
        print(f"installing the package {package}", flush=True)
        if not updated:
            _quiet(["apt-get", "update", "-qq"])
            updated = True
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", package]
        done = _quiet(command, DEBIAN_FRONTEND="noninteractive")
        if not _present(thing):
            reason = (done.stderr.strip().splitlines() or ["apt-get said nothing"])[-1]
            missing[thing] = f"cannot install the package {package}: {reason}"
    return missing


# --- container engine ------------------------------------------------------------------------------


class Engine:
    """The Docker engine: the one that answers, else one of our own for as long as the tests run."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def answers() -> bool:
        # Not `docker info`: some releases of the client end well without an engine.
        return _quiet(["docker", "version", "--format", "{{.Server.Version}}"]).returncode == 0

    def start(self) -> None:
        if self.answers():
            return
        if os.geteuid() != 0:
            raise NotRun("no Docker engine answers (only root can start one)")
        self._data.mkdir(parents=True, exist_ok=True)
        command = ["dockerd", "--data-root", str(self._data), "--pidfile", str(self._data / "dockerd.pid")]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C must reach the tests, which still need the engine to clean up.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.answers():
                return
            time.sleep(0.2)
        self.stop()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise NotRun(f"dockerd does not start: {lines[-1] if lines else 'no message'}")

    def stop(self) -> None:
        if self._process is None:
            return
        # Somebody else may have found our engine and used it; then it stays.
        if _quiet(["docker", "ps", "--quiet"]).stdout.strip():
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None


# --- Pythons ---------------------------------------------------------------------------------------


@functools.cache
def pythons() -> dict[int, Path]:
    """The versions 3.<minor> that work here. A pyenv shim can be in PATH and still run nothing."""
    folders = [Path(folder) for folder in os.get_exec_path() if Path(folder) != Path(sys.prefix) / "bin"]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"), reverse=True)
    found = {}
    for minor in range(9, 16):
        for python in (folder / f"python3.{minor}" for folder in folders):
            if python.exists() and _quiet([str(python), "-c", "import ensurepip"]).returncode == 0:
                found[minor] = python
                break
    return found


def link_pythons(folder: Path) -> None:
    """Put the working Pythons, and no shims, in front of PATH: ansible-test trips over the shims."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for python in pythons().values():
        # Started through a link, a Python finds its library; a shim decides by the name it was called by.
        target = Path(_quiet([str(python), "-c", "import sys; print(sys.executable)"]).stdout.strip())
        (folder / python.name).symlink_to(target)
    rest = [entry for entry in os.get_exec_path() if not entry.endswith(".pyenv/shims")]
    os.environ["PATH"] = os.pathsep.join([str(folder), *rest])


# --- settings that tests could change --------------------------------------------------------------

_VALUES = (
    "/proc/sys/vm/**/*",
    "/proc/sys/kernel/**/*",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/mm/transparent_hugepage/**/*",
    "/sys/kernel/mm/hugepages/*/nr_*hugepages",
    "/sys/devices/system/node/node*/hugepages/*/nr_hugepages",
    "/sys/devices/system/cpu/smt/control",
    "/sys/devices/system/cpu/cpu*/online",
    "/sys/devices/system/cpu/cpufreq/*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/*/energy_performance_preference",
    "/sys/block/*/queue/scheduler",
    "/sys/block/*/queue/read_ahead_kb",
)
# What the kernel itself keeps changing.
_MOVING = {"/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/perf_event_max_sample_rate"}
_FOLDERS = (
    "/etc/default",
    "/etc/grub.d",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/sysctl.d",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/etc/udev",
    "/var/lib/ai-workstation",
)


def settings() -> dict[str, str]:
    """What tests of this project could change on a machine: kernel settings and files."""
    seen = {}
    for pattern in _VALUES:
        for path in Path("/").glob(pattern.lstrip("/")):
            with contextlib.suppress(OSError):
                # What can be written and read is a setting; else it is a counter or a trigger.
                if path.is_file() and path.stat().st_mode & 0o600 == 0o600 and path.name != "stat_refresh":
                    seen[str(path)] = path.read_text(encoding="utf-8", errors="replace").strip()
    for folder in _FOLDERS:
        for path in Path(folder).glob("**/*"):
            with contextlib.suppress(OSError):
                seen[str(path)] = f"written at {path.lstat().st_mtime_ns}"
    return seen


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and path not in _MOVING
    ]
