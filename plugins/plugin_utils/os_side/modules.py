# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel modules to load, and their options. Sources: modules-load.d(5), modprobe.d(5)."""

from __future__ import annotations

import re

from ...module_utils.errors import InputError
from .parts import Parts, Wishes


def modules(wishes: Wishes) -> Parts:
    """os_tuning_modules, and os_tuning_module_options by module; options act when the module is loaded next."""
    parts = Parts(modules=wishes.names("os_tuning_modules"))
    lines = []
    for name, options in sorted(wishes.value("os_tuning_module_options", {}).items()):
        words = options if isinstance(options, dict) else None
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) or not words:
            raise InputError(
                f"os_tuning_module_options {name}: write options as a dictionary, like {{NVreg_EnableGpuFirmware: 1}}"
            )
        for option, value in words.items():
            if not re.fullmatch(r"\w+", str(option)) or not re.fullmatch(r"[^\s\"'\\]+", str(value)):
                raise InputError(
                    f"os_tuning_module_options {name}: {option}={value!s} is not an option and a plain value"
                )
        lines.append(f"options {name} " + " ".join(f"{option}={_text(value)}" for option, value in words.items()))
    if lines:
        parts.files.append(
            {
                "path": "/etc/modprobe.d/ai-workstation.conf",
                "content": "\n".join(lines) + "\n",
                "actions": ["update-initramfs"],
                "reboot": True,
            }
        )
    return parts


def _text(value: object) -> str:
    """Module parameters know Y and N."""
    return {True: "Y", False: "N"}.get(value, str(value)) if isinstance(value, bool) else str(value)
