# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read-only checks on a machine with a card. Nothing here sets anything: modules run in check mode alone.

NVIDIA_SMI names the program where it is not in PATH.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import private
import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import Gpu, Nvml, open_nvml

Call = Callable[..., dict[str, Any]]


HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a card one test stands for all of them, so that the reason is said once."""
    ours = [item for item in items if HERE in item.path.parents]
    door = open_nvml(None)
    reason = "" if door.state == "ok" and door.devices() else door.reason or "the driver finds none"
    door.close()
    if reason and ours:
        ours[0].add_marker(pytest.mark.skip(reason=f"no NVIDIA GPU here: {reason}"))
        items[:] = [item for item in items if item not in ours[1:]]
        config.hook.pytest_deselected(items=ours[1:])


@pytest.fixture(scope="session")
def nvml() -> Iterator[Nvml]:
    """One session, held open: the driver need not wake the card for every test."""
    door = open_nvml(None)
    yield door
    door.close()


@pytest.fixture(scope="session")
def gpus(nvml: Nvml) -> list[Gpu]:
    return nvml.devices()


@pytest.fixture
def call(nvml: Nvml, tmp_path: Path) -> Call:
    """Run a module through Ansible, in check mode."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_STATE") if name in os.environ}

    def run(name: str, **arguments: Any) -> dict[str, Any]:
        return private.call((), name, arguments, tmp_path / "run", kept, "--check", "--diff")

    return run


@pytest.fixture(scope="session")
def query(nvml: Nvml) -> Callable[..., list[dict[str, str | None]]]:
    """nvidia-smi --query-gpu: one row a card; None where it prints that the card has no such thing."""
    program = os.environ.get("NVIDIA_SMI") or shutil.which("nvidia-smi")
    if not program:
        pytest.skip("no nvidia-smi here")

    def run(*fields: str) -> list[dict[str, str | None]]:
        asked = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        out = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
        rows = [[cell.strip() for cell in row] for row in csv.reader(out.splitlines())]
        return [
            {
                name: None if cell.startswith("[") or cell == "N/A" else cell
                for name, cell in zip(fields, row, strict=True)
            }
            for row in rows
        ]

    return run
