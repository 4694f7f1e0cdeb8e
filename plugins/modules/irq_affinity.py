#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: irq_affinity
short_description: Place interrupts on CPUs by the device they belong to, as one set
version_added: 0.1.0
description:
  - Places interrupts on CPUs. Interrupts are found by PCI address, driver, network interface or name, never by number,
    because numbers change with every boot and every load of a driver.
  - Interrupts that the kernel alone places (managed ones, like NVMe queues) are recognised before the write, from
    C(/sys/kernel/debug/irq) where it can be read, else from what is known of their drivers, and skipped with the
    reason. One that the kernel refuses at the write all the same is skipped and remembered until the next boot.
  - Keeps irqbalance away from what is placed, by a systemd drop-in and an environment file of our own. irqbalance is
    restarted with them before the first interrupt is placed.
  - The values are gone at the next boot and when a driver is loaded again; call the module again then. The default
    of new interrupts and what irqbalance leaves alone are set by O(default_cpus) and O(irqbalance).
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  rules:
    description:
      - Which interrupts go where. Of O(rules[].pci), O(rules[].driver), O(rules[].interface) and O(rules[].name) all
        that are given must hold, and one is needed.
      - The CPUs are O(rules[].cpus) (or all online CPUs), of these the ones near the device with
        O(rules[].node_local), without O(rules[].exclude). One of the three is needed.
      - Two rules that match one interrupt and give it different CPUs are an error that names both.
      - A rule that matches no interrupt is an error with the nearest names.
    type: list
    elements: dict
    default: []
    suboptions:
      pci:
        description: PCI address of the device, like V(0000:01:00.0).
        type: str
      driver:
        description: Driver of the device, like V(nvidia), V(nvme), V(virtio_net).
        type: str
      interface:
        description: Network interface of the device, like V(enp5s0).
        type: str
      name:
        description: Pattern of the name that the driver gave to the interrupt (last column of C(/proc/interrupts)).
        type: str
      cpus:
        description: CPU list, like V(0-3,8). All of them must be online.
        type: str
      node_local:
        description:
          - Only CPUs of the device's NUMA node. Where the machine does not know the node, every online CPU counts as
            local, and RV(interrupts[].note) says so.
        type: bool
        default: false
      exclude:
        description: CPU list to leave out, for "everything but".
        type: str
      spread:
        description: Gives each interrupt one CPU of the set in turn, instead of the whole set to each.
        type: bool
        default: false
      optional:
        description: Whether the rule may match nothing, or name CPUs that are not online. It is skipped then.
        type: bool
        default: false
  default_cpus:
    description: CPUs of interrupts that are requested from now on (C(/proc/irq/default_smp_affinity)).
    type: str
  online_cpus:
    description:
      - The CPUs that are online once the whole plan is applied, for a plan that switches CPUs off in the same run.
        Without it those that are online now.
    type: str
  irqbalance:
    description:
      - What irqbalance leaves alone. What its own files ban already stays banned.
      - Skipped with the reason where irqbalance is not installed.
    type: dict
    suboptions:
      banned_cpus:
        description: CPU list that irqbalance gives no interrupts to. Needs irqbalance 1.9 or later.
        type: str
      banned_modules:
        description: PCI drivers whose interrupts irqbalance does not move.
        type: list
        elements: str
        default: []
      stopped:
        description: Another task of the same plan stops irqbalance, so that nothing has to be banned.
        type: bool
        default: false
notes:
  - While irqbalance is active, placing interrupts of a driver that it does not ban is refused; it would move them again
    within ten seconds.
  - In O(optional) a rule is named by one of its values, the others are V(default_cpus) and V(irqbalance).
  - Refused in one line are a CPU list that is none, CPUs that do not exist or are offline, a pattern that matches no
    interrupt, a set that leaves no CPU. In a container C(/proc/irq) is read-only, and the error or the skip says so.
seealso:
  - module: ai_infra.workstation.cpu_governor
  - module: ai_infra.workstation.unit_state
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: GPU interrupts on housekeeping CPUs near the card, the network card spread over four CPUs
  ai_infra.workstation.irq_affinity:
    rules:
      - {driver: nvidia, cpus: 0-3, node_local: true}
      - {interface: enp5s0, cpus: 0-3, spread: true}
    irqbalance:
      banned_cpus: 4-15
      banned_modules: [nvidia, igc]

- name: Everything of one device away from the CPUs that serve a model
  ai_infra.workstation.irq_affinity:
    rules:
      - {pci: '0000:01:00.0', exclude: 4-15}
    irqbalance:
      stopped: true
"""

RETURN = r"""
interrupts:
  description: The interrupts that a rule matches, as they are after the call (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: Identity of the interrupt, which stays over reboots.
      type: str
      sample: irq:0000:01:00.0/nvidia
    irq:
      description: Its number in this boot.
      type: int
    names:
      description: Names that its drivers gave to it.
      type: list
      elements: str
    pci:
      description: PCI address of its device.
      type: str
    node:
      description: NUMA node of its device, -1 where that is not known.
      type: int
    cpus:
      description: The CPUs it may be delivered to (C(smp_affinity_list)).
      type: str
    effective_cpus:
      description: The CPUs it is delivered to (C(effective_affinity_list)). In check mode those of now.
      type: str
    note:
      description: What there is to know about its CPUs.
      type: str
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The interrupt or file, with its family in front.
      type: str
      sample: irq:0000:01:00.0/nvidia
    before:
      description: The value found. For a file its hash and mode; the text is in the diff.
      type: raw
    after:
      description: The value read back from the kernel.
      type: raw
    scope:
      description: V(runtime), V(persistent) or V(boot).
      type: str
    reboot_required:
      description: Whether the change acts only after a reboot.
      type: bool
    reason:
      description: Why, where there is more to say than that it was asked for.
      type: str
skipped_keys:
  description: Keys that were left out, each with the reason; managed interrupts among them.
  returned: success
  type: list
  elements: dict
reboot_required:
  description: Whether a reboot is needed.
  returned: success
  type: bool
reboot_reasons:
  description: Why.
  returned: success
  type: list
  elements: str
actions:
  description: Commands that ran after the change.
  returned: success
  type: list
  elements: str
expect:
  description: Fingerprint of the changes (keys, values found, new values), for O(expect) of a later call.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import irq_affinity


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["irq_affinity"]}, supports_check_mode=True)
    run(module, irq_affinity)


if __name__ == "__main__":
    main()
