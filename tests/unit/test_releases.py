# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes back: what it asks for, what the kernel does not take back, and what is gone by then."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.change import Draft
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import managed_files
from fake_kernel import FakeKernel, refuse, run_module

UNIT = "/etc/systemd/system/docker.service.d/50-ai.conf"
IRQ = "/proc/irq/30/smp_affinity_list"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put_all({"/sys/kernel/irq/30/actions": "eth0", IRQ: "0-7"})
    return kernel


class Interrupt:
    """A subject that gives one interrupt its CPUs, or says nothing."""

    NAME = "irq_affinity"
    parse = staticmethod(lambda params: params.get("cpus"))
    look = staticmethod(lambda machine, desired: (machine.host.text(IRQ), desired))

    @staticmethod
    def decide(desired: str | None, snapshot: tuple[str, str]) -> Draft:
        draft = Draft()
        if desired:
            draft.want("irq:-/eth0", "irq", "-/eth0", snapshot[0], desired)
        return draft


def irq(kernel: FakeKernel, cpus: str | None = None):
    return run_module(Interrupt, kernel, cpus=cpus)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.EPERM])
def test_an_interrupt_that_cannot_go_back_is_said_and_asked_again_after_a_reboot(kernel: FakeKernel, code: int) -> None:
    irq(kernel, "0-3")
    kernel.rules[IRQ] = refuse(code)
    assert "the kernel keeps the interrupt" in irq(kernel)["skipped_keys"][0]["reason"]
    writes = len(kernel.writes)
    again = irq(kernel)
    assert (again["changed"], len(again["skipped_keys"]), len(kernel.writes)) == (False, 1, writes)
    del kernel.rules[IRQ]
    kernel.reboot()
    irq(kernel)
    assert kernel.text(IRQ) == "0-7"


def test_an_interrupt_that_is_gone_is_forgotten_with_one_warning(kernel: FakeKernel) -> None:
    irq(kernel, "0-3")
    kernel.put("/sys/kernel/irq/30/actions", "")
    assert "is gone from this machine" in irq(kernel)["warnings"][0]
    assert irq(kernel)["warnings"] == []


def files(kernel: FakeKernel, *wanted):
    return run_module(managed_files, kernel, files=list(wanted))


def test_what_needed_a_reboot_needs_one_to_go_back(kernel: FakeKernel) -> None:
    files(kernel, {"path": UNIT, "content": "[Unit]\n", "reboot": True})
    kernel.reboot()
    outcome = files(kernel)
    assert (kernel.exists(UNIT), outcome["reboot_required"]) == (False, True)
    assert outcome["reboot_reasons"] == [f"file:{UNIT} acts after a reboot"]


def test_a_file_that_someone_changed_is_named_and_not_shown(kernel: FakeKernel) -> None:
    files(kernel, {"path": UNIT, "content": "[Unit]\n"})
    kernel.put(UNIT, "password=x")
    (warning,) = files(kernel)["warnings"]
    assert "password" not in warning
    assert "sha256:" in warning
