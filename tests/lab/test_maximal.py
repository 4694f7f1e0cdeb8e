# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that can be set goes back: over reboots, and after a run that was killed."""

from __future__ import annotations

from fnmatch import fnmatchcase

import maximal
import pytest
import state
from plays import Controller
from vm import Vm

LEDGER = "/var/lib/ai-workstation/ledger.json"


def test_an_untouched_machine_differs_by_noise_alone(vm: Vm) -> None:
    before = state.look(vm)
    vm.reboot()
    assert state.differences(before, state.look(vm)) == {}


def test_maximal_goes_back_over_two_reboots(vm: Vm, controller: Controller, proof) -> None:
    before = state.look(vm)
    applied = maximal.apply(controller)
    unexpected = [key for key in applied.skipped if not any(fnmatchcase(key, known) for known in EXPECTED_SKIPS)]
    assert unexpected == []
    assert len(applied.changes) >= LEAST_KEYS
    again = controller.play("site.yml", maximal.VARIABLES).ok()
    assert again.changed == []
    # The look itself must see what is to go back.
    assert len(state.differences(before, state.look(vm))) >= LEAST_KEYS

    vm.reboot()
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    left = state.differences(before, state.look(vm))
    proof(
        maximal_keys_applied=len(applied.changes),
        maximal_converged_seconds=round(again.seconds, 1),
        maximal_converged_remote_tasks=again.remote_tasks,
        rollback_differences_after_reboot=len(left),
    )
    assert left == {}


@pytest.mark.parametrize("moment", ["sysctl:vm.dirty_bytes", "file:/etc/default/grub.d/99-zz-ai-workstation.cfg"])
def test_a_killed_run_is_finished_by_the_next_and_goes_back(vm: Vm, controller: Controller, moment: str, proof) -> None:
    before = state.look(vm)
    running = controller.start("site.yml", maximal.VARIABLES)
    vm.await_true(f"grep -qF '\"{moment}\"' {LEDGER}", limit=900, pause=0.05)
    vm.ssh("pkill -KILL -x python3")
    assert running.wait().code != 0
    controller.play("site.yml", maximal.VARIABLES).ok()
    assert controller.play("site.yml", maximal.VARIABLES).ok().changed == []
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    left = state.differences(before, state.look(vm))
    proof(**{f"rollback_differences_after_kill_at_{moment.rpartition('/')[2].replace(':', '_')}": len(left)})
    assert left == {}


def test_three_profiles_in_a_row_go_back_over_two_reboots(vm: Vm, controller: Controller, proof) -> None:
    before = state.look(vm)
    for profile in ("conservative", "balanced", "aggressive"):
        wanted = {"workstation_profile": profile, "gpu_tuning_power_limit": "80%"}
        assert controller.play("site.yml", wanted).ok().changes
    vm.reboot()
    controller.play("playbooks/rollback.yml").ok()
    vm.reboot()
    left = state.differences(before, state.look(vm))
    proof(rollback_differences_after_three_profiles=len(left))
    assert left == {}


# What this machine cannot have, each with a reason in the result.
EXPECTED_SKIPS = (
    "gpu:*/application_clocks",  # GeForce cards have none to reset
    "gpu:*/memory_locked_clocks",  # the A100 does not let them be locked
    "unit_*:systemd-timesyncd.service",  # not installed here
)
LEAST_KEYS = 100
