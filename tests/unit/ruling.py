# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine and an inventory to ask the conflict rules about: a case is what differs from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.plugin_utils import plan
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.base import Finding

GIB = 1 << 30
UUID = "GPU-00000000-0000-0000-0000-000000000001"
SECOND = "GPU-00000000-0000-0000-0000-000000000002"


def card(**changes: Any) -> dict[str, Any]:
    """An RTX 5090."""
    return {
        "uuid": UUID,
        "name": "NVIDIA GeForce RTX 5090",
        "pci_address": "0000:01:00.0",
        "device_id": "10de:2b85",
        "architecture": "blackwell",
        "brand": "geforce",
        "vram_bytes": 32 * GIB,
        "numa_node": 0,
        "persistence": False,
        "compute_mode": "default",
        "power": {"default_watts": 575.0, "min_watts": 400.0, "max_watts": 600.0},
        **changes,
    }


def ampere(**changes: Any) -> dict[str, Any]:
    """An RTX 3090."""
    power = {"default_watts": 350.0, "min_watts": 100.0, "max_watts": 350.0}
    more = {"name": "NVIDIA GeForce RTX 3090", "device_id": "10de:2204", "architecture": "ampere", "power": power}
    return card(**{**more, "vram_bytes": 24 * GIB, **changes})


def cpus(cores: int = 8, first_domain: int = 4) -> dict[str, Any]:
    """Cores with two threads in two L3 domains, second threads numbered after all first ones."""
    rows = []
    for cpu in range(2 * cores):
        core = cpu % cores
        low, high = (0, first_domain - 1) if core < first_domain else (first_domain, cores - 1)
        rows.append(
            {
                "cpu": cpu, "core": core, "package": 0, "die": 0, "node": 0, "online": True, "core_type": "",
                "siblings": f"{core},{core + cores}", "max_mhz": 5000, "l3_size_bytes": 32 << 20,
                "l3": f"{low}-{high},{low + cores}-{high + cores}",
            }
        )  # fmt: skip
    everyone = f"0-{2 * cores - 1}"
    return {
        "online": everyone,
        "present": everyone,
        "offline": "",
        "isolated": "",
        "smt": {"control": "on", "active": True, "threads_per_core": 2},
        "cpus": rows,
        "l3_domains": [],
        "cpufreq": {"driver": "amd-pstate-epp", "policies": [{"policy": 0, "epps": ["performance", "power"]}]},
        "idle": {"driver": "acpi_idle", "states": [{"name": "C1", "latency_us": 1}]},
    }


def owner(name: str, unit: str = "", **state: Any) -> dict[str, Any]:
    """A service that writes what we write."""
    state = {"installed": True, "enabled": True, "active": True, "masked": False, "command": "/usr/bin/x", **state}
    return {"name": name, "unit": unit or f"{name.replace('_', '-')}.service", "writes": [], **state}


def machine(**sections: Any) -> dict[str, Any]:
    """The facts of a desktop with 128 GiB, 8 cores and an RTX 5090, on which nothing is wrong."""
    facts = {
        "cpu": cpus(),
        "memory": {
            "total_bytes": 128 * GIB,
            "available_bytes": 120 * GIB,
            "nodes": [{"node": 0, "cpus": "0-15", "total_bytes": 128 * GIB, "distances": [10]}],
            "swap": [{"device": "/swapfile", "type": "file", "size_bytes": 8 * GIB, "used_bytes": 0}],
            "zram": [],
            "zswap": False,
            "dimms": [],
        },
        "gpus": [card()],
        "gpu_driver": {"state": "ok", "version": "580.95.05", "cuda_version": "13.0", "module": "open"},
        "pci": [],
        "kernel": {"virtualization": "none", "container": False, "cmdline": "quiet"},
        "docker": {"present": True, "active": True, "cgroup_driver": "systemd", "runtimes": [], "cdi": {"specs": []},
                   "nvidia_container_toolkit": None},
        "firmware": {"sockets": [{"socket": "AM5"}]},
        "owners": [],
    }  # fmt: skip
    return {**facts, **sections}


def memory(**changes: Any) -> dict[str, Any]:
    return {**machine()["memory"], **changes}


@dataclass(frozen=True)
class Case:
    """One question to one rule. says: words of the finding; empty: the rule must not fire."""

    rule: str
    says: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    severity: str = "error"
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}-{self.says or 'silent'}"


def fires(rule: str, says: str, facts: Mapping[str, Any] | None = None, **variables: Any) -> Case:
    return Case(rule, says, facts or {}, variables=variables)


def silent(rule: str, facts: Mapping[str, Any] | None = None, **variables: Any) -> Case:
    return Case(rule, "", facts or {}, variables=variables)


def findings(facts: Mapping[str, Any], variables: Mapping[str, Any]) -> list[Finding]:
    """All findings about this machine and this inventory."""
    return plan.review(facts, variables, list(variables))[1]


def check(case: Case) -> None:
    """The rule of the case fires, or is silent, and a finding has its four parts."""
    found = [one for one in findings(machine(**case.facts), case.variables) if one.rule == case.rule]
    if not case.says:
        assert found == []
        return
    assert [one for one in found if case.says in one.what], [one.what for one in found] or "nothing was found"
    for one in found:
        assert one.severity == case.severity
        assert one.what
        assert one.why
        assert one.fix
        assert "\n" not in f"{one.what}{one.why}{one.fix}"


def make(facts: Mapping[str, Any], **variables: Any) -> dict[str, Any]:
    return plan.make(facts, variables, list(variables))
