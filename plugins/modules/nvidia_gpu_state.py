#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_gpu_state
short_description: Set persistence, power limit, clocks and modes of NVIDIA GPUs
version_added: 0.1.0
description:
  - Sets the state of all GPUs of a machine, or of some, in one NVML session, and proves it by reading back from the
    driver. Nothing needs to be installed on the target. The action plugin of the same name sends the controller's
    nvidia-ml-py along with the call.
  - The settings at the top level apply to every GPU, those in O(gpus) to one, and win there. A setting that is left
    out is not managed, and goes back to its former value when an earlier call of the same owner had set it.
  - Every value is checked against the limits and lists of the card itself before the first write. When the driver
    refuses a value, everything that the call had set is put back.
  - The driver forgets all but ECC and MIG mode at reboot and when it is loaded anew. Run again to set it anew.
  - NVML has no getter for locked clocks. They are applied when the ledger has no record of them that is still true
    for this load of the driver, so that a second run changes nothing, and they are undone by the reset call.
    In RV(changes) the value before is V(unknown) where there is no such record.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  persistence: &persistence
    description: Persistence mode, in which the driver keeps an idle GPU and its state.
    type: bool
  power_limit: &power_limit
    description:
      - Watts (V(450) or V(450W)), a percentage of the card's default (V(85%), rounded to whole watts), V(default),
        or V(max).
      - A value outside the card's own limits is an error that names them.
      - Without persistence the driver may forget it as soon as nothing uses the GPU; a warning says so.
    type: str
  allow_above_default: &allow_above_default
    description:
      - Whether O(power_limit) may be above the card's default. It is a statement about power supply, connector and
        cooling, which no software can check.
    type: bool
  gpu_clocks: &gpu_clocks
    description:
      - Locks the graphics clock to a range. Both ends must be clocks that the card lists.
      - Needs persistence, set here or already on.
    type: dict
    suboptions:
      min_mhz:
        description: The lower end. The lowest clock of the card when left out, which makes the range a cap.
        type: int
      max_mhz:
        description: The upper end. The highest clock of the card when left out.
        type: int
      reset:
        description: Takes the lock off. Excludes the other two.
        type: bool
        default: false
  memory_clocks: &memory_clocks
    description:
      - Locks the memory clock to a range. Both ends must be clocks that the card lists.
      - Refused on Blackwell GeForce cards, where any such lock slows the whole card (open-gpu-kernel-modules issue
        1266). Taking one off is fine.
      - Needs persistence, set here or already on.
    type: dict
    suboptions:
      min_mhz:
        description: The lower end. The lowest clock of the card when left out.
        type: int
      max_mhz:
        description: The upper end. The highest clock of the card when left out.
        type: int
      reset:
        description: Takes the lock off. Excludes the other two.
        type: bool
        default: false
  application_clocks: &application_clocks
    description: The clocks that applications run at, on the data centre cards that have them. NVIDIA retires this call.
    type: dict
    suboptions:
      memory_mhz:
        description: Memory clock, one that the card lists.
        type: int
      graphics_mhz:
        description: Graphics clock, one that the card lists for this memory clock.
        type: int
      reset:
        description: Back to the card's own pair. Excludes the other two.
        type: bool
        default: false
  compute_mode: &compute_mode
    description:
      - Who may use the GPU. V(exclusive_process) admits one process (or MPS), V(prohibited) none.
      - The second service on an exclusive GPU fails with CUDA error 46.
    type: str
    choices: [default, exclusive_process, prohibited]
  ecc: &ecc
    description: ECC of the GPU's memory. Stored on the card at once, acts after a reboot.
    type: bool
  mig: &mig
    description:
      - Multi-instance GPU mode. Ampere cards take it at a GPU reset, later ones at once while nothing uses the GPU.
    type: bool
  reset: &reset
    description:
      - Sets power limit, locked clocks, application clocks and compute mode to the driver's defaults, where no other
        value is given. Persistence, ECC and MIG mode are left as they are.
    type: bool
  gpus:
    description:
      - Settings of single GPUs. With none of the settings at the top level, the other GPUs are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description:
          - A UUID, a PCI address (V(0000:01:00.0)), an index, a part of the name, or V(all).
          - A name that matches two GPUs is an error that names both. Prefer UUID and PCI address, since the order
            of the driver may differ after a reboot.
        type: str
        required: true
      persistence: *persistence
      power_limit: *power_limit
      allow_above_default: *allow_above_default
      gpu_clocks: *gpu_clocks
      memory_clocks: *memory_clocks
      application_clocks: *application_clocks
      compute_mode: *compute_mode
      ecc: *ecc
      mig: *mig
      reset: *reset
  require_gpu:
    description:
      - Whether a machine without a GPU or without a loaded driver is an error. Otherwise the call is skipped with
        the reason.
      - Library and driver of different versions, after an upgrade without a reboot, are an error in either case.
    type: bool
    default: true
  pynvml:
    description: Internal. The controller's nvidia-ml-py, set by the action plugin.
    type: str
notes:
  - In O(optional) the names are those of settings (V(power_limit)), ids of O(gpus), or V(*) for everything.
  - Needs root on the host itself to set anything; reading and check mode do not.
seealso:
  - module: ai_infra.workstation.workstation_facts
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: All GPUs, kept awake at 85 percent of their default power
  ai_infra.workstation.nvidia_gpu_state:
    persistence: true
    power_limit: 85%

- name: One value for all, another for one, whichever of them this machine has
  ai_infra.workstation.nvidia_gpu_state:
    persistence: true
    power_limit: default
    gpus:
      - id: RTX 3090
        power_limit: 300W
        gpu_clocks:
          max_mhz: 1800
    optional:
      - RTX 3090

- name: Back to what a freshly loaded driver has
  ai_infra.workstation.nvidia_gpu_state:
    reset: true
    require_gpu: false
"""

RETURN = r"""
gpus:
  description: What the driver has on each GPU of the call, read after the last write.
  returned: success
  type: list
  elements: dict
  contains:
    uuid:
      description: Identity of the GPU.
      type: str
    name:
      description: Name of the card.
      type: str
    pci:
      description: PCI address.
      type: str
      sample: 0000:01:00.0
    index:
      description: Place in the driver's order.
      type: int
    persistence:
      description: V(on) or V(off).
      type: str
    power_watts:
      description: Power limits in watts, C(limit) as set, C(enforced) in force, and C(default), C(min), C(max).
      type: dict
    clocks_mhz:
      description: Clocks at this moment, C(graphics), C(sm), C(memory).
      type: dict
    locked_clocks:
      description: Our record of the locks, C(gpu) and C(memory). Not verifiable, as the driver has no getter.
      type: dict
    application_clocks:
      description: Memory and graphics clock for applications.
      type: str
    compute_mode:
      description: As in the option.
      type: str
    ecc:
      description: C(current) and C(pending), V(on) or V(off).
      type: dict
    mig:
      description: C(current) and C(pending), V(on) or V(off).
      type: dict
    problem:
      description: Why the GPU cannot be asked, in place of its values.
      type: str
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The GPU and its property. Power in mW, clocks in MHz.
      type: str
      sample: gpu:GPU-cd06c32a-53aa-55da-916e-6a338324a8e8/power_limit_mw
    before:
      description: The value found.
      type: raw
    after:
      description: The value read back from the driver. Of ECC and MIG the pending mode.
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

from ..module_utils.doors.nvml import open_nvml
from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import nvidia_gpu_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **COMMON,
            **SPECS["nvidia_gpu_state"],
            # Nothing secret: it is large, and the log and the shown invocation are better without it.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    run(module, nvidia_gpu_state, lambda: open_nvml(module.params["pynvml"]))


if __name__ == "__main__":
    main()
