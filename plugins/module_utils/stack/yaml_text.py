# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plain data as YAML for people to read and compare: block style, sorted, texts quoted as JSON quotes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Texts that mean themselves without quotes in YAML 1.1 and 1.2. Everything else is quoted.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
# JSON writes a character above U+FFFF as two escapes, which YAML takes for two characters. A backslash that stands for
# itself comes first, so that what follows one is no escape.
_PAIR = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def dump(value: Mapping[str, Any]) -> str:
    """The text of a dictionary, ending in a newline."""
    return "\n".join(_lines(value, "")) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _PAIR.sub(_one, json.dumps(value, ensure_ascii=True))


def _one(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    return f"\\U{0x10000 + ((int(match[1], 16) - 0xD800) << 10) + int(match[2], 16) - 0xDC00:08x}"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _entry(f"{indent}{_scalar(str(key))}:", value[key], indent + "  ")
    else:
        for item in value:
            inner = list(_lines(item, indent + "  ")) if _nested(item) else []
            if inner:
                yield f"{indent}- {inner[0].lstrip()}"
                yield from inner[1:]
            else:
                yield f"{indent}- {_scalar(item)}"


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if _nested(value):
        yield head
        yield from _lines(value, indent)
    else:
        yield f"{head} {_scalar(value)}"


def _nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and len(value) > 0
