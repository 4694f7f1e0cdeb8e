#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: container_images
short_description: Build the images of docker/ on the machine that runs them
version_added: 0.1.0
description:
  - Builds what is asked for from the contexts in C(docker/) of the collection. Each is a folder with a Dockerfile.
  - The hash of a context, its files and arguments, is a label of the image. An image with the label is not built again.
  - Nothing but the images is left on the machine.
options:
  images:
    description: Names of folders in C(docker/), which C(docker/README.md) lists.
    type: list
    elements: str
    required: true
  args:
    description: "Build arguments, C({image: {ARGUMENT: value}}): other bases, mirrors and versions."
    type: dict
  gpus:
    description:
      - Names of the GPUs of the machine. What is compiled for GPUs is compiled for their generations alone; without
        them, for all that the Dockerfile names.
    type: list
    elements: str
    default: []
  prefix:
    description: What the names of the images begin with. The tag is the version in C(docker/images.yml).
    type: str
    default: ai-workstation
  folder:
    description: Another folder like C(docker/) on the controller.
    type: path
  timeout_seconds:
    description: How long the build of one image may take.
    type: int
    default: 7200
  contexts:
    description: Filled in by the action plugin.
    type: list
    elements: dict
attributes:
  action:
    description: An action plugin reads the contexts on the controller.
    support: full
  check_mode:
    description: Says what would be built, also where there is no Docker yet.
    support: full
  diff_mode:
    description: Shows the hash of the context before and after.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.lint_settings
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Build the CPU's engine and the gateway
  ai_infra.workstation.container_images:
    images: [llama-cpu, gateway]

- name: Build the GPU's engine for the GPUs of this machine, from a mirror's base
  ai_infra.workstation.container_images:
    images: [llama-gpu]
    gpus: "{{ ansible_facts['workstation'].gpus | map(attribute='name') }}"
    args:
      llama-gpu:
        BASE: registry.example/nvidia/cuda:12.8.1-runtime-ubuntu24.04
"""

RETURN = r"""
images:
  description: What was asked for.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The folder in C(docker/).
      type: str
    tag:
      description: Name and tag of the image.
      type: str
    context:
      description: Hash of the files and arguments.
      type: str
    built:
      description: Whether it was built now, or would be in check mode.
      type: bool
    id:
      description: The id of an image that was built.
      type: str
note:
  description: What check mode could not ask, C(after install) where Docker is to come.
  returned: in check mode, where there is no Docker
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import image_build
from ..module_utils.doors.host import Host
from ..module_utils.errors import WorkstationError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "str", "required": True},
            "args": {"type": "dict"},
            "gpus": {"type": "list", "elements": "str", "default": []},
            "prefix": {"type": "str", "default": "ai-workstation"},
            "folder": {"type": "path"},
            "timeout_seconds": {"type": "int", "default": 7200},
            "contexts": {"type": "list", "elements": "dict"},
        },
        supports_check_mode=True,
    )
    host, wanted = Host(), module.params["contexts"] or []
    before, after, images = {}, {}, []
    note = image_build.missing_engine(host)
    if note and not module.check_mode:
        module.fail_json(msg=note)
    try:
        for image in wanted:
            found = None if note else image_build.found_context(host, image["tag"])
            entry = {"name": image["name"], "tag": image["tag"], "context": image["context"], "built": False}
            if found != image["context"]:
                entry["built"] = True
                before[image["tag"]], after[image["tag"]] = found, image["context"]
                if not module.check_mode:
                    entry["id"] = image_build.build(host, image, module.params["timeout_seconds"])
            images.append(entry)
    except WorkstationError as error:
        module.fail_json(msg=str(error), changed=any("id" in image for image in images), images=images)
    result = {"note": f"after install: {note}"} if note else {}
    module.exit_json(changed=bool(after), images=images, diff={"before": before, "after": after}, **result)


if __name__ == "__main__":
    main()
