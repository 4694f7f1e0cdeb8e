#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: workstation_plan
short_description: Make the plan of a machine from its facts, its profile and the inventory
version_added: 0.1.0
description:
  - Puts the values of the profile and the variables of the inventory together and returns the parameters of every
    module call of the roles os_tuning and gpu_tuning as the fact C(workstation_plan).
  - A variable that looks like one of ours and is none is an error with the nearest name.
  - Runs on the controller. Needs the facts of M(ai_infra.workstation.workstation_facts).
options: {}
attributes:
  action:
    description: Runs as an action plugin.
    support: full
  check_mode:
    description: Changes nothing, so that check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: N/A
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.workstation_facts
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Learn what the machine is
  ai_infra.workstation.workstation_facts:

- name: Plan
  ai_infra.workstation.workstation_plan:
"""

RETURN = r"""
ansible_facts:
  description: The plan.
  returned: success
  type: dict
  contains:
    workstation_plan:
      description: The profile's name and the parameters for the modules, by role.
      type: dict
"""
