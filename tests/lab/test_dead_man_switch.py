# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interrupts of the network card move, and the network is gone: the machine takes it back by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from plays import Controller
from vm import Vm

CARD = "virtio_net"
WANTED = {
    "os_tuning_interrupts": [{"driver": CARD, "cpus": "1"}],
    "os_tuning_irqbalance": {"banned_modules": [CARD]},
    "os_tuning_confirm_seconds": 30,
}
MASKS = f"""\
for irq in $(ls $(readlink -f /sys/bus/virtio/drivers/{CARD}/virtio*)/../msi_irqs); do
    echo $irq $(cat /proc/irq/$irq/smp_affinity_list)
done"""
ARMED = "/var/lib/ai-workstation/unconfirmed.json"
RESTORED = "/var/lib/ai-workstation/restored.json"
# The machine cannot be asked while its network is gone: it says on its console when it is back.
SAYS_SO = (
    f"systemd-run --quiet --unit lab-says-so --path-property=PathExists={RESTORED} "
    "sh -c 'echo the switch has gone back >/dev/ttyS0'"
)


def cpus(vm: Vm) -> set[str]:
    return {line.partition(" ")[2] for line in vm.ssh(MASKS).splitlines()}


def await_console(vm: Vm, words: str, limit: float = 600) -> None:
    deadline = time.monotonic() + limit
    while words not in vm.console(100):
        assert time.monotonic() < deadline, f"the console does not say {words!r}: {vm.console()}"
        time.sleep(0.5)


def test_a_network_that_is_gone_brings_the_interrupts_back(
    vm: Vm, controller: Controller, proof: Callable[..., None]
) -> None:
    # The program that takes back is there, from a run that changed no interrupt.
    controller.play("site.yml", {"os_tuning_sysctl": {"vm.swappiness": 33}}).ok()
    vm.ssh("systemctl stop irqbalance")  # it would move them as well
    before = vm.ssh(MASKS)
    assert before
    assert cpus(vm) != {"1"}
    vm.ssh(SAYS_SO)
    running = controller.start("site.yml", {**WANTED, "os_tuning_sysctl": {"vm.swappiness": 33}})
    vm.await_true(f"test -e {ARMED}", limit=600, pause=0.05)
    vm.plug_network(False)
    lost = running.wait()
    assert lost.code != 0
    await_console(vm, "the switch has gone back")
    vm.plug_network(True)
    vm.wait_for_ssh()

    assert vm.ssh(MASKS) == before
    assert vm.ssh(f"test -e {ARMED} || echo gone") == "gone\n"
    journal = vm.ssh("journalctl --output cat --unit ai-workstation-unconfirmed.service")
    assert "nobody confirmed the call" in journal
    assert "an interrupt of the network interface" in journal
    # The values of earlier calls stay.
    assert vm.ssh("sysctl -n vm.swappiness") == "33\n"

    # With a network that stays the same wish is confirmed, and nothing waits any more.
    kept = controller.play("site.yml", {**WANTED, "os_tuning_confirm_seconds": 300}).ok()
    assert any("nobody confirmed the call" in warning for warning in kept.warnings)
    assert cpus(vm) == {"1"}
    assert vm.ssh(f"test -e {ARMED} || echo gone") == "gone\n"
    proof(network_cuts_survived=1)
