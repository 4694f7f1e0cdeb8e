#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Keep a whole set of our own drop-in files, with the commands they need
version_added: 0.1.0
description:
  - Writes, changes and removes the configuration files that one owner keeps, in one call, each atomically.
  - Every file starts with a line that says whose it is. A file that exists and is not ours is never touched.
  - Commands that the files need, such as a reload of systemd, run once after the last write.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  files:
    description:
      - The files. What the same owner kept before and is not named here goes back to what it was.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - A path below C(/etc/apt/apt.conf.d), C(/etc/apt/preferences.d), C(/etc/default), C(/etc/modprobe.d),
            C(/etc/modules-load.d), C(/etc/security/limits.d), C(/etc/sysctl.d), C(/etc/systemd), C(/etc/tmpfiles.d) or
            C(/etc/udev/rules.d). Missing folders are made.
        type: str
        required: true
      content:
        description: The text below our first line.
        type: str
      mode:
        description: Octal mode.
        type: str
        default: "0644"
      state:
        description: Whether the file is there.
        type: str
        choices: [present, absent]
        default: present
      actions:
        description:
          - Commands to run once when this file changes. Skipped where they have no meaning, such as a reload of systemd
            where systemd does not run.
        type: list
        elements: str
        choices: [daemon-reload, restart-irqbalance, udev-reload, udev-trigger-block, update-initramfs, update-grub]
        default: []
      restart:
        description: Units to restart when this file changes, if they run and read it only when they start.
        type: list
        elements: str
        default: []
      risk:
        description:
          - How the connection or the host may be lost by this file, in a few words. Where it is told to,
            M(ai_infra.workstation.workstation_state) then waits for a confirmation.
        type: str
      reboot:
        description: Whether the file acts only from the next boot on. The result then asks for a reboot.
        type: bool
        default: false
  units:
    description:
      - Units whose files are among O(files). Each is started after its file is there, and stopped before its file goes.
      - A unit of others belongs into M(ai_infra.workstation.unit_state).
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
seealso:
  - module: ai_infra.workstation.unit_state
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Bound the journal and keep the persistence daemon persistent
  ai_infra.workstation.managed_files:
    owner: os_tuning
    files:
      - path: /etc/systemd/journald.conf.d/50-ai-workstation.conf
        content: |
          [Journal]
          SystemMaxUse=2G
      - path: /etc/systemd/system/nvidia-persistenced.service.d/50-ai-workstation.conf
        content: |
          [Unit]
          StopWhenUnneeded=no
        actions: [daemon-reload]

- name: Keep a unit of our own, and run it
  ai_infra.workstation.managed_files:
    owner: os_tuning
    files:
      - path: /etc/systemd/system/ai.slice
        content: |
          [Unit]
          Description=AI services

          [Slice]
          CPUWeight=500

          [Install]
          WantedBy=slices.target
        actions: [daemon-reload]
    units:
      - name: ai.slice
        unit_file: enabled
        active: true
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
      sample: file:/etc/systemd/journald.conf.d/50-ai-workstation.conf
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
from ..module_utils.subjects import managed_files


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["managed_files"]}, supports_check_mode=True)
    run(module, managed_files)


if __name__ == "__main__":
    main()
