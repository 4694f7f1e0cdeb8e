# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several subjects in one call: planned together, written one after the other."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    irq_affinity,
    kernel_settings,
    managed_files,
)
from fake_kernel import FakeKernel, refuse

SWAP = "/proc/sys/vm/swappiness"
DROP_IN = "/etc/systemd/journald.conf.d/50-ai.conf"
SYSCTL = (kernel_settings, {"owner": "role", "sysctl": {"vm.swappiness": 10}, "persist": False})
FILES = (managed_files, {"owner": "role", "files": [{"path": DROP_IN, "content": "[Journal]\n"}]})


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put(SWAP, "60")
    return kernel


def call(kernel: FakeKernel, *parts, check: bool = False, problems=()):
    return converge_parts(parts, check, Machine(kernel), problems)


def test_all_parts_are_done_once_and_foretold(kernel: FakeKernel) -> None:
    predicted = call(kernel, SYSCTL, FILES, check=True)
    assert kernel.writes == []
    assert call(kernel, SYSCTL, FILES) == predicted
    assert (kernel.text(SWAP), kernel.exists(DROP_IN)) == ("10", True)
    assert [change["part"] for change in predicted["changes"]] == ["kernel_settings", "managed_files", "managed_files"]
    writes = len(kernel.writes)
    again = call(kernel, SYSCTL, FILES)
    assert (again["changed"], len(kernel.writes)) == (False, writes)


def test_a_mistake_in_the_last_part_ends_the_call_before_the_first_writes(kernel: FakeKernel) -> None:
    bad = (kernel_settings, {"sysctl": {"vm.swapiness": 1, "vm.x": 2}})
    worse = (managed_files, {"files": [{"path": "/root/x", "content": ""}]})
    with pytest.raises(RefusedError) as caught:
        call(kernel, FILES, bad, worse, problems=["unit_state: unknown option"])
    assert kernel.writes == []
    assert [problem.partition(":")[0] for problem in caught.value.details["refusals"]] == [
        "unit_state", "kernel_settings", "kernel_settings", "managed_files"]  # fmt: skip
    assert "\n" not in str(caught.value)


def test_a_part_that_fails_is_taken_back_and_the_parts_before_it_are_named(kernel: FakeKernel) -> None:
    kernel.rules[SWAP] = refuse(errno.EPERM)
    with pytest.raises(
        ApplyError, match=r"^kernel_settings: .*nothing of this call remains; parts changed before: managed_files"
    ):
        call(kernel, FILES, SYSCTL)
    assert (kernel.text(SWAP), kernel.exists(DROP_IN)) == ("60", True)


def test_expect_is_compared_for_every_part_before_any_writes(kernel: FakeKernel) -> None:
    plan = call(kernel, FILES, SYSCTL, check=True)
    kernel.put(SWAP, "50")
    parts = [(subject, {**params, "expect": plan["expect"][subject.NAME]}) for subject, params in (FILES, SYSCTL)]
    with pytest.raises(RefusedError, match="kernel_settings: .*not what was planned"):
        call(kernel, *parts)
    assert not kernel.exists(DROP_IN)
    kernel.put(SWAP, "60")
    assert call(kernel, *parts)["changes"] == plan["changes"]


def test_interrupts_are_planned_on_the_cpus_that_the_plan_leaves(kernel: FakeKernel, monkeypatch) -> None:
    seen = []

    class Cpus:
        NAME = "cpu_governor"
        parse = staticmethod(lambda params: None)
        look = staticmethod(lambda machine, desired: None)

        @staticmethod
        def decide(desired: object, snapshot: object) -> kernel_settings.Draft:
            draft = kernel_settings.Draft()
            draft.report["planned_online_cpus"] = "0-3"
            return draft

    def parse(params):
        seen.append(params.get("online_cpus"))
        return irq_affinity_parse(params)

    irq_affinity_parse = irq_affinity.parse
    monkeypatch.setattr(irq_affinity, "parse", parse)
    kernel.put("/sys/devices/system/cpu/online", "0-7")
    kernel.put("/proc/irq/default_smp_affinity", "ff")
    call(kernel, (Cpus, {}), (irq_affinity, {}), check=True)
    call(kernel, (Cpus, {}), (irq_affinity, {"online_cpus": "0-1"}), check=True)
    assert seen == ["0-3", "0-1"]
