#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tuning_rollback
short_description: Take back what the modules of this collection have changed
version_added: 0.1.0
description:
  - Brings every value, file, unit and link that the state modules of this collection changed back to what it was
    before them, straight from the ledger on the machine. It needs no inventory and no plan.
  - All owners go back together, in the reverse order of writing.
  - What someone else has changed since is left alone and named.
  - What cannot go back now (a busy mount, a driver that is not loaded, an interrupt that the kernel keeps) is named in
    RV(skipped_keys) with the reason and stays in the ledger for the next call. The others go back.
  - A key that goes back alone loses its line in our files as well, and the boot program leaves it alone, so that no
    reboot sets it again. The next run of a role that asks for it does.
  - When nothing of ours is left, the ledger is moved to C(/var/lib/ai-workstation/archive), where the last 20 are kept.
options:
  owners:
    description:
      - Whose keys go back, such as V(os_tuning), or V(os_tuning/irq_affinity) for one part of a role.
      - Empty means all. A key that another owner wants as well stays as it is.
    type: list
    elements: str
    default: []
  keys:
    description:
      - Which keys go back, as patterns (V(*), V(?), V([...])) for the whole key, such as V(sysctl:vm.dirty_*), or for
        the name behind its family, such as V(vm.swappiness). Empty means all.
      - What brings a chosen key at boot (the enablement of a unit, the unit of a mount) goes back with it, and so does
        what the kernel moved along with it.
    type: list
    elements: str
    default: []
  force:
    description: Take back what someone else has changed since as well.
    type: bool
    default: false
  pynvml:
    description: Internal. The controller's nvidia-ml-py, set by the action plugin.
    type: str
attributes:
  action:
    description: The controller's part sends nvidia-ml-py along.
    support: full
  check_mode:
    description: Predicts the changes without writing anything.
    support: full
  diff_mode:
    description: Returns every value before and after. The diff of check mode is the diff of the run that follows.
    support: full
  idempotent:
    description: A second call changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Needs root when there is something to take back. Needs nothing but Python 3.9 on the target.
seealso:
  - module: ai_infra.workstation.workstation_state
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Take everything back
  ai_infra.workstation.tuning_rollback:

- name: Take two sysctls back, whoever has changed them since
  ai_infra.workstation.tuning_rollback:
    keys: [vm.swappiness, vm.dirty_bytes]
    force: true
"""

RETURN = r"""
changes:
  description: What went back, or would in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: What was changed, with its family in front.
      type: str
      sample: sysctl:vm.swappiness
    owner:
      description: Role and part that had set it.
      type: str
      sample: os_tuning/kernel_settings
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
left_alone:
  description: What someone else has changed since, with the value it has now.
  returned: success
  type: list
  elements: dict
  sample: [{key: 'sysctl:vm.swappiness', value: '30'}]
skipped_keys:
  description: What cannot go back now, each with the reason. It stays in the ledger.
  returned: success
  type: list
  elements: dict
archived:
  description: Whether nothing of ours is left, so that the ledger went to the archive.
  returned: success
  type: bool
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
  description: Commands that ran after the change, each once.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.doors.nvml import open_nvml
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.engine.rollback import roll_back
from ..module_utils.engine.selection import Wish


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "owners": {"type": "list", "elements": "str", "default": []},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "force": {"type": "bool", "default": False},
            # Nothing secret: it is large, and the log and the shown invocation are better without it.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    wish = Wish(tuple(module.params["owners"]), tuple(module.params["keys"]), module.params["force"])
    machine = Machine(Host(), lambda: open_nvml(module.params["pynvml"]))
    leave(module, machine, lambda machine: roll_back(wish, module.check_mode, machine))


if __name__ == "__main__":
    main()
