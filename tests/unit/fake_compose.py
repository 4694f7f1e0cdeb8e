# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A container engine with Compose, as far as service_stack asks one: the program `docker` of a FakeKernel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from fake_kernel import FakeKernel

FAILED = 1


class FakeEngine:
    """sick: what becomes of containers of an image: unhealthy, exited or oom. All others are well at once."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.images = {"good:1": "sha256:good1", "good:2": "sha256:good2", "bad:1": "sha256:bad1"}
        self.sick = {"sha256:bad1": "exited"}
        self.containers: dict[str, dict[str, Any]] = {}
        self.networks = {"bridge": "172.17.0.0/16"}
        self.down = False
        self.asked: list[str] = []
        kernel.programs["docker"] = lambda _kernel, argv: self(argv)
        run = kernel.run
        kernel.run = self._with_text(run)  # type: ignore[method-assign]

    def _with_text(self, run: Any) -> Any:
        def with_text(argv: Any, timeout: float = 120, text: str = "") -> Completed:
            self.text = text
            return run(argv, timeout)

        return with_text

    def __call__(self, argv: list[str]) -> Completed:
        self.asked.append(" ".join(argv))
        if self.down and argv[:2] != ["compose", "version"]:
            return Completed(FAILED, "", "Cannot connect to the Docker daemon")
        name = "_" + "_".join(word for word in argv[:2] if word.isalpha())
        method = getattr(self, name, None) or getattr(self, f"_{argv[0]}")
        return method(argv)

    # -- looking -----------------------------------------------------------------------------------

    def _version(self, argv: list[str]) -> Completed:
        return Completed(0, "26.1\n", "")

    def _ps(self, argv: list[str]) -> Completed:
        return Completed(0, "\n".join(one["Id"] for one in self.containers.values()), "")

    def _inspect(self, argv: list[str]) -> Completed:
        return Completed(0, json.dumps([one for one in self.containers.values() if one["Id"] in argv]), "")

    def _image_inspect(self, argv: list[str]) -> Completed:
        found = self.images.get(argv[-1]) or (argv[-1] if argv[-1] in self.images.values() else None)
        return Completed(0, found + "\n", "") if found else Completed(FAILED, "", "No such image")

    def _network_ls(self, argv: list[str]) -> Completed:
        return Completed(0, "\n".join(self.networks), "")

    def _network_inspect(self, argv: list[str]) -> Completed:
        rows = [{"Name": name, "IPAM": {"Config": [{"Subnet": self.networks[name]}]}} for name in argv[2:]]
        return Completed(0, json.dumps(rows), "")

    def _volume_ls(self, argv: list[str]) -> Completed:
        return Completed(0, "", "")

    def _logs(self, argv: list[str]) -> Completed:
        return Completed(0, "out of cheese\n", "")

    def _events(self, argv: list[str]) -> Completed:
        return Completed(0, "oom\n" if "oom" in self.sick.values() else "", "")

    # -- changing ----------------------------------------------------------------------------------

    def _stop(self, argv: list[str]) -> Completed:
        for one in self.containers.values():
            if one["Id"] in argv:
                one["State"]["Status"] = "exited"
        return Completed(0, "", "")

    def _rm(self, argv: list[str]) -> Completed:
        self.containers = {name: one for name, one in self.containers.items() if one["Id"] not in argv}
        return Completed(0, "", "")

    def _network_rm(self, argv: list[str]) -> Completed:
        del self.networks[argv[-1]]
        return Completed(0, "", "")

    def _compose(self, argv: list[str]) -> Completed:
        if "version" in argv:
            return Completed(0, "2.26\n", "")
        place = argv[argv.index("--file") + 1]
        content = yaml.safe_load(self.text if place == "-" else Path(place).read_text(encoding="utf-8"))
        if "config" in argv:
            return Completed(0, "".join(f"{name} {_hash(one)}\n" for name, one in content["services"].items()), "")
        return self._up(argv[-1], content, start="--no-start" not in argv, again="--force-recreate" in argv)

    def _up(self, name: str, content: dict[str, Any], *, start: bool, again: bool) -> Completed:
        one = content["services"][name]
        for mount in one.get("volumes", ()):
            if mount["type"] == "volume" and mount["source"] not in content.get("volumes", {}):
                return Completed(FAILED, "", f"service {name} refers to undefined volume {mount['source']}")
        image = self.images.get(one["image"], one["image"])
        if image not in self.images.values():
            return Completed(FAILED, "", " Pulling \nError response from daemon: no such image\n")
        self.networks.setdefault(
            f"{content['name']}_stack", content["networks"]["stack"]["ipam"]["config"][0]["subnet"]
        )
        known = self.containers.get(name)
        if known is None or known["Config"]["Labels"]["com.docker.compose.config-hash"] != _hash(one) or again:
            known = self.containers[name] = self._container(name, one, image)
        if start:
            fate = self.sick.get(image, "")
            known["State"] = {
                "Status": "exited" if fate in ("exited", "oom") else "running",
                "ExitCode": {"exited": 3, "oom": 137}.get(fate, 0),
                "Health": {"Status": "unhealthy" if fate == "unhealthy" else "healthy"},
            }
        return Completed(0, "", "")

    def _container(self, name: str, one: dict[str, Any], image: str) -> dict[str, Any]:
        labels = {
            "com.docker.compose.service": name,
            "com.docker.compose.config-hash": _hash(one),
        }
        ports = {}
        for text in one.get("ports", ()):
            address, port, inside = text.split(":")
            ports[f"{inside}/tcp"] = [{"HostIp": address, "HostPort": port}]
        return {
            "Id": f"id-{len(self.asked)}-{name}",
            "Image": image,
            "Config": {"Labels": labels},
            "HostConfig": {"PortBindings": ports},
            "State": {"Status": "created"},
            "RestartCount": 0,
        }


def _hash(definition: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
