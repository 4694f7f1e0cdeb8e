# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who ends programs before the machine stands still for want of memory.

Sources: earlyoom(1), systemd-oomd.service(8), systemd.service(5): an empty ExecStart= forgets the one before.
"""

from __future__ import annotations

import re

from ...module_utils.errors import InputError
from .parts import CONF, Parts, Wishes

_UNITS = {"earlyoom": "earlyoom.service", "systemd-oomd": "systemd-oomd.service"}
_COMMAND = "/usr/bin/earlyoom $EARLYOOM_ARGS"  # of the package, where the facts do not tell


def guard(wishes: Wishes) -> Parts:
    """os_tuning_oom_guard: earlyoom, systemd-oomd or none. The one that is named runs and the other does not."""
    name = "os_tuning_oom_guard"
    wanted = wishes.value(name)
    if wanted is None:
        return Parts()
    if wanted in _UNITS and not _installed(wishes, wanted):
        return wishes.impossible(name, f"unit_active:{_UNITS[wanted]}", f"install the package {wanted}")
    parts = Parts()
    for guard_name, unit in _UNITS.items():
        if guard_name == wanted:
            parts.units.append({"name": unit, "unit_file": "enabled", "active": True})
            parts.optional += [unit] if wishes.from_profile(name) else []
        elif wishes.owner(guard_name.replace("-", "_")).get("installed"):
            parts.units.append({"name": unit, "unit_file": "disabled", "active": False})
            parts.optional.append(unit)
    if wanted == "earlyoom":
        command = str(wishes.owner("earlyoom").get("command") or _COMMAND)
        _spare(parts, command, wishes.names("os_tuning_oom_avoid"))
    return parts


def _installed(wishes: Wishes, guard_name: str) -> bool:
    """Where the facts do not name the service at all, the module finds out."""
    return bool(wishes.owner(guard_name.replace("-", "_")).get("installed", True))


def _spare(parts: Parts, command: str, names: list[str]) -> None:
    """Have earlyoom avoid the inference servers, by how their process names begin (the kernel keeps 15 letters).

    earlyoom takes the last of an option that is given twice: the administrator's arguments win over our defaults, and
    our names over an --avoid of theirs.
    """
    for one in names:
        if not re.fullmatch(r"[A-Za-z0-9_:-]{1,15}", one):
            raise InputError(
                f"os_tuning_oom_avoid: {one!r} is not a process name of up to 15 letters, digits, '_', ':' or '-'"
            )
    if names:
        program, *arguments = command.split()
        path = f"/etc/systemd/system/earlyoom.service.d/{CONF}"
        start = " ".join((program, "-r 3600 -m 4", *arguments, f"--avoid ^({'|'.join(names)})"))
        parts.drop_in(path, "[Service]", "ExecStart=", f"ExecStart={start}", restart=["earlyoom.service"])
        parts.optional.append(path)
