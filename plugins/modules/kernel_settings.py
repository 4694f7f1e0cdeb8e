#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set kernel modules, sysctls and /sys values as one set, live and at every boot
version_added: 0.1.0
description:
  - Sets all given sysctls and C(/sys) values in one call, proves them by reading back from the kernel, and
    writes C(/etc/sysctl.d/99-zz-NAME.conf) and C(/etc/tmpfiles.d/99-zz-NAME.conf) so that they return at boot.
  - Kernel modules are loaded first, and named in C(/etc/modules-load.d/NAME.conf).
  - The set is validated whole before the first write. When the kernel refuses a value, everything that
    the call had written is put back.
  - A file that is read later at boot and sets one of the keys to another value is named in a warning.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  sysctl:
    description:
      - Sysctl names and values, as the kernel prints them. White space between fields does not count.
      - C(vm.swappiness) and C(vm/swappiness) are the same name, as in C(sysctl.d); one set holds it once.
      - A name that the kernel lacks is an error with the nearest name, unless it is listed in O(optional).
    type: dict
    default: {}
  sysfs:
    description:
      - Full paths below C(/sys) and values. For files that print their choices in brackets the value is one of them.
    type: dict
    default: {}
  at_least:
    description:
      - Names in O(sysctl) and paths in O(sysfs) whose numbers are lower bounds. A machine that has more already is left
        alone, so that a default which grew with the kernel is not lowered again.
      - Each number of a value with several fields is a bound of its own.
    type: list
    elements: str
    default: []
  modules:
    description: Kernel modules to load now and at every boot. One that is in use stays loaded when it is dropped here.
    type: list
    elements: str
    default: []
  persist:
    description: Whether the values are also written to our files in C(/etc).
    type: bool
    default: true
  name:
    description: Names the files in C(/etc).
    type: str
    default: ai-workstation
seealso:
  - module: ai_infra.workstation.hugepages
  - module: ansible.posix.sysctl
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Bound dirty pages and keep swapping rare
  ai_infra.workstation.kernel_settings:
    sysctl:
      vm.swappiness: 10
      vm.dirty_background_bytes: 268435456
      vm.dirty_bytes: 1073741824
    sysfs:
      /sys/kernel/mm/ksm/run: 0

- name: Set a key only where the kernel has it
  ai_infra.workstation.kernel_settings:
    sysctl:
      kernel.numa_balancing: 0
    optional:
      - kernel.numa_balancing

- name: Serve over long distances, and keep larger buffers where the kernel has them
  ai_infra.workstation.kernel_settings:
    modules: [tcp_bbr]
    sysctl:
      net.ipv4.tcp_congestion_control: bbr
      net.ipv4.tcp_wmem: 4096 16384 16777216
    at_least: [net.ipv4.tcp_wmem]
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The sysctl, path or file, with its family in front.
      type: str
      sample: sysctl:vm.swappiness
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
from ..module_utils.subjects import kernel_settings


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["kernel_settings"]}, supports_check_mode=True)
    run(module, kernel_settings)


if __name__ == "__main__":
    main()
