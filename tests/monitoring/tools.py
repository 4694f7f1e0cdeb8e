# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""promtool and amtool, and what the role would write."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring import monitoring_files

ON_THE_MACHINE = "/etc/ai-workstation/monitoring/"


def tool(*words: str | Path, text: str | None = None) -> tuple[int, str]:
    """Exit status, and all that it said."""
    done = subprocess.run(
        [str(word) for word in words], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def written(folder: Path, services: dict[str, Any] | None = None, **options: Any) -> dict[str, Path]:
    """The configuration files in a folder of the test."""
    texts = monitoring_files({"machine": "ws", **options}, services)
    for name, text in texts.items():
        (folder / f"{name}.yml").write_text(text.replace(ON_THE_MACHINE, f"{folder}/"))
    return {name: folder / f"{name}.yml" for name in texts}
