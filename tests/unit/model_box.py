# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model store in a folder, called as the module calls it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.big_files import BigFiles
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.download import Downloads
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.models import report, store

ROOT = "/models"
DEFAULTS: dict[str, Any] = {
    "root": ROOT,
    "models": [],
    "purge": False,
    "mode": "0644",
    "space_reserve": "1M",
    "memory_reserve": "20%",
    "hub_url": "https://huggingface.co",
    "retries": 2,
}


class Box(Host):
    """A machine in a folder with 8 GiB of memory. Its clock does not wait."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.log: list[str] = []
        self.pauses: list[float] = []
        self.writes: list[str] = []
        self.boot = "boot-1"
        self.free: int | None = None
        self.memory_kib = 8 << 20
        self.before_write = self.writes.append

    def text(self, path: str) -> str | None:
        return f"MemTotal: {self.memory_kib} kB\nHugetlb: 0 kB\n" if path == "/proc/meminfo" else super().text(path)

    def boot_id(self) -> str:
        return self.boot

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def space(self, path: str) -> tuple[int, int] | None:
        found = super().space(path)
        return found if self.free is None or found is None else (found[0], self.free)

    # -- calls -------------------------------------------------------------------------------------

    def call(self, *models: dict[str, Any], check: bool = False, token: str = "", **params: Any) -> dict[str, Any]:
        """The result of one call."""
        whole = {**DEFAULTS, **params, "models": [{"state": "present", **model} for model in models]}
        call = store.parse(whole, self, os.getegid())
        return store.converge(call, self, Downloads(token, whole["hub_url"], 10), check, self.log.append)

    def report(self, *names: str, verify: bool = False) -> dict[str, Any]:
        return report.report(BigFiles(self, ROOT), names, verify)

    # -- looking -----------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        return Path(self.at(f"{ROOT}/{name}"))

    def put(self, name: str, data: bytes) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def manifest(self) -> dict[str, Any]:
        return json.loads(self.path(".ai-workstation/manifest.json").read_text(encoding="utf-8"))["models"]

    def partial(self) -> list[str]:
        return sorted(os.listdir(self.path(".ai-workstation/partial")))

    def tree(self) -> dict[str, bytes]:
        """Every file of the store that is not bookkeeping."""
        found = {}
        for path in sorted(self.path("").rglob("*")):
            name = str(path.relative_to(self.path("")))
            if path.is_file() and not name.startswith(".ai-workstation"):
                found[name] = path.read_bytes()
        return found


def tar(files: dict[str, bytes], mode: str = "w:gz", extra: tarfile.TarInfo | None = None) -> bytes:
    """An archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return data.getvalue()
