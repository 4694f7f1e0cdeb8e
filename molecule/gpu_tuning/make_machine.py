# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a folder with a stand-in driver and a machine of two cards, to be copied into a container."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fake_nvml"))

from fake_nvml import Machine  # noqa: E402

folder = Path(sys.argv[1])
(folder / "lib").mkdir(parents=True, exist_ok=True)
machine = Machine(folder / "state", ["rtx5090", "rtx3090"])
machine.install(folder / "lib", state_as_seen_there="/opt/fake-nvml/state")
