# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""YAML with line numbers: nodes instead of values. Nothing is constructed, so no tag can run anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Merges of merges; deeper ones are no configuration but an attack.
_DEPTH = 8
_EXPANSION = re.compile(r"\$\{\w+:?-([^${}]*)\}")


class BrokenYamlError(ValueError):
    """The text is no YAML. line: where the parser gave up."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def documents(text: str) -> list[yaml.Node]:
    """The root node of every document. Raises BrokenYamlError."""
    try:
        return list(yaml.compose_all(text, _LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BrokenYamlError(str(error.problem or error.context), mark.line + 1 if mark else 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BrokenYamlError(str(error).splitlines()[0], 1) from error


def line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def entries(node: yaml.Node | None, depth: int = 0) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Key and value nodes of a mapping by the key's text, merges (<<) underneath."""
    if not isinstance(node, yaml.MappingNode) or depth > _DEPTH:
        return {}
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value == "<<":
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = {**entries(part, depth + 1), **merged}
        else:
            own[key.value] = (key, value)
    return {**merged, **own}


def get(node: yaml.Node | None, *path: str) -> yaml.Node | None:
    """The node at a path of keys, or None."""
    for name in path:
        found = entries(node).get(name)
        node = found[1] if found else None
    return node


def scalar(node: yaml.Node | None) -> str | None:
    """The text of a scalar, None for anything else and for null."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        return None
    return str(node.value)


def items(node: yaml.Node | None) -> list[yaml.Node]:
    """The items of a list; a scalar is a list of one."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    return [node] if isinstance(node, yaml.ScalarNode) else []


def scalars(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """The texts of a list with their lines."""
    for item in items(node):
        text = scalar(item)
        if text is not None:
            yield text, line(item)


def is_true(node: yaml.Node | None) -> bool:
    return (scalar(node) or "").lower() in ("true", "yes", "on")


def expanded(text: str | None) -> str | None:
    """What compose makes of a value: ${X:-default} is the default; None where it depends on the caller."""
    if text is None:
        return None
    for _turn in range(_DEPTH):
        text, count = _EXPANSION.subn(lambda match: match[1], text)
        if not count:
            break
    return None if re.search(r"(?<!\$)(?:\$\$)*\$[{A-Za-z_]", text) else text.replace("$$", "$")
