# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nvidia_driver_state: look, decide, say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..doors.host import Host
from ..errors import RefusedError
from .decide import Wish, decide
from .look import look


def converge(params: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """One call of the module. RefusedError with every refusal at once."""
    seen, packages = look(host, params["assume_gpus"])
    wish = Wish(
        source=params["source"],
        branch=params["branch"],
        modules=params["modules"],
        headless=params["headless"],
        change_branch=params["change_branch"],
        cuda=params["cuda_toolkit"],
        cudnn=params["cudnn"],
    )
    found = decide(wish, seen)
    if found.refusals:
        raise RefusedError("; ".join(found.refusals), state=found.state)
    return {
        "changed": False,
        "state": found.state,
        "branch": found.branch,
        "open_modules": found.is_open,
        "install": found.install,
        "reason": found.reason,
        "versions": {"module": seen.module, "library": seen.library, "packages": list(seen.packaged)},
        "packages": packages,
        "gpus": list(seen.gpus),
        "reboot_required": bool(found.reboot_reasons),
        "reboot_reasons": found.reboot_reasons,
        "warnings": found.warnings,
    }
