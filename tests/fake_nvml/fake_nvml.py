# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fake NVIDIA machine for tests: builds the stand-in library and describes its cards.

    with Machine(tmp_path / "gpu", ["rtx5090"]) as machine:
        subprocess.run([...], env=os.environ | machine.environment())
        machine.reload_driver()

Product code and its tests see the state through NVML alone. This file changes what a person at the
machine would change: which cards are plugged in, load, faults, a driver reload.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from uuid import NAMESPACE_DNS, uuid5

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "fake_nvml"
LIBRARY = "libnvidia-ml.so.1"
MAX_GPUS = 16  # as in src/driver.h


def build(out: Path = BUILD) -> Path:
    """Compile the library unless it is up to date; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".build_lock", "w") as lock:  # tests run in parallel
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "-s", "-C", str(HERE), f"OUT={out}"], capture_output=True, text=True, check=False
        )
    if made.returncode:
        raise RuntimeError(f"fake NVML does not build:\n{made.stdout}{made.stderr}")
    return out / LIBRARY


def cards() -> list[str]:
    """Names of the card files."""
    return sorted(path.stem for path in (HERE / "cards").glob("*.card"))


class TracedCall(NamedTuple):
    """One NVML call: who made it, on which GPU (-1: none), what came back, arguments of a setter."""

    pid: int
    function: str
    gpu: int
    code: int
    arguments: str


class DriverInUseError(RuntimeError):
    """The driver cannot be unloaded: a process has NVML open."""


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _write(path: Path, values: dict[str, str]) -> None:
    fresh = path.with_name(path.name + ".python")
    fresh.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    fresh.chmod(0o666)
    fresh.rename(path)


def _restarted(state: dict[str, str], which: str = "") -> dict[str, str]:
    """The state after the driver took hold of the GPUs anew: what is not on the board is gone, what
    was pending there is in force."""
    lost = (f"v.{which}", f"d.{which}")
    kept = {key: value for key, value in state.items() if not key.startswith(lost)}
    for key, value in list(kept.items()):
        if key.startswith(f"p.{which}") and key.endswith("_pending"):
            kept[key.removesuffix("_pending") + "_current"] = value
    return kept


class Machine:
    """The state directory of one machine. Created on first use, reused when it exists."""

    def __init__(self, directory: str | Path, gpus: Sequence[str] = (), **settings: object) -> None:
        """`gpus`: card names in index order. `settings`: of the machine, as load=1, init_rc=18."""
        self.directory = Path(directory).resolve()
        self._trees: set[Path] = set()
        if gpus or not (self.directory / "machine").exists():
            self._create(gpus, settings)
        elif settings:
            self.set(None, **settings)

    def _create(self, gpus: Sequence[str], settings: dict[str, object]) -> None:
        if len(gpus) > MAX_GPUS:
            raise ValueError(f"a machine has at most {MAX_GPUS} cards")
        if (self.directory / "machine").exists():  # remove nothing but a machine
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        # An unprivileged client locks and writes here too, as it reaches the driver.
        self.directory.chmod(0o777)
        (self.directory / "cards").mkdir()
        values = {"driver_version": "580.95.05", "nvml_version": "13.580.95.05", "cuda_version": "13000", "load": "0"}
        for index, card in enumerate(gpus):
            shutil.copy(HERE / "cards" / f"{card}.card", self.directory / "cards")
            values[f"{index}.card"] = card
            values[f"{index}.uuid"] = f"GPU-{uuid5(NAMESPACE_DNS, f'{card}.{index}.fake-nvml')}"
            values[f"{index}.bus_id"] = f"00000000:{index + 1:02X}:00.0"
            serial = _read(self.directory / "cards" / f"{card}.card").get("serial", "N/A")
            if serial.isdigit():
                values[f"{index}.serial"] = str(int(serial) + index)
        values.update({key: str(value) for key, value in settings.items()})
        _write(self.directory / "machine", values)
        _write(self.directory / "state", {"driver_load_id": "1"})
        for name in ("lock", "users", "faults", "trace"):
            (self.directory / name).touch()
            (self.directory / name).chmod(0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.directory / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # --- what a test uses ---------------------------------------------------------------------

    def environment(self, smi: bool = False) -> dict[str, str]:
        """What a process needs to find this machine instead of a real driver. `smi`: the library
        with the one undocumented symbol that the nvidia-smi program insists on."""
        library_directory = build().parent / ("smi" if smi else "")
        inherited = os.environ.get("LD_LIBRARY_PATH")
        path = f"{library_directory}:{inherited}" if inherited else str(library_directory)
        return {"LD_LIBRARY_PATH": path, "FAKE_NVML_STATE": str(self.directory)}

    def install(
        self, library_directory: str | Path, state_as_seen_there: str | Path | None = None, smi: bool = False
    ) -> None:
        """Put the library and its configuration into a library directory, for a process that does
        not get our environment: an Ansible module, a container."""
        target = Path(library_directory)
        target.mkdir(parents=True, exist_ok=True)
        fresh = target / f"{LIBRARY}.new"
        shutil.copy(build().parent / ("smi" if smi else "") / LIBRARY, fresh)
        fresh.rename(target / LIBRARY)  # never write into a library that a process has mapped
        (target / "fake_nvml.conf").write_text(f"state={state_as_seen_there or self.directory}\n")

    def show_in(self, root: str | Path) -> None:
        """Let the driver appear in a tree of /proc and /sys files as well: its version and a folder
        per GPU. A reload makes the folders anew, so that their inodes tell one load from the next."""
        self._trees.add(Path(root))
        self._make_tree(Path(root))

    def _make_tree(self, root: Path) -> None:
        machine = _read(self.directory / "machine")
        version = machine["driver_version"]
        fresh = root / "sys/module/.nvidia"
        fresh.mkdir(parents=True)
        (fresh / "version").write_text(f"{version}\n")
        proc = root / "proc/driver/.nvidia"
        proc.mkdir(parents=True)
        (proc / "version").write_text(
            f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n"
        )
        for index in range(sum(key.endswith(".card") for key in machine)):
            card = _read(self.directory / "cards" / f"{machine[f'{index}.card']}.card")
            address = machine[f"{index}.bus_id"].lower().removeprefix("0000")
            (proc / "gpus" / address).mkdir(parents=True)
            (proc / "gpus" / address / "information").write_text(
                f"Model: \t\t {card['name']}\nGPU UUID: \t {machine[f'{index}.uuid']}\nBus Location: \t {address}\n"
            )
        for folder in (fresh, proc):  # the old one goes last: an inode must not come back at once
            place = folder.with_name("nvidia")
            if place.exists():
                place.rename(place.with_name(".gone"))
            folder.rename(place)
            shutil.rmtree(place.with_name(".gone"), ignore_errors=True)

    def uuid(self, gpu: int = 0) -> str:
        return _read(self.directory / "machine")[f"{gpu}.uuid"]

    def set(self, gpu: int | None = None, **values: object) -> None:
        """Change the machine, or with `gpu` one card in it: load=1, bar1_mib=256, pcie_width=8,
        processes="1234:C:5000". The value None takes a setting back."""
        with self._locked():
            machine = _read(self.directory / "machine")
            for key, value in values.items():
                name = key if gpu is None else f"{gpu}.{key}"
                if value is None:
                    machine.pop(name, None)
                else:
                    machine[name] = str(value)
            _write(self.directory / "machine", machine)

    def fault(self, *rules: str, **rule: object) -> None:
        """Replace all faults: fault("call=17 rc=999"), fault(fn="nvmlInit*", rc=9). Without
        arguments: none."""
        lines = list(rules)
        if rule:
            lines.append(" ".join(f"{key}={value}" for key, value in rule.items()))
        with self._locked():
            state = _read(self.directory / "state")
            _write(self.directory / "state", {k: v for k, v in state.items() if not k.startswith("fault.")})
            (self.directory / "faults").write_text("".join(line + "\n" for line in lines))

    def lose(self, gpu: int = 0) -> None:
        """The GPU falls off the bus, until the driver is loaded again."""
        with self._locked():
            state = _read(self.directory / "state")
            state[f"d.{self.uuid(gpu)}.lost"] = "1"
            _write(self.directory / "state", state)

    def trace(self, clear: bool = False) -> list[TracedCall]:
        """The NVML calls made so far, by all processes, in order."""
        path = self.directory / "trace"
        calls = []
        for line in path.read_text().splitlines():
            pid, function, gpu, code, *arguments = line.split(" ", 4)
            calls.append(TracedCall(int(pid), function, int(gpu), int(code), "".join(arguments)))
        if clear:
            path.write_text("")
        return calls

    # --- what happens to a driver -------------------------------------------------------------

    def driver_load_id(self) -> int:
        return int(_read(self.directory / "state")["driver_load_id"])

    def reload_driver(self, force: bool = False) -> None:
        """rmmod and modprobe: volatile values are gone, pending ECC and MIG modes are in force.
        Refused while a process has NVML open; `force` is the power switch."""
        with open(self.directory / "users") as users, self._locked():
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not force:
                    raise DriverInUseError("a process has NVML open") from None
            state = _read(self.directory / "state")
            kept = _restarted(state)
            kept["driver_load_id"] = str(int(state["driver_load_id"]) + 1)
            _write(self.directory / "state", kept)
        for root in self._trees:
            self._make_tree(root)

    def reboot(self) -> None:
        self.reload_driver(force=True)

    def reset_gpu(self, gpu: int = 0) -> None:
        """`nvidia-smi --gpu-reset`: as a reload, for one GPU."""
        with self._locked():
            state = _read(self.directory / "state")
            _write(self.directory / "state", _restarted(state, f"{self.uuid(gpu)}."))


def reload_driver(directory: str | Path) -> None:
    """Reload the driver of the machine in this state directory."""
    Machine(directory).reload_driver()
