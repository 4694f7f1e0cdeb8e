#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_command_line
short_description: Add and remove kernel parameters of our own through a GRUB drop-in
version_added: 0.1.0
description:
  - Writes C(/etc/default/grub.d/99-zz-NAME.cfg), which appends to C(GRUB_CMDLINE_LINUX_DEFAULT), and runs
    C(update-grub). Files of others are never edited.
  - Recovery entries of the boot menu do not get these parameters, so that one which keeps the machine from
    booting can be escaped.
  - Never reboots. RV(reboot_required) is true on every call until C(/proc/cmdline) shows what is wanted, and no
    longer shows what was removed.
  - For Debian and Ubuntu with GRUB. Elsewhere a wanted parameter is an error in one line, or a skip with its
    reason when all wanted parameters are listed in O(optional).
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  present:
    description:
      - The whole set of our parameters, as a dictionary of names and values or as a list of V(name=value) texts and
        such dictionaries. A null value, or a text without C(=), is a flag.
      - A list keeps its order, a dictionary is sorted. A list as a value repeats the name; C(hugepagesz) and
        C(hugepages) with lists are written in pairs.
      - A value may have letters, digits and C(_.,:/=@%+!^-), what neither the shell nor GRUB reads otherwise.
      - A parameter that an earlier call set and that is not named any more is removed.
    type: raw
    aliases:
      - parameters
  absent:
    description:
      - Names of parameters that must not be set. Our own ones are removed by leaving them out of O(present); one
        that a file of others sets is refused, naming file and line.
    type: list
    elements: str
    default: []
  accept:
    description:
      - Names of dangerous parameters in O(present) that are meant. Without it, they are refused with the reason,
        among them C(mitigations=off), C(idle=poll), C(init) and C(root). The kernel takes C(-) and C(_) in
        names for the same.
    type: list
    elements: str
    default: []
  trial:
    description:
      - A changed command line does not become the default at once. The next boot tries it, once, from a menu entry of
        its own (the default entry with O(present), made by our script in C(/etc/grub.d)) that C(next_entry) of
        GRUB's environment names. The boot after that is the old one, whatever happens.
      - The next call with the same parameters finds the trial running and makes it the default, without a further
        reboot. Where the machine came back on the old command line, that call withdraws the trial and fails; the call
        after it tries again.
      - The kernel on trial reboots when it panics, oopses or hangs (C(panic=30), C(oops=panic),
        C(softlockup_panic=1), C(hung_task_panic=1), and the hardware watchdog where there is one). The end of the
        trial sets these back, but for the watchdog, which stays until the next boot.
      - Refused, with the reason, where GRUB cannot write its environment block (LVM, RAID, encryption, btrfs, ZFS),
        where the machine was not booted through GRUB or the default entry has no Linux kernel.
      - What the running kernel shows already, and the release of all parameters, is written directly.
    type: bool
    default: false
  trial_seconds:
    description:
      - How long after its boot a machine on trial waits for the next call before it reboots to the old command line,
        the way back where the new one costs the network.
    type: int
    default: 1200
  name:
    description: Names the file in C(/etc/default/grub.d).
    type: str
    default: ai-workstation
notes:
  - Warns when a file that is read earlier sets one of the parameters to another value (ours wins), and refuses when
    one that is read later does, or drops what ours added. File and line are named.
  - Runs C(update-grub) again when the file is as wanted but C(/boot/grub/grub.cfg) is older and lacks a parameter.
seealso:
  - module: ai_infra.workstation.kernel_settings
  - module: ai_infra.workstation.hugepages
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Huge pages of 1 GiB from boot on, and pass-through of the IOMMU
  ai_infra.workstation.kernel_command_line:
    present:
      iommu: pt
      hugepagesz: [1G, 2M]
      hugepages: [16, 512]
  register: boot

- name: Boot without the second threads of the cores
  ai_infra.workstation.kernel_command_line:
    present:
      - nosmt
      - intel_iommu=on

- name: Try it for one boot first; the same call after that boot makes it the default
  ai_infra.workstation.kernel_command_line:
    present:
      iommu: pt
    trial: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The file, with its family in front.
      type: str
      sample: file:/etc/default/grub.d/99-zz-ai-workstation.cfg
    before:
      description: The file found, by hash and mode; the text is in the diff.
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
waiting:
  description: Names of parameters, wanted or removed, that wait for a reboot.
  returned: success
  type: list
  elements: str
  sample: [iommu]
trial:
  description:
    - V(waits) for the boot that tries the parameters, V(confirmed) by this call, or V(none).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import kernel_command_line


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["kernel_command_line"]}, supports_check_mode=True)
    run(module, kernel_command_line)


if __name__ == "__main__":
    main()
