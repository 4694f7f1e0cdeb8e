#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: boot_unit
short_description: Bring back at boot what neither kernel nor driver keeps
version_added: 0.1.0
description:
  - Governor, idle states, the placement of interrupts and the state of GPUs are forgotten at a reboot, some at a resume
    and when a driver is loaded. No file of the system can say them, because device numbers change and drivers load
    late.
  - Writes C(/usr/local/sbin/ai-workstation), one file with the code of this collection and nvidia-ml-py, and
    C(ai-workstation.service), which brings back what the modules of this collection last set there. It runs before
    C(docker.service), after a resume, and when the driver of a PCI or virtio device was bound. It writes each value
    that it brought back to the journal. Nothing waits for it longer than its time limit, and nothing depends on it.
  - The same program compares the machine with what was recorded, C(ai-workstation verify).
options:
  enabled:
    description: Whether the machine has it. What is left out of the set of all owners goes away.
    type: bool
    default: false
  only_join:
    description:
      - Leaves it to another owner to bring it and to keep it up to date. This owner is noted beside that one, so that
        it stays until none of them wants it.
    type: bool
    default: false
  pynvml:
    description: Internal. The controller's nvidia-ml-py, set by the action plugin.
    type: str
extends_documentation_fragment: ai_infra.workstation.state
attributes:
  action:
    description: The controller's part sends nvidia-ml-py along.
    support: full
seealso:
  - module: ai_infra.workstation.cpu_governor
  - module: ai_infra.workstation.irq_affinity
  - module: ai_infra.workstation.nvidia_gpu_state
  - module: ai_infra.workstation.tuning_verify
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Keep what the other tasks of this play set
  ai_infra.workstation.boot_unit:
    enabled: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: What was changed, with its family in front.
      type: str
      sample: program:/usr/local/sbin/ai-workstation
    before:
      description: The value found. For a file its hash and mode; the text is in the diff.
      type: raw
    after:
      description: The value read back.
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
  description: Keys that were left out, each with the reason.
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

from ..module_utils.doors.nvml_binding import carried
from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import boot_unit


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **COMMON,
            **SPECS["boot_unit"],
            # Nothing secret: it is large, and the log and the shown invocation are better without it.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    run(module, boot_unit, binding=lambda: carried(module.params["pynvml"]))


if __name__ == "__main__":
    main()
