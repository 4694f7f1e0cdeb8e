#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: workstation_state
short_description: Bring several parts of a machine to their wanted state in one call
version_added: 0.1.0
description:
  - Does the work of the modules of this collection that it names as options, in one remote call, in the order in
    which they are listed here.
  - All parts are planned before the first one writes. A mistake in any of them, such as a misspelt sysctl or a value
    that a card does not take, ends the call with all mistakes at once and without a change.
  - Each part is a transaction of its own. When one fails, its writes are taken back, and the parts before it stay.
  - Interrupts are placed on the CPUs that the part C(cpu_governor) leaves online.
options:
  owner:
    description:
      - Whose sets these are. Each part describes the whole set of its owner; what the same owner set before and does
        not name now goes back to what it was. A part that is left out is left alone.
    type: str
    default: default
  expect:
    description:
      - The RV(expect) that an earlier call in check mode returned. The call is refused when anything has moved since.
    type: dict
  confirm_within:
    description:
      - A dead-man switch for changes that may cost the connection (interrupts of network interfaces, CPUs that go
        offline, CPU partitions, files with a C(risk)). Seconds that the controller has to confirm them, over a new
        connection, after the last write of the call; V(0) is no switch.
      - Without the confirmation a timer on the machine brings everything that the call changed back, values and ledger,
        and the next call says so. A boot before the confirmation does the same.
      - Such changes are refused where there is no systemd, or no program of the part O(boot_unit) to take them back.
    type: int
    default: 0
  cpu_governor:
    description: The options of M(ai_infra.workstation.cpu_governor), without C(owner) and C(expect).
    type: dict
  hugepages:
    description: The options of M(ai_infra.workstation.hugepages), without C(owner) and C(expect).
    type: dict
  kernel_settings:
    description: The options of M(ai_infra.workstation.kernel_settings), without C(owner) and C(expect).
    type: dict
  block_device_settings:
    description: The options of M(ai_infra.workstation.block_device_settings), without C(owner) and C(expect).
    type: dict
  irq_affinity:
    description: The options of M(ai_infra.workstation.irq_affinity), without C(owner) and C(expect).
    type: dict
  managed_files:
    description: The options of M(ai_infra.workstation.managed_files), without C(owner) and C(expect).
    type: dict
  unit_state:
    description: The options of M(ai_infra.workstation.unit_state), without C(owner) and C(expect).
    type: dict
  kernel_command_line:
    description: The options of M(ai_infra.workstation.kernel_command_line), without C(owner) and C(expect).
    type: dict
  nvidia_gpu_state:
    description: The options of M(ai_infra.workstation.nvidia_gpu_state), without C(owner) and C(expect).
    type: dict
  boot_unit:
    description: The options of M(ai_infra.workstation.boot_unit), without C(owner) and C(expect).
    type: dict
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
    description: Returns every value before and after.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.cpu_governor
  - module: ai_infra.workstation.hugepages
  - module: ai_infra.workstation.kernel_settings
  - module: ai_infra.workstation.block_device_settings
  - module: ai_infra.workstation.irq_affinity
  - module: ai_infra.workstation.managed_files
  - module: ai_infra.workstation.unit_state
  - module: ai_infra.workstation.kernel_command_line
  - module: ai_infra.workstation.nvidia_gpu_state
  - module: ai_infra.workstation.boot_unit
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Tune memory and CPUs at once
  ai_infra.workstation.workstation_state:
    owner: os_tuning
    cpu_governor:
      governor: performance
      optional: [governor]
    kernel_settings:
      sysctl:
        vm.swappiness: 10
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    part:
      description: Which part it belongs to.
      type: str
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
  description: Fingerprint of each part, for O(expect) of a later call.
  returned: success
  type: dict
confirmed:
  description: Whether the controller has confirmed the changes that may cost the connection, over a new connection.
  returned: when there were such changes and O(confirm_within) is not 0
  type: bool
unconfirmed:
  description: What is to be confirmed, within how many seconds, and why.
  returned: when there were such changes and O(confirm_within) is not 0
  type: dict
parts:
  description: What each part returned, by its name, without diff and warnings.
  returned: success
  type: dict
"""

import importlib
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..module_utils.doors.host import Host
from ..module_utils.doors.nvml import open_nvml
from ..module_utils.doors.nvml_binding import carried
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.engine.parts import converge_parts
from ..module_utils.engine.switch import Switch
from ..module_utils.shapes import misfits
from ..module_utils.specs import COMMON, SPECS

if TYPE_CHECKING:
    # What is named here travels with the call; it is imported where a call has that part.
    from ..module_utils.subjects import (  # noqa: F401
        block_device_settings,
        boot_unit,
        cpu_governor,
        hugepages,
        irq_affinity,
        kernel_command_line,
        kernel_settings,
        managed_files,
        nvidia_gpu_state,
        unit_state,
    )

_SUBJECTS = f"{__package__.rpartition('.')[0]}.module_utils.subjects"


def typed(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters of one part as its own module would get them, and what is wrong with them."""
    spec = {"optional": COMMON["optional"], **SPECS[name]}
    # ansible-core 2.18 hands over an empty text where a template gives nothing.
    said = {key: value for key, value in given.items() if value is not None and value != ""}
    problems = [text for key, value in said.items() if key in spec for text in misfits(key, value, spec[key])]
    if problems:
        return {}, [f"{name}: {text}" for text in problems]
    checked = ArgumentSpecValidator(spec).validate(said)
    return checked.validated_parameters, [f"{name}: {_words(text)}" for text in checked.error_messages]


def _words(text: str) -> str:
    # Ansible's own text for an option that is not there begins with its bare name.
    return f"unknown option {text}" if "Supported parameters include" in text else text


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "owner": COMMON["owner"],
            "expect": {"type": "dict"},
            "confirm_within": {"type": "int", "default": 0},
            **{name: {"type": "dict"} for name in SPECS},
            # Nothing secret: it is large, and the log and the shown invocation are better without it.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    parts, problems = [], []
    for name in SPECS:
        if module.params[name] is None:
            continue
        params, wrong = typed(name, module.params[name])
        problems += wrong
        if not wrong:
            expect = (module.params["expect"] or {}).get(name)
            parts.append(
                (
                    importlib.import_module(f"{_SUBJECTS}.{name}"),
                    {**params, "owner": module.params["owner"], "expect": expect},
                )
            )
    if module.params["confirm_within"] and not 10 <= module.params["confirm_within"] <= 3600:
        module.fail_json(
            msg=f"confirm_within: {module.params['confirm_within']} is neither 0 nor from 10 to 3600 seconds"
        )
    packed = module.params["pynvml"]
    machine = Machine(Host(), lambda: open_nvml(packed), lambda: carried(packed))
    machine.switch = Switch(module.params["confirm_within"])
    leave(module, machine, lambda machine: converge_parts(parts, module.check_mode, machine, problems))


if __name__ == "__main__":
    main()
