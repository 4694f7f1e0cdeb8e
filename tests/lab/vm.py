# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A workstation in QEMU: started, reached over SSH, saved, restored, rebooted, cut off from power.

    with Vm() as vm:                     booted and clean, from the saved machine in the cache
        vm.ssh("uname -r")
        vm.reboot()                      as systemctl reboot, through GRUB
        vm.power_cut()                   QEMU is killed
        vm.boot()                        and started from the same disks
        vm.restore()                     booted and clean again

Every wait has a limit. The machine listens on 127.0.0.1 alone and reaches nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import image
from hardware import DISKS, WORKSTATION, Hardware
from qmp import Qmp
from remote import MachineError, Remote

BOOT_LIMIT = 480  # seconds from power to SSH; it takes 25 to 60, on a busy machine minutes
DOWN_LIMIT = 240  # seconds from systemctl reboot to silence
CLEAN = "clean"  # name of the snapshot


class Vm(Remote):
    """One machine, and a folder with its disks for as long as it exists."""

    def __init__(self, hardware: Hardware = WORKSTATION) -> None:
        self.hardware = hardware
        super().__init__(Path(tempfile.mkdtemp(prefix="ai-lab-")), image.build() / "key")
        self._process: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._saved = False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    # --- power --------------------------------------------------------------------------------

    def start(self) -> None:
        """Booted and clean: thawed where the saved machine has this hardware, else by a boot from its disk."""
        self._kill()
        self._saved = False
        frozen = _frozen_machine()
        for disk in DISKS:
            (self.folder / f"{disk}.qcow2").unlink(missing_ok=True)
            _overlay(frozen / f"{disk}.qcow2", self.folder / f"{disk}.qcow2")
        if self.hardware != WORKSTATION:
            self.boot()
            return
        self._run_qemu("-incoming", "defer")
        self._control("migrate-incoming", uri=f"exec:cat {shlex.quote(str(frozen / 'memory'))}")
        self._connected().migrated()
        self._control("cont")
        self.wait_for_ssh()
        self._set_clock()

    def boot(self) -> None:
        """Power on, from the disks as they are. A start that hangs is tried once more."""
        self._run_qemu()
        try:
            self.wait_for_ssh()
        except MachineError:
            self._kill()
            self._run_qemu()
            self.wait_for_ssh()

    def power_cut(self) -> None:
        """What was not flushed to the disk by now is lost; nothing is told to the system."""
        self._kill()

    def reboot(self) -> None:
        """systemctl reboot, and wait until the system is up again, through firmware and GRUB."""
        before = self.boot_id()
        self.ssh("systemctl reboot", check=False)
        self.wait_for_reboot(before)

    def wait_for_reboot(self, before: str) -> None:
        """Wait until the machine answers in another boot than that with the identity `before`."""
        self._disconnect()
        deadline = time.monotonic() + DOWN_LIMIT + BOOT_LIMIT
        retry = time.monotonic() + DOWN_LIMIT + BOOT_LIMIT / 2
        while time.monotonic() < deadline:
            done = self.try_ssh("cat /proc/sys/kernel/random/boot_id", timeout=60)
            if done.returncode == 0 and done.stdout.strip() != before:
                return
            self._alive()
            if time.monotonic() > retry:
                self._control("system_reset")
                retry = deadline
            if done.returncode == 0:
                self._disconnect()
            time.sleep(0.3)
        raise self.error("the machine did not come back from its reboot")

    def plug_network(self, plugged: bool) -> None:
        """Put the cable in, or pull it: connections that are open go on when it is back in time."""
        self._connected().human(f"set_link net0 {'on' if plugged else 'off'}")
        if plugged:
            self._disconnect()

    def stop(self) -> None:
        """Power off and remove the disks."""
        self._kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the clean moment ---------------------------------------------------------------------

    def save(self) -> None:
        """Keep this very moment, for restore()."""
        if said := self._connected().human(f"savevm {CLEAN}").strip():
            raise self.error(f"savevm: {said}")
        self._saved = True

    def restore(self) -> None:
        """Back to the saved moment in about a second; after a power cut, a start from the cache instead."""
        self._disconnect()
        if not self._saved or self._process is None or self._process.poll() is not None:
            self.start()
            self.save()
            return
        if said := self._connected().human(f"loadvm {CLEAN}").strip():
            raise self.error(f"loadvm: {said}")
        self._control("cont")
        self.wait_for_ssh()
        self._set_clock()

    def freeze(self, folder: Path) -> None:
        """Stop for good, and leave disks and memory of this moment in a folder."""
        self.ssh("sync")
        self._disconnect()
        self._control("stop")
        self._control("migrate", uri=f"exec:cat > {shlex.quote(str(folder / 'memory'))}")
        self._connected().migrated()
        self._control("quit")
        if self._process is not None:
            self._process.wait(timeout=60)
        for disk in DISKS:
            shutil.move(self.folder / f"{disk}.qcow2", folder / f"{disk}.qcow2")

    # --- work on it ---------------------------------------------------------------------------

    def await_true(self, command: str, limit: float = 60, pause: float = 0.2) -> None:
        """Wait until a shell command in the machine succeeds."""
        loop = f"until {command}; do sleep {pause}; done"
        self.ssh(f"timeout {limit:g} sh -c {shlex.quote(loop)} 2>/dev/null", timeout=limit + 30)

    def push(self, source: Path, target: str) -> None:
        """Copy a file or a folder's content into a folder of the machine."""
        folder, names = (source, ["."]) if source.is_dir() else (source.parent, [source.name])
        packed = ["tar", "-C", str(folder), "--exclude=__pycache__", "--owner=0", "--group=0", "-cf", "-", *names]
        quoted = shlex.quote(target)
        with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
            unpack = self._ssh_command(f"mkdir -p {quoted} && tar -C {quoted} -xf -")
            done = subprocess.run(unpack, stdin=tar.stdout, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode or tar.returncode:
            raise self.error(f"cannot copy {source}: {done.stderr}")

    def boot_id(self) -> str:
        return self.ssh("cat /proc/sys/kernel/random/boot_id").strip()

    def console(self, lines: int = 15) -> str:
        """The last lines of the serial console."""
        log = self.folder / "console"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # --- inside -------------------------------------------------------------------------------

    def _run_qemu(self, *more: str) -> None:
        control = self.folder / "control"
        control.unlink(missing_ok=True)
        command = [
            # It must not outlive the tests, however they end.
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-name", self.folder.name),
            *self.hardware.arguments(self.folder),
            *("-netdev", "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-serial", f"file:{self.folder}/console", "-qmp", f"unix:{control},server=on,wait=off"),
            *more,
        ]
        with (self.folder / "qemu").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while self._qmp is None:
            self._alive()
            with contextlib.suppress(OSError):
                self._qmp = Qmp(control)
            if time.monotonic() > deadline:
                raise self.error("QEMU does not open its control socket")
            time.sleep(0.02)
        found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", self._qmp.human("info usernet"))
        if found is None:
            raise self.error("QEMU forwards no port")
        self.port = int(found[1])

    def wait_for_ssh(self, limit: float = BOOT_LIMIT) -> None:
        """Wait until the machine answers."""
        deadline = time.monotonic() + limit
        while self.try_ssh("true", timeout=120).returncode:
            self._alive()
            if time.monotonic() > deadline:
                raise self.error(f"no SSH within {limit:g} s")
            time.sleep(0.3)

    def _set_clock(self) -> None:
        self.ssh(f"date -s @{time.time():.3f}")

    def _connected(self) -> Qmp:
        if self._qmp is None:
            raise self.error("the machine is off")
        return self._qmp

    def _control(self, command: str, **arguments: str) -> None:
        self._connected()(command, **arguments)

    def _disconnect(self) -> None:
        """End the shared connection: the other side of it is gone after a restore or a reboot."""
        if (self.folder / "ssh").exists():
            subprocess.run(
                ["ssh", "-O", "exit", "-o", f"ControlPath={self.folder}/ssh", "root@127.0.0.1"],
                capture_output=True,
                check=False,
                timeout=10,
            )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
        if self._qmp is not None:
            self._qmp.close()
        self._process = self._qmp = None
        self._disconnect()

    def _alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise self.error(f"QEMU has ended: {(self.folder / 'qemu').read_text(encoding='utf-8')[-500:]}")


def _overlay(base: Path, overlay: Path) -> None:
    image.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)


def _frozen_machine() -> Path:
    """The folder with disks and memory of a machine that was booted just now; made when it is missing.

    Its first boot lets GRUB's own programs write what they write on an installed system.
    """
    qemu = image.run("qemu-system-x86_64", "--version").splitlines()[0]
    made_of = image.recipe(repr(WORKSTATION), json.dumps(_hardware_sources()), qemu)
    return image.once(image.cache() / f"booted-{made_of}", _boot_once)


def _boot_once(fresh: Path) -> None:
    built = image.build()
    first = Vm()
    try:
        shutil.copy(built / "root.qcow2", first.folder / "root.qcow2")
        for disk in DISKS[1:]:
            image.run("qemu-img", "create", "-q", "-f", "qcow2", first.folder / f"{disk}.qcow2", "4G")
        first.boot()
        first.ssh("systemctl is-system-running --wait", check=False, timeout=BOOT_LIMIT)
        for command in image.FIRST_BOOT:
            first.ssh(command, timeout=BOOT_LIMIT)
        first.reboot()
        first.ssh("systemctl is-system-running --wait", check=False, timeout=BOOT_LIMIT)
        first.freeze(fresh)
    finally:
        first.stop()


def _hardware_sources() -> Sequence[str]:
    return [(image.HERE / "hardware.py").read_text(encoding="utf-8")]
