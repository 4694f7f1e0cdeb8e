#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firmware_report
short_description: Report what Linux can prove of the firmware settings
version_added: 0.1.0
description:
  - Judges PCIe links, Resizable BAR, Above 4G decoding, DIMM speed, C-states, SMT, virtualization, IOMMU, Secure Boot
    and core counts from what the kernel, the NVIDIA driver and the firmware tables show. Each is pass, fail or unknown,
    with the evidence and the words to look for in the firmware menus.
  - Changes nothing. No program can set these items, a person does in the firmware menus.
  - An idle link is never failed, because its speed falls while the card rests. What card and slot can never do
    together is, and so is a link that stays below its best while the card is busy, see O(sample_seconds).
  - In a virtual machine or a container every item is unknown, with the reason.
  - Run it as root, since the firmware tables with the DIMMs are not shown to other users.
options:
  ignore:
    description:
      - Items to leave out, by identifier or by the number in the table of settings (V(B01) to V(B11)).
      - The identifiers are V(pcie_link), V(pcie_bandwidth), V(resizable_bar), V(above_4g), V(memory_speed),
        V(boost_override), V(c_states), V(smt), V(virtualization), V(iommu), V(secure_boot) and V(cores).
    type: list
    elements: str
    default: []
  fail_on:
    description: Items, named as in O(ignore), that fail the task when they fail. The findings are returned even then.
    type: list
    elements: str
    default: []
  expect_pcie_generation:
    description: The generation that every NVIDIA card and its slot must reach together. The default is the card's own.
    type: int
    choices: [1, 2, 3, 4, 5, 6]
  expect_pcie_width:
    description: The lanes that every NVIDIA card must have. The default is the most that card and port can do.
    type: int
    choices: [1, 2, 4, 8, 16]
  expect_memory_mts:
    description: The speed in MT/s that every DIMM must at least run at, beside its rated one.
    type: int
  expect_cores:
    description: The number of cores that the kernel must see.
    type: int
  expect_c_states:
    description: Whether states deeper than C1 are expected. Their latency is better bound from the operating system.
    type: str
    choices: [enabled, disabled, any]
    default: enabled
  expect_smt:
    description: Whether the firmware is expected to offer SMT.
    type: str
    choices: ["on", "off", any]
    default: any
  expect_virtualization:
    description: Whether SVM or VT-x is expected.
    type: str
    choices: ["on", "off", any]
    default: any
  expect_iommu:
    description: Whether an IOMMU is expected.
    type: str
    choices: ["on", "off", any]
    default: any
  expect_secure_boot:
    description: Whether Secure Boot is expected. While it is on, the NVIDIA module must be a signed one.
    type: str
    choices: ["on", "off", any]
    default: any
  sample_seconds:
    description:
      - How long to watch the PCIe link and the load of every card, 0 to 600 seconds. The best of all looks counts.
      - This makes no load. Start it while the cards copy or compute. A link below its best fails when a card was
        at least 10 % busy meanwhile, else it stays unknown.
    type: int
    default: 0
  ticket_dir:
    description:
      - Folder on the controller, relative to the current directory, to which the findings are written as a ticket for
        the person who goes into the firmware menus, as text and as JSON under the name of the machine. None is written
        by default.
      - The ticket that lies there is compared first, and the new one says what is fixed, still wrong or new.
    type: path
  facts:
    description:
      - Facts of M(ai_infra.workstation.workstation_facts), gathered a moment ago. The findings are then made of them on
        the controller, and the machine is not asked again, unless O(sample_seconds) is given.
    type: dict
  pynvml:
    description: Set by the action plugin. The controller's C(nvidia-ml-py), so that nothing is installed on targets.
    type: str
attributes:
  action:
    description: The controller's part sends nvidia-ml-py along and writes the ticket.
    support: full
  check_mode:
    description: Runs the same in check mode, because it changes nothing. The ticket is a report, and is written too.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: none
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Names in firmware menus differ between boards and releases. The menu paths are a starting point for the search.
seealso:
  - module: ai_infra.workstation.workstation_facts
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Audit the firmware
  ai_infra.workstation.firmware_report:

- name: Insist on the link and the window of the card, and accept a board without SMT
  ai_infra.workstation.firmware_report:
    expect_pcie_generation: 5
    expect_pcie_width: 16
    fail_on: [pcie_link, resizable_bar]
    ignore: [smt]
"""

RETURN = r"""
findings:
  description: One entry for each item, and for each card where the item is about cards.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Identifier of the item, for O(ignore) and O(fail_on).
      type: str
      sample: resizable_bar
    check:
      description: Number of the item in the table of settings.
      type: str
      sample: B03
    item:
      description: The item in words.
      type: str
      sample: Resizable BAR, GPU 0000:01:00.0
    device:
      description: PCI address of the card, empty for items about the machine.
      type: str
      sample: "0000:01:00.0"
    result:
      description: V(pass), V(fail) or V(unknown).
      type: str
    evidence:
      description: What was read and from where.
      type: str
      sample: "/sys/bus/pci/devices/0000:01:00.0/resource1: 256MiB, resource1_resize: at most 32GiB"
    why:
      description: What the evidence means.
      type: str
    advice:
      description: What to do, where there is something to do.
      type: str
    menu:
      description: Where the board's maker keeps the item. Of four makers when the board is of another.
      type: list
      elements: str
      sample: ["ASUS: Advanced > PCI Subsystem Settings > Re-Size BAR Support (also a button in the top bar)"]
summary:
  description: Number of findings with each result.
  returned: always
  type: dict
  sample: {pass: 7, fail: 1, unknown: 4}
ticket:
  description: The text on the controller.
  returned: when O(ticket_dir) is given
  type: str
  sample: build/tickets/ws5090.txt
machine:
  description: The board, its firmware, and this boot of the machine.
  returned: always
  type: dict
  contains:
    board:
      description: Manufacturer and product of the board.
      type: dict
    system:
      description: Manufacturer and product of the system.
      type: dict
    bios:
      description: Vendor, version and date of the firmware.
      type: dict
    menu_vendor:
      description: Whose firmware menus the findings name, empty when the maker is another.
      type: str
    boot_id:
      description: Identity of this boot.
      type: str
    machine_id:
      description: Identity of this installation, derived for us from the machine's own.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.doors.nvml import open_nvml
from ..module_utils.errors import WorkstationError
from ..module_utils.facts.gather import gather
from ..module_utils.facts.link_samples import sample
from ..module_utils.specs import FIRMWARE
from ..module_utils.subjects import firmware_report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **FIRMWARE,
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    source = module.params.pop("pynvml")

    def watch(facts: dict[str, Any], seconds: int) -> dict[str, Any]:
        nvml = open_nvml(source)
        try:
            return sample(Host(), nvml, facts["gpus"], seconds)
        finally:
            nvml.close()

    try:
        outcome = firmware_report.run(
            module.params, lambda: gather(Host(), firmware_report.SECTIONS, lambda: open_nvml(source)), watch
        )
    except WorkstationError as error:
        module.fail_json(msg=str(error), **error.details)
    module.exit_json(changed=False, **outcome)


if __name__ == "__main__":
    main()
