# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The words of the stack: what is wanted, what runs, what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGE_LABEL = "ai-workstation.image"
# Compose does not count the paths of files and secrets into its hash of a service, so their marks stand in a label.
FILES_LABEL = "ai-workstation.files"


@dataclass(frozen=True)
class Content:
    """A file that a service is given. secret: readable by its user alone, and never shown."""

    path: str
    text: str
    uid: int = 0
    gid: int = 0
    secret: bool = False


@dataclass(frozen=True)
class Wanted:
    """One service as it is to be on this machine. mounts: paths of its files by their name in the compose file."""

    name: str
    definition: Mapping[str, Any]
    contents: tuple[Content, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    health_seconds: int = 0
    models: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    probe: Mapping[str, Any] | None = None
    key_path: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of it, to come back to."""
        return {"definition": dict(self.definition), "configs": dict(self.configs), "secrets": dict(self.secrets)}


@dataclass(frozen=True)
class Step:
    """What one service needs. kind: create, recreate, start, prove, remove or keep."""

    service: str
    kind: str
    reason: str = ""

    @property
    def changes(self) -> bool:
        return self.kind not in ("keep", "prove")


@dataclass
class Record:
    """What was proven well, kept beside the compose file (state.json). caches: volumes that hold nothing else.

    units: systemd units of the stack, with the path of their program.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        parts: dict[str, Any] = {
            name: data[name] for name in ("network", "services", "caches", "units") if name in data
        }
        return cls(**parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "network": dict(self.network),
            "services": self.services,
            "caches": self.caches,
            "units": self.units,
        }
