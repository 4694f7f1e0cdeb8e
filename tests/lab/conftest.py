# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the lab: a clean machine for each test, Ansible for it, and the record of figures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import proof as proof_file
import pytest
from plays import Controller
from vm import Vm

FAILURES = Path(__file__).resolve().parents[2] / "build" / "logs" / "lab-failures.log"
_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "iasl", "sfdisk", "mke2fs", "ssh", "gcc", "make")


def why_not() -> str:
    """Why there is no lab here; empty when there is one."""
    if os.geteuid() != 0:
        return "no lab here: only root can unpack a system's packages"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"no lab here: {', '.join(missing)} not installed (make lab installs what it needs)" if missing else ""


@pytest.fixture(scope="session")
def machine() -> Iterator[Vm]:
    """The one machine of this process. Tests use `vm`."""
    if reason := why_not():
        pytest.skip(reason)
    with Vm() as started:
        started.save()
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    vm = getattr(item, "funcargs", {}).get("vm")
    if report.when == "call" and report.failed and isinstance(vm, Vm):
        report.sections.append(("console", vm.console(30)))
    if report.failed:
        # All of it takes an hour or two: who waits can read what has failed so far.
        FAILURES.parent.mkdir(parents=True, exist_ok=True)
        with FAILURES.open("a", encoding="utf-8") as log:
            log.write(f"{report.nodeid} ({report.when})\n{report.longreprtext}\n\n")
    return report


@pytest.fixture
def vm(machine: Vm) -> Vm:
    """The machine, booted and clean, whatever the test before did to it."""
    machine.restore()
    return machine


@pytest.fixture
def controller(vm: Vm, tmp_path: Path) -> Controller:
    """Runs playbooks and modules against the machine."""
    return Controller(vm, tmp_path / "controller")


@pytest.fixture
def proof() -> Callable[..., dict[str, Any]]:
    """proof(power_cuts_survived=6) puts a figure into build/proof.json."""
    return proof_file.record
