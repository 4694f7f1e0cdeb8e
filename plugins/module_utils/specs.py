# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a call of each state module may say, as Ansible's argument specifications. Data only.

They stand here and not in the modules because workstation_state takes the same parameters, by module.
"""

from __future__ import annotations

from typing import Any

from .engine.actions import ACTIONS
from .subjects.mount_options import OPTIONS

COMMON: dict[str, Any] = {
    "owner": {"type": "str", "default": "default"},
    "optional": {"type": "list", "elements": "str", "default": []},
    "expect": {"type": "str"},
}

_POOL: dict[str, Any] = {
    "size": {"type": "str", "required": True},
    "count": {"type": "int", "required": True},
    "node": {"type": "int"},
}
_MOUNT: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "page_size": {"type": "str"},
    "owner": {"type": "str", "default": "0"},
    "group": {"type": "str", "default": "0"},
    "mode": {"type": "str", "default": "0755"},
    "size": {"type": "str"},
}

_RULE: dict[str, Any] = {
    "pci": {"type": "str"},
    "driver": {"type": "str"},
    "interface": {"type": "str"},
    "name": {"type": "str"},
    "cpus": {"type": "str"},
    "node_local": {"type": "bool", "default": False},
    "exclude": {"type": "str"},
    "spread": {"type": "bool", "default": False},
    "optional": {"type": "bool", "default": False},
}
_IRQBALANCE: dict[str, Any] = {
    "banned_cpus": {"type": "str"},
    "banned_modules": {"type": "list", "elements": "str", "default": []},
    "stopped": {"type": "bool", "default": False},
}


def _pair(first: str, second: str) -> dict[str, object]:
    return {
        "type": "dict",
        "options": {
            first: {"type": "int"},
            second: {"type": "int"},
            "reset": {"type": "bool", "default": False},
        },
    }


_SETTINGS: dict[str, Any] = {
    "persistence": {"type": "bool"},
    "power_limit": {"type": "str"},
    "allow_above_default": {"type": "bool"},
    "gpu_clocks": _pair("min_mhz", "max_mhz"),
    "memory_clocks": _pair("min_mhz", "max_mhz"),
    "application_clocks": _pair("memory_mhz", "graphics_mhz"),
    "compute_mode": {"type": "str", "choices": ["default", "exclusive_process", "prohibited"]},
    "ecc": {"type": "bool"},
    "mig": {"type": "bool"},
    "reset": {"type": "bool"},
}


# In the order in which workstation_state applies them.
SPECS: dict[str, dict[str, Any]] = {
    # First: the program must be there before a change that it may have to take back.
    "boot_unit": {
        "enabled": {"type": "bool", "default": False},
        "only_join": {"type": "bool", "default": False},
    },
    "cpu_governor": {
        "governor": {"type": "str"},
        "epp": {"type": "str"},
        "boost": {"type": "bool"},
        "min_mhz": {"type": "str"},
        "max_mhz": {"type": "str"},
        "policies": {"type": "raw", "default": "all"},
        "idle_latency_us": {"type": "int"},
        "idle_mechanism": {"type": "str", "choices": ["pm_qos", "disable"], "default": "pm_qos"},
        "accept_polling": {"type": "bool", "default": False},
        "smt": {"type": "str", "choices": ["on", "off", "forceoff"]},
    },
    "hugepages": {
        "pools": {"type": "list", "elements": "dict", "default": [], "options": _POOL},
        "partial": {"type": "str", "choices": ["refuse", "allow"], "default": "refuse"},
        "reserve": {"type": "str", "default": "10%"},
        "mounts": {"type": "list", "elements": "dict", "default": [], "options": _MOUNT},
        "thp_enabled": {"type": "str", "choices": ["always", "madvise", "never"]},
        "thp_defrag": {"type": "str", "choices": ["always", "defer", "defer+madvise", "madvise", "never"]},
        "thp_shmem": {"type": "str", "choices": ["always", "within_size", "advise", "never", "deny", "force"]},
        "shm_group": {"type": "str"},
        "persist": {"type": "bool", "default": True},
    },
    "kernel_settings": {
        "sysctl": {"type": "dict", "default": {}},
        "sysfs": {"type": "dict", "default": {}},
        "at_least": {"type": "list", "elements": "str", "default": []},
        "modules": {"type": "list", "elements": "str", "default": []},
        "persist": {"type": "bool", "default": True},
        "name": {"type": "str", "default": "ai-workstation"},
    },
    "block_device_settings": {
        "devices": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "device": {"type": "str"},
                "path": {"type": "path"},
                "rotational": {"type": "bool"},
                "scheduler": {"type": "str"},
                "read_ahead_kb": {"type": "int"},
                "at_least": {"type": "bool", "default": False},
            },
        },
        "mounts": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "path": {"type": "path", "required": True},
                "options": {"type": "list", "elements": "str", "choices": list(OPTIONS), "required": True},
            },
        },
        "persist": {"type": "bool", "default": True},
    },
    "irq_affinity": {
        "rules": {"type": "list", "elements": "dict", "default": [], "options": _RULE},
        "default_cpus": {"type": "str"},
        "online_cpus": {"type": "str"},
        "irqbalance": {"type": "dict", "options": _IRQBALANCE},
    },
    "managed_files": {
        "files": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "path": {"type": "str", "required": True},
                "content": {"type": "str"},
                "mode": {"type": "str", "default": "0644"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "actions": {"type": "list", "elements": "str", "choices": list(ACTIONS), "default": []},
                "restart": {"type": "list", "elements": "str", "default": []},
                "reboot": {"type": "bool", "default": False},
                "risk": {"type": "str"},
            },
        },
        "units": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "unit_file": {"type": "str", "choices": ["enabled", "disabled", "masked"]},
                "active": {"type": "bool"},
            },
        },
    },
    "unit_state": {
        "units": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "unit_file": {"type": "str", "choices": ["enabled", "disabled", "masked"]},
                "active": {"type": "bool"},
                "ours": {"type": "bool", "default": False},
            },
        },
    },
    "kernel_command_line": {
        "present": {"type": "raw", "aliases": ["parameters"]},
        "absent": {"type": "list", "elements": "str", "default": []},
        "accept": {"type": "list", "elements": "str", "default": []},
        "trial": {"type": "bool", "default": False},
        "trial_seconds": {"type": "int", "default": 1200},
        "name": {"type": "str", "default": "ai-workstation"},
    },
    "nvidia_gpu_state": {
        **_SETTINGS,
        "gpus": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"id": {"type": "str", "required": True}, **_SETTINGS},
        },
        "require_gpu": {"type": "bool", "default": True},
    },
}

# firmware_report, a report and no state.
FIRMWARE: dict[str, Any] = {
    "ignore": {"type": "list", "elements": "str", "default": []},
    "fail_on": {"type": "list", "elements": "str", "default": []},
    "expect_pcie_generation": {"type": "int", "choices": [1, 2, 3, 4, 5, 6]},
    "expect_pcie_width": {"type": "int", "choices": [1, 2, 4, 8, 16]},
    "expect_memory_mts": {"type": "int"},
    "expect_cores": {"type": "int"},
    "expect_c_states": {"type": "str", "choices": ["enabled", "disabled", "any"], "default": "enabled"},
    "expect_smt": {"type": "str", "choices": ["on", "off", "any"], "default": "any"},
    "expect_virtualization": {"type": "str", "choices": ["on", "off", "any"], "default": "any"},
    "expect_iommu": {"type": "str", "choices": ["on", "off", "any"], "default": "any"},
    "expect_secure_boot": {"type": "str", "choices": ["on", "off", "any"], "default": "any"},
    "sample_seconds": {"type": "int", "default": 0},
    "ticket_dir": {"type": "path"},
    "facts": {"type": "dict"},
}
