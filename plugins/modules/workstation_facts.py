#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: workstation_facts
short_description: Facts that tuning needs, CPU caches to GPU links
version_added: 0.1.0
description:
  - Returns C(ansible_facts.workstation), with processors, caches and NUMA nodes, memory and DIMMs, GPUs, PCI links,
    disks, interrupts, firmware tables, kernel, Docker, and the services that write the settings we write.
  - Everything is read from C(/proc), C(/sys), C(/etc) and from the NVIDIA driver (NVML). Nothing is changed and no
    command is run.
  - What a machine does not tell is null or an empty list. A container, a virtual machine or an ARM board is no error.
  - Run it as root. Other users are not shown the firmware tables with the DIMMs, nor a container's marks.
  - It can be one of the modules of C(facts_modules). GPUs are then described by PCI and the driver's files alone,
    unless C(nvidia-ml-py) is installed on the target, because only its own action sends that library along.
options:
  gather_subset:
    description:
      - The sections to gather. V(gpus) also gives C(gpu_driver).
    type: list
    elements: str
    default: [all]
    choices:
      - all
      - cpu
      - memory
      - gpus
      - pci
      - storage
      - interrupts
      - firmware
      - kernel
      - docker
      - systemd
      - owners
  pynvml:
    description: Set by the action plugin. The controller's C(nvidia-ml-py), so that nothing is installed on targets.
    type: str
attributes:
  check_mode:
    description: Runs the same in check mode.
    support: full
  diff_mode:
    description: Returns what has changed, or would be in check mode.
    support: none
  facts:
    description: Returns facts.
    support: full
  platform:
    description: Target systems.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.firmware_report
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Learn what the machine is
  ai_infra.workstation.workstation_facts:

- name: Only what the placement of services needs
  ai_infra.workstation.workstation_facts:
    gather_subset: [cpu, memory, gpus]

- name: Name the services that would fight over the governor
  ansible.builtin.debug:
    msg: >-
      {{ ansible_facts.workstation.owners | selectattr('active')
         | selectattr('writes', 'contains', 'governor') | map(attribute='unit') }}
"""

RETURN = r"""
ansible_facts:
  description: The facts. A value that the machine does not tell is null, a list is then empty.
  returned: success
  type: dict
  contains:
    workstation:
      description: The sections asked for. CPU lists are texts as the kernel prints them.
      type: dict
      contains:
        cpu:
          description:
            - Processor model, CPU lists (C(online) and others), SMT, one entry for each CPU (C(cpus), with core,
              package, die, L3 domain, NUMA node, siblings, core type, highest MHz), C(l3_domains), C(cpufreq) with its
              policies, and C(idle) states with the CPUs that may not enter them.
          type: dict
          sample:
            online: 0-31
            smt: {control: "on", active: true, threads_per_core: 2}
            l3_domains: [{cpus: "0-7,16-23", size_bytes: 33554432}]
        memory:
          description: Bytes in all, by NUMA node and in huge page pools. Swap, zram, zswap, THP modes, DIMMs in MT/s.
          type: dict
          sample:
            dimms: [{locator: DIMM_A2, size_bytes: 34359738368, type: DDR5, rated_mts: 6000, configured_mts: 5600}]
        gpus:
          description:
            - NVIDIA GPUs by PCI address. C(source) is V(nvml) where the driver answered, else V(pci).
              C(problem) says why a GPU that the driver lists did not answer.
          type: list
          elements: dict
          sample:
            - uuid: GPU-0c3ae9a1-7f5b-4b0e-8e2b-4b4a7f0f2c11
              name: NVIDIA GeForce RTX 5090
              pci_address: "0000:01:00.0"
              vram_bytes: 34190917632
              link: {current_gen: 1, current_width: 16, max_gen: 5, max_width: 16, gpu_max_gen: 5}
              power: {limit_watts: 575.0, default_watts: 575.0, min_watts: 400.0, max_watts: 600.0}
        gpu_driver:
          description:
            - C(state) is V(ok), V(no_device), V(not_loaded), V(no_library), V(no_binding), V(mismatch),
              V(no_permission) or V(unknown), with a C(reason). Versions of driver, NVML and CUDA, and the flavour
              of the C(module), V(open) or V(proprietary).
          type: dict
          sample: {state: ok, version: 580.95.05, module: open}
        pci:
          description: Displays, NVMe drives and network cards with link, port above and its link, BARs and interrupts.
          type: list
          elements: dict
        storage:
          description: C(disks) with scheduler and read-ahead, and C(mounts) with the disks below them.
          type: dict
        interrupts:
          description: C(default_affinity), and C(irqs) with device, affinity and whether the kernel manages them.
          type: dict
        firmware:
          description: SMBIOS texts, EFI, Secure Boot, IOMMU, and whose firmware menus the board has (C(menu_vendor)).
          type: dict
        kernel:
          description:
            - Release, command line, distribution, virtualization, container, systemd, this boot (C(boot_id)) and this
              installation (C(machine_id), derived for us from the machine's own, which stays there). C(loadable) has
              the modules that settings need and this kernel has, C(pending_reboots) what our changes in this boot wait
              for, each with C(owner), C(key) and C(reason).
          type: dict
          sample: {release: 6.12.48, virtualization: none, container: false, systemd: true}
        docker:
          description: Whether Docker is there, its version, cgroup driver, runtimes and CDI, read from files.
          type: dict
        systemd:
          description: Version of systemd, active services, and the units that bring swap with their devices.
          type: dict
          sample: {version: 255, services: [ssh.service], swap_units: [{unit: swapfile.swap, device: /swapfile}]}
        owners:
          description:
            - Writers of the same settings, whether installed, enabled, active, masked, their packaged command,
              and what they write.
          type: list
          elements: dict
          sample:
            - {name: irqbalance, unit: irqbalance.service, installed: true, enabled: true, active: true, masked: false,
               command: null, writes: [irq_affinity]}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.doors.nvml import open_nvml
from ..module_utils.errors import WorkstationError
from ..module_utils.facts.gather import SECTIONS, gather


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {"type": "list", "elements": "str", "default": ["all"], "choices": ["all", *SECTIONS]},
            # no_log keeps 40 KB of text out of the system log; the result need not carry it back either.
            "pynvml": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    source = module.params.pop("pynvml")
    try:
        facts = gather(Host(), module.params["gather_subset"], lambda: open_nvml(source))
    except WorkstationError as error:
        module.fail_json(msg=str(error), **error.details)
    module.exit_json(changed=False, ansible_facts={"workstation": facts})


if __name__ == "__main__":
    main()
