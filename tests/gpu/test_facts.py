# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""workstation_facts says of each card what nvidia-smi says."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import normal_pci

WORDS = {"Enabled": "on", "Disabled": "off", "Default": "default", "Exclusive_Process": "exclusive_process"}
WORDS["Prohibited"] = "prohibited"


def _word(text: str | None) -> str | None:
    return None if text is None else WORDS[text]


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _mib(number: int | None) -> int | None:
    return None if number is None else number >> 20


# A field of nvidia-smi, how to read it, and where facts have it.
FIELDS = {
    "uuid": (str, lambda gpu: gpu["uuid"]),
    "name": (str, lambda gpu: gpu["name"]),
    "pci.bus_id": (normal_pci, lambda gpu: gpu["pci_address"]),
    "memory.total": (_number, lambda gpu: _mib(gpu["vram_bytes"])),
    "persistence_mode": (_word, lambda gpu: None if gpu["persistence"] is None else ("off", "on")[gpu["persistence"]]),
    "compute_mode": (_word, lambda gpu: gpu["compute_mode"]),
    "power.limit": (_number, lambda gpu: gpu["power"]["limit_watts"]),
    "power.default_limit": (_number, lambda gpu: gpu["power"]["default_watts"]),
    "power.min_limit": (_number, lambda gpu: gpu["power"]["min_watts"]),
    "power.max_limit": (_number, lambda gpu: gpu["power"]["max_watts"]),
    "enforced.power.limit": (_number, lambda gpu: gpu["power"]["enforced_watts"]),
    "pcie.link.gen.max": (_number, lambda gpu: gpu["link"]["max_gen"]),
    "pcie.link.gen.gpumax": (_number, lambda gpu: gpu["link"]["gpu_max_gen"]),
    "pcie.link.width.max": (_number, lambda gpu: gpu["link"]["max_width"]),
    "clocks.max.graphics": (_number, lambda gpu: gpu["clocks"]["max_graphics_mhz"]),
    "clocks.max.memory": (_number, lambda gpu: gpu["clocks"]["max_mem_mhz"]),
    "compute_cap": (lambda text: text, lambda gpu: gpu["compute_capability"]),
    "vbios_version": (lambda text: text, lambda gpu: gpu["vbios"]),
    "ecc.mode.current": (_word, lambda gpu: gpu["ecc"]["current"]),
    "ecc.mode.pending": (_word, lambda gpu: gpu["ecc"]["pending"]),
    "mig.mode.current": (_word, lambda gpu: gpu["mig"]["current"]),
    "mig.mode.pending": (_word, lambda gpu: gpu["mig"]["pending"]),
}


@pytest.fixture
def facts(call) -> dict[str, Any]:
    return call("workstation_facts")["ansible_facts"]["workstation"]


def test_each_field_is_what_nvidia_smi_prints(facts, query):
    lacks = os.environ.get("NVIDIA_SMI_LACKS", "").split()  # without a real driver it cannot ask for everything
    fields = {field: how for field, how in FIELDS.items() if field not in lacks}
    rows = query(*fields)
    assert len(facts["gpus"]) == len(rows)
    known = {gpu["uuid"]: gpu for gpu in facts["gpus"]}
    different = []
    for row in rows:
        gpu = known[row["uuid"]]
        for field, (read, find) in fields.items():
            theirs, ours = read(row[field]), find(gpu)
            if theirs != ours and not _close(theirs, ours):
                different.append(f"{row['name']} {field}: nvidia-smi {theirs!r}, facts {ours!r}")
    assert different == []


def _close(theirs: Any, ours: Any) -> bool:
    """nvidia-smi prints watts with two digits and memory in whole MiB."""
    return isinstance(theirs, float) and isinstance(ours, (int, float)) and abs(theirs - ours) <= 0.01


def test_the_driver_version_is_that_of_nvidia_smi(facts, query):
    assert facts["gpu_driver"]["state"] == "ok"
    assert {row["driver_version"] for row in query("driver_version")} == {facts["gpu_driver"]["version"]}


def test_every_card_is_told_by_the_driver(facts, gpus):
    assert [(gpu["source"], gpu["problem"]) for gpu in facts["gpus"]] == [("nvml", None)] * len(gpus)
