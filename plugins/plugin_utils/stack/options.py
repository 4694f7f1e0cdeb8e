# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for the whole stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import size

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Options:
    """subnet: of the private network. log_size and log_files: how much of a service's log is kept."""

    project: str = "ai-stack"
    models_path: str = "/mnt/ai-data/models"
    subnet: str = "172.20.0.0/24"
    log_size: str = "10m"
    log_files: int = 3
    mps_path: str = "/run/nvidia-mps"

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Raises InputError, naming the variable of the role."""
        names = [one.name for one in fields(cls)]
        values = {name: value for name, value in given.items() if value is not None}
        if unknown := sorted(values.keys() - set(names)):
            raise InputError(f"service_stack: {unknown[0]!r} is not an option; there are {', '.join(names)}")
        found = cls(**{**values, "log_files": int(values.get("log_files", cls.log_files))})
        if not _PROJECT.fullmatch(found.project):
            raise InputError(
                f"service_stack_project: {found.project!r} is no project name; write lower case letters, digits and -"
            )
        size("service_stack_log_size", found.log_size)
        for name in ("models_path", "mps_path"):
            if not getattr(found, name).startswith("/"):
                raise InputError(f"service_stack_{name}: {getattr(found, name)!r} is not an absolute path")
        return found
