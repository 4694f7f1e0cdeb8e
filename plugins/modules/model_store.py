#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store
short_description: Keep a folder of model files, fetched with resume and proven by SHA-256
version_added: 0.1.0
description:
  - Fetches, adopts and removes the files of models below one root, in one call for the whole set.
  - A manifest in the root says which files are ours, with SHA-256, size, source and time. Only these are ever
    replaced or removed, and removed only while they are as they were left. All other files are left alone.
  - A file is fetched beside its place, checked, written to disk and renamed. A server that has the old file open or
    mapped keeps the old one, whole.
  - A fetch that was cut goes on where it ended, in the same run or a later one. Addresses, free space and memory are
    checked for the whole set before the first byte. What was fetched before a failure stays.
  - A file is hashed once. After that its size, time of change and inode are trusted, until they are others.
  - Without O(models[].sha256) the first content that is seen is the wanted one from then on, and RV(pinned) says so.
options:
  root:
    description: The folder of the store. It is made where it is missing.
    type: path
    default: /mnt/ai-data/models
  models:
    description:
      - The models. One that an earlier call named, and this one does not, stays, unless O(purge) is set.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the model, and of its folder.
        type: str
        required: true
      state:
        description: Whether the model is there.
        type: str
        choices: [present, absent]
        default: present
      source:
        description:
          - The address of its file, by C(http), C(https) or C(file), or a path on the target.
          - C(hf://owner/name@revision/file) names a file of O(hub_url). A revision that is a commit never changes.
          - A file C(...-00001-of-00003.gguf) stands for all parts of its set.
        type: str
      files:
        description: Several files, instead of O(models[].source).
        type: list
        elements: dict
        suboptions:
          source:
            description: As O(models[].source).
            type: str
          path:
            description: Where it belongs, relative to the root. Name of the model and of the file where left out.
            type: str
          sha256:
            description: The SHA-256 of the file.
            type: str
      path:
        description:
          - Where the file belongs, relative to the root. C(name/file) where left out.
          - With a set of parts or O(models[].unpack) it is the folder.
          - Without O(models[].source) the file that is there is adopted.
        type: str
      sha256:
        description: The SHA-256 of the file, of each part, or of the archive. Required over plain C(http).
        type: list
        elements: str
        default: []
      unpack:
        description: Whether the source is a tar archive whose files are the model.
        type: bool
        default: false
      preload:
        description: Whether the boot unit of the role model_store reads the model into memory.
        type: bool
        default: false
      lock:
        description: Whether the model is locked in memory as well.
        type: bool
        default: false
      hugepages:
        description: Whether the model is copied to a hugetlbfs mount, for an engine that reads it there.
        type: bool
        default: false
  purge:
    description: Whether models of the manifest that O(models) does not name are removed.
    type: bool
    default: false
  group:
    description: The group of the files, by name or number. The group of the caller where left out.
    type: str
  mode:
    description: The mode of the files, never writable for group and others. Folders can be entered by the same.
    type: str
    default: "0644"
  space_reserve:
    description: What must stay free on the file system, as a size or a share of it.
    type: str
    default: 5%
  memory_reserve:
    description: What preloaded and locked models must leave of the memory, as a size or a share of it.
    type: str
    default: 20%
  hub_url:
    description: Where C(hf://) leads.
    type: str
    default: https://huggingface.co
  token:
    description: A token for O(hub_url). It is sent there only, and nowhere by a redirect.
    type: str
  token_file:
    description: A file on the target that holds the token, instead of O(token).
    type: path
  timeout:
    description: Seconds without a byte after which a connection counts as cut.
    type: int
    default: 60
  retries:
    description: How often a fetch is tried again, 0 to 100. Every 16 MiB that come begin the count anew.
    type: int
    default: 5
attributes:
  check_mode:
    description: Predicts the changes. Writes nothing and connects to no server. Files of unknown content are read.
    support: full
  diff_mode:
    description: Returns the manifest before and after. The diff of check mode is the diff of the run that follows.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Needs nothing but Python 3.9 on the target. Progress is written to the system log.
  - Two calls on one store take turns.
seealso:
  - module: ai_infra.workstation.model_store_info
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Keep two models, one of them in memory
  ai_infra.workstation.model_store:
    models:
      - name: smollm2-135m
        source: hf://HuggingFaceTB/SmolLM2-135M-Instruct-GGUF@main/smollm2-135m-instruct-q8_0.gguf
        preload: true
      - name: large
        source: https://models.example/large-00001-of-00002.gguf
        sha256:
          - 0f1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100ff
          - ff00112233445566778899aabbccddeeff00112233445566778695a4b3c2d1f0

- name: Adopt a file that is there, remove another model
  ai_infra.workstation.model_store:
    models:
      - {name: ours, path: ours/weights.gguf}
      - {name: large, state: absent}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode. Before and after are SHA-256.
  returned: success
  type: list
  elements: dict
skipped_keys:
  description: Files that stay because someone else has changed them.
  returned: success
  type: list
  elements: dict
paths:
  description: The files of each model, the first part of a set first. The folder of an archive.
  returned: success
  type: dict
  sample: {smollm2-135m: [/mnt/ai-data/models/smollm2-135m/smollm2-135m-instruct-q8_0.gguf]}
kept:
  description: The models of the whole manifest that the boot units preload, lock and copy to huge pages.
  returned: success
  type: dict
  sample: {preload: [smollm2-135m], lock: [], hugepages: []}
adopted:
  description: Files that were there and are ours now.
  returned: success
  type: list
  elements: str
pinned:
  description: Files whose SHA-256 is wanted from now on because it was the first that was seen.
  returned: success
  type: list
  elements: str
done:
  description: What was done before the failure.
  returned: failure while files were fetched
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.download import Downloads
from ..module_utils.doors.host import Host
from ..module_utils.engine.door import leave
from ..module_utils.engine.machine import Machine
from ..module_utils.errors import InputError
from ..module_utils.models.store import converge, parse
from ..module_utils.subjects.accounts import parse_account

_FILE = {"source": {"type": "str"}, "path": {"type": "str"}, "sha256": {"type": "str"}}
_MODEL = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "source": {"type": "str"},
    "files": {"type": "list", "elements": "dict", "options": _FILE},
    "path": {"type": "str"},
    "sha256": {"type": "list", "elements": "str", "default": []},
    "unpack": {"type": "bool", "default": False},
    "preload": {"type": "bool", "default": False},
    "lock": {"type": "bool", "default": False},
    "hugepages": {"type": "bool", "default": False},
}


def _call(module: Any, machine: Machine) -> dict[str, Any]:
    params = module.params
    group = parse_account("group", params["group"] or os.getegid(), "group")
    gid = group.number(machine)
    if gid is None:
        raise InputError(f"group: {group.missing(group.nearest(machine))}")
    call = parse(params, machine.host, gid)
    downloads = Downloads(_token(params, machine.host), params["hub_url"], params["timeout"])
    return converge(call, machine.host, downloads, module.check_mode, module.log)


def _token(params: dict[str, Any], host: Host) -> str:
    if not params["token_file"]:
        return (params["token"] or "").strip()
    found = host.text(params["token_file"])
    if not found:
        raise InputError(f"token_file: {params['token_file']} cannot be read, or is empty")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/mnt/ai-data/models"},
            "models": {"type": "list", "elements": "dict", "default": [], "options": _MODEL},
            "purge": {"type": "bool", "default": False},
            "group": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
            "space_reserve": {"type": "str", "default": "5%"},
            "memory_reserve": {"type": "str", "default": "20%"},
            "hub_url": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "token_file": {"type": "path", "no_log": False},
            "timeout": {"type": "int", "default": 60},
            "retries": {"type": "int", "default": 5},
        },
        mutually_exclusive=[("token", "token_file")],
        supports_check_mode=True,
    )
    leave(module, Machine(Host()), lambda machine: _call(module, machine))


if __name__ == "__main__":
    main()
