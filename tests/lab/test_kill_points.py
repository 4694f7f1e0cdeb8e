# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kill -9 at every point where a module writes: readable ledger, convergence, an exact way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
import state
from cases import CASES
from plays import ROOT, Controller
from vm import Vm

HERE = Path(__file__).resolve().parent
TREE = "/opt/sweep"
SWEEP_LIMIT = 1500  # seconds; update-grub takes long on emulated processors
# A module that is killed in Ansible's hands: after the ledger was put in place, before the next write.
KILLER = "/opt/killer"


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_any_point_loses_nothing(vm: Vm, proof: Callable[..., dict[str, Any]], case: str) -> None:
    vm.push(ROOT / "plugins" / "module_utils", f"{TREE}/module_utils")
    vm.push(Path(pynvml.__file__), TREE)
    vm.push(HERE / "guest_sweep.py", TREE)
    vm.ssh(f"cat > {TREE}/cases.json", json.dumps({case: CASES[case]}))
    vm.ssh("systemctl stop irqbalance")  # it would place the interrupts anew whenever they are given back
    before = state.look(vm)
    done = vm.try_ssh(f"python3 {TREE}/guest_sweep.py {TREE} {TREE}/cases.json", timeout=SWEEP_LIMIT)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    tried, failures = {case: outcome["kill_points"]}, {case: len(outcome["unrecovered"])}
    all_of_them = proof(kill_points_by_module=tried, kill_points_unrecovered_by_module=failures)
    proof(
        kill_points=sum(all_of_them["kill_points_by_module"].values()),
        kill_points_unrecovered=sum(all_of_them["kill_points_unrecovered_by_module"].values()),
    )
    print(f"{case}: killed at {outcome['kill_points']} points")  # noqa: T201 a figure
    assert outcome["unrecovered"] == []
    # Far more than the journal alone was written, in both directions.
    assert min(outcome["points_there"], outcome["points_back"]) >= 6
    assert outcome["unannounced"] == []
    assert outcome["kill_points"] >= outcome["points_there"] + outcome["points_back"] - 2
    assert state.differences(before, state.look(vm)) == {}


@pytest.mark.parametrize("case", CASES)
def test_a_module_that_is_killed_in_the_hands_of_ansible(vm: Vm, controller: Controller, case: str) -> None:
    vm.push(HERE / "killer", KILLER)
    vm.ssh(f"chmod 755 {KILLER}/python3")
    vm.ssh("systemctl stop irqbalance")
    before = state.look(vm)
    controller.variables["ansible_python_interpreter"] = f"{KILLER}/python3"
    killed = controller.module(case, CASES[case])
    del controller.variables["ansible_python_interpreter"]
    assert killed["failed"], killed
    assert vm.ssh(f"cat {KILLER}/killed").strip(), "nothing was killed"
    again = controller.module(case, CASES[case])
    assert not again["failed"], again
    second = controller.module(case, CASES[case])
    assert (second["failed"], second["changed"]) == (False, False), second
    nothing = {"require_gpu": False} if case == "nvidia_gpu_state" else {}
    back = controller.module(case, nothing)
    assert not back["failed"], back
    assert state.differences(before, state.look(vm)) == {}
