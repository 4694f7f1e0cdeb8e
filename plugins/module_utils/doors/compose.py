# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the container engine, through the docker command with its compose plugin (version 2)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ApplyError, RefusedError
from .host import Completed, Host

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
HASH_LABEL = "com.docker.compose.config-hash"
# Long enough to pull an image of a few GiB.
_UP_TIMEOUT = 3600


@dataclass(frozen=True)
class Container:
    """A container of the project, as the engine tells."""

    id: str
    service: str
    config_hash: str
    image: str
    status: str
    health: str = ""
    exit_code: int = 0
    restarts: int = 0
    out_of_memory: bool = False
    ports: tuple[tuple[str, int], ...] = ()

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def well(self) -> bool:
        return self.running and self.health in ("", "healthy")


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


class Compose:
    """One compose project on one machine. file: where its compose file is."""

    def __init__(self, host: Host, project: str, file: str) -> None:
        self.host = host
        self.project = project
        self.file = file

    # -- looking -----------------------------------------------------------------------------------

    def missing(self) -> str:
        """Why the engine cannot be asked, in words; empty where it can."""
        if self.host.which("docker") is None:
            return "docker: not found on this machine; the role container_runtime installs it"
        if self.host.run(["docker", "compose", "version"]).code != 0:
            return "docker compose: the plugin is not installed; the role container_runtime installs it"
        answer = self.host.run(["docker", "version", "--format", "{{.Server.Version}}"])
        if answer.code != 0:
            return f"Docker is not running: {last_line(answer.err)}; see systemctl status docker"
        return ""

    def containers(self) -> list[Container]:
        """The containers of the project, also those that do not run."""
        found = self._ask(["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter",
                           f"label={PROJECT_LABEL}={self.project}"])  # fmt: skip
        names = found.out.split()
        if not names:
            return []
        answer = self.host.run(["docker", "inspect", "--type", "container", *names])
        try:
            return [_container(entry) for entry in json.loads(answer.out or "[]")]
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(f"docker inspect: its answer cannot be read: {error}") from error

    def container(self, service: str) -> Container | None:
        return next((one for one in self.containers() if one.service == service), None)

    def image(self, name: str) -> str | None:
        """The identity of an image that is on this machine."""
        answer = self.host.run(["docker", "image", "inspect", "--format", "{{.Id}}", name])
        return answer.out.strip() or None if answer.code == 0 else None

    def hashes(self, compose: Mapping[str, Any]) -> dict[str, str]:
        """What Compose calls each service's configuration, as it labels containers. Raises RefusedError."""
        answer = self.host.run(
            ["docker", "compose", "--project-name", self.project, "--file", "-", "config", "--hash", "*"],
            text=json.dumps(compose),
        )
        if answer.code != 0:
            raise RefusedError(f"docker compose config: {last_line(answer.err)}")
        pairs = (line.split() for line in answer.out.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def networks(self) -> dict[str, list[str]]:
        """Subnets of the engine's networks by name."""
        names = self._ask(["docker", "network", "ls", "--quiet", "--no-trunc"]).out.split()
        answer = self.host.run(["docker", "network", "inspect", *names]) if names else Completed(0, "[]", "")
        found = {}
        for entry in json.loads(answer.out or "[]"):
            rows = (entry.get("IPAM") or {}).get("Config") or []
            found[entry["Name"]] = [row["Subnet"] for row in rows if row.get("Subnet")]
        return found

    def volumes(self) -> dict[str, str]:
        """The volumes of the project: their name in the compose file, and the folder on the machine."""
        names = self._ask(["docker", "volume", "ls", "--quiet", "--filter", f"label={PROJECT_LABEL}={self.project}"])
        listed = names.out.split()
        answer = self.host.run(["docker", "volume", "inspect", *listed]) if listed else Completed(0, "[]", "")
        rows = json.loads(answer.out or "[]")
        return {row["Labels"]["com.docker.compose.volume"]: row["Mountpoint"] for row in rows}

    def logs(self, container: str, lines: int = 10) -> list[str]:
        """The last lines that a container wrote."""
        answer = self.host.run(["docker", "logs", "--tail", str(lines), container])
        return [line for line in (answer.out + answer.err).splitlines() if line.strip()][-lines:]

    def killed_for_memory(self, container: str, since: float) -> bool:
        """Whether the kernel ended a process of it because of its memory limit, since then (seconds since 1970)."""
        answer = self.host.run(
            ["docker", "events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}", "--filter",
             f"container={container}", "--filter", "event=oom", "--format", "{{.Action}}"],
            timeout=10,
        )  # fmt: skip
        return "oom" in answer.out

    # -- changing ----------------------------------------------------------------------------------

    def make(self, service: str) -> Completed:
        """Make the container, its network and its volumes, and start nothing. An image that is missing is pulled."""
        return self._compose("up", "--no-start", "--no-deps", "--no-build", "--quiet-pull", service)

    def up(self, service: str, *, again: bool = False) -> Completed:
        """Start one service, made anew where its definition has changed; `again` in any case."""
        force = ["--force-recreate"] if again else []
        return self._compose("up", "--detach", "--no-deps", "--no-build", "--quiet-pull", *force, service)

    def remove(self, containers: Sequence[str]) -> None:
        """Stop containers in their own time, and remove them."""
        if containers:
            self._must(["docker", "stop", *containers])
            self._must(["docker", "rm", "--force", *containers])

    def remove_network(self) -> None:
        name = f"{self.project}_stack"
        if name in self.networks():
            self._must(["docker", "network", "rm", name])

    def remove_volumes(self, names: Sequence[str]) -> None:
        if names:
            self._must(["docker", "volume", "rm", *(f"{self.project}_{name}" for name in names)])

    # ----------------------------------------------------------------------------------------------

    def _compose(self, *words: str) -> Completed:
        command = ["docker", "compose", "--project-name", self.project, "--file", self.host.at(self.file), *words]
        return self.host.act(command, _UP_TIMEOUT)

    def _must(self, argv: Sequence[str]) -> None:
        answer = self.host.act(argv)
        if answer.code != 0:
            raise ApplyError(f"{' '.join(argv[:3])}: {last_line(answer.err)}")

    def _ask(self, argv: Sequence[str]) -> Completed:
        answer = self.host.run(argv)
        if answer.code != 0:
            raise RefusedError(f"{' '.join(argv[:2])}: {last_line(answer.err)}")
        return answer


def _container(entry: Mapping[str, Any]) -> Container:
    state, labels = entry["State"], entry["Config"]["Labels"] or {}
    bindings = (entry.get("HostConfig") or {}).get("PortBindings") or {}
    rows = [row for listed in bindings.values() for row in listed or () if row.get("HostPort")]
    return Container(
        id=entry["Id"],
        service=labels.get(SERVICE_LABEL, ""),
        config_hash=labels.get(HASH_LABEL, ""),
        image=entry["Image"],
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(entry.get("RestartCount") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        ports=tuple((row["HostIp"], int(row["HostPort"])) for row in rows),
    )
