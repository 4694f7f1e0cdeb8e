# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the test suites that this machine can run, and say which it cannot and why.

    scripts/run_tests.py             all of them but the longest, two at a time
    scripts/run_tests.py unit lint   some of them

Each suite prints one line; its output is in build/logs. The last line counts. The exit status is 0 only
when something passed and nothing failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
from machine import NotRun

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai_infra.workstation"
LOGS = ROOT / "build" / "logs"
STACK_SCENARIO = "stack_full"
COLLECTION = "ansible_collections.ai_infra.workstation"
SUITE_TIMEOUT = 25 * 60  # of one command
LAB_TIMEOUT = 180 * 60  # of the whole lab: two emulated machines work for about two hours
STACK_TIMEOUT = 60 * 60  # of the whole stack, with 7 GB of images to build
NEWEST_LOCKED = 13  # the newest 3.x the lock files are tried with
FAILURE_LINES = 50  # of each failed command; all of it is in the log


@dataclass(frozen=True)
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


@dataclass(frozen=True)
class Bench:
    """Where the commands of one suite run: a virtual environment and a log."""

    log: Path
    venv: Path = ROOT / ".venv"
    failures: list[str] = field(default_factory=list)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        # Settings of the person who runs the tests must not decide whether they pass.
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {
            **mine,
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "ANSIBLE_NOCOLOR": "1",
            **extra,
        }

    def run(
        self,
        command: Sequence[str | Path],
        extra: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        timeout: int = SUITE_TIMEOUT,
    ) -> tuple[int, str]:
        """Run a command with extra environment variables; return exit status and output."""
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=self.environment(extra or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            status, output = 124, f"{error.stdout!r}\nstopped after {timeout} s"
        text = f"$ {' '.join(map(str, command))}\n{output}\n[exit status {status}]\n"
        with self.log.open("a", encoding="utf-8") as log:
            log.write(text)
        if status != 0:
            self.failures.append(text)
        return status, output

    def all_pass(self, commands: Sequence[Sequence[str | Path]], extra: Mapping[str, str] | None = None) -> Count:
        """Run every command, also after one has failed; each counts as one test."""
        failed = [str(command[0]) for command in commands if self.run(command, extra)[0] != 0]
        return Count(len(commands) - len(failed), len(failed), note=f"failed: {', '.join(failed)}" if failed else "")


# --- the suites ------------------------------------------------------------------------------------


def lint(bench: Bench) -> Count:
    packages = [
        argument
        for name in ("module_utils", "plugin_utils")
        if (ROOT / "plugins" / name).is_dir()
        for argument in ("-p", f"{COLLECTION}.plugins.{name}")
    ]
    commands: list[Sequence[str | Path]] = [
        ["ruff", "check", "."],
        ["yamllint", "--strict", "."],
        ["ansible-lint", "--strict"],
        ["mypy", *sorted(ROOT.glob("scripts/*.py"))],
    ]
    if packages:
        commands.append(["mypy", *packages])
    # ansible-lint keeps stand-ins of mocked modules there while it runs; another checkout must not clear them away.
    home = str(ROOT / ".ansible")
    return bench.all_pass(
        commands, {"ANSIBLE_HOME": home, "MYPYPATH": ".ansible/collections:tests/lab:tests/fake_nvml"}
    )


def docs(bench: Bench) -> Count:
    return bench.all_pass([["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."]])


def pytest(bench: Bench, *places: str, workers: int = 2, timeout: int = SUITE_TIMEOUT, share: str = "load") -> Count:
    """Run the tests of folders or files, on both cores. share: how the workers share them (--dist of pytest-xdist)."""
    present = [place for place in places if (ROOT / place).is_file() or any((ROOT / place).glob("**/test_*.py"))]
    if not present:
        raise NotRun(f"no tests in {' '.join(places)}")
    report = bench.log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    command = ["pytest", "-q", "-n", str(workers), "--dist", share, f"--junit-xml={report}", *present]
    status = bench.run(command, timeout=timeout)[0]
    if not report.exists():
        return Count(failed=1, note=f"pytest ended with status {status}")
    total = failed = skipped = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 our own file
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    if status != 0 and failed == 0:
        return Count(total - skipped, 1, skipped, f"pytest ended with status {status}")
    return Count(total - failed - skipped, failed, skipped)


def unit(bench: Bench) -> Count:
    return pytest(bench, "tests/unit", "tests/fake_nvml")


def integration(bench: Bench) -> Count:
    return pytest(bench, "tests/integration")


def gateway(bench: Bench) -> Count:
    return pytest(bench, "tests/gateway")


def monitoring(bench: Bench) -> Count:
    return pytest(bench, "tests/monitoring")


def images(bench: Bench) -> Count:
    # Its tests share two images and what runs of them.
    return pytest(bench, "tests/images", workers=0)


def mutations(bench: Bench) -> Count:
    return pytest(bench, "tests/mutations")


def smoke(bench: Bench) -> Count:
    """The lab in small: one profile on a whole machine in QEMU."""
    return pytest(bench, "tests/lab/test_smoke.py", workers=1)


def lab(bench: Bench) -> Count:
    """All that is proven on a whole machine. It writes build/proof.json."""
    # Two machines: most of the time one program runs in each. A file's tests add up their figures, in one worker.
    return pytest(bench, "tests/lab", timeout=LAB_TIMEOUT, share="loadfile")


def sanity(bench: Bench) -> Count:
    # ansible-test insists on a real ansible_collections/<namespace>/<name> folder, so it gets a copy.
    home = CACHE / "sanity"
    mirror = home / bench.venv.name / "ansible_collections" / "ai_infra" / "workstation"
    shutil.rmtree(mirror, ignore_errors=True)
    listing = bench.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])[1]
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (mirror / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, mirror / name, follow_symlinks=False)

    # It makes its own virtual environments with a pip that it would download from a host which need not
    # be reachable; the pip that Python carries does as well.
    pip = home / ".ansible" / "test" / "cache"
    pip.mkdir(parents=True, exist_ok=True)
    for version in ("24_2", "25_2"):
        (pip / f"get_pip_{version}.py").write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")

    status, output = bench.run(["ansible-test", "sanity", "--color", "no"], {"HOME": str(home)}, cwd=mirror)
    ran = len(re.findall(r"^Running sanity test", output, re.MULTILINE))
    skipped = len(re.findall(r"^WARNING: Skipping sanity test", output, re.MULTILINE))
    if status != 0:
        bench.failures[-1:] = ["\n".join(re.findall(r"^(?:ERROR|FATAL): .*", output, re.MULTILINE))]
    if found := re.search(r"^(?:ERROR|FATAL): The (\d+) sanity test", output, re.MULTILINE):
        return Count(ran - int(found[1]), int(found[1]), skipped)
    return Count(ran, 0 if status == 0 else 1, skipped)


def molecule(bench: Bench) -> Count:
    scenarios = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    scenarios = [scenario for scenario in scenarios if scenario != STACK_SCENARIO]
    if not scenarios:
        raise NotRun("no scenarios")
    # Once, before scenarios that run side by side both start to build it.
    for kind in ("bare", "engine"):
        if bench.run([ROOT / "molecule" / "shared" / "test-host-image", kind])[0] != 0:
            return Count(failed=1, note=f"cannot build the test host image ({kind})")

    def failure(scenario: str) -> str:
        own = Bench(bench.log.with_name(f"molecule-{scenario}.log"), bench.venv, bench.failures)
        own.log.unlink(missing_ok=True)
        status, output = own.run(["molecule", "test", "--scenario-name", scenario])
        return f"{scenario}: {molecule_says(output)}" if status else ""

    with ThreadPoolExecutor(max_workers=2) as pool:
        failures = [found for found in pool.map(failure, scenarios) if found]
    return Count(len(scenarios) - len(failures), len(failures), note="; ".join(failures))


def stack_full(bench: Bench) -> Count:
    """The real llama.cpp, vLLM, Open WebUI and gateway as services, asked and hung. It writes build/stack-full.json."""
    figures = ROOT / "build" / "stack-full.json"
    figures.unlink(missing_ok=True)
    command = ["molecule", "test", "--scenario-name", STACK_SCENARIO]
    status, output = bench.run(command, timeout=STACK_TIMEOUT)
    if figures.exists():
        for line in stack_figures(json.loads(figures.read_text(encoding="utf-8"))):
            print(f"    {line}", flush=True)
    return Count(passed=1) if status == 0 else Count(failed=1, note=molecule_says(output))


def molecule_says(output: str) -> str:
    """What failed, in a line: it stands far from the end of what molecule prints."""
    return " ".join(re.findall(r"^ *ERRORS\n +(.*)", output, re.MULTILINE))[:300]


def stack_figures(found: dict[str, Any]) -> Iterator[str]:
    """What was real, and how fast: lines of what molecule/stack_full/talk.py found."""
    versions = found["versions"]
    yield (
        f"real: llama.cpp {versions['llama_cpu']}, vLLM {versions['vllm_gpu']} on CPUs, Open WebUI "
        f"{versions['open_webui']}, HAProxy {versions['gateway']}; not real: the models, tiny and random"
    )
    seconds = ", ".join(f"{name} {number:g}" for name, number in found["start_seconds"].items())
    yield f"seconds until well: {seconds}"
    for way in ("through_gateway", "through_open_webui"):
        for engine, one in found[way].items():
            yield (
                f"{way.replace('_', ' ')} to {engine}: {one['tokens']} tokens in {one['seconds']:g} s; streamed in "
                f"{one['events']} events, the first text after {one['first_token_seconds']:g} s"
            )


def newest(bench: Bench) -> Count:
    """Unit tests and sanity on the newest ansible-core, where a newer Python lies beside the main one."""
    mine = sys.version_info.minor
    newer = [python for minor, python in machine.pythons().items() if mine < minor <= NEWEST_LOCKED]
    if not newer:
        raise NotRun(f"no Python newer than 3.{mine} that the lock files cover")
    second = Bench(bench.log, ROOT / ".venv-newest", bench.failures)
    setting = {"PYTHON": str(newer[-1]), "VENV": second.venv.name}
    status, output = bench.run([ROOT / "scripts" / "setup", "dev"], setting)
    if status != 0:
        return Count(failed=1, note=output.strip().splitlines()[-1] if output.strip() else "set-up failed")
    return unit(second) + sanity(second)


def oldest(bench: Bench) -> Count:
    """The main job on the oldest ansible-core that meta/runtime.yml promises."""
    second = Bench(bench.log, ROOT / ".venv-oldest", bench.failures)
    status, output = bench.run([ROOT / "scripts" / "setup", "oldest"], {"VENV": second.venv.name})
    if status != 0:
        return Count(failed=1, note=output.strip().splitlines()[-1] if output.strip() else "set-up failed")
    return pytest(second, "tests/integration/test_site.py")


@dataclass(frozen=True)
class Suite:
    run: Callable[[Bench], Count]
    # Keys of machine.PACKAGES, or "engine".
    needs: tuple[str, ...] = ()
    # Whether it runs only when it is named: it takes too long for every change.
    by_name: bool = False


COMPILER = ("gcc", "/usr/include/stdio.h")
VIRTUAL_MACHINES = (
    *("qemu-system-x86_64", "qemu-img", "iasl", "sfdisk", "mke2fs", "mmdebstrap", machine.KEYRING, "ssh"),
    *(*COMPILER, "make"),
)
TEST_HOSTS = ("dockerd", "docker", "iptables", "mmdebstrap", machine.KEYRING, "ssh", "engine")

# Two lanes run side by side. Suites of one lane share something (caches, containers) and take turns.
LANES: tuple[dict[str, Suite], ...] = (
    {
        "lint": Suite(lint, ("git",)),
        "docs": Suite(docs),
        "unit": Suite(unit, COMPILER),
        "integration": Suite(integration, COMPILER),
        "gateway": Suite(gateway, ("haproxy", "curl", "openssl")),
        "monitoring": Suite(monitoring, ("promtool", "prometheus-node-exporter", "amtool", *COMPILER)),
        "mutations": Suite(mutations, COMPILER),
        "molecule": Suite(molecule, TEST_HOSTS),
        "images": Suite(images, ("openssl", *TEST_HOSTS)),
        "stack-full": Suite(stack_full, TEST_HOSTS, by_name=True),
        "lab": Suite(lab, VIRTUAL_MACHINES, by_name=True),
    },
    {
        "smoke": Suite(smoke, VIRTUAL_MACHINES),
        "sanity": Suite(sanity, ("git",)),
        "newest": Suite(newest, ("git", *COMPILER)),
        "oldest": Suite(oldest),
    },
)


# --- running them ----------------------------------------------------------------------------------


def report(name: str, count: Count | None, seconds: float, note: str) -> None:
    if count is None:
        line = f"{name:<12} not run: {note}"
    else:
        verdict = "FAILED" if count.failed else "ok"
        parts = [f"{count.passed} passed", f"{count.failed} failed", f"{count.skipped} skipped"]
        line = f"{name:<12} {verdict:<7} {', '.join(parts):<36} {seconds:7.1f} s"
        line += f"  ({note})" if note else ""
    print(line, flush=True)


def run_suite(name: str, suite: Suite, missing: dict[str, str]) -> Count:
    bench = Bench(LOGS / f"{name}.log")
    bench.log.unlink(missing_ok=True)
    started = time.monotonic()
    reasons = [missing[need] for need in suite.needs if need in missing]
    try:
        if reasons:
            raise NotRun(reasons[0])  # noqa: TRY301 one place reports why a suite did not run
        count = suite.run(bench)
    except NotRun as reason:
        report(name, None, 0, str(reason))
        return Count(skipped=1)
    except Exception as error:  # noqa: BLE001 a broken suite is a failed one, the others go on
        count = Count(failed=1, note=f"{type(error).__name__}: {error}")
    report(name, count, time.monotonic() - started, count.note)
    for text in bench.failures if count.failed else ():
        print("\n".join(f"    {line}" for line in text.splitlines()[-FAILURE_LINES:]), flush=True)
    return count


def untouched(before: dict[str, str]) -> Count:
    """The promise that the tests leave the machine as it was, checked."""
    changed = machine.differences(before, machine.settings())
    note = f"changed: {'; '.join(changed)}" if changed else ""
    count = Count(failed=1, note=note) if changed else Count(passed=1)
    report("untouched", count, 0, note)
    return count


def main(wanted: Sequence[str]) -> int:
    known = [name for lane in LANES for name in lane]
    if unknown := [name for name in wanted if name not in known]:
        print(f"unknown suite {unknown[0]!r}: {', '.join(known)}", file=sys.stderr)
        return 2
    lanes = [
        {name: suite for name, suite in lane.items() if name in wanted or not (wanted or suite.by_name)}
        for lane in LANES
    ]
    LOGS.mkdir(parents=True, exist_ok=True)
    machine.link_pythons(ROOT / "build" / "pythons")

    needs = dict.fromkeys(need for lane in lanes for suite in lane.values() for need in suite.needs)
    missing = machine.install([need for need in needs if need != "engine"])
    engine = machine.Engine(CACHE / "docker", LOGS / "dockerd.log")
    if "engine" in needs and not missing.keys() & set(TEST_HOSTS):
        try:
            engine.start()
        except NotRun as reason:
            missing["engine"] = str(reason)

    before = machine.settings()
    try:
        with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
            counts = pool.map(lambda lane: [run_suite(name, suite, missing) for name, suite in lane.items()], lanes)
            total = sum((count for lane in counts for count in lane), start=Count())
    finally:
        engine.stop()
    ran = total.passed + total.failed
    total += untouched(before)
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 0 if ran and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
