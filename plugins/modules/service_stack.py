#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: service_stack
short_description: Run a stack of containers, one update at a time, with a way back
version_added: 0.1.0
description:
  - Brings the services of one compose file to what is wanted, one after the other, through C(docker compose) version 2.
  - A service whose definition, image, files and secrets are as they were is left alone.
  - A service that was changed must become well within its limit. Its container runs, its health check says so, and
    where O(services[].probe) is given a token really comes. Else it goes back to the last version that was well,
    and the call fails with the reason and the last lines of the log.
  - Ports, networks, models and images are looked at before the first change, and all that is wrong is said at once.
  - The filter P(ai_infra.workstation.render_stack#filter) makes O(compose), O(services), O(files) and O(secrets).
options:
  state:
    description:
      - V(absent) removes containers, network and our files. Models, images and volumes stay, see O(remove_volumes).
    type: str
    choices: [present, absent]
    default: present
  compose:
    description:
      - The compose file as data.
      - Configuration files and secrets are added to it by this module.
    type: dict
    default: {}
  project:
    description: Name of the compose project, where O(compose) names none.
    type: str
    default: ai-stack
  directory:
    description: Folder for the compose file, for files and secrets, and for what was proven well. Only root can enter.
    type: path
    default: /var/lib/ai-workstation/stack
  services:
    description: How each service is brought up, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in O(compose).
        type: str
        required: true
      local_image:
        description: The image was built on the machine. It is named by its identity, and never pulled.
        type: bool
        default: false
      health_seconds:
        description: How long it may take until it is well. V(0) means it has no health check.
        type: int
        default: 0
      models:
        description: Files that must be there, readable by the user of the service.
        type: list
        elements: path
        default: []
      caches:
        description: Its volumes that hold nothing but caches.
        type: list
        elements: str
        default: []
      probe:
        description: Ask it for a token when it is well. Nothing is asked without this.
        type: dict
        suboptions:
          port:
            description: Its port on the machine.
            type: int
            required: true
          address:
            description: The address that the port is bound to.
            type: str
            default: 127.0.0.1
          secret:
            description: Name of the secret that is its API key.
            type: str
          model:
            description: Name of the model to ask for.
            type: str
  files:
    description: Configuration files of services.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service.
        type: str
        required: true
      name:
        description: Its name among the configs of the service, without the name of the service in front.
        type: str
        required: true
      content:
        description: Its content.
        type: str
        required: true
  secrets:
    description: Which service gets which secret, and the user that may read it.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service.
        type: str
        required: true
      name:
        description: Name of the secret.
        type: str
        required: true
      uid:
        description: User inside the container.
        type: int
        required: true
      gid:
        description: Group inside the container.
        type: int
        required: true
  secret_values:
    description:
      - The secrets. Each has one of O(secret_values[].value), O(secret_values[].file) and O(secret_values[].generate).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      value:
        description: The secret, from a vault.
        type: str
      file:
        description: A file on the machine that holds it.
        type: path
      generate:
        description: Make one on the machine, once.
        type: bool
        default: false
  units:
    description:
      - systemd units that belong to the stack. They are installed, enabled and started before the services, and removed
        when a later call does not name them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, with its suffix.
        type: str
        required: true
      content:
        description: The unit file. Its first line must be C(# Written by ai_infra.workstation).
        type: str
        required: true
      program_path:
        description: Where a program is installed for it.
        type: path
      program:
        description: The text of that program.
        type: str
  remove_volumes:
    description: Which volumes go with O(state=absent).
    type: str
    choices: [none, caches, all]
    default: none
attributes:
  check_mode:
    description: Says which services would be made, made anew or removed. Nothing is started, built, pulled or written.
    support: full
  diff_mode:
    description: The definition of each service that changes, before and after. Secrets are never shown.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Needs root, and the docker command with its compose plugin on the target. In check mode on a machine without them it
    says C(after install).
seealso:
  - module: ai_infra.workstation.llm_endpoint_probe
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Run the declared services
  ai_infra.workstation.service_stack:
    compose: "{{ stack.compose }}"
    services: "{{ stack.services }}"
    files: "{{ stack.files }}"
    secrets: "{{ stack.secrets }}"
    secret_values:
      - name: llama_key
        value: "{{ vault_llama_key }}"
  vars:
    stack: "{{ service_stack_services | ai_infra.workstation.render_stack }}"

- name: Remove them, and their caches
  ai_infra.workstation.service_stack:
    state: absent
    remove_volumes: caches
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The service, unit, volume or folder.
      type: str
      sample: service:llama_cpu
    before:
      description: Status, image, CPU set, memory limit and ports as they were.
      type: str
      sample: running, llama:1, CPUs 0-3, 8G, 127.0.0.1:8001:8080
    after:
      description: The same as it is wanted.
      type: str
    scope:
      description: Always V(persistent).
      type: str
    reboot_required:
      description: Always V(false).
      type: bool
    reason:
      description: What is done with it and why.
      type: str
      sample: "recreate: changed: CPU set"
services:
  description:
    - What each service needed, by name, with C(step) (create, recreate, start, prove, remove, keep) and C(reason).
  returned: success
  type: dict
skipped_keys:
  description: In check mode, what has to be installed, built or loaded first.
  returned: success
  type: list
  elements: dict
service:
  description: The service that did not come up.
  returned: when a service did not come up
  type: str
returned:
  description: Whether it is back at its last good version, and well.
  returned: when a service did not come up
  type: bool
updated:
  description: The services that were updated before it.
  returned: when a service did not come up
  type: list
  elements: str
not_tried:
  description: The services that were to be updated after it.
  returned: when a service did not come up
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.errors import WorkstationError
from ..module_utils.stack.call import converge
from ..module_utils.stack.specs import STACK


def main() -> None:
    module = AnsibleModule(argument_spec=STACK, supports_check_mode=True)
    try:
        result: dict[str, Any] = converge(module.params, module.check_mode, Host())
    except WorkstationError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
