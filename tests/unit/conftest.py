# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures that more than one file of unit tests uses."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from gpu_box import Box


@pytest.fixture
def make_box():
    """A maker of machines with the named cards, in folders that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 -- another user asks the driver too
        made = 0

        def make(*cards):
            nonlocal made
            made += 1
            where = Path(folder, str(made))
            where.mkdir()
            return Box(where, cards or ("rtx3090",))

        yield make
