#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tuning_verify
short_description: Compare a machine with what it should be, and name who could have moved it
version_added: 0.1.0
description:
  - Compares kernel and driver with what the modules of this collection last set, as recorded on the machine itself.
    No inventory is needed for that. C(ai-workstation verify) on the machine says the same.
  - With O(changes), takes what roles foretold in check mode instead, that is, compares with the inventory.
  - Names for each key that is not as wanted the files, with line, and the services that set the same knob. Known are
    sysctl.d and F(/etc/sysctl.conf), tmpfiles.d, udev rules, modprobe.d, the kernel command line, commands of units and
    of the scripts they start, cron, tuned with its profile, power-profiles-daemon, TLP, cpufrequtils, auto-cpufreq,
    thermald, irqbalance and nvidia-powerd.
  - Changes nothing. Drift is no failure of the task. What cannot be read back, as a lock of GPU clocks, is never called
    right.
options:
  changes:
    description: The RV(ignore:changes) of calls in check mode. Left out, the machine is compared with its own record.
    type: list
    elements: dict
  pynvml:
    description: Internal. The controller's nvidia-ml-py, set by the action plugin.
    type: str
attributes:
  action:
    description: The controller's part sends nvidia-ml-py along and prints one line for each key that is not as wanted.
    support: full
  check_mode:
    description: There is nothing to predict; it runs as ever.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.boot_unit
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Compare the machine with its record
  ai_infra.workstation.tuning_verify:
  register: outcome

- name: Fail where something has moved
  ansible.builtin.assert:
    that: outcome.status == 'as_wanted'
"""

RETURN = r"""
status:
  description: V(as_wanted), V(drift), or V(not_checked) where a part could not be compared and nothing else drifted.
  returned: success
  type: str
  sample: drift
drift:
  description: What a run would change.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The sysctl, path or file, with its family in front.
      type: str
      sample: sysctl:vm.swappiness
    wanted:
      description: The value it should have.
      type: raw
    live:
      description: The value it has.
      type: raw
    writers:
      description: Who sets the same knob, one text each.
      type: list
      elements: str
    owner:
      description: Whose key it is. With O(changes) only where these say so.
      type: str
    part:
      description: The module it belongs to.
      type: str
    scope:
      description: V(runtime), V(persistent) or V(boot).
      type: str
    reason:
      description: Why it would change, where there is more to say.
      type: str
not_verifiable:
  description: Keys without a getter, with the value that was set last.
  returned: success
  type: list
  elements: dict
not_checked:
  description: Parts that could not be compared, with the reason.
  returned: success
  type: list
  elements: dict
matching:
  description: How many keys are as recorded. Not known with O(changes).
  returned: success
  type: int
lines:
  description: The same for people.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.doors.nvml import open_present
from ..module_utils.doors.nvml_binding import carried
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.on_host import verify

# It names all the others, which travel with the call.
from ..module_utils.subjects import boot_unit  # noqa: F401 pylint: disable=unused-import

_STATUS = ("as_wanted", "drift", "not_checked")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "changes": {"type": "list", "elements": "dict"},
            # Nothing secret: it is large, and the log and the shown invocation are better without it.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    packed, changes = module.params["pynvml"], module.params["changes"]

    def compare(machine: Machine) -> dict[str, Any]:
        found = verify.against_record(machine) if changes is None else verify.of_changes(machine, changes)
        status = _STATUS[verify.status(found)]
        return {**found, "lines": verify.lines(found), "status": status, "changed": False, "warnings": []}

    host = Host()
    leave(module, Machine(host, lambda: open_present(host, packed), lambda: carried(packed)), compare)


if __name__ == "__main__":
    main()
