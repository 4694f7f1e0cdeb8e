#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Our keys in Docker's daemon.json, beside those of others
version_added: 0.1.0
description:
  - Merges keys into C(/etc/docker/daemon.json) and keeps every key that others wrote there.
  - A key that the file gives another value is a conflict. It is refused with both values, until O(accept) names it.
  - Keys that an earlier call set and that this call does not name go back to what they were before.
  - The result is checked with C(dockerd --validate) where the engine knows that (23.0 and newer), with the flags that
    the engine is started with, before anything is written. A flag for a key of ours is refused with its file.
  - The running engine is told only when it acts otherwise than the file says. It reloads where dockerd can take the
    changed keys without a restart. Else it is restarted, after C(live-restore) was reloaded when that is wanted, so
    that the containers keep running.
  - When the engine does not start with the new configuration, the old file is put back and the engine started again.
options:
  config:
    description:
      - The keys that are to be there, as in daemon.json. Objects are merged key by key, a list is one value.
      - Needed with O(state=present). It is shown in results and diffs, so do not put passwords here.
    type: dict
  accept:
    description:
      - Keys whose value in the file gives way to O(config), with dots between the levels, such as V(log-opts.max-size).
        A key stands for everything below it.
    type: list
    elements: str
    default: []
  restart:
    description:
      - Whether the engine may be restarted. If not, a warning says that it has to be; RV(engine.needed) says so too.
    type: bool
    default: true
  state:
    description: V(absent) takes everything of ours out of the file.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Predicts the changes without writing anything. C(dockerd --validate) runs, which changes nothing.
    support: full
  diff_mode:
    description: Returns the changed keys before and after, and no other key of the file.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - What was there before is kept in C(/var/lib/ai-workstation/docker.json), which root alone can read.
  - A stopped engine is not started, and without an engine the file is written all the same.
  - When nobody else has changed the file since, taking everything out restores it to the byte.
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Rotate the logs of containers and keep containers over a restart of the engine
  ai_infra.workstation.docker_daemon_config:
    config:
      log-driver: local
      log-opts:
        max-size: 50m
      live-restore: true

- name: The same where the file says json-file already
  ai_infra.workstation.docker_daemon_config:
    config:
      log-driver: local
    accept: [log-driver]

- name: Take it out again
  ai_infra.workstation.docker_daemon_config:
    state: absent
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The key with C(daemon.json:) in front, or C(docker.service) when the engine was told.
      type: str
      sample: daemon.json:log-opts.max-size
    before:
      description: The value found, null for none.
      type: raw
    after:
      description: The value now, null for none.
      type: raw
    scope:
      description: V(persistent) for the file, V(runtime) for the engine.
      type: str
    reboot_required:
      description: Always false.
      type: bool
    reason:
      description: Empty.
      type: str
engine:
  description: The engine.
  returned: success
  type: dict
  contains:
    state:
      description: V(running), V(stopped) or V(not installed), before the call.
      type: str
    action:
      description: V(none), V(reload) or V(restart), what was done.
      type: str
    needed:
      description: What all of the configuration needs to act. Other than RV(engine.action) where that is not allowed.
      type: str
skipped_keys:
  description: Always empty.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker.daemon_config import converge
from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict"},
            "accept": {"type": "list", "elements": "str", "default": []},
            "restart": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    leave(module, Machine(Host()), lambda machine: converge(module.params, module.check_mode, machine.host))


if __name__ == "__main__":
    main()
