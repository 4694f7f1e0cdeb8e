# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of what systemd starts, of one group's sessions, and of the journal.

Sources: systemd-system.conf(5), limits.conf(5), journald.conf(5). PAM's limits reach login sessions only; services have
theirs from systemd, and containers from their engine.
"""

from __future__ import annotations

import re
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import integer, size
from .parts import CONF, Parts, Wishes


def limits(wishes: Wishes) -> Parts:
    """os_tuning_memlock and os_tuning_nofile for services, and for the sessions of os_tuning_limits_group."""
    memlock, nofile = wishes.value("os_tuning_memlock"), wishes.value("os_tuning_nofile")
    group = wishes.value("os_tuning_limits_group")
    locked, files = _memlock(memlock), _nofile(nofile)
    lines = [f"DefaultLimitMEMLOCK={locked}"] if locked else []
    lines += [f"DefaultLimitNOFILE={':'.join(map(str, files))}"] if files else []
    parts = Parts()
    if lines:
        parts.drop_in(f"/etc/systemd/system.conf.d/{CONF}", "[Manager]", *lines)
    if group is None:
        return parts
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", str(group)):
        raise InputError(f"os_tuning_limits_group: {group!r} is not the name of one group; everybody ('*') is refused")
    if not lines:
        raise InputError("os_tuning_limits_group: it gets os_tuning_memlock and os_tuning_nofile; set one of them")
    rows = []
    if locked:
        amount = "unlimited" if locked == "infinity" else str(int(locked) // 1024)
        rows.append(f"@{group} - memlock {amount}")
    if files:
        rows += [f"@{group} soft nofile {files[0]}", f"@{group} hard nofile {files[-1]}"]
    content = "".join(f"{row}\n" for row in rows)
    parts.files.append({"path": f"/etc/security/limits.d/{CONF}", "content": content})
    return parts


def _memlock(value: Any) -> str:
    """infinity, or bytes in whole KiB."""
    if value is None:
        return ""
    if str(value) in ("infinity", "unlimited", "-1"):
        return "infinity"
    return str(size("os_tuning_memlock", value) // 1024 * 1024)


def _nofile(value: Any) -> list[int]:
    """Soft and hard limit, or one number for both."""
    if value is None:
        return []
    words = str(value).split(":")
    numbers = [integer("os_tuning_nofile", word, 256, 1 << 30) for word in words]
    if len(numbers) > 2 or numbers[0] > numbers[-1]:
        raise InputError(f"os_tuning_nofile: {value!r} is not a number, or a soft and a hard limit like '1024:1048576'")
    return numbers


def journal(wishes: Wishes) -> Parts:
    """os_tuning_journal_max: the most that journald keeps on disk."""
    value = wishes.value("os_tuning_journal_max")
    if value is None:
        return Parts()
    most = size("os_tuning_journal_max", value)
    if most < 8 << 20:
        raise InputError(f"os_tuning_journal_max: {value!r} is less than 8M, the least that journald works with")
    content = f"[Journal]\nSystemMaxUse={most}\n"
    path = f"/etc/systemd/journald.conf.d/{CONF}"
    return Parts(files=[{"path": path, "content": content, "restart": ["systemd-journald.service"]}])
