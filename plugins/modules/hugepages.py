#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hugepages
short_description: Set huge page pools, hugetlbfs mounts and transparent huge pages as one set
version_added: 0.1.0
description:
  - Sets huge page pools per size and per NUMA node, mounts hugetlbfs, chooses the modes of transparent huge pages
    and the group that may use huge pages for System V shared memory; now, and at every boot.
  - The kernel takes any count without an error and reserves what it finds. This module reads back what was really
    reserved; less than asked is a failure that names both numbers, and the old pools are put back, unless
    O(partial=allow).
  - A count for the whole machine is spread level over its NUMA nodes. Pools that shrink are written before
    pools that grow. A distribution that adds up to the count already is left as it is.
  - Mainline llama.cpp and vLLM do not use these pools; a pool only takes memory away unless something asks for it.
    Transparent huge pages are another mechanism, and neither switches the other on.
extends_documentation_fragment:
  - ai_infra.workstation.state
options:
  pools:
    description: The pools. A size is given either once for the whole machine or per node.
    type: list
    elements: dict
    default: []
    suboptions:
      size:
        description: Page size, like V(2M) or V(1G). The kernel must offer it (C(/sys/kernel/mm/hugepages)).
        type: str
        required: true
      count:
        description: Number of pages. Less than the pages in use is refused.
        type: int
        required: true
      node:
        description: NUMA node that holds the pages. Without it the pages are spread over all nodes.
        type: int
  partial:
    description:
      - What to do when the kernel reserves fewer pages than asked.
      - V(refuse) puts the old pool back and fails. V(allow) keeps what was reserved; it is not tried again in
        the same boot for the same count.
    type: str
    choices: [refuse, allow]
    default: refuse
  reserve:
    description:
      - Memory that must stay available to everything else, in bytes (V(8G)) or as a share of all memory (V(10%)).
      - Growing a pool below that is refused before anything is written. Compared with C(MemAvailable), to which the
        pages that the same call gives back are added.
    type: str
    default: 10%
  mounts:
    description:
      - hugetlbfs mounts. A path that something else has mounted already is refused.
      - Other options than before mean an unmount first, which fails while files there are in use.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where to mount. The folder is made when it is missing.
        type: str
        required: true
      page_size:
        description: Page size of the files. Without it the kernel's default size.
        type: str
      owner:
        description: Owner of the mount, by name or number. Names are looked up in C(/etc/passwd) of the target.
        type: str
        default: '0'
      group:
        description: Group of the mount, by name or number. Names are looked up in C(/etc/group) of the target.
        type: str
        default: '0'
      mode:
        description: Mode of the mount, as a quoted octal number.
        type: str
        default: '0755'
      size:
        description: The most bytes that files in this mount may take, in whole pages. Without it no limit.
        type: str
  thp_enabled:
    description: Transparent huge pages for anonymous memory. The kernel moves C(vm.min_free_kbytes) along.
    type: str
    choices: [always, madvise, never]
  thp_defrag:
    description: How hard a page fault tries for a huge page.
    type: str
    choices: [always, defer, defer+madvise, madvise, never]
  thp_shmem:
    description: Transparent huge pages for shared memory and tmpfs (C(shmem_enabled)).
    type: str
    choices: [always, within_size, advise, never, deny, force]
  shm_group:
    description: Group that may use huge pages for System V shared memory (C(vm.hugetlb_shm_group)), by name or number.
    type: str
  persist:
    description:
      - Whether the set also returns at boot.
      - A pool of the default size for the whole machine becomes C(vm.nr_hugepages) in
        C(/etc/sysctl.d/99-zz-ai-workstation-hugepages.conf), like O(shm_group). Other pools and transparent huge
        pages become lines of C(/etc/tmpfiles.d/99-zz-ai-workstation-hugepages.conf). A mount becomes an enabled
        systemd mount unit in C(/etc/systemd/system).
    type: bool
    default: true
notes:
  - Pages of 1 GiB need as much contiguous memory each. Late after boot the kernel rarely finds it, and what the boot
    files ask for may fall short as well. The sure place is the kernel command line (C(hugepagesz=1G hugepages=4)),
    see M(ai_infra.workstation.kernel_command_line).
  - In O(optional) pools are named V(2M) or V(1G/node0), mounts by their path, the others by the name of the parameter.
  - Refused in one line are a size that the kernel lacks, a node that is not there, fewer pages than are in use,
    one size with a node and without, a mount size that is no whole number of pages, a user or group that is not there.
  - In a container C(/sys) is read-only; nothing can be set there, and the error or the skip says so.
seealso:
  - module: ai_infra.workstation.kernel_settings
  - module: ai_infra.workstation.kernel_command_line
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Transparent huge pages for what asks for them, without stalls
  ai_infra.workstation.hugepages:
    thp_enabled: madvise
    thp_defrag: defer+madvise

- name: A pool of 16 GiB near the first GPU, for a patched engine
  ai_infra.workstation.hugepages:
    pools:
      - {size: 2M, count: 8192, node: 0}
    mounts:
      - path: /dev/hugepages-ai
        page_size: 2M
        group: render
        mode: '0770'
    reserve: 8G

- name: Take what the kernel can still find
  ai_infra.workstation.hugepages:
    pools:
      - {size: 1G, count: 4}
    partial: allow
"""

RETURN = r"""
pools:
  description: The pools that were asked for, as they are after the call (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    size:
      description: Page size.
      type: str
      sample: 2M
    node:
      description: NUMA node, or null for the whole machine.
      type: int
    asked:
      description: Pages asked for.
      type: int
    pages:
      description: Pages that the kernel has reserved.
      type: int
    free:
      description: Pages of these that nothing uses.
      type: int
    in_use:
      description: Pages in use.
      type: int
memory:
  description: Memory ahead of the call, in bytes.
  returned: success
  type: dict
  contains:
    total:
      description: C(MemTotal).
      type: int
    available:
      description: C(MemAvailable).
      type: int
    reserve:
      description: What O(reserve) came to.
      type: int
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The pool, mount, value, unit or file, with its family in front.
      type: str
      sample: hugepages:2M/node0
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
  description: Fingerprint of the changes (keys, values found, new values), for O(expect) of a later call.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.engine.door import run
from ..module_utils.specs import COMMON, SPECS
from ..module_utils.subjects import hugepages


def main() -> None:
    module = AnsibleModule(argument_spec={**COMMON, **SPECS["hugepages"]}, supports_check_mode=True)
    run(module, hugepages)


if __name__ == "__main__":
    main()
