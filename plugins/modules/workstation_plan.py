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
  - Checks facts and inventory against all conflict rules (C(docs/rules.md)), before anything is changed. Misspelt
    variables, wishes that contradict each other and settings that this machine must not get are errors, all of them
    in one report; they end the play for this machine only.
  - The variable C(workstation_plan_accept) names rules whose errors become warnings.
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
      description:
        - The profile's name, the parameters for the modules, by role, and the conflicts as C(findings).
        - C(os_tuning.services_running) has the active services, and C(os_tuning.services_not_needed) those among them
          that could be listed in C(os_tuning_services_disabled).
      type: dict
skipped_keys:
  description: What the profile wants and this machine cannot have, each with the reason.
  returned: success
  type: list
  elements: dict
conflicts:
  description: What the conflict rules found, errors first. Also returned when the plan fails because of them.
  returned: always, unless the facts are missing
  type: list
  elements: dict
  contains:
    rule:
      description: Name of the rule.
      type: str
    severity:
      description: One of V(error), V(warning) and V(note).
      type: str
    what:
      description: What is in conflict.
      type: str
    why:
      description: What would come of it.
      type: str
    variables:
      description: The inventory variables it comes from.
      type: list
      elements: str
    fix:
      description: What to do.
      type: str
    accepted:
      description: Whether the inventory accepts it.
      type: bool
  sample:
    - rule: driver_mismatch
      severity: error
      what: the driver's library does not match the loaded kernel module
      why: "the driver was upgraded without a reboot: every call to it fails, in services too"
      variables: []
      fix: reboot, or unload and load the nvidia modules while nothing uses them
      accepted: false
"""
