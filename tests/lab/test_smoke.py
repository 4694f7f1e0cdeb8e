# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One profile on a whole machine: previewed, applied, run again, taken back."""

from __future__ import annotations

import state
from plays import Controller
from vm import Vm


def test_a_profile_is_applied_as_foretold_and_taken_back(vm: Vm, controller: Controller, proof) -> None:
    before = state.look(vm)
    wanted = {"workstation_profile": "balanced", "gpu_tuning_power_limit": "80%"}
    foretold = controller.play("site.yml", wanted, "--check", "--diff").ok()
    assert not state.differences(before, state.look(vm))

    done = controller.play("site.yml", wanted, "--diff").ok()
    assert done.changes == foretold.changes
    assert len(done.changes) > 20
    assert vm.ssh("cat /proc/sys/vm/swappiness").strip() == done.changes["sysctl:vm.swappiness"]["after"]

    again = controller.play("site.yml", wanted).ok()
    assert again.changed == []
    proof(
        converged_seconds=round(again.seconds, 1),
        converged_remote_tasks=again.remote_tasks,
        smoke_keys_applied=len(done.changes),
    )

    controller.play("playbooks/rollback.yml", wanted).ok()
    assert not state.differences(before, state.look(vm))
