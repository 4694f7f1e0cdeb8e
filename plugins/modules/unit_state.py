#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_state
short_description: Enable, mask, start and stop a whole set of systemd units
version_added: 0.1.0
description:
  - Sets the enablement and the activity of several systemd units in one call, and proves both with systemd.
  - A unit without an enablement of its own (static, generated, an alias) is not enabled by force.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  units:
    description: The units. What the same owner set before and is not named here goes back to what it was.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The unit name with its suffix.
        type: str
        required: true
      unit_file:
        description: Whether the unit is started at boot. Leave it out to leave it alone.
        type: str
        choices: [enabled, disabled, masked]
      active:
        description: Whether the unit runs now. Leave it out to leave it alone.
        type: bool
      ours:
        description:
          - The unit file is one that this collection writes, perhaps by an earlier task of the same run.
          - In check mode such a unit need not exist yet.
        type: bool
        default: false
seealso:
  - module: ai_infra.workstation.managed_files
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Trim the disks every week
  ai_infra.workstation.unit_state:
    owner: os_tuning
    units:
      - name: fstrim.timer
        unit_file: enabled
        active: true

- name: Stop a tuning daemon that writes the same knobs, where there is one
  ai_infra.workstation.unit_state:
    owner: os_tuning
    units:
      - name: power-profiles-daemon.service
        unit_file: masked
        active: false
    optional:
      - power-profiles-daemon.service
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
      sample: unit_file:fstrim.timer
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

from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import unit_state


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["unit_state"]}, supports_check_mode=True)
    run(module, unit_state)


if __name__ == "__main__":
    main()
