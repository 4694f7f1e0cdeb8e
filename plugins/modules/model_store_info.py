#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store_info
short_description: List the models of a store, prove them, and say what is in memory
version_added: 0.1.0
description:
  - Returns the models that M(ai_infra.workstation.model_store) keeps, how much of each is in the page cache, the files
    that are not ours, and what is half fetched. Changes nothing.
options:
  root:
    description: The folder of the store.
    type: path
    default: /mnt/ai-data/models
  names:
    description: The models; all where left out.
    type: list
    elements: str
    default: []
  verify:
    description: Whether all files are read and hashed, instead of trusting their directory entries.
    type: bool
    default: false
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: N/A
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - How much is in memory is told to the owner of the files and to root. Any other user sees all of it as resident.
seealso:
  - module: ai_infra.workstation.model_store
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Prove every file
  ai_infra.workstation.model_store_info:
    verify: true
  register: store
  failed_when: store.broken | length > 0
"""

RETURN = r"""
models:
  description: The models.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
    state:
      description: V(ok), V(touched) (a directory entry is not the recorded one), V(missing) or V(wrong).
      type: str
    size_bytes:
      description: The size.
      type: int
    resident_bytes:
      description: How much of it is in the page cache.
      type: int
    preload:
      description: Whether it is read into memory at boot.
      type: bool
    lock:
      description: Whether it is locked there.
      type: bool
    hugepages:
      description: Whether it is copied to huge pages.
      type: bool
    files:
      description: Its files with path, state, size, SHA-256, source, how and when it came.
      type: list
      elements: dict
foreign:
  description: Files below the root that are not ours, relative to it.
  returned: success
  type: list
  elements: str
partial:
  description: What is half fetched, with source, bytes that are here and bytes of the whole.
  returned: success
  type: list
  elements: dict
broken:
  description: The names of models that are not V(ok).
  returned: success
  type: list
  elements: str
size_bytes:
  description: Size of the file system.
  returned: success
  type: int
free_bytes:
  description: What is free of it.
  returned: success
  type: int
root:
  description: The folder.
  returned: success
  type: str
lines:
  description: The same, for a reader.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.big_files import BigFiles
from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.models.report import report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/mnt/ai-data/models"},
            "names": {"type": "list", "elements": "str", "default": []},
            "verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    files = BigFiles(Host(), module.params["root"])
    leave(
        module,
        Machine(files.host),
        lambda _machine: {"warnings": [], **report(files, module.params["names"], module.params["verify"])},
    )


if __name__ == "__main__":
    main()
