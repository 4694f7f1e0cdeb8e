# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dead-man switch: armed before the first write, confirmed, or everything goes back, values and ledger."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine import switch
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import PATH as RECORD
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.switch import Switch, confirm, put_back
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    irq_affinity,
    kernel_settings,
    managed_files,
    unit_state,
)
from fake_kernel import FakeKernel, killed, refuse, run_module
from linked_systemd import LinkedSystemd

SWAP = "/proc/sys/vm/swappiness"
IRQ = "/proc/irq/30/smp_affinity_list"
SYSCTL_D = "/etc/sysctl.d/99-zz-ai-workstation.conf"
UNIT = "/etc/systemd/system/ai.service"
TIMER = "systemd-run --unit=ai-workstation-unconfirmed --on-active=60 --timer-property=AccuracySec=1s --collect --quiet"


@pytest.fixture
def kernel(tmp_path: Path) -> LinkedSystemd:
    kernel = LinkedSystemd(tmp_path)
    device = "/sys/bus/pci/devices/0000:00:03.0"
    kernel.put_all({SWAP: 60, "/proc/irq/default_smp_affinity": "ff", "/sys/devices/system/cpu/online": "0-7"})
    kernel.put_all({"/sys/kernel/irq/30/actions": "eth0", IRQ: "0-7", f"{device}/msi_irqs/30": "msix"})
    os.makedirs(kernel.at(f"{device}/net/eth0"))
    kernel.put(switch.PROGRAM, "")
    kernel.unit("apt-daily.timer", "timers.target")
    return kernel


def tune(kernel: FakeKernel, seconds: int = 60, cpus: str = "0-3", check: bool = False, swap: int = 10):
    machine = Machine(kernel)
    machine.switch = Switch(seconds)
    own = {"path": UNIT, "content": "[Install]\nWantedBy=multi-user.target\n", "actions": ["daemon-reload"]}
    parts = [
        (kernel_settings, {"sysctl": {"vm.swappiness": swap}}),
        (irq_affinity, {"rules": [{"name": "eth*", "cpus": cpus}]}),
        (managed_files, {"files": [own], "units": [{"name": "ai.service", "unit_file": "enabled", "active": True}]}),
        (unit_state, {"units": [{"name": "apt-daily.timer", "unit_file": "masked", "active": False}]}),
    ]
    asked = [(subject, {**params, "owner": "os_tuning", "persist": True}) for subject, params in parts]
    return converge_parts(asked, check, machine)


def everything(kernel: LinkedSystemd) -> dict[str, object]:
    """Every file and link but what the switch says about itself, and what systemd has in mind."""
    found: dict[str, object] = {"running": sorted(kernel.running), "known": dict(kernel.known)}
    for folder, _folders, names in os.walk(kernel.root):
        for name in names:
            path = Path(folder, name)
            where = str(path)[len(kernel.root) :]
            if where not in (switch.PATH, switch.REPORT, "/var/lib/ai-workstation/lock"):
                found[where] = os.readlink(path) if path.is_symlink() else path.read_text()
    return found


def restore(kernel: FakeKernel) -> list[str]:
    return put_back(Machine(kernel))


def test_it_is_armed_before_the_first_write_and_the_time_runs_from_the_last(kernel: LinkedSystemd) -> None:
    outcome = tune(kernel)
    assert outcome["unconfirmed"]["seconds"] == 60
    assert outcome["unconfirmed"]["reasons"] == {
        "irq:0000:00:03.0/eth0": "an interrupt of the network interface eth0 moves"
    }
    timers = [line for line in kernel.acted if line.startswith("systemd-run")]
    assert timers[0] == f"{TIMER} {switch.PROGRAM} restore"
    first, last = kernel.writes.index(timers[0]), len(kernel.writes) - 1 - kernel.writes[::-1].index(timers[0])
    assert kernel.writes.index(switch.PATH) < first < kernel.writes.index(LEDGER)
    values = [number for number, path in enumerate(kernel.writes) if path in (SWAP, IRQ, UNIT)]
    assert first < min(values) < max(values) < last


def test_confirmed_it_stays_and_a_second_confirmation_is_said(kernel: LinkedSystemd) -> None:
    identity = tune(kernel)["unconfirmed"]["id"]
    with pytest.raises(RefusedError, match="nothing waits for the confirmation of-another-call"):
        confirm(Machine(kernel), "of-another-call")
    confirm(Machine(kernel), identity)
    assert not kernel.exists(switch.PATH)
    assert kernel.acted[-1].startswith("systemctl stop ai-workstation-unconfirmed.timer")
    assert restore(kernel) == ["nothing waits for a confirmation"]
    assert (kernel.text(IRQ), kernel.text(SWAP)) == ("0-3", "10")
    with pytest.raises(RefusedError, match="confirmed already"):
        confirm(Machine(kernel), identity)
    assert "unconfirmed" not in tune(kernel)


@pytest.mark.parametrize("known", [False, True])
def test_unconfirmed_it_goes_back_to_where_the_call_began(kernel: LinkedSystemd, known: bool) -> None:
    if known:
        confirm(Machine(kernel), tune(kernel, cpus="0-1", swap=30)["unconfirmed"]["id"])
    before = everything(kernel)
    identity = tune(kernel)["unconfirmed"]["id"]
    assert everything(kernel) != before
    (line,) = restore(kernel)
    assert "nobody confirmed the call of" in line
    assert "irq:0000:00:03.0/eth0 (an interrupt of the network interface eth0 moves)" in line
    assert everything(kernel) == before
    with pytest.raises(RefusedError, match="nobody confirmed the call of"):
        confirm(Machine(kernel), identity)
    assert tune(kernel, seconds=0)["warnings"] == [line]
    assert tune(kernel, seconds=0)["warnings"] == []


def test_a_boot_in_between_goes_back_as_well_and_leaves_what_the_boot_gave(kernel: LinkedSystemd) -> None:
    before = everything(kernel)
    tune(kernel)
    kernel.reboot()
    kernel.put(IRQ, "0-6")  # as this boot has it; swappiness was set by our file
    restore(kernel)
    there = everything(kernel)
    assert (there.pop(IRQ), before.pop(IRQ)) == ("0-6\n", "0-7\n")
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert {**there, boot_id: ""} == {**before, boot_id: ""}


def test_what_cannot_go_back_stays_in_the_ledger(kernel: LinkedSystemd) -> None:
    tune(kernel)
    kernel.rules[SWAP] = refuse(5)
    assert "sysctl:vm.swappiness did not go back: Input/output error" in restore(kernel)[1]
    entries = json.loads(kernel.text(LEDGER))["entries"]
    assert {key: entry["original"] for key, entry in entries.items()} == {"sysctl:vm.swappiness": "60"}


def test_a_call_without_risk_or_without_time_has_no_switch(kernel: LinkedSystemd) -> None:
    assert "unconfirmed" not in tune(kernel, seconds=0)
    machine = Machine(kernel)
    machine.switch = Switch(60)
    outcome = converge_parts([(kernel_settings, {"owner": "os_tuning", "sysctl": {}})], False, machine)
    assert "unconfirmed" not in outcome
    assert not kernel.exists(switch.PATH)


def test_without_systemd_or_the_program_it_is_refused(kernel: LinkedSystemd, monkeypatch) -> None:
    os.unlink(kernel.at(switch.PROGRAM))
    with pytest.raises(ApplyError, match=r"ai-workstation, which would take it back, is not there.*confirm_within: 0"):
        tune(kernel)
    assert kernel.text(IRQ) == "0-7"
    monkeypatch.setattr(kernel, "which", lambda name: None if name == "systemd-run" else name)
    for check in (True, False):
        with pytest.raises(RefusedError, match="needs systemd-run, and systemd does not run here"):
            tune(kernel, check=check, cpus="0-2")


def test_a_timer_that_does_not_start_ends_the_call_before_its_writes(kernel: LinkedSystemd) -> None:
    kernel.programs["systemd-run"] = lambda _kernel, _argv: Completed(1, "", "Failed to start transient timer unit")
    with pytest.raises(ApplyError, match="the switch cannot be armed: systemd-run: Failed to start transient"):
        tune(kernel)
    assert (kernel.text(IRQ), kernel.text(SWAP), kernel.exists(switch.PATH)) == ("0-7", "60", False)


def test_another_call_waits_for_the_time_and_then_takes_it_back_first(kernel: LinkedSystemd) -> None:
    tune(kernel)
    assert "was not confirmed" in tune(kernel, check=True)["warnings"][0]
    kernel.running.add("ai-workstation-unconfirmed.timer")
    with pytest.raises(
        RefusedError, match=r"waits for its confirmation and goes back by itself within 60 s; run again"
    ):
        run_module(kernel_settings, kernel, sysctl={}, owner="other")
    kernel.running.discard("ai-workstation-unconfirmed.timer")
    outcome = run_module(kernel_settings, kernel, sysctl={}, owner="other")
    assert "nobody confirmed the call of" in outcome["warnings"][0]
    assert kernel.text(SWAP) == "60"


def test_a_call_whose_time_ran_out_ends_and_does_not_go_on(kernel: LinkedSystemd) -> None:
    def out_of_time(path: str) -> None:
        if path == RECORD and kernel.exists(switch.PATH):
            os.unlink(kernel.at(switch.PATH))

    kernel.before_write = out_of_time
    with pytest.raises(ApplyError, match="the time to confirm ran out during the call"):
        tune(kernel)


def test_a_failed_call_is_confirmed_as_well(kernel: LinkedSystemd) -> None:
    kernel.rules[IRQ] = refuse(12)
    with pytest.raises(ApplyError, match="parts changed before: kernel_settings") as caught:
        tune(kernel)
    assert caught.value.details["unconfirmed"]["seconds"] == 60


def test_killed_at_every_write_of_the_call_or_of_going_back_it_goes_back(kernel: LinkedSystemd) -> None:
    before = everything(kernel)
    for step in (tune, restore):
        number, ended = 0, False
        while not ended:
            number += 1
            if step is restore:
                tune(kernel)
            ended = not killed(kernel, partial(step, kernel), number)
            restore(kernel)
            assert everything(kernel) == before, (step.__name__, number)
        assert number > 15


def test_after_a_kill_the_next_call_does_not_wait_for_the_time(kernel: LinkedSystemd) -> None:
    assert killed(kernel, lambda: tune(kernel), 12)
    kernel.running.add("ai-workstation-unconfirmed.timer")
    assert json.loads(kernel.text(switch.PATH))["complete"] is False
    outcome = tune(kernel)
    assert "nobody confirmed the call of" in outcome["warnings"][0]
    assert (kernel.text(SWAP), kernel.text(IRQ)) == ("10", "0-3")


def test_a_call_that_is_still_at_work_is_left_alone(kernel: LinkedSystemd) -> None:
    stat = f"/proc/{os.getpid()}/stat"
    kernel.put(stat, Path(stat).read_text())
    assert killed(kernel, lambda: tune(kernel), 12)
    kernel.running.add("ai-workstation-unconfirmed.timer")
    with pytest.raises(RefusedError, match="waits for its confirmation"):
        tune(kernel)
    kernel.put(stat, f"{os.getpid()} (another) S" + " 1" * 50)
    assert tune(kernel)["changed"]
