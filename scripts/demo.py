# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Five minutes with a throwaway workstation and no GPU: plan, apply, apply again, drift, verify, rollback, equality.

    scripts/demo.py              a virtual machine; a container where QEMU cannot be had
    scripts/demo.py container    the container at once: files, units and the GPU, but not the kernel it shares

Nothing of it touches this machine, and nothing stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import machine
import pynvml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lab"))
sys.path.insert(0, str(ROOT / "tests" / "fake_nvml"))

import fake_nvml  # noqa: E402
import state  # noqa: E402
from plays import Controller  # noqa: E402
from remote import Remote  # noqa: E402
from vm import Vm  # noqa: E402

COMMON = ("gcc", "/usr/include/stdio.h", "make", "ssh")
QEMU = (
    "qemu-system-x86_64",
    "qemu-img",
    "mmdebstrap",
    machine.KEYRING,
    "iasl",
    "sfdisk",
    "mke2fs",
    "gcc",
    "make",
    "ssh",
)
DOCKER = ("dockerd", "docker", "iptables", "mmdebstrap", machine.KEYRING, *COMMON)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai_infra.workstation"
WISHES = {
    "workstation_profile": "balanced",
    "gpu_tuning_power_limit": "80%",
}
# Each with what a person would call it; the last one takes itself back with the rollback.
_LIMIT = """
import sys
sys.path.append("/opt/nvidia-stand-in")
import pynvml
pynvml.nvmlInit()
pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0), 575000)
"""
_SWAPPINESS = "echo vm.swappiness=90 > /etc/sysctl.d/zzz-somebody.conf && sysctl -q -p /etc/sysctl.d/zzz-somebody.conf"
HIDDEN = (
    "TASK [",
    "PLAY [",
    "PLAY RECAP",
    "ok: [",
    "changed: [",
    "skipping: [",
    "included: ",
    "lab   ",
    "localhost   ",
)


class Container(Remote):
    """A container with systemd and a stand-in driver; /proc/sys and /sys are read-only, so that is skipped there."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ai-demo-"))
        super().__init__(folder, folder / "key")
        self.name = folder.name

    def __enter__(self) -> Self:
        image = _run(ROOT / "molecule" / "shared" / "test-host-image").split()[-1]
        driver = fake_nvml.Machine(self.folder / "gpu" / "state", ["rtx5090"])
        (self.folder / "gpu" / "lib").mkdir()
        driver.install(self.folder / "gpu" / "lib", state_as_seen_there="/opt/gpu/state")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        options = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        options += " --cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --tmpfs /run --tmpfs /tmp"
        _run(
            *("docker", "run", "--detach", "--name", self.name, "--publish", "127.0.0.1::22", *options.split()),
            *("--volume", f"{self.folder}/gpu:/opt/gpu", image, "/sbin/init"),
        )
        open_door = "ssh-keygen -A && install -D -m 600 /dev/stdin /root/.ssh/authorized_keys && systemctl start ssh"
        open_door += " && echo /opt/gpu/lib > /etc/ld.so.conf.d/gpu.conf && ldconfig"
        _run("docker", "exec", self.name, "sh", "-c", "until [ -e /run/systemd/system ]; do sleep 0.2; done")
        _run("docker", "exec", "--interactive", self.name, "sh", "-c", open_door, text=_read(f"{self.key}.pub"))
        # For the look at the GPU from outside: our modules bring their own.
        _run("docker", "cp", pynvml.__file__, f"{self.name}:/usr/lib/python3/dist-packages/pynvml.py")
        self.port = int(_run("docker", "port", self.name, "22/tcp").splitlines()[0].rpartition(":")[2])
        return self

    def __exit__(self, *_error: object) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _run(*command: str | Path, text: str = "") -> str:
    done = subprocess.run([*map(str, command)], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """One line that says for how long it has been going on."""
    done = threading.Event()
    started = time.monotonic()

    def tick() -> None:
        while not done.wait(1 if sys.stdout.isatty() else 20):
            line = f"      {what}: {time.monotonic() - started:.0f} s"
            print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        start = "\r" if sys.stdout.isatty() else ""
        print(f"{start}      {what}: {time.monotonic() - started:.0f} s", flush=True)


def step(number: int, title: str, command: str = "") -> None:
    print(f"\n[{number}/7] {title}")
    if command:
        print(f"      $ {command}")
    sys.stdout.flush()


def _not_changed(lines: list[str]) -> Iterator[str]:
    """The blocks of a summary that say the same in every run: what was skipped, and the firmware."""
    inside = False
    for line in lines:
        if not line.startswith("    "):
            inside = line.startswith(("  SKIPPED", "  FIRMWARE"))
        if inside:
            yield line


class Demo:
    def __init__(self, host: Remote, kind: str, folder: Path) -> None:
        self.host, self.kind = host, kind
        self.told: set[str] = set()
        self.controller = Controller(host, folder)
        self.controller.environment = {"ANSIBLE_DISPLAY_OK_HOSTS": "false", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}

    def play(self, book: str, *flags: str, fails: bool = False) -> None:
        """Run a playbook and show what a person would read of it, each reason for a skip once."""
        with waiting("running"):
            done = self.controller.play(book, WISHES, *flags)
        if (done.code != 0) != fails:
            raise SystemExit(f"{done.output}\n{book} ended with {done.code}")
        lines = [line for line in done.output.splitlines() if line.strip() and not line.startswith(HIDDEN)]
        if fails:
            lines = [line for line in lines if line.startswith("lab: ")] + [f"(exit status {done.code})"]
        print("\n".join(f"      {line}" for line in lines if line not in self.told))
        self.told.update(_not_changed(lines))

    def run(self) -> None:
        with waiting("looking at all of it: sysctls, /sys, /etc, /boot, units, the GPU"):
            before = state.look(self.host)
        step(2, "The plan: what would change, and why. Nothing is written.", "ansible-playbook site.yml --check")
        self.play("site.yml", "--check")
        step(3, "Make it so", "ansible-playbook site.yml")
        self.play("site.yml")
        step(4, "Once more: nothing is left to do", "ansible-playbook site.yml")
        self.play("site.yml")
        step(5, "Somebody changes knobs behind our back; verify names them and who did it")
        print("      # the power limit of the GPU goes back to 575 W, by NVML")
        self.host.python(_LIMIT)
        if self.kind == "vm":
            print(f"      # {_SWAPPINESS}")
            self.host.ssh(_SWAPPINESS)
        print("      $ ansible-playbook playbooks/verify.yml")
        self.play("playbooks/verify.yml", fails=True)
        self.host.ssh("rm -f /etc/sysctl.d/zzz-somebody.conf")
        step(6, "The way back", "ansible-playbook playbooks/rollback.yml -e rollback_force=true")
        self.play("playbooks/rollback.yml", "-e", "rollback_force=true")
        step(7, "As it was?")
        with waiting("looking again"):
            after = state.look(self.host)
        changed = state.differences(before, after)
        print(f"      {len(before)} values and files compared, {len(changed)} differ")
        print("".join(f"      {key}: {change}\n" for key, change in changed.items()), end="")
        if changed:
            raise SystemExit(1)


def main(wanted: str = "") -> int:
    missing = machine.install(QEMU) if wanted != "container" else {"qemu": "a container was asked for"}
    if os.geteuid() != 0:
        missing["root"] = "only root can unpack a system's packages"
    step(1, "A throwaway workstation with an RTX 5090 stand-in; it is gone afterwards")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not missing:
            with waiting("making and starting a virtual machine (longer the first time)"):
                host: Remote = stack.enter_context(Vm())
            Demo(host, "vm", folder).run()
            return 0
        print(f"      a container instead of a virtual machine: {next(iter(missing.values()))}")
        if lacking := machine.install(DOCKER):
            print(f"neither is possible here: {next(iter(lacking.values()))}", file=sys.stderr)
            return 1
        engine = machine.Engine(CACHE / "docker", folder / "dockerd.log")
        stack.callback(engine.stop)
        engine.start()
        with waiting("making and starting a container (longer the first time)"):
            host = stack.enter_context(Container())
        Demo(host, "container", folder).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
