#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_backend
short_description: List the engines behind the gateway, take one out and put it back
version_added: 0.1.0
description:
  - Talks to the admin socket of the HAProxy that P(ai_infra.workstation.haproxy_config#filter) configures.
  - Without O(backend) it lists the engines and changes nothing.
  - What it sets lasts until the gateway is started again.
options:
  backend:
    description: Name of the engine.
    type: str
  state:
    description:
      - With V(drain) it gets no new requests, those at work are finished, and it is still asked whether it can work.
        Sessions that stuck to it go to other engines.
      - With V(maint) it is not asked either.
      - With V(ready) it works as soon as it can.
    type: str
    choices: [ready, drain, maint]
  wait_seconds:
    description:
      - After V(drain) and V(maint), how long to wait until the last request is finished. It is an error when one is
        left then. V(0) does not wait.
    type: int
    default: 0
  socket:
    description: Path of the admin socket.
    type: path
    default: /var/lib/ai-workstation/gateway/admin.sock
attributes:
  check_mode:
    description: Says what would change, and waits for nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: See what the engines do
  ai_infra.workstation.gateway_backend:
  register: gateway

- name: Take one out and let it finish
  ai_infra.workstation.gateway_backend:
    backend: llama_gpu
    state: drain
    wait_seconds: 300

- name: Put it back
  ai_infra.workstation.gateway_backend:
    backend: llama_gpu
    state: ready
"""

RETURN = r"""
backends:
  description: The engines, after the change; in check mode as they are.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the engine.
      type: str
    state:
      description: V(ready), V(drain) or V(maint), as somebody set it.
      type: str
    up:
      description: Whether it can work, as its checks say.
      type: bool
    requests:
      description: How many requests it has at work.
      type: int
    waiting:
      description: How many wait for it in the gateway.
      type: int
    pools:
      description: HAProxy's word for its status in each pool.
      type: dict
lines:
  description: The same in words, one line each.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import gateway_admin
from ..module_utils.doors.haproxy import AdminSocket
from ..module_utils.errors import WorkstationError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str"},
            "state": {"type": "str", "choices": list(gateway_admin.STATES)},
            "wait_seconds": {"type": "int", "default": 0},
            "socket": {"type": "path", "default": "/var/lib/ai-workstation/gateway/admin.sock"},
        },
        required_together=[("backend", "state")],
        supports_check_mode=True,
    )
    name, state, admin = module.params["backend"], module.params["state"], AdminSocket(module.params["socket"])
    try:
        found = gateway_admin.servers(admin)
        wanted = gateway_admin.commands(found, name, state) if name else []
        before = {server.pool: server.state for server in found if server.name == name}
        if wanted and not module.check_mode:
            for command in wanted:
                admin.tell(command)
            found = gateway_admin.servers(admin)
        if name and state != "ready" and not module.check_mode:
            wait = module.params["wait_seconds"]
            found = gateway_admin.settle(admin, name, wait) if wait > 0 else found
    except WorkstationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(wanted),
        **gateway_admin.report(found),
        diff={"before": {name: before}, "after": {name: dict.fromkeys(before, state)}} if name else {},
    )


if __name__ == "__main__":
    main()
