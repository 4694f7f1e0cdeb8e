# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports of services: where they are published, and which one the health check asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from . import nodes
from .compose_service import Service
from .context import Context
from .findings import Finding

_DEFAULT_PORT = {"vllm": 8000, "llama.cpp": 8080}
_LOCAL_URL = re.compile(r"(?:https?://)?(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]):(\d+)(/[^\s\"'|]*)?")
_SHORT = re.compile(r"(?:(?P<ip>\[[^\]]*\]|\d+\.[\d.]+):)?(?:(?P<host>[\d-]+)?:)?(?P<target>[\d-]+)(?:/(?P<kind>\w+))?")
_LARGEST_RANGE = 1024


@dataclass(frozen=True)
class Port:
    """One published port. host None: Docker chooses it."""

    ip: str
    host: int | None
    target: int
    kind: str
    line: int


def ports(service: Service) -> list[Port]:
    """The ports of a service, ranges unfolded."""
    found: list[Port] = []
    for item in nodes.items(service.node("ports")):
        if isinstance(item, yaml.MappingNode):
            found += _long(item)
        else:
            text = nodes.expanded(nodes.scalar(item))
            match = _SHORT.fullmatch(text or "")
            if match:
                found += _range(match["ip"] or "", match["host"], match["target"], match["kind"], nodes.line(item))
    return found


def _long(item: yaml.MappingNode) -> list[Port]:
    def part(name: str) -> str | None:
        return nodes.expanded(nodes.scalar(nodes.get(item, name)))

    target = part("target") or ""
    if not target.isdigit() or (nodes.get(item, "published") is not None and part("published") is None):
        return []
    return _range(part("host_ip") or "", part("published"), target, part("protocol"), nodes.line(item))


def _range(ip: str, host: str | None, target: str, kind: str | None, line: int) -> list[Port]:
    targets, hosts = _numbers(target), _numbers(host) if host else []
    if not hosts:
        return [Port(ip, None, one, kind or "tcp", line) for one in targets]
    targets = targets if len(targets) == len(hosts) else [targets[0]] * len(hosts) if targets else []
    return [Port(ip, one, other, kind or "tcp", line) for one, other in zip(hosts, targets, strict=False)]


def _numbers(text: str) -> list[int]:
    first, _dash, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        return []
    return list(range(int(first), min(int(last or first), int(first) + _LARGEST_RANGE) + 1))


def check_ports(service: Service, context: Context) -> Iterator[Finding]:
    """Published ports without a bind address."""
    seen = set()
    for port in ports(service):
        if port.ip in ("", "0.0.0.0", "[::]") and port.line not in seen:  # noqa: S104 this is what is looked for
            seen.add(port.line)
            shown = port.host if port.host is not None else port.target
            text = "published on every interface, past the host's firewall"
            fix = f"127.0.0.1:{shown}:{port.target}, or the address that is meant"
            yield context.finding(port.line, "compose-publish", f"{service.name}.ports {shown}", text, fix)


def duplicates(services: Sequence[Service], context: Context) -> Iterator[Finding]:
    """Two services on the same port of the host. Services that no run starts together are left alone."""
    taken: list[tuple[Port, Service]] = []
    for service in services:
        for port in ports(service):
            clashes = (one for one in taken if _clash(port, one[0]) and _together(service, one[1]))
            if clash := next(clashes, None):
                other, owner = clash
                text = f"{owner.name} publishes the same port of the host in line {other.line}"
                yield context.finding(port.line, "compose-duplicate-port", f"{service.name}.ports {port.host}", text)
            taken.append((port, service))


def _clash(one: Port, other: Port) -> bool:
    everywhere = ("", "0.0.0.0", "[::]")  # noqa: S104 compared only
    same = one.ip == other.ip or one.ip in everywhere or other.ip in everywhere
    return same and one.host is not None and one.host == other.host and one.kind == other.kind


def _together(one: Service, other: Service) -> bool:
    first = {text for text, _line in nodes.scalars(one.node("profiles"))}
    second = {text for text, _line in nodes.scalars(other.node("profiles"))}
    return not first or not second or bool(first & second)


def check_health(service: Service, context: Context) -> Iterator[Finding]:
    """The port and the path that the health check asks, inside of the container."""
    test = nodes.get(service.node("healthcheck"), "test")
    for text, number in nodes.scalars(test):
        for match in _LOCAL_URL.finditer(nodes.expanded(text) or ""):
            yield from _health_port(service, context, int(match[1]), number)
            if service.engine == "vllm" and (match[2] or "").startswith("/v1/health"):
                message = "vLLM has no /v1/health and answers 404"
                yield context.finding(
                    number, "compose-healthcheck-path", f"{service.name}.healthcheck", message, "/health"
                )


def _health_port(service: Service, context: Context, asked: int, line: int) -> Iterator[Finding]:
    listening, sure = _listening(service)
    if not listening or asked in listening:
        return
    shown = ", ".join(map(str, sorted(listening)))
    text = f"asks port {asked} inside the container, where the service listens on {shown}"
    fix = f"port {shown}" if len(listening) == 1 else ""
    severity = "error" if sure else "warning"
    yield context.finding(line, "compose-healthcheck-port", f"{service.name}.healthcheck", text, fix, severity)


def _listening(service: Service) -> tuple[set[int], bool]:
    """Ports that the service listens on, and whether that is known and not guessed."""
    given = [flag.value for flag in service.flags if flag.name == "--port"]
    given += [
        one.value for one in service.environment if one.name == "LLAMA_ARG_PORT" and service.engine == "llama.cpp"
    ]
    if given:
        numbers = {int(text) for text in given if text and text.isdigit()}
        return numbers, bool(numbers)
    if (
        service.engine
        and any(flag.name == "--port" for flag in service.flags) is False
        and service.engine in _DEFAULT_PORT
    ):
        return {_DEFAULT_PORT[service.engine]}, True
    targets = {port.target for port in ports(service)}
    targets |= {int(text) for text, _line in nodes.scalars(service.node("expose")) if text.isdigit()}
    return targets, False
