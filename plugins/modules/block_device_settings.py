#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: block_device_settings
short_description: Set the I/O scheduler and read-ahead of disks and the options of mounts, live and at every boot
version_added: 0.1.0
description:
  - Sets queue attributes of all disks that match, reads them back, and writes one udev rule file so that they
    hold for disks that appear later and after a reboot.
  - Options of a mount change without touching the file system. At boot a drop-in of its mount unit sets them; C(fstab)
    is left alone.
  - The disk under a folder is found through the mount table, and is addressed by its serial number in the rule.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  devices:
    description:
      - Which disks, and their settings. Two entries that match one disk must not disagree.
      - O(optional) takes the O(devices[].device) or O(devices[].path) of an entry.
    type: list
    elements: dict
    default: []
    suboptions:
      device:
        description: A kernel name or a pattern, such as V(nvme*).
        type: str
      path:
        description:
          - A folder; the disk below it is meant. Either this or O(devices[].device).
          - Below LVM, an encrypted volume, an array or btrfs these are all its disks. Their O(devices[].read_ahead_kb)
            means nothing to files there, and is refused.
        type: path
      rotational:
        description: Take only rotating disks, or only others.
        type: bool
      scheduler:
        description: The I/O scheduler, one of those that the kernel offers for the disk.
        type: str
      read_ahead_kb:
        description: Read-ahead in KiB.
        type: int
      at_least:
        description: Take O(devices[].read_ahead_kb) as a lower bound. A disk that has more already is left alone.
        type: bool
        default: false
  mounts:
    description:
      - File systems that are mounted already, and the options they are to have. Those of the system itself are refused.
      - O(optional) takes the O(mounts[].path) of an entry.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The mount point.
        type: path
        required: true
      options:
        description: Options to set. Each replaces those it excludes; all others stay.
        type: list
        elements: str
        choices: [noatime, relatime, strictatime, nodiratime, diratime, nodev, dev, nosuid, suid, noexec, exec]
        required: true
  persist:
    description: Whether the settings are also written to C(/etc/udev/rules.d/99-zz-ai-workstation-block.rules).
    type: bool
    default: true
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Read large models ahead on the disk that holds them
  ai_infra.workstation.block_device_settings:
    devices:
      - device: nvme*
        scheduler: none
      - path: /mnt/ai-data
        read_ahead_kb: 4096
        at_least: true
    mounts:
      - path: /mnt/ai-data
        options: [noatime]
    optional:
      - nvme*
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
      sample: block:nvme0n1/scheduler
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
from ..module_utils.subjects import block_device_settings


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["block_device_settings"]}, supports_check_mode=True)
    run(module, block_device_settings)


if __name__ == "__main__":
    main()
