#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_gpu_containers
short_description: Find, and restart where allowed, containers that lost their GPUs
version_added: 0.1.0
description:
  - A reload of systemd (C(systemctl daemon-reload), which every change of a unit brings) takes the GPUs from containers
    that got them through C(--gpus) or an old C(nvidia) runtime, where systemd is the cgroup driver.
  - This module names the running containers with GPUs, those that a reload would hit, and those that it has hit. The
    last are found by running C(nvidia-smi) in them.
  - Containers that got their GPUs by CDI are safe.
options:
  restart:
    description: Whether containers without their GPUs are restarted. That ends what they were doing.
    type: bool
    default: false
  toolkit_version:
    description: The version of the NVIDIA container toolkit. Before 1.18 its runtime did not work by CDI.
    type: str
attributes:
  check_mode:
    description: Says what would be restarted.
    support: full
  diff_mode:
    description: Not supported.
    support: none
  idempotent:
    description: A container that has its GPUs is left alone.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Bring back the GPUs that a reload of systemd took
  ai_infra.workstation.docker_gpu_containers:
    restart: true
"""

RETURN = r"""
containers:
  description: The running containers that have GPUs.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The container.
      type: str
    id:
      description: Its identity.
      type: str
    how:
      description: V(cdi), V(request) for C(--gpus), or V(runtime).
      type: str
    exposed:
      description: Whether a reload of systemd takes its GPUs.
      type: bool
    gpu:
      description: V(ok), V(lost), V(unknown) without a C(nvidia-smi) in it, or V(not asked).
      type: str
lost:
  description: Containers without their GPUs, after the call.
  returned: success
  type: list
  elements: str
exposed:
  description: Containers that a reload of systemd would hit.
  returned: success
  type: list
  elements: str
restarted:
  description: Containers that were restarted, or would be in check mode.
  returned: success
  type: list
  elements: str
reason:
  description: Why nothing could be asked, empty where it could.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker.gpu_containers import converge
from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={"restart": {"type": "bool", "default": False}, "toolkit_version": {"type": "str"}},
        supports_check_mode=True,
    )
    leave(module, Machine(Host()), lambda machine: converge(module.params, module.check_mode, machine.host))


if __name__ == "__main__":
    main()
