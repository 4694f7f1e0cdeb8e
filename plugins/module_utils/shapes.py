# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether nested options have the shape that an argument specification asks for, each misfit named by where it is.

Ansible's own check ends with a Python error where a dictionary inside an option is something else. Types, choices and
unknown names stay with it; a text that it would read as a list or a dictionary is left to it as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SINGLE = ("str", "int", "float", "bool", "path")


def misfits(where: str, value: Any, option: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit in the value of one option, one line each. Nothing (None) always fits."""
    kind = option.get("type", "str")
    if value is None:
        return
    if kind == "dict":
        if isinstance(value, Mapping):
            yield from _fields(where, value, option.get("options") or {})
        elif not isinstance(value, str):
            yield f"{where}: {value!r} is not a dictionary"
    elif kind == "list":
        if isinstance(value, Mapping):
            yield f"{where}: {value!r} is not a list"
        elif isinstance(value, (list, tuple)):
            element = {**option, "type": option.get("elements", "raw")}
            for number, item in enumerate(value):
                place = f"{where}[{number}]"
                yield from [f"{place} is empty"] if item is None else misfits(place, item, element)
    elif kind in SINGLE and isinstance(value, (Mapping, list, tuple)):
        yield f"{where}: {value!r} is not a single value"


def _fields(where: str, value: Mapping[Any, Any], options: Mapping[str, Any]) -> Iterator[str]:
    if not options:
        return
    for name in value:
        if not isinstance(name, str):
            yield f"{where}: {name!r} is not the name of an option"
    for name, option in options.items():
        if option.get("required") and value.get(name) is None:
            yield f"{where}: {name} is missing"
        yield from misfits(f"{where}: {name}", value.get(name), option)
