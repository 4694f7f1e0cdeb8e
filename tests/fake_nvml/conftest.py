# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the stand-in's own tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: an unprivileged client must be able to enter it, as it can reach a driver.
    with tempfile.TemporaryDirectory(prefix="fake-nvml-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "gpu"
