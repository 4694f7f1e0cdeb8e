# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inside the guest: kill a call at every single point where it writes, and see what is left.

    guest_sweep.py TREE CASES.json     TREE holds module_utils as a package, and pynvml.py

For each case (a module and its parameters) a first run is traced: every notice of the door (Host.before_write) and
every rename that Python's audit events show is a point. Then, for each point of the way there: a run is killed there
by SIGKILL, the ledger must be readable, the next run must converge and the one after it change nothing, and wanting
nothing must bring every value back. The same for each point of the way back. Prints one JSON line a case; a case ends
with the first failure, which would spoil all that follows.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OWNER = "sweep"


def part(name: str) -> Any:
    return importlib.import_module(f"module_utils.{name}")


class Bed:
    """One case: a module of the tree with parameters for the way there; the way back is to want nothing."""

    def __init__(self, name: str, params: dict[str, Any], pynvml: str) -> None:
        self.name, self.pynvml = name, pynvml
        self.there = {**params, "owner": OWNER}
        self.back: dict[str, Any] = {"owner": OWNER}
        if name == "nvidia_gpu_state":
            self.back["require_gpu"] = False

    def open(self, before_write: Callable[[str], None] | None = None) -> Any:
        host = part("doors.host").Host("/", before_write)
        return part("engine.machine").Machine(host, lambda: part("doors.nvml").open_nvml(self.pynvml))

    def run(self, params: dict[str, Any], before_write: Callable[[str], None] | None = None) -> dict[str, Any]:
        machine = self.open(before_write)
        try:
            return part("engine.plan").converge(part(f"subjects.{self.name}"), params, False, machine)
        finally:
            machine.close()

    def values(self, places: list[list[str]]) -> dict[str, Any]:
        machine = self.open()
        place, knobs = part("engine.change").Place, part("engine.knobs")
        known = [place(*words) for words in places]
        try:
            return {one.key: knobs.read(machine, one) for one in known if knobs.has_getter(one)}
        finally:
            machine.close()

    def entries(self) -> dict[str, Any]:
        return dict(self.open().ledger.export())


def in_child(call: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a process of its own; how it ended (minus the signal), and what it returned or the error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = {"got": call()}
        except BaseException as error:  # noqa: BLE001 whatever it is, the parent is to show it
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream, default=str)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(text) if text else {"error": "no answer"}


def undisturbed(call: Callable[[], Any]) -> Any:
    code, answer = in_child(call)
    if code or "error" in answer:
        raise SystemExit(f"a run that nothing disturbs ended with {code}: {answer}")
    return answer["got"]


def traced(bed: Bed, params: dict[str, Any], kill_at: int = 0) -> dict[str, list[str]]:
    """Run with a list of the points; at point `kill_at` the process dies before it writes.

    unannounced: what audit events show as written without a notice before it. Nothing may be there: a point that
    the door does not announce would not be tried.
    """
    points: list[str] = []
    unannounced: list[str] = []

    def point(name: str) -> None:
        points.append(name)
        if len(points) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        written = _written(event, arguments)
        if written and written not in points:
            unannounced.append(f"{event} {written}")
        if event == "os.rename":
            point(f"rename {arguments[1]}")

    sys.addaudithook(watch)
    bed.run(params, point)
    return {"points": points, "unannounced": unannounced}


_ASKS = {"--dry-run", "is-enabled", "is-active", "show", "cat", "list-unit-files", "status"}
_OWN = ("/dev/null", "/var/lib/ai-workstation", "/var/lib/ai-workstation/lock")
_SUFFIX = ".ai-workstation"


def _written(event: str, arguments: tuple[Any, ...]) -> str:
    """What an audit event (PEP 578) is about to write, as the door would announce it; empty: nothing of the kind."""
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return _announced(str(arguments[0]))
    if event == "os.rename":
        return str(arguments[1])
    if event in ("os.remove", "os.mkdir", "os.rmdir") and not str(arguments[0]).endswith(_SUFFIX):
        return _announced(str(arguments[0]))
    if event == "subprocess.Popen" and not _ASKS & set(map(str, arguments[1])):
        program, *words = map(str, arguments[1])
        return " ".join([os.path.basename(program), *words])
    return ""


def _announced(path: str) -> str:
    """The door's temporary file stands for the file it becomes."""
    folder, name = os.path.split(path)
    if path in _OWN:
        return ""
    return os.path.join(folder, name[1 : -len(_SUFFIX)]) if name.startswith(".") and name.endswith(_SUFFIX) else path


class Sweep:
    """All kill points of one case."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.failures: list[str] = []
        self.killed = 0
        there = undisturbed(lambda: traced(bed, bed.there))
        entries = undisturbed(bed.entries)
        self.places = [[key, entry["kind"], entry["address"]] for key, entry in entries.items()]
        self.originals = {key: entry["original"] for key, entry in entries.items()}
        # What the kernel moves along is not asked for: it may come out otherwise the next time.
        named = {key for key, entry in entries.items() if not entry["touched_by"]}
        self.wanted = {key: value for key, value in self.values().items() if key in named}
        back = undisturbed(lambda: traced(bed, bed.back))
        self.compare("a run and the way back", self.originals)
        self.points = {"there": there["points"], "back": back["points"]}
        self.unannounced = there["unannounced"] + back["unannounced"]

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = undisturbed(lambda: self.bed.values(self.places))
        return found

    def run(self) -> None:
        for direction, points in self.points.items():
            for number, name in enumerate(points, 1):
                self.kill(direction, number, f"way {direction}, killed before {name} ({number} of {len(points)})")
                if self.failures:
                    return

    def kill(self, direction: str, number: int, what: str) -> None:
        bed = self.bed
        if direction == "back":
            undisturbed(lambda: bed.run(bed.there))
        code, answer = in_child(lambda: traced(bed, bed.there if direction == "there" else bed.back, number))
        if code == -signal.SIGKILL:
            self.killed += 1
        elif code or len(answer.get("got", {}).get("points", [])) >= number or "error" in answer:
            # A run that ends before it comes to this point had less to write than the traced one: no point to try.
            self.failures.append(f"{what}: was not killed: {code} {answer}")
        _code, answer = in_child(bed.entries)
        if "error" in answer:
            self.failures.append(f"{what}: {answer['error']}")
        if direction == "there":
            self.converge(what, bed.there, self.wanted)
        self.converge(what, bed.back, self.originals)
        left = undisturbed(bed.entries).keys() & self.originals.keys()
        if left:
            self.failures.append(f"{what}: the ledger still has {sorted(left)}")

    def converge(self, what: str, params: dict[str, Any], values: dict[str, Any]) -> None:
        code, answer = in_child(lambda: self.bed.run(params))
        if code or "error" in answer:
            self.failures.append(f"{what}: the next run: {code} {answer}")
            return
        self.compare(what, values)
        second = undisturbed(lambda: self.bed.run(params))
        if second["changed"]:
            self.failures.append(f"{what}: the run after it changed {second['changes']} {second['actions']}")

    def compare(self, what: str, wanted: dict[str, Any]) -> None:
        live = self.values()
        self.failures += [
            f"{what}: {key} is {live[key]!r}, should be {value!r}"
            for key, value in wanted.items()
            if key in live and live[key] != value
        ]

    def outcome(self) -> dict[str, Any]:
        there, back = (len(self.points[direction]) for direction in ("there", "back"))
        return {
            "case": self.bed.name,
            "keys": len(self.places),
            "points_there": there,
            "points_back": back,
            "kill_points": self.killed,
            "unannounced": self.unannounced,
            "unrecovered": self.failures,
        }


def main(tree: str, cases: str) -> int:
    sys.dont_write_bytecode = True
    sys.path.insert(0, tree)
    pynvml = Path(tree, "pynvml.py")
    packed = part("doors.nvml_binding").pack(pynvml.read_bytes()) if pynvml.exists() else ""
    failed = False
    for name, params in json.loads(Path(cases).read_text(encoding="utf-8")).items():
        part(f"subjects.{name}")  # what a child then need not load
        sweep = Sweep(Bed(name, params, packed))
        sweep.run()
        print(json.dumps(sweep.outcome()), flush=True)  # noqa: T201 its result
        failed |= bool(sweep.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
