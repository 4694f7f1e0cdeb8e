# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check mode under a watcher: no process of a module writes anything, and its diff is the diff of the real run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import state
from cases import CASES
from plays import Controller, Play
from vm import Vm
from watcher import Watcher

HERE = Path(__file__).resolve().parent
ALL = {
    "workstation_profile": "aggressive",
    "os_tuning_sysctl": {"vm.dirty_bytes": 1 << 30, "vm.swappiness": 7},
    # What this machine of 3 GiB cannot carry, and nobody uses.
    "workstation_plan_accept": ["memory_overcommitted", "huge_pages_without_user"],
    "os_tuning_hugepages": [{"size": "2M", "count": 8, "node": 0}],
    "os_tuning_interrupts": [{"driver": "vmxnet3", "cpus": "1"}],
    "os_tuning_irqbalance": {"banned_modules": ["vmxnet3"]},
    "os_tuning_kernel_parameters": {"audit": "0"},
}


@pytest.fixture
def watcher(vm: Vm, controller: Controller) -> Watcher:
    return Watcher(vm, controller)


def foretold(play: Play) -> list[tuple[str, object, object]]:
    return [(change["key"], change["before"], change["after"]) for change in play.changes.values()]


def test_the_watcher_sees_writes(watcher: Watcher, controller: Controller) -> None:
    with watcher:
        controller.module("kernel_settings", CASES["kernel_settings"])
    seen = watcher.writes()
    assert any("/proc/sys/vm/swappiness" in write for write in seen)
    assert any("ledger.json" in write for write in seen)


@pytest.mark.parametrize("case", CASES)
def test_no_module_writes_in_check_mode(vm: Vm, controller: Controller, watcher: Watcher, case: str) -> None:
    before = state.look(vm)
    with watcher:
        fresh = controller.module(case, CASES[case], "--check", "--diff")
    assert (fresh["failed"], fresh["changed"]) == (False, True), fresh
    assert watcher.writes() == []
    assert state.differences(before, state.look(vm)) == {}
    real = controller.module(case, CASES[case], "--diff")
    assert (real["diff"], real["changes"]) == (fresh["diff"], fresh["changes"])
    with watcher:
        converged = controller.module(case, CASES[case], "--check", "--diff")
    assert not converged["changed"], converged
    assert watcher.writes() == []


def test_site_writes_nothing_in_check_mode(
    vm: Vm, controller: Controller, watcher: Watcher, proof: Callable[..., None]
) -> None:
    before = state.look(vm)
    with watcher:
        fresh = controller.play("site.yml", ALL, "--check", "--diff").ok()
    written = watcher.writes()
    assert state.differences(before, state.look(vm)) == {}
    real = controller.play("site.yml", ALL, "--diff").ok()
    said, done = foretold(fresh), foretold(real)
    mismatches = [one for one in said if one not in done] + [one for one in done if one not in said]
    with watcher:
        converged = controller.play("site.yml", ALL, "--check", "--diff").ok()
    written += watcher.writes()
    proof(check_mode_writes=len(written), check_mode_diff_mismatches=len(mismatches), check_mode_keys=len(said))
    print(f"check mode: {len(said)} keys, {len(mismatches)} came out otherwise, {len(written)} writes")  # noqa: T201
    assert written == []
    assert mismatches == []
    assert len(said) > 30
    assert converged.changes == {}
