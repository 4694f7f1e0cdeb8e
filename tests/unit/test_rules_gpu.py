# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflict rules about GPUs and their driver: each where it fires, and where it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ruling import GIB, SECOND, UUID, Case, ampere, card, check, findings, fires, machine, make, silent


def service(name: str = "one", **fields):
    return {"name": name, "gpu": {"share": 0.3}, **fields}


PIPES = ["/run/nvidia-mps:/tmp/nvidia-mps"]
MPS = {"mps": True, "uid": 1000, "ipc": "host", "volumes": PIPES}
TWO = [service("one"), service("two")]
EXCLUSIVE = {"gpu_tuning_compute_mode": "exclusive_process"}
OLD = {"state": "ok", "version": "570.86.15", "cuda_version": "12.8", "module": "open"}
CLOSED = {**OLD, "version": "580.95.05", "module": "proprietary"}
LOCK = {"max_mhz": 2000}

CASES = [
    # T01
    fires("exclusive_gpu_shared", "2 services, one and two", workstation_services=TWO, **EXCLUSIVE),
    fires("exclusive_gpu_shared", "2 services", {"gpus": [card(compute_mode="exclusive_process")]},
          workstation_services=TWO, gpu_tuning_compute_mode=None),
    fires("exclusive_gpu_shared", "2 services", workstation_services=TWO,
          gpu_tuning_gpus=[{"id": "rtx 5090", "compute_mode": "exclusive_process"}]),
    fires("exclusive_gpu_shared", "2 services",
          workstation_services=[service("one", **MPS), service("two")], **EXCLUSIVE),
    silent("exclusive_gpu_shared", workstation_services=TWO),
    silent("exclusive_gpu_shared", workstation_services=TWO[:1], **EXCLUSIVE),
    silent("exclusive_gpu_shared", workstation_services=[{"name": "cpu"}, *TWO[:1]], **EXCLUSIVE),
    silent("exclusive_gpu_shared", workstation_services=[service("one", **MPS), service("two", **MPS)], **EXCLUSIVE),
    silent("exclusive_gpu_shared", {"gpus": [card(), card(uuid=SECOND, pci_address="0000:02:00.0")]},
           workstation_services=[{"name": "one", "gpu": {"uuid": UUID}}, {"name": "two", "gpu": {"uuid": SECOND}}],
           **EXCLUSIVE),
    # T02
    fires("mps_clients", "users 1000 and 1001",
          workstation_services=[service("one", **MPS), service("two", **{**MPS, "uid": 1001})]),
    fires("mps_clients", "with ipc private", workstation_services=[service(**{**MPS, "ipc": "private"})]),
    fires("mps_clients", "does not mount /tmp/nvidia-mps", workstation_services=[service(**{**MPS, "volumes": []})]),
    fires("mps_clients", "does not mount /run/mps",
          workstation_services=[service(**MPS, environment={"CUDA_MPS_PIPE_DIRECTORY": "/run/mps"})]),
    fires("mps_clients", "CUDA_VISIBLE_DEVICES=0,1",
          workstation_services=[service(**MPS, environment=["CUDA_VISIBLE_DEVICES=0,1"])]),
    silent("mps_clients", workstation_services=[service("one", **MPS), service("two", **MPS)]),
    silent("mps_clients", workstation_services=[service(**MPS, environment={"CUDA_VISIBLE_DEVICES": UUID})]),
    silent("mps_clients", workstation_services=[service("one", uid=1), service("two", uid=2)]),
    # T03
    fires("gpu_memory", "they do not fit together", workstation_services=[
        {"name": "vllm", "engine": "vllm", "gpu": {"fraction": 0.95}},
        {"name": "llama", "engine": "llama_cpp", "gpu": {"vram_bytes": "6G"}}]),
    silent("gpu_memory", workstation_services=[
        {"name": "vllm", "engine": "vllm", "gpu": {"fraction": 0.55}},
        {"name": "llama", "engine": "llama_cpp", "gpu": {"vram_bytes": "6G"}}]),
    # T06
    fires("memory_clock_lock_on_blackwell", "memory clock lock", gpu_tuning_memory_clocks=LOCK),
    silent("memory_clock_lock_on_blackwell", gpu_tuning_memory_clocks={"reset": True}),
    silent("memory_clock_lock_on_blackwell", {"gpus": [ampere()]}, gpu_tuning_memory_clocks=LOCK),
    silent("memory_clock_lock_on_blackwell", {"gpus": [card(brand="nvidia_rtx")]}, gpu_tuning_memory_clocks=LOCK),
    # T07
    fires("power_limit_out_of_range", "600 W is not within", {"gpus": [ampere()]}, gpu_tuning_power_limit="600"),
    fires("power_limit_out_of_range", "above the card's default of 575 W", gpu_tuning_power_limit="max"),
    silent("power_limit_out_of_range", gpu_tuning_power_limit="max", gpu_tuning_psu_attested=True),
    silent("power_limit_out_of_range", gpu_tuning_power_limit="450W"),
    silent("power_limit_out_of_range", gpu_tuning_power_limit="575W"),
    silent("power_limit_out_of_range",
           gpu_tuning_gpus=[{"id": "all", "power_limit": "max", "allow_above_default": True}]),
    silent("power_limit_out_of_range", {"gpus": [card(power={"default_watts": 575.0, "max_watts": 600.0})]},
           gpu_tuning_power_limit="9000"),
    silent("power_limit_out_of_range", {"gpus": [ampere(power={})]}, gpu_tuning_power_limit="600"),
    # T15
    fires("driver_too_old", "this is 570.86.15", {"gpu_driver": OLD}),
    silent("driver_too_old", {"gpu_driver": {**OLD, "version": "570.86.16"}}),
    silent("driver_too_old", {"gpu_driver": {**OLD, "version": None}}),
    silent("driver_too_old", {"gpu_driver": OLD, "gpus": [ampere()]}),
    fires("driver_not_open", "needs the open kernel module", {"gpu_driver": CLOSED}),
    fires("driver_not_open", "10de:2c05", {"gpu_driver": CLOSED, "gpus": [
        card(name=None, device_id="10de:2c05", architecture=None, uuid=None)]}),
    silent("driver_not_open"),
    silent("driver_not_open", {"gpu_driver": CLOSED, "gpus": [ampere()]}),
    fires("driver_mismatch", "does not match", {"gpu_driver": {**OLD, "state": "mismatch"}}),
    silent("driver_mismatch", {"gpu_driver": {"state": "not_loaded"}}),
    fires("cuda_too_new", "built for CUDA 13.1", workstation_services=[service(cuda="13.1")]),
    silent("cuda_too_new", workstation_services=[service(cuda="12.9")]),
    silent("cuda_too_new", workstation_services=[{"name": "cpu", "cuda": "13.1"}]),
    # T16
    fires("clock_lock_without_persistence", "without persistence",
          gpu_tuning_gpu_clocks=LOCK, gpu_tuning_persistence=False),
    fires("clock_lock_without_persistence", "without persistence",
          gpu_tuning_gpu_clocks=LOCK, gpu_tuning_persistence=None),
    silent("clock_lock_without_persistence", gpu_tuning_gpu_clocks=LOCK),
    silent("clock_lock_without_persistence", {"gpus": [card(persistence=True)]},
           gpu_tuning_gpu_clocks=LOCK, gpu_tuning_persistence=None),
    silent("clock_lock_without_persistence", gpu_tuning_gpu_clocks={"reset": True}, gpu_tuning_persistence=False),
    replace(fires("clock_lock_under_power_limit", "power limit of 489 W", gpu_tuning_gpu_clocks=LOCK),
            severity="warning"),
    silent("clock_lock_under_power_limit", gpu_tuning_gpu_clocks=LOCK, gpu_tuning_power_limit="default"),
    silent("clock_lock_under_power_limit", gpu_tuning_gpu_clocks=None),
    silent("clock_lock_under_power_limit", gpu_tuning_gpu_clocks={"reset": True}),
    silent("clock_lock_under_power_limit", gpu_tuning_gpu_clocks=LOCK, gpu_tuning_power_limit=None),
    silent("clock_lock_under_power_limit", {"gpus": [card(power={})]}, gpu_tuning_gpu_clocks=LOCK),
    # The settings themselves
    fires("gpu_setting_invalid", "power_limit: 'much' is not a power limit", gpu_tuning_power_limit="much"),
    fires("gpu_setting_invalid", "gpu_tuning_gpus all: gpu_clocks",
          gpu_tuning_gpus=[{"id": "all", "gpu_clocks": {"max_mhz": 0}}]),
    silent("gpu_setting_invalid", gpu_tuning_power_limit="450W", gpu_tuning_gpus=[{"id": "all", "ecc": True}]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case: Case) -> None:
    check(case)


def test_a_card_without_a_driver_is_no_conflict() -> None:
    facts = machine(gpus=[], gpu_driver={"state": "no_device", "version": None, "cuda_version": None, "module": ""})
    assert make(facts)["findings"] == []


def test_what_fits_is_what_the_card_has_less_one_gibibyte() -> None:
    for size, there in ((31 * GIB - (512 << 20), True), (31 * GIB, False)):
        case = silent if there else (lambda rule, **more: fires(rule, "does not fit", **more))
        check(case("gpu_memory", workstation_services=[{"name": "one", "gpu": {"vram_bytes": size}}]))


TWO_CARDS = {"gpus": [card(), ampere(uuid=SECOND, pci_address="0000:02:00.0")]}
NAMES = [("all", 2), ("0", 1), ("1", 1), ("7", 0), (UUID, 1), (UUID.lower(), 1), ("0000:01:00.0", 1), ("01:00.0", 1),
         ("RTX 3090", 1), ("rtx", 2), ("RTX 4090", 0), ("", 0)]  # fmt: skip


@pytest.mark.parametrize(("name", "cards"), NAMES)
def test_a_card_is_meant_by_the_names_that_the_module_takes(name: str, cards: int) -> None:
    wrong = [{"id": name, "power_limit": "9W"}]
    found = findings(machine(**TWO_CARDS), {"gpu_tuning_gpus": wrong})
    assert len([one for one in found if one.rule == "power_limit_out_of_range"]) == cards


def test_settings_of_one_card_win_over_those_of_all() -> None:
    given = {"gpu_tuning_power_limit": "9W", "gpu_tuning_gpus": [{"id": "1", "power_limit": "200W"}]}
    (one,) = [one for one in findings(machine(**TWO_CARDS), given) if one.rule == "power_limit_out_of_range"]
    assert "RTX 5090" in one.what


def test_the_variable_of_a_wrong_setting_is_the_one_it_is_in() -> None:
    given = {"gpu_tuning_power_limit": "much", "gpu_tuning_gpus": [{"id": "0", "ecc": "x"}]}
    found = [one for one in findings(machine(), given) if one.rule == "gpu_setting_invalid"]
    assert {one.variables for one in found} == {("gpu_tuning_power_limit",), ("gpu_tuning_gpus",)}
