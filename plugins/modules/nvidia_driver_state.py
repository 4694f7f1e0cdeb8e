#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_state
short_description: Which NVIDIA driver is there, and what may be installed
version_added: 0.1.0
description:
  - Compares the loaded kernel module, the library that programs get and the installed packages, and says in which state
    the driver is. Nothing is changed.
  - Says what a wish needs, as packages to install, and refuses what the cards or the firmware of the machine do not
    work with. A branch that is installed is never upgraded.
  - A reboot that is needed is named with the reason, such as a library that does not match the loaded module.
options:
  source:
    description:
      - Where the driver comes from, V(distribution) or V(nvidia) for NVIDIA's repository. V(leave) only looks.
    type: str
    choices: [leave, distribution, nvidia]
    default: leave
  branch:
    description: The driver branch, such as V(580). Needed unless O(source=leave).
    type: str
    default: ""
  modules:
    description: The flavour of the kernel modules. V(auto) takes the open ones where all cards work with them.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  headless:
    description: Whether the parts for a display are left out.
    type: bool
    default: true
  change_branch:
    description: Whether another branch may be exchanged for the wanted one.
    type: bool
    default: false
  cuda_toolkit:
    description: A CUDA toolkit to check against the driver, such as V(12.8).
    type: str
    default: ""
  cudnn:
    description: A cuDNN major version to check against the CUDA toolkit.
    type: str
    default: ""
  assume_gpus:
    description: PCI ids of cards that are not in the machine yet, such as V(10de:2b85).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Not supported.
    support: none
  idempotent:
    description: Nothing is ever changed.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: debian
    support: full
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Look at the driver
  ai_infra.workstation.nvidia_driver_state:

- name: Ask what branch 580 of NVIDIA's repository needs
  ai_infra.workstation.nvidia_driver_state:
    source: nvidia
    branch: "580"
    cuda_toolkit: "12.8"
"""

RETURN = r"""
state:
  description:
    - V(no_gpu). V(absent), no driver. V(foreign), a driver of no package. V(mixed), packages of several branches.
      V(working). V(mismatch), the library does not match the loaded module. V(pending), installed and not loaded.
      V(broken), installed without a module for the running kernel.
  returned: success
  type: str
branch:
  description: The branch that is there, or that will be.
  returned: success
  type: str
open_modules:
  description: Whether the modules are the open ones, null where nobody can say.
  returned: success
  type: bool
install:
  description: Packages to install now.
  returned: success
  type: list
  elements: str
reason:
  description: Why, or why not.
  returned: success
  type: str
versions:
  description: What is there.
  returned: success
  type: dict
  contains:
    module:
      description: The loaded module.
      type: str
    library:
      description: The library.
      type: str
    packages:
      description: The packages.
      type: list
      elements: str
packages:
  description: The driver's packages.
  returned: success
  type: dict
  contains:
    installed:
      description: Version by name.
      type: dict
    held:
      description: Those that apt keeps as they are.
      type: list
      elements: str
gpus:
  description: PCI ids of the cards.
  returned: success
  type: list
  elements: str
reboot_required:
  description: Whether a reboot is needed.
  returned: success
  type: bool
reboot_reasons:
  description: Why.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.nvidia_driver.state import converge


def main() -> None:
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "choices": ["leave", "distribution", "nvidia"], "default": "leave"},
            "branch": text,
            "modules": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
            "headless": {"type": "bool", "default": True},
            "change_branch": {"type": "bool", "default": False},
            "cuda_toolkit": text,
            "cudnn": text,
            "assume_gpus": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    leave(module, Machine(Host()), lambda machine: converge(module.params, machine.host))


if __name__ == "__main__":
    main()
