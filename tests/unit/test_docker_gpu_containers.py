# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker_gpu_containers: who loses the GPUs when systemd reloads, who has lost them, and who may be restarted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.docker.gpu_containers import converge
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError
from fake_kernel import FakeKernel

SETTINGS = {
    "by-cdi": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}], "Runtime": "runc"},
    "by-gpus": {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]]}], "Runtime": "runc"},
    "by-driver": {"DeviceRequests": [{"Driver": "nvidia", "Capabilities": None}], "Runtime": "runc"},
    "by-runtime": {"DeviceRequests": None, "Runtime": "nvidia"},
    "without": {"DeviceRequests": None, "Runtime": "runc"},
}
LOST = Completed(255, "Failed to initialize NVML: Unknown Error\n", "")


class FakeDocker(FakeKernel):
    """Containers by name; `gone` are those whose GPUs systemd took, `broken` those that a restart does not help."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.driver = "systemd"
        self.gone: set[str] = set()
        self.broken: set[str] = set()
        self.programs = {"docker": _docker}


def _docker(docker: FakeDocker, words: list[str]) -> Completed:
    if words[0] == "info":
        return Completed(0, json.dumps({"ServerVersion": "26", "CgroupDriver": docker.driver}), "")
    if words[0] == "ps":
        return Completed(0, "\n".join(SETTINGS), "")
    if words[0] == "inspect":
        return Completed(0, json.dumps([{"Id": n, "Name": f"/{n}", "HostConfig": SETTINGS[n]} for n in words[1:]]), "")
    if words[0] == "restart":
        docker.gone.discard(words[1])
        return Completed(0, "", "")
    assert words[2:] == ["nvidia-smi", "-L"]
    return LOST if words[1] in docker.gone | docker.broken else Completed(0, "GPU 0: ...", "")


@pytest.fixture
def docker(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path)


def call(docker: FakeKernel, check: bool = False, **params: Any) -> dict[str, Any]:
    return converge({"restart": False, "toolkit_version": "1.18.2-1", **params}, check, docker)


@pytest.mark.parametrize(
    ("driver", "toolkit", "exposed"),
    [
        ("systemd", "1.18.2-1", ["by-gpus", "by-driver"]),
        ("systemd", "1.17.8-1", ["by-gpus", "by-driver", "by-runtime"]),
        ("systemd", None, ["by-gpus", "by-driver", "by-runtime"]),
        ("cgroupfs", "1.17.8-1", []),
    ],
)
def test_who_is_exposed(docker: FakeDocker, driver: str, toolkit: str | None, exposed: list[str]) -> None:
    docker.driver = driver
    outcome = call(docker, toolkit_version=toolkit)
    assert outcome["exposed"] == exposed
    assert [one["name"] for one in outcome["containers"]] == ["by-cdi", "by-gpus", "by-driver", "by-runtime"]
    assert any("next reload of systemd: by-gpus" in text for text in outcome["warnings"]) is bool(exposed)
    assert not outcome["changed"]


def test_the_lost_are_named_and_left_alone_until_that_is_allowed(docker: FakeDocker) -> None:
    docker.gone = {"by-gpus"}
    outcome = call(docker)
    assert (outcome["lost"], outcome["changed"], docker.acted) == (["by-gpus"], False, [])
    assert "without their GPUs since a reload of systemd: by-gpus;" in outcome["warnings"][0]
    assert call(docker, check=True, restart=True)["restarted"] == ["by-gpus"]
    assert docker.acted == []
    outcome = call(docker, restart=True)
    assert (outcome["lost"], outcome["restarted"], outcome["changed"]) == ([], ["by-gpus"], True)
    assert docker.acted == ["docker restart by-gpus"]
    assert not call(docker, restart=True)["changed"]


def test_a_restart_that_does_not_help_is_an_error(docker: FakeDocker) -> None:
    docker.broken = {"by-runtime"}
    with pytest.raises(ApplyError, match="by-runtime lost its GPUs and a restart did not help"):
        call(docker, restart=True)


def test_without_an_engine_the_reason_is_said(tmp_path: Path) -> None:
    assert call(FakeKernel(tmp_path))["reason"] == "engine not installed"
