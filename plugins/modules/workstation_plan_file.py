#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: workstation_plan_file
short_description: Write what check mode said as a plan, or read such a plan to apply it
version_added: 0.1.0
description:
  - With O(state=written), at the end of a play in check mode, writes the results of the roles os_tuning and gpu_tuning
    as one JSON file and one readable text for each machine. Each change comes with the variable that asks for it and
    where its value came from, the reason, the risk, and how to undo it. Each module call comes with its fingerprint.
  - With O(state=read), returns such a file as the fact C(workstation_plan), with the fingerprints. The roles hand
    them to the modules as O(ai_infra.workstation.kernel_settings#module:expect), which refuse anything else.
  - A file that was changed, or was made for another machine, installation or boot, is refused.
  - Runs on the controller. The same state of the machine gives the same file, byte for byte.
options:
  path:
    description:
      - The folder to write to, relative to the current directory. It is made where it is missing.
      - With O(state=read) a file, or the folder in which the file has the name of the machine.
    type: path
    required: true
  state:
    description: Whether the plan is written or read.
    type: str
    choices: [written, read]
    default: written
attributes:
  action:
    description: Runs as an action plugin.
    support: full
  check_mode:
    description: Writes the file in check mode too. It is a report on the controller and no change of a machine.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: N/A
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.workstation_plan
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Write the plan
  ai_infra.workstation.workstation_plan_file:
    path: build/plans

- name: Read the plan
  ai_infra.workstation.workstation_plan_file:
    path: build/plans/ws5090.json
    state: read
"""

RETURN = r"""
path:
  description: The JSON file.
  returned: success
  type: str
written:
  description: Whether the file on the controller was another before.
  returned: O(state=written)
  type: bool
changes_planned:
  description: How many changes the plan has.
  returned: O(state=written)
  type: int
text:
  description: The readable form.
  returned: O(state=written)
  type: str
conflicts:
  description: What the conflict rules found when the plan was made, for the report.
  returned: O(state=read)
  type: list
  elements: dict
ansible_facts:
  description: The plan for the roles.
  returned: O(state=read)
  type: dict
  contains:
    workstation_plan:
      description: As M(ai_infra.workstation.workstation_plan) makes it, with C(expect) and C(variables) beside.
      type: dict
"""
