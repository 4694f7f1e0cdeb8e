# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory in which every option has a value that is not its default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from plays import Controller, Play

_HERE = Path(__file__).resolve().parent
VARIABLES: dict[str, Any] = yaml.safe_load((_HERE / "variables.yml").read_text(encoding="utf-8"))
CALLS: list[dict[str, Any]] = yaml.safe_load((_HERE / "calls.yml").read_text(encoding="utf-8"))


def apply(controller: Controller) -> Play:
    """Apply all of it: the main job, and the calls beside it."""
    done = controller.play("site.yml", VARIABLES).ok()
    for call in CALLS:
        result = controller.module("workstation_state", call, owner="maximal_calls")
        assert not result["failed"], result["msg"]
    return done
