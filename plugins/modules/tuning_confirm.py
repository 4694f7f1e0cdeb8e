#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tuning_confirm
short_description: Confirm changes that may have cost the connection
version_added: 0.1.0
description:
  - Ends the dead-man switch that M(ai_infra.workstation.workstation_state) has armed, so that what it changed stays.
    That module's action plugin calls this one by itself, over a new connection; a playbook need not.
options:
  id:
    description: The C(id) in RV(ai_infra.workstation.workstation_state#module:unconfirmed).
    type: str
    required: true
attributes:
  check_mode:
    description: Confirms nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Fails when it is too late, and says what went back.
seealso:
  - module: ai_infra.workstation.workstation_state
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Keep what the last call changed
  ai_infra.workstation.tuning_confirm:
    id: "{{ tuned.unconfirmed.id }}"
"""

RETURN = r""" # """

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.engine.plan import locked
from ..module_utils.engine.switch import confirm


def main() -> None:
    module = AnsibleModule(argument_spec={"id": {"type": "str", "required": True}}, supports_check_mode=True)

    def call(machine: Machine) -> dict[str, Any]:
        if not module.check_mode:
            with locked(machine):
                confirm(machine, module.params["id"])
        return {"changed": not module.check_mode, "warnings": []}

    leave(module, Machine(Host()), call)


if __name__ == "__main__":
    main()
