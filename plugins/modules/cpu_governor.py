#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cpu_governor
short_description: Set frequency governor, energy preference, limits, boost, idle states and SMT
version_added: 0.1.0
description:
  - Sets everything that Linux offers about the speed of CPUs in one call, in the order in which the kernel
    accepts it - boost on, SMT, governor, energy preference, limits, boost off, idle states - and proves it by
    reading back.
  - Knows the drivers intel_pstate, intel_cpufreq, amd-pstate-epp, amd-pstate and acpi-cpufreq through what
    each of them offers on every frequency policy.
  - What is left out is left alone, or goes back to the value it had when an earlier call set it.
  - All of it is lost at a reboot (scope V(runtime)). Run the play again after one.
    To boot without SMT use V(nosmt) with M(ai_infra.workstation.kernel_command_line).
  - When SMT goes off, settings of ours on the threads that leave are taken back first. Interrupt masks and cpusets
    that name only those threads are moved by the kernel and do not return by themselves.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  governor:
    description:
      - Name of the frequency governor, one of those that the driver offers on every chosen policy.
      - intel_pstate and amd-pstate-epp offer only V(performance) and V(powersave); their powersave is not slow.
      - With these two drivers V(performance) also forces the energy preference to its strongest. That change is
        planned, shown and taken back as well.
    type: str
  epp:
    description:
      - Energy performance preference, V(performance), V(balance_performance), V(balance_power), V(power), or a
        number from 0 (fastest) to 255. The numbers 0, 128, 192 and 255 are these four words.
      - Anything but V(performance) is refused together with governor performance on intel_pstate and
        amd-pstate-epp, because the kernel would answer EBUSY.
      - V(default) is refused, because it reads back as another word.
    type: str
  boost:
    description:
      - Whether cores may go above their base clock. Uses the switch of the driver, C(cpufreq/boost) or
        C(intel_pstate/no_turbo); with a list in O(policies) the switch of each policy.
    type: bool
  min_mhz:
    description: Lower limit in MHz, or V(hardware) for the lowest clock of each policy.
    type: str
  max_mhz:
    description:
      - Upper limit in MHz, or V(hardware) for the highest clock of each policy.
      - When O(boost) changes in the same call, V(hardware) leaves the limit to the kernel, which moves it along.
    type: str
  policies:
    description:
      - V(all), or a CPU list such as V(0-3,8). Chooses the frequency policies that contain one of these CPUs, and
        the CPUs for the idle bound. CPUs that are not online after the SMT change of the same call are refused.
    type: raw
    default: all
  idle_latency_us:
    description:
      - Longest time in microseconds that a CPU may take to wake up from idle.
      - A bound below the first sleep state leaves only polling and is refused unless O(accept_polling=true).
    type: int
  idle_mechanism:
    description:
      - V(pm_qos) writes the bound to C(cpuN/power/pm_qos_resume_latency_us). There the kernel writes V(0) for no
        bound and V(n/a) for no latency at all; O(idle_latency_us=0) becomes V(n/a).
      - V(disable) disables every idle state whose latency is above the bound.
    type: str
    choices:
      - pm_qos
      - disable
    default: pm_qos
  accept_polling:
    description: Allows an O(idle_latency_us) that keeps idle CPUs polling. This costs heat and boost of other cores.
    type: bool
    default: false
  smt:
    description:
      - Whether the second threads of the cores are online. V(forceoff) cannot be taken back before a reboot.
      - Measure before switching off; pinning one thread per core gives the same caches to a program.
    type: str
    choices:
      - 'on'
      - 'off'
      - forceoff
notes:
  - O(optional) takes the names of the options V(governor), V(epp), V(boost), V(min_mhz), V(max_mhz),
    V(idle_latency_us) and V(smt). Where a policy or the machine does not have one, it is skipped with the reason.
  - In a virtual machine or a container there is usually no frequency driver. That is a skip with its reason for
    what is in O(optional), else an error.
  - Warns when tuned, power-profiles-daemon, TLP or auto-cpufreq is active, which write the same settings.
seealso:
  - module: ai_infra.workstation.kernel_command_line
  - module: ai_infra.workstation.kernel_settings
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Responsive and still able to clock down
  ai_infra.workstation.cpu_governor:
    governor: powersave
    epp: performance
    idle_latency_us: 100
    optional:
      - epp
      - idle_latency_us

- name: Full speed, only shallow idle states, on the inference CPUs
  ai_infra.workstation.cpu_governor:
    governor: performance
    min_mhz: 3000
    max_mhz: hardware
    idle_latency_us: 20
    idle_mechanism: disable
    policies: 0-7
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The knob, with its family in front.
      type: str
      sample: cpufreq:policy0/scaling_governor
    before:
      description: The value found. For CPUs that come online with this call, the one they are expected to come with.
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
planned_online_cpus:
  description:
    - The CPUs that are online after this call, as a CPU list; in check mode those that would be.
    - Plan masks and CPU sets of later tasks against it.
  returned: success
  type: str
  sample: 0-7
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import cpu_governor


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["cpu_governor"]}, supports_check_mode=True)
    run(module, cpu_governor)


if __name__ == "__main__":
    main()
