"""The test hosts: systemd containers with kernel files of their own, and the proof that they are.

Each side of the comparison gets a fresh one. The engine mounts /proc/sys, /proc/irq and /sys read-only in
every container, and the plain files of tree.py lie over that; so a write inside either reaches a plain
file or fails. `prove` checks it from both sides before anything is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import machine
import nvidia_smi
from fake_nvml import Machine as Gpus

from . import tree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "bench" / "converge"
LIBRARIES = "/usr/local/lib/fake-nvml"
GPU_STATE = "/var/lib/fake-nvml"

_OPTIONS = (
    *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/bed:mode=755"),  # noqa: S108 inside the container
)

# Runs before systemd. Real settings are read-only here; what is laid over them is a plain file.
_ENTRY = f"""set -e
cp -a /source/. /bed/
for path in {" ".join(tree.MOUNTS)}; do
  if [ -e "$path" ]; then mount --bind "/bed$path" "$path"; fi
done
echo {LIBRARIES} >/etc/ld.so.conf.d/fake-nvml.conf
ldconfig
ln -s /dev/null /etc/systemd/system/irqbalance.service
mkdir -p /etc/systemd/system/fstrim.timer.d
printf '[Unit]\\nConditionVirtualization=\\n' >/etc/systemd/system/fstrim.timer.d/bed.conf
ssh-keygen -A
install -D -m 0600 /authorized_keys /root/.ssh/authorized_keys
exec /sbin/init
"""

# Where a write would change the machine that runs the benchmark, if the files were its own: two values
# each, one of which it does not have.
_GLOBAL = (
    ("/proc/sys/vm/swappiness", ("61", "62")),
    ("/proc/sys/vm/nr_hugepages", ("1", "2")),
    ("/proc/irq/default_smp_affinity", ("5", "1")),
    (f"{tree.THP}/enabled", ("never", "madvise")),
    (f"{tree.THP}/khugepaged/pages_to_scan", ("4097", "4098")),
)


class BedError(RuntimeError):
    """Why there is no test host, or no comparison on it."""


def command(*argv: str | Path, stdin: str | None = None) -> str:
    """Run a command and return its output."""
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BedError(f"{' '.join(map(str, argv[:3]))} ...: {last}")
    return done.stdout


class Bed(AbstractContextManager["Bed"]):
    """One test host. Its address is `address`, its key `key`; both sides reach it by ssh."""

    def __init__(self, name: str, source: Path, image: str, smi: Path) -> None:
        self.name = f"bench-converge-{name}"
        self.folder = WORK / name
        self.address = ""
        self._source = source
        self._image = image
        self._smi = smi

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        gpus = Gpus(self.folder / "gpus", ["rtx5090", "rtx5090"])
        gpus.install(self.folder / "library", GPU_STATE, smi=True)
        self._remove()
        try:
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)

    def _start(self) -> None:
        key = WORK / "id_ed25519"
        if not key.exists():
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key)
        volumes = {
            key.with_suffix(".pub"): "/authorized_keys:ro",
            self._source: "/source:ro",
            self.folder / "library": f"{LIBRARIES}:ro",
            self.folder / "gpus": GPU_STATE,
            self._smi: "/usr/bin/nvidia-smi:ro",
        }
        mounts = [word for source, target in volumes.items() for word in ("--volume", f"{source}:{target}")]
        start = ["docker", "run", "--detach", "--name", self.name, "--hostname", "ws5090", *_OPTIONS, *mounts]
        command(*start, self._image, "sh", "-c", _ENTRY)
        self._wait()
        self.address = command(
            "docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name
        ).strip()
        self.prove()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        state = ""
        while state not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise BedError(f"systemd does not start: {state or command('docker', 'logs', self.name)}")
            ask = ["docker", "exec", self.name, "systemctl", "is-system-running", "--wait"]
            state = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a command on the test host, as root, past ssh."""
        return command("docker", "exec", "--interactive", self.name, *argv, stdin=stdin)

    def prove(self) -> None:
        """Raise unless writes inside stay inside: no mount of the real files, and none of them moves."""
        present = self.run("sh", "-c", f"ls -d {' '.join(tree.MOUNTS)} || true").split()
        mounted = {}
        for line in self.run("cat", "/proc/self/mountinfo").splitlines():
            fields = line.split()
            mounted[fields[4]] = (fields[fields.index("-") + 1], fields[3])  # the last one counts
        for path in present:
            if mounted.get(path) != ("tmpfs", path):
                raise BedError(f"{path} of the test host is no plain file of ours: nothing is measured")
        before = machine.settings()
        for path, values in _GLOBAL:
            old, now = self.run("cat", path), Path(path).read_text(encoding="utf-8").strip()
            value = next(value for value in values if value != now)
            self.run("sh", "-c", f"echo {value} >{path}")
            seen, host = self.run("cat", path).strip(), Path(path).read_text(encoding="utf-8").strip()
            self.run("sh", "-c", f"cat >{path}", stdin=old)
            if seen != value or host != now:
                raise BedError(f"{path}: {value!r} written inside reads {seen!r} there and {host!r} on this machine")
        if changed := machine.differences(before, machine.settings()):
            raise BedError(f"a write on the test host reached this machine: {'; '.join(changed)}")

    def settle(self) -> dict[str, str]:
        """Let the plain files answer as the kernel does; returns every value, and the state of the GPUs."""
        values: dict[str, str] = json.loads(
            self.run("python3", "-", stdin=(HERE / "settle.py").read_text(encoding="utf-8"))
        )
        query = "index,persistence_mode,power.limit,compute_mode"
        values["GPUs"] = self.run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
        return values

    def cpu_seconds(self) -> float:
        """CPU time that everything on the test host has used so far, from its control group."""
        first = command("docker", "inspect", "--format", "{{.State.Pid}}", self.name).strip()
        lines = Path(f"/proc/{first}/cgroup").read_text(encoding="utf-8").splitlines()
        group = {controller: path for _number, controller, path in (line.split(":", 2) for line in lines)}
        if "cpuacct" in group:  # control groups of the first version: nanoseconds
            usage = Path(f"/sys/fs/cgroup/cpuacct{group['cpuacct']}/cpuacct.usage")
            return int(usage.read_text(encoding="utf-8")) / 1e9
        stat = Path(f"/sys/fs/cgroup{group[''].removesuffix('/init.scope')}/cpu.stat")
        return int(stat.read_text(encoding="utf-8").split()[1]) / 1e6

    def quiet(self) -> None:
        """Wait until the test host is idle, so that its start does not count as the playbook's work."""
        for _attempt in range(60):
            used = self.cpu_seconds()
            time.sleep(0.5)
            if self.cpu_seconds() - used < 0.02:
                return


def image() -> str:
    """The tag of the test host image, built when there is none yet."""
    return command(ROOT / "molecule" / "shared" / "test-host-image").splitlines()[-1]


def source() -> Path:
    """The tree that every test host starts from, made anew: its counters are the same for all."""
    folder = WORK / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    tree.build(folder)
    return folder


def smi() -> Path:
    """The program nvidia-smi. Raises NotRun where it cannot be had."""
    try:
        return nvidia_smi.program()
    except RuntimeError as error:
        raise machine.NotRun(str(error)) from None


def engine() -> machine.Engine:
    """The Docker engine, started when none answers. Raises NotRun with what this machine lacks."""
    wanted = ["gcc", "/usr/include/stdio.h", "dockerd", "docker", "iptables", "mmdebstrap", machine.KEYRING, "ssh"]
    if missing := machine.install(wanted):
        raise machine.NotRun(next(iter(missing.values())))
    # The folder that the test runner's engine uses: its images are there already.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai_infra.workstation"
    WORK.mkdir(parents=True, exist_ok=True)
    found = machine.Engine(cache / "docker", WORK / "dockerd.log")
    found.start()
    return found
