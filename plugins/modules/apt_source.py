#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: A package repository, trusted by a key with a known fingerprint
version_added: 0.1.0
description:
  - Writes C(/etc/apt/sources.list.d/ai-workstation-NAME.sources), with the key of the repository in it.
  - The key is fetched, and its fingerprint compared, before apt is told of it. A block that holds any other key is
    refused. No gpg is needed on the target.
  - A key that is in the file already and has the right fingerprint is not fetched again.
  - A repository that another file names is not named twice, because apt does not work with two keys for one.
options:
  name:
    description: A name of our own, small letters, digits and dashes.
    type: str
    required: true
  uris:
    description: Addresses of the repository. Needed with O(state=present).
    type: list
    elements: str
    default: []
  suites:
    description: Suites. V(/) for a flat repository. Needed with O(state=present).
    type: list
    elements: str
    default: []
  components:
    description: Components. None for a flat repository.
    type: list
    elements: str
    default: []
  architectures:
    description: Architectures. All that apt knows when left out.
    type: list
    elements: str
    default: []
  key_url:
    description: Where the key is, as armored text.
    type: str
  key:
    description: The key itself, as armored text, instead of O(key_url).
    type: str
  fingerprints:
    description: The fingerprints of the keys that may be in the block, 40 hexadecimal digits each.
    type: list
    elements: str
    default: []
  existing:
    description: What to do when another file names the repository. V(keep) takes that one, with the key it has.
    type: str
    choices: [refuse, keep]
    default: refuse
  state:
    description: Whether the repository is there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Predicts the changes without writing anything. The key is fetched and checked.
    support: full
  diff_mode:
    description: Returns the file before and after.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: debian
    support: full
notes:
  - Needs apt 2.3.10 or newer, which Debian 12 and Ubuntu 22.04 have. The lists of packages are not updated.
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Trust Docker's repository
  ai_infra.workstation.apt_source:
    name: docker
    uris: [https://download.docker.com/linux/debian]
    suites: [trixie]
    components: [stable]
    key_url: https://download.docker.com/linux/debian/gpg
    fingerprints: [9DC858229FC7DD38854AE2D88D81803C0EBFCD88]
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url

from ..module_utils.apt.source import converge
from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.errors import RefusedError


def main() -> None:
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "uris": words,
            "suites": words,
            "components": words,
            "architectures": words,
            "key_url": {"type": "str", "no_log": False},
            "key": {"type": "str", "no_log": False},
            "fingerprints": words,
            "existing": {"type": "str", "choices": ["refuse", "keep"], "default": "refuse"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )

    def download(address: str) -> str:
        answer, status = fetch_url(module, address, timeout=30)
        if answer is None or status["status"] not in (200, None):
            raise RefusedError(f"key_url: {address}: {status['msg']}")
        return answer.read(1 << 20).decode("utf-8", "replace")

    leave(module, Machine(Host()), lambda machine: converge(module.params, module.check_mode, machine.host, download))


if __name__ == "__main__":
    main()
