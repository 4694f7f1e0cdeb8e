# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dictionaries that a user wrote: unknown fields are errors with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.errors import InputError


def known_fields(where: str, entry: Any, allowed: Sequence[str]) -> dict[str, Any]:
    """The fields of a dictionary; null is as good as left out. InputError for what is no field of it."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {entry!r} is not a dictionary; allowed are {', '.join(allowed)}")
    for key in entry:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
            raise InputError(f"{where}: {str(key)!r} is not a field of it; {hint}")
    return {str(key): value for key, value in entry.items() if value is not None}


def boolean(where: str, value: Any) -> bool:
    """Yes or no, in the words of YAML and of the command line."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    known = words.get(str(value).lower())
    if known is None:
        raise InputError(f"{where}: {value!r} is not a boolean; write true or false")
    return known


def texts(where: str, value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {value!r} is not a list of texts")
    return tuple(value)
