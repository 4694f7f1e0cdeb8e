# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflict rules about declared services, containers and units: each where it fires, and where it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules import declared
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.variables import specifications
from ruling import Case, check, fires, owner, silent

DAEMON = owner("nvidia_persistenced")
DOCKER = {"present": True, "active": True, "cgroup_driver": "systemd", "runtimes": ["nvidia"], "cdi": {"specs": []},
          "nvidia_container_toolkit": "1.17.8-1"}  # fmt: skip
HOOKED = {"docker": DOCKER, "owners": [DAEMON]}
WITH_CDI = {**DOCKER, "cdi": {"specs": ["/var/run/cdi/nvidia.yaml"]}, "nvidia_container_toolkit": "1.18.0-1"}
DROP_IN = {"path": "/etc/systemd/system/x.service.d/1.conf", "content": "[Unit]\n", "actions": ["daemon-reload"]}
# Nothing that writes unit files.
QUIET = {"workstation_profile": "conservative"}
PERSISTENCED = "/etc/systemd/system/nvidia-persistenced.service"
CUSTOM = "/etc/systemd/system/gpu-limits.service"
LATE = "[Unit]\nAfter=network.target multi-user.target\n[Service]\nExecStart=/usr/bin/nvidia-smi -pl 300\n"


def gpu(name: str = "one", **fields):
    return {"name": name, "gpu": {"share": 0.3}, **fields}


def ports(*published):
    return [{"name": f"s{number}", "ports": [port]} for number, port in enumerate(published)]


CASES = [
    # What is declared
    fires("service_invalid", "service one: 'mlok' is not a field",
          workstation_services=[{"name": "one", "mlok": True}]),
    fires("service_invalid", "service one: memory_bytes: 'much' is not a size",
          workstation_services=[{"name": "one", "memory_bytes": "much"}]),
    fires("service_invalid", "service one: mlock: 'maybe' is not true or false",
          workstation_services=[{"name": "one", "mlock": "maybe"}]),
    fires("service_invalid", "service one: locality: 'near' is not one of",
          workstation_services=[{"name": "one", "cpus": 1, "locality": "near"}]),
    fires("service_invalid", "workstation_services[0] is not a dictionary with a name", workstation_services=["one"]),
    fires("service_invalid", "workstation_services is not a list", workstation_services={"one": {}}),
    fires("service_invalid", "the name 'one' is there more than once",
          workstation_services=[{"name": "one"}, {"name": "one"}]),
    fires("service_invalid", "service one: ports", workstation_services=[{"name": "one", "ports": [8000]}]),
    fires("service_invalid", "service one: environment", workstation_services=[{"name": "one", "environment": "A=b"}]),
    silent("service_invalid", workstation_services=[{
        "name": "one", "engine": "vllm", "cpus": 2, "exclusive": True, "gpu": {"fraction": 0.5}, "mlock": True,
        "model_bytes": "8G", "memory_bytes": "16G", "uid": 1000, "ipc": "host", "environment": {"HF_HOME": "/cache"},
        "ports": [{"host": 8000, "bind": "127.0.0.1"}], "volumes": ["/mnt/ai-data:/models:ro"], "priority": None}]),
    silent("service_invalid"),
    # T05
    replace(fires("containers_lose_the_gpu", "containers may get", HOOKED), severity="warning"),
    fires("containers_lose_the_gpu", "services one get", HOOKED, workstation_services=[gpu(gpu_access="hook")]),
    fires("containers_lose_the_gpu", "services one get", {"docker": WITH_CDI},
          workstation_services=[gpu(gpu_access="hook")], os_tuning_files=[DROP_IN]),
    silent("containers_lose_the_gpu", {"docker": WITH_CDI, "owners": [DAEMON]}),
    silent("containers_lose_the_gpu", HOOKED, workstation_services=[gpu(gpu_access="cdi")]),
    silent("containers_lose_the_gpu", HOOKED, gpu_tuning_manage_persistenced=False, **QUIET),
    silent("containers_lose_the_gpu", {**HOOKED, "docker": {**DOCKER, "cgroup_driver": "cgroupfs"}}),
    silent("containers_lose_the_gpu", {**HOOKED, "docker": {**DOCKER, "active": False}}),
    silent("containers_lose_the_gpu", {**HOOKED, "docker": {**DOCKER, "nvidia_container_toolkit": None}}),
    # T17, T18, T14: the settings linter
    fires("service_settings", "service one: CUDA_CLOCK_CONTROL",
          workstation_services=[{"name": "one", "engine": "vllm", "environment": {"CUDA_CLOCK_CONTROL": "1"}}]),
    fires("service_settings", "service one: --gpu-memory-utilisation", workstation_services=[
        {"name": "one", "engine": "vllm", "version": "0.19.0", "flags": ["--gpu-memory-utilisation", "0.9"]}]),
    silent("service_settings", workstation_services=[
        {"name": "one", "engine": "vllm", "version": "0.19.0", "flags": ["--gpu-memory-utilization", "0.9"],
         "environment": {"HF_HOME": "/cache"}}, {"name": "two"}]),
    # T26
    fires("duplicate_port", "host port 8000 is published by s0 and s1",
          workstation_services=ports({"host": 8000}, {"host": "8000", "bind": "127.0.0.1"})),
    silent("duplicate_port", workstation_services=ports({"host": 8000}, {"host": 8001})),
    silent("duplicate_port", workstation_services=ports(
        {"host": 8000, "bind": "127.0.0.1"}, {"host": 8000, "bind": "192.0.2.1"})),
    # T27
    fires("packaged_unit_replaced", "nvidia-persistenced.service",
          os_tuning_files=[{"path": PERSISTENCED, "content": "[Unit]\n"}]),
    fires("packaged_unit_replaced", "zramswap.service", {"owners": [owner("zramswap")]},
          os_tuning_files=[{"path": "/etc/systemd/system/zramswap.service", "content": "[Unit]\n"}]),
    silent("packaged_unit_replaced", os_tuning_files=[
        {"path": f"{PERSISTENCED}.d/50-local.conf", "content": "[Unit]\n"}, {"path": CUSTOM, "content": "[Unit]\n"}]),
    # T35
    fires("gpu_unit_after_docker", "after multi-user.target", os_tuning_files=[{"path": CUSTOM, "content": LATE}]),
    fires("gpu_unit_after_docker", "starts after docker.service", os_tuning_files=[
        {"path": f"{PERSISTENCED}.d/50-local.conf", "content": "[Unit]\nAfter=docker.service\n"}]),
    silent("gpu_unit_after_docker", os_tuning_files=[
        {"path": CUSTOM, "content": LATE.replace("multi-user.target", "")},
        {"path": "/etc/systemd/system/app.service", "content": "[Unit]\nAfter=docker.service\n"},
        {"path": "/usr/local/lib/note.txt", "content": LATE}]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case: Case) -> None:
    check(case)


def test_a_misspelt_field_comes_with_the_nearest_name() -> None:
    _services, problems = declared.parse([{"name": "one", "hugepage_bytes": 1, "expose": 2}])
    assert "did you mean hugepages_bytes?" in problems[0]
    assert "'expose' is not a field" in problems[1]


def test_every_field_of_a_service_is_documented_and_no_two_parts_share_one() -> None:
    assert not set(declared.OWN_FIELDS) & set(declared.PLACEMENT_FIELDS)
    text = " ".join(specifications()["workstation_services"]["description"])
    assert [name for name in declared.FIELDS if f"C({name})" not in text] == []
