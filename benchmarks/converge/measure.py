"""Runs the sides, each on its own test host, and turns what was counted into rows."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine

from .bed import HERE, ROOT, WORK, Bed, BedError, engine, image, smi, source

SIDES = {
    "conventional": HERE / "conventional.yml",
    "careful": HERE / "careful.yml",
    "roles": ROOT / "site.yml",
}
RERUNS = 3  # in turns; the fastest of each side counts, as what else the machine does can only add

# Which part of the work a task belongs to: tags of the conventional playbooks, modules of the roles.
_PARTS = {
    "gather_facts": "facts",
    "workstation_facts": "facts",
    "workstation_plan": "plan, on the controller",
    "validate_argument_spec": "plan, on the controller",
    "firmware_report": "firmware audit",
    "sysctl": "sysctl and /sys",
    "sysfs": "sysctl and /sys",
    "kernel_settings": "sysctl and /sys",
    "hugepages": "huge pages",
    "cpu_governor": "governor",
    "irq_affinity": "interrupts",
    "block_device_settings": "disks",
    "managed_files": "files and units",
    "unit_state": "files and units",
    "units": "files and units",
    "kernel_command_line": "kernel command line",
    "workstation_state": "all of os_tuning",
    "nvidia_gpu_state": "gpu",
}


@dataclass
class Run:
    """One run of one playbook. Seconds; `parts` maps a part of the work to its remote calls and seconds."""

    wall: float
    controller_cpu: float
    target_cpu: float
    tasks: int = 0
    calls: int = 0
    commands: int = 0
    transfers: int = 0
    changed: int = 0
    parts: dict[str, list[float]] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        return self.controller_cpu + self.target_cpu

    def seconds(self, part: str) -> float:
        return self.parts.get(part, [0, 0.0])[1]

    def without(self, part: str) -> float:
        return self.wall - self.seconds(part)


def rows() -> list[dict[str, Any]]:
    """What converging costs: first run and converged rerun of each side."""
    program, docker, load = smi(), engine(), os.getloadavg()[0]
    before = machine.settings()
    try:
        collections = [sys.executable, str(ROOT / "scripts" / "other_collections.py"), "ansible.posix"]
        subprocess.run(collections, check=True, capture_output=True)
        common = source(), image(), program
        with ExitStack() as stack:
            # The path of an ssh control socket has to be short.
            sockets = stack.enter_context(TemporaryDirectory(prefix="bench"))
            beds = {side: stack.enter_context(Bed(side, *common)) for side in SIDES}
            first, again = _measure(beds, sockets)
    finally:
        docker.stop()
    if changed := machine.differences(before, machine.settings()):
        raise BedError(f"this machine was changed: {'; '.join(changed)}")
    return _rows(first, again, load)


def _measure(beds: dict[str, Bed], sockets: str) -> tuple[dict[str, Run], dict[str, list[Run]]]:
    first: dict[str, Run] = {}
    again: dict[str, list[Run]] = {side: [] for side in beds}
    results = {}
    for side, bed in beds.items():
        first[side] = _run(side, bed, sockets)
        results[side] = bed.settle()
    _same(results)
    for _round in range(RERUNS):
        for side, bed in beds.items():
            run = _run(side, bed, sockets)
            if run.changed:
                raise BedError(f"{side}: the second run changes {run.changed} tasks, see {bed.folder}/playbook.log")
            bed.settle()
            again[side].append(run)
    return first, again


def _same(results: dict[str, dict[str, str]]) -> None:
    """Raise unless every side has brought every value to the same state."""
    expected = results["conventional"]
    for side, values in results.items():
        different = [
            f"{path}: {expected.get(path)} with conventional, {values.get(path)} with {side}"
            for path in sorted(expected.keys() | values.keys())
            if expected.get(path) != values.get(path)
        ]
        if different:
            raise BedError(f"the sides do not set the same: {'; '.join(different)}")


def _run(side: str, bed: Bed, sockets: str) -> Run:
    inventory = bed.folder / "inventory"
    if not inventory.exists():
        shutil.copytree(HERE / "inventory", inventory)
        host = {"ansible_host": bed.address, "ansible_ssh_private_key_file": str(WORK / "id_ed25519")}
        hosts = {"workstations": {"hosts": {"ws5090": host}}}
        (inventory / "hosts.json").write_text(json.dumps(hosts), encoding="utf-8")
    calls, log = bed.folder / "calls.jsonl", bed.folder / "playbook.log"
    calls.unlink(missing_ok=True)
    environment = _environment(sockets) | {"BENCH_CALLS": str(calls)}
    hosts_file = inventory / "hosts.json"
    # The connection is open before the clock runs.
    warm = ["ansible", "ws5090", "-i", str(hosts_file), "-m", "ansible.builtin.raw", "-a", "true"]
    opened = subprocess.run(warm, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if opened.returncode:
        raise BedError(f"{bed.name} cannot be reached: {opened.stdout.strip() or opened.stderr.strip()}")
    bed.quiet()
    target, children = bed.cpu_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with log.open("wb") as stream:
        done = subprocess.run(
            ["ansible-playbook", "-i", hosts_file, SIDES[side]],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    ended, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:]
        raise BedError("\n".join([f"{side}: the playbook fails, see {log}", *tail]))
    cpu = used.ru_utime + used.ru_stime - children.ru_utime - children.ru_stime
    return _count(calls, Run(ended - started, cpu, bed.cpu_seconds() - target), started, ended)


def _environment(sockets: str) -> dict[str, str]:
    """The same for every side: the project's ansible.cfg (ssh, pipelining, forks) and the counting plugin."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return mine | {
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/.ansible/collections:{ROOT}/build/collections",
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "ai_infra.workstation.summary,calls",
        "ANSIBLE_HOST_KEY_CHECKING": "0",
        "ANSIBLE_SSH_COMMON_ARGS": "-o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
        "ANSIBLE_NOCOLOR": "1",
    }


def _count(calls: Path, run: Run, started: float, ended: float) -> Run:
    """Fill in what the plugin noted. The time of a task lasts until the next one starts."""
    part, since = "start of ansible-playbook", started
    counters: Counter[str] = Counter()
    for line in calls.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        what = event["what"]
        if what in ("task", "end"):
            run.parts.setdefault(part, [0, 0.0])[1] += event["at"] - since
            since = event["at"]
            part = _part(event) if what == "task" else "end of ansible-playbook"
        elif what == "module":
            run.parts.setdefault(part, [0, 0.0])[0] += 1
        counters[what] += 1
        if what == "end":
            run.changed = sum(host["changed"] for host in event["stats"].values())
    run.parts.setdefault(part, [0, 0.0])[1] += ended - since
    run.tasks, run.calls = counters["task"], counters["module"]
    run.commands, run.transfers = counters["command"], counters["transfer"]
    return run


def _part(event: dict[str, Any]) -> str:
    action = str(event["action"]).rpartition(".")[2]
    if "gpu_tuning" in event["task"]:
        return "gpu"
    for name in (*event["tags"], action):
        if name in _PARTS:
            return _PARTS[name]
    return next((tag for tag in event["tags"] if tag != "always"), action)


# --- rows ------------------------------------------------------------------------------------------


def _rows(first: dict[str, Run], again: dict[str, list[Run]], load: float) -> list[dict[str, Any]]:
    best = {side: min(runs, key=lambda run: run.wall) for side, runs in again.items()}
    ours, theirs, careful = best["roles"], best["conventional"], best["careful"]
    calls = max(run.calls for run in again["roles"])
    shares = ", ".join(f"{part} {count:.0f}" for part, (count, _seconds) in ours.parts.items() if count)
    # Other work stretches the long run more than the short one: then only the ratio of CPU times is to be trusted.
    busy = f"load of the machine before: {load:.1f} on {os.cpu_count()} CPUs"
    spread = ", ".join(f"{side} {'/'.join(f'{run.wall:.1f}' for run in runs)}" for side, runs in again.items())

    def row(name: str, value: float, unit: str, detail: str, goal: float | None = None) -> dict[str, Any]:
        better = "lower" if unit == "calls" else "higher"
        return {"name": name, "value": round(value, 2), "unit": unit, "goal": goal, "better": better, "detail": detail}

    def ratio(name: str, other: float, mine: float, detail: str, goal: float | None = None) -> dict[str, Any]:
        return row(name, other / mine, "times", f"{other:.1f} s / {mine:.1f} s{detail}", goal)

    return [
        row("converge_remote_calls", calls, "calls", f"module executions of a converged rerun: {shares}", 15),
        ratio(
            "converge_rerun_speedup",
            theirs.wall,
            ours.wall,
            f", converged rerun by the clock; all of them: {spread}; {busy}\n\n{_sides(best)}\n\n{_parts(best)}",
            8,
        ),
        ratio(
            "converge_rerun_speedup_without_gpu",
            theirs.without("gpu"),
            ours.without("gpu"),
            ", the same runs, less the time of the tasks that deal with the GPUs",
        ),
        ratio(
            "converge_rerun_speedup_careful",
            careful.wall,
            ours.wall,
            ", beside careful.yml, which looks at its files and not at the values that the kernel has",
        ),
        ratio("converge_rerun_cpu_speedup", theirs.cpu, ours.cpu, ", CPU time of controller and target together"),
        ratio(
            "converge_first_run_speedup",
            first["conventional"].wall,
            first["roles"].wall,
            f", first run by the clock\n\n{_sides(first)}",
        ),
    ]


def _sides(runs: dict[str, Run]) -> str:
    head = "side          tasks  calls  commands  files  wall s  controller CPU s  target CPU s"
    lines = [
        f"{side:<13}{run.tasks:>6}{run.calls:>7}{run.commands:>10}{run.transfers:>7}"
        f"{run.wall:>8.1f}{run.controller_cpu:>18.1f}{run.target_cpu:>14.1f}"
        for side, run in runs.items()
    ]
    return "\n".join([head, *lines])


def _parts(runs: dict[str, Run]) -> str:
    """Calls and seconds by part of the work: where the difference comes from."""
    names = list(dict.fromkeys(part for run in runs.values() for part in run.parts))
    lines = [f"{'part of the work':<26}" + "".join(f"{side + ' calls':>20}{'s':>7}" for side in runs)]
    for part in names:
        cells = [run.parts.get(part, [0, 0.0]) for run in runs.values()]
        if any(count or seconds >= 0.05 for count, seconds in cells):
            lines.append(f"{part:<26}" + "".join(f"{count:>20.0f}{seconds:>7.1f}" for count, seconds in cells))
    theirs, ours = runs["conventional"], runs["roles"]
    loops = sum(max(0.0, count - 1) for count, _seconds in theirs.parts.values())
    saved = {part: theirs.seconds(part) - ours.seconds(part) for part in ("facts", "gpu")}
    rest = theirs.wall - ours.wall - sum(saved.values())
    words = f"""
saved beside conventional: facts {saved["facts"]:.1f} s, GPUs {saved["gpu"]:.1f} s, the rest {rest:.1f} s;
{loops:.0f} of its {theirs.calls} calls are further items of a part that takes one call here
same on both sides: ssh with pipelining over an open connection, one host, the project's ansible.cfg (20 forks), no
fact cache; each side gathers its own facts once a run: setup (all of it), workstation_facts
a call is one ActionBase._execute_module; commands and files are what the connection ran and copied"""
    lines += words.splitlines()
    return "\n".join(lines)
