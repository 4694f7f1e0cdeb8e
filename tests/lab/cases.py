# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Parameters of every state module that change something of each kind on the machine of the lab."""

from __future__ import annotations

from typing import Any

_SERVICE = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""

CASES: dict[str, dict[str, Any]] = {
    "kernel_settings": {
        "sysctl": {
            "vm.dirty_bytes": 1 << 30,
            "vm.dirty_background_bytes": 1 << 28,
            "vm.swappiness": 10,
            "kernel.numa_balancing": 0,
        },
        "sysfs": {"/sys/kernel/mm/ksm/pages_to_scan": 300},
        "modules": ["tcp_bbr"],
    },
    "cpu_governor": {"governor": "performance", "max_mhz": "3600", "idle_latency_us": 50, "smt": "off"},
    "hugepages": {
        "pools": [{"size": "2M", "count": 8, "node": 0}, {"size": "2M", "count": 6, "node": 1}],
        "mounts": [{"path": "/mnt/huge", "page_size": "2M"}],
        "thp_enabled": "never",
        "thp_defrag": "defer",
    },
    "block_device_settings": {"devices": [{"device": "sda", "scheduler": "none", "read_ahead_kb": 2048}]},
    "irq_affinity": {
        "rules": [{"driver": "vmxnet3", "cpus": "1"}],
        "default_cpus": "0-1",
        "irqbalance": {"banned_cpus": "2-3", "banned_modules": ["vmxnet3"]},
    },
    "managed_files": {
        "files": [
            {"path": "/etc/systemd/system/lab.service", "content": _SERVICE, "actions": ["daemon-reload"]},
            {"path": "/etc/udev/rules.d/99-lab.rules", "content": "# nothing\n", "actions": ["udev-reload"]},
        ],
        "units": [{"name": "lab.service", "unit_file": "enabled", "active": True}],
    },
    "unit_state": {
        "units": [
            {"name": "avahi-daemon.service", "unit_file": "masked", "active": False},
            {"name": "fstrim.timer", "unit_file": "disabled", "active": False},
        ],
    },
    "nvidia_gpu_state": {
        "persistence": True,
        "power_limit": "90%",
        "gpu_clocks": {"min_mhz": 510, "max_mhz": 1410},
        "compute_mode": "exclusive_process",
    },
    "kernel_command_line": {"present": {"audit": "0"}},
}
