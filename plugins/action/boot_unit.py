# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends nvidia-ml-py along with the module boot_unit."""

from __future__ import annotations

from ..plugin_utils.ship import NvmlAction


class ActionModule(NvmlAction):
    MODULE = "ai_infra.workstation.boot_unit"
