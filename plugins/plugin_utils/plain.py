# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From Ansible's values to files of the controller."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A value of Ansible's, which knows where it came from, as one that JSON writes."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def file_name(host: str) -> str:
    """The name of a machine as the name of its file: it may hold what a file name must not."""
    return re.sub(r"[^\w.@:-]", "_", host)


def write_beside(path: Path, text: str, mode: int = 0o644) -> bool:
    """Replace a file of the controller in one step, its folder made where it is missing; whether it differed.

    One that is as wanted loses the permissions that `mode` does not give, and gets none.
    """
    if path.is_file() and path.read_bytes() == text.encode("utf-8", "surrogateescape"):
        if path.stat().st_mode & 0o777 & ~mode:
            path.chmod(mode)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return True
