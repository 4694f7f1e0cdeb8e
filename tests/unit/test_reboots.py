# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A reboot that is needed is known to every call until it happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_settings, managed_files
from fake_kernel import FakeKernel, killed, run_module

PATH = "/etc/modprobe.d/50-ai-workstation.conf"
REASON = f"file:{PATH} acts after a reboot"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def call(kernel: FakeKernel, *contents: str, check: bool = False, owner: str = "os_tuning"):
    files = [{"path": PATH, "content": content, "reboot": True} for content in contents]
    return run_module(managed_files, kernel, check, files=files, owner=owner)


def facts(kernel: FakeKernel) -> list[dict[str, str]]:
    return gather(kernel, ["kernel"])["kernel"]["pending_reboots"]


def test_a_reason_lasts_until_the_reboot(kernel: FakeKernel) -> None:
    predicted = call(kernel, "options a b=1", check=True)
    assert facts(kernel) == []
    first = call(kernel, "options a b=1")
    again = call(kernel, "options a b=1")
    assert predicted["reboot_reasons"] == first["reboot_reasons"] == again["reboot_reasons"] == [REASON]
    assert (again["changed"], again["reboot_required"]) == (False, True)
    assert facts(kernel) == [{"owner": "os_tuning", "key": f"file:{PATH}", "reason": REASON}]
    kernel.reboot()
    after = call(kernel, "options a b=1")
    assert (after["reboot_required"], after["reboot_reasons"], facts(kernel)) == (False, [], [])


def test_what_is_put_back_before_the_reboot_needs_none(kernel: FakeKernel) -> None:
    call(kernel, "options a b=1")
    kernel.reboot()
    assert call(kernel, "options a b=2")["reboot_reasons"] == [REASON]
    assert call(kernel, "options a b=3")["reboot_reasons"] == [REASON]
    predicted = call(kernel, "options a b=1", check=True)
    back = call(kernel, "options a b=1")
    assert (back["changed"], back["reboot_reasons"]) == (True, [])
    assert (predicted["reboot_reasons"], facts(kernel)) == ([], [])


def test_a_release_asks_for_the_reboot_until_it_happened(kernel: FakeKernel) -> None:
    call(kernel, "options a b=1")
    kernel.reboot()
    assert call(kernel)["reboot_reasons"] == [REASON]
    again = call(kernel)
    assert (again["changed"], again["reboot_reasons"]) == (False, [REASON])
    kernel.reboot("boot-3")
    assert call(kernel)["reboot_reasons"] == []


def test_the_reason_is_that_of_one_owner(kernel: FakeKernel) -> None:
    call(kernel, "options a b=1")
    other = run_module(managed_files, kernel, files=[], owner="gpu_tuning")
    assert other["reboot_reasons"] == []


def test_workstation_state_says_it_with_parts_that_change_nothing(kernel: FakeKernel) -> None:
    call(kernel, "options a b=1")
    wanted = {"files": [{"path": PATH, "content": "options a b=1", "reboot": True}], "owner": "os_tuning"}
    parts = [(kernel_settings, {"owner": "os_tuning"}), (managed_files, wanted)]
    for check in (True, False):
        outcome = converge_parts(parts, check, Machine(kernel))
        assert (outcome["changed"], outcome["reboot_required"]) == (False, True)
        assert outcome["reboot_reasons"] == [REASON]


def test_a_run_that_was_killed_after_its_write_is_known_to_the_next(kernel: FakeKernel) -> None:
    assert killed(kernel, lambda: call(kernel, "options a b=1"), 2, point=LEDGER)
    assert kernel.writes == [LEDGER, PATH, LEDGER]
    assert call(kernel, "options a b=1")["reboot_reasons"] == [REASON]


def test_a_damaged_ledger_does_not_break_the_facts(kernel: FakeKernel) -> None:
    kernel.put("/var/lib/ai-workstation/ledger.json", "{")
    assert facts(kernel) == []
