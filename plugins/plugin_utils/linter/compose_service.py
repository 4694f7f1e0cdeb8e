# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One service of a compose file, read into plain values with their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from . import nodes
from .context import Flag, Variable, engine_of_image
from .flags import Word, engine_command, parse
from .shell import words


@dataclass
class Service:
    """A service. written: values of variables as they are in the file; tmpfs: options and line by path."""

    name: str
    root: yaml.Node
    keys: dict[str, tuple[yaml.Node, yaml.Node]]
    image: str = ""
    engine: str = ""
    version: str | None = None
    environment: list[Variable] = field(default_factory=list)
    written: dict[str, str | None] = field(default_factory=dict)
    words: list[Word] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    tmpfs: dict[str, tuple[str, int]] = field(default_factory=dict)
    writable: set[str] = field(default_factory=set)

    @property
    def first(self) -> int:
        """The line of the service's first key."""
        return nodes.line(self.root)

    def node(self, key: str) -> yaml.Node | None:
        return self.keys[key][1] if key in self.keys else None

    def text(self, key: str) -> str:
        return nodes.scalar(self.node(key)) or ""

    def line(self, key: str) -> int:
        return nodes.line(self.keys[key][0]) if key in self.keys else self.first


def read_service(name: str, root: yaml.MappingNode, lines: Sequence[str]) -> Service:
    """Read a service. lines: the file, to find the words of a folded command."""
    service = Service(name, root, nodes.entries(root))
    service.image = nodes.expanded(service.text("image")) or service.text("image")
    _read_environment(service)
    _read_command(service, lines)
    _read_mounts(service)
    return service


def _read_environment(service: Service) -> None:
    node = service.node("environment")
    pairs = [(key, nodes.scalar(value), nodes.line(mark)) for key, (mark, value) in nodes.entries(node).items()]
    for text, number in nodes.scalars(node):
        key, equals, value = text.partition("=")
        pairs.append((key, value if equals else None, number))
    for key, written, number in pairs:
        service.written[key] = written
        service.environment.append(Variable(key, nodes.expanded(written), number))


def _read_command(service: Service, lines: Sequence[str]) -> None:
    entry, command = _words(service.node("entrypoint"), lines), _words(service.node("command"), lines)
    service.words = [*entry, *command]
    engine, version = engine_of_image(service.image)
    started, arguments = engine_command(service.words)
    if started in ("vllm", "llama.cpp"):
        service.engine, service.version = started, version if started == engine else None
    elif engine and not entry:
        service.engine, service.version, arguments = engine, version, command
    service.flags = parse(arguments, service.engine) if service.engine else []


def _words(node: yaml.Node | None, lines: Sequence[str]) -> list[Word]:
    """The words of a command in its list or text form."""
    if isinstance(node, yaml.SequenceNode):
        found = list(nodes.scalars(node))
        # ["sh", "-c", "one command"]: the last item holds the words.
        if len(found) == 3 and found[1][0] in ("-c", "-lc"):
            return [*found[:2], *((text, found[2][1]) for text, _line in words([found[2][0]], found[2][1]))]
        return found
    text = nodes.scalar(node)
    if node is None or text is None:
        return []
    start, end = nodes.line(node), int(node.end_mark.line) + 1
    physical = list(lines[start - 1 : max(end, start)])
    found, place = [], 0
    for word, _line in words([text.replace("\n", " ")], start):
        for step in range(place, len(physical)):
            if word in physical[step]:
                place = step
                break
        found.append((word, start + place))
    return found


def _read_mounts(service: Service) -> None:
    for text, number in nodes.scalars(service.node("tmpfs")):
        path, _colon, options = text.partition(":")
        service.tmpfs[path] = (options, number)
    for item in nodes.items(service.node("volumes")):
        if isinstance(item, yaml.ScalarNode):
            parts = str(item.value).split(":")
            target = parts[1] if len(parts) > 1 else parts[0]
            if len(parts) < 3 or "ro" not in parts[2].split(","):
                service.writable.add(target)
            continue
        target = nodes.scalar(nodes.get(item, "target")) or ""
        if nodes.scalar(nodes.get(item, "type")) == "tmpfs":
            service.tmpfs[target] = ("", nodes.line(item))
        elif not nodes.is_true(nodes.get(item, "read_only")):
            service.writable.add(target)
