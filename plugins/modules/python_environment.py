#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: Keep Python environments that are exactly what their lock files say
version_added: 0.1.0
description:
  - Installs a pinned uv, makes virtual environments with it, and brings each to exactly the packages of its lock file,
    every hash proven. The whole set is one call.
  - Packages that someone added or removed are noticed, since uv itself is asked what it would do.
  - An environment that holds no copy of our lock is not ours, and is refused.
options:
  folder:
    description: Where uv is installed, in an environment of its own.
    type: path
    default: /opt/ai-workstation/uv
  uv:
    description: The pinned requirement with its hashes, as pip reads it. Empty removes uv.
    type: str
    default: ""
  wheels:
    description: A folder of wheels on the target, used instead of a package index.
    type: path
  environments:
    description: The environments. One that is not named is left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder of the environment.
        type: str
        required: true
      state:
        description: Whether it is there.
        type: str
        choices: [present, absent]
        default: present
      owner:
        description: The user whom it belongs to.
        type: str
        default: root
      python:
        description: The version of Python.
        type: str
        default: "3.12"
      python_source:
        description:
          - V(system) takes a Python of the machine, V(managed) one that uv downloads and proves, V(any) prefers the
            second.
        type: str
        choices: [any, system, managed]
        default: any
      lock:
        description: The text of the lock file, every requirement pinned and hashed.
        type: str
      torch_backend:
        description: The index that uv takes PyTorch from, such as V(cu128) or V(cpu). The lock must be made for it.
        type: str
attributes:
  check_mode:
    description: Predicts the changes without writing anything.
    support: full
  diff_mode:
    description: Returns versions and hashes of locks before and after.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Needs Python 3.9 with the module C(venv) on the target (Debian's package python3-venv).
  - Proxies and package indexes are those of the environment variables C(UV_*), C(PIP_*), C(SSL_*) and C(*_PROXY).
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Give a user an environment
  ai_infra.workstation.python_environment:
    uv: "{{ lookup('ansible.builtin.file', 'uv.lock') }}"
    environments:
      - path: /home/ann/ml
        owner: ann
        python: "3.12"
        lock: "{{ lookup('ansible.builtin.file', 'ml.lock') }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.python_environments import converge, parse

_ENVIRONMENT = {
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "owner": {"type": "str", "default": "root"},
    "python": {"type": "str", "default": "3.12"},
    "python_source": {"type": "str", "default": "any", "choices": ["any", "system", "managed"]},
    "lock": {"type": "str"},
    "torch_backend": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "default": "/opt/ai-workstation/uv"},
            "uv": {"type": "str", "default": ""},
            "wheels": {"type": "path"},
            "environments": {"type": "list", "elements": "dict", "default": [], "options": _ENVIRONMENT},
        },
        supports_check_mode=True,
    )
    leave(
        module,
        Machine(Host()),
        lambda machine: converge(parse(module.params), machine.host, module.check_mode),
    )


if __name__ == "__main__":
    main()
