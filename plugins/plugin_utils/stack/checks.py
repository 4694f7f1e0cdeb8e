# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be together in one stack, all of it at once, and what is allowed and worth knowing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...module_utils.values import cpu_list, cpus, print_size
from ..linter.knowledge import tables
from ..linter.lint import lint_service
from . import mps
from .flags import KNOWLEDGE
from .wishes import Service, has_digest

_SECRET = re.compile(r"(^|_)(API_?KEYS?|TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|CREDENTIALS?)$", re.IGNORECASE)
_KEY_FLAG = re.compile(r"--(api-key|hf-token|ssl-key-password)(=|$)")


def problems(services: Sequence[Service], placement: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """One line for each thing that is wrong."""
    found = [line for one in services for line in (*_alone(one), *_secrets(one))]
    found += [*_ports(services), *mps.problems(services), *_exclusive(services, placement), *_memory(services, facts)]
    return found


def findings(services: Sequence[Service]) -> list[dict[str, str]]:
    """What is allowed and worth knowing: {service, severity, message}."""
    return [
        {"service": one.name, "severity": severity, "message": message}
        for one in services
        for severity, message in _worth_knowing(one)
    ]


def _alone(one: Service) -> Iterator[str]:
    where = f"service {one.name}"
    if not has_digest(one.image) and not one.local_image and not one.accept_tag:
        yield (
            f"{where}: image: {one.image!r} is a tag, which can mean another image tomorrow; write name@sha256:..., or "
            "local_image: true for one built on the machine, or accept_tag: true"
        )
    if one.kind.answers and not one.model:
        yield f"{where}: model: missing; name a file or folder below service_stack_models_path"
    if one.api_key and not one.kind.answers:
        yield f"{where}: api_key: {one.engine} has none; use secret_environment"
    if one.port is not None and not one.container_port:
        yield f"{where}: container_port: missing; the port on which the program listens inside"
    if one.mlock and one.memory_bytes is None:
        yield f"{where}: settings.mlock: locked memory cannot be reclaimed; give the service a memory limit as well"
    for finding in _linted(one):
        if finding.severity == "error":
            yield f"{where}: {finding.message}"


def _secrets(one: Service) -> Iterator[str]:
    """Secrets where everybody would read them."""
    where = f"service {one.name}"
    for name in one.environment:
        if _SECRET.search(name):
            yield f"{where}: environment.{name}: a secret would stand in the compose file; use secret_environment"
    for flag in (*one.flags, *one.command):
        if _KEY_FLAG.match(flag):
            name = flag.partition("=")[0]
            yield f"{where}: {name}: a secret would stand in the compose file; use api_key with the name of a secret"


def _linted(one: Service) -> list[Any]:
    engine = KNOWLEDGE.get(one.engine, "")
    return lint_service(engine, one.version, one.environment, list(one.flags))


def _ports(services: Sequence[Service]) -> Iterator[str]:
    users: dict[int, list[Service]] = {}
    for one in services:
        if one.port is not None:
            users.setdefault(one.port, []).append(one)
        for port in one.more_ports:
            users.setdefault(port, []).append(one)
    for port, sharing in sorted(users.items()):
        binds = [one.bind for one in sharing]
        if len(sharing) > 1 and (len(set(binds)) < len(binds) or "0.0.0.0" in binds):  # noqa: S104 all addresses
            names = " and ".join(one.name for one in sharing)
            yield f"port {port} is published by {names}; give each its own port, or its own bind address"


def _exclusive(services: Sequence[Service], placement: Mapping[str, Any]) -> Iterator[str]:
    """CPU sets that are written by hand and reach into what another service has for itself."""
    placed = placement.get("services") or {}
    for one in services:
        mine = set(cpus(one.name, one.cpu_set))
        for name, other in sorted(placed.items()):
            taken = mine & set(cpus(name, other.get("cpus") or "")) if other.get("exclusive") else set()
            if name != one.name and taken:
                yield (
                    f"service {one.name}: cpus: {cpu_list(taken)} belong to {name} alone; declare {one.name} in "
                    "workstation_services, or take other CPUs"
                )


def _memory(services: Sequence[Service], facts: Mapping[str, Any]) -> Iterator[str]:
    total = (facts.get("memory") or {}).get("total_bytes")
    limits = {one.name: one.memory_bytes for one in services if one.memory_bytes}
    if total and sum(limits.values()) > total:
        listed = ", ".join(f"{name} {print_size(number)}" for name, number in limits.items())
        yield f"memory: the limits ({listed}) are more than the machine has ({total >> 20} MiB); lower them"


def _worth_knowing(one: Service) -> Iterator[tuple[str, str]]:
    if one.accept_tag and not has_digest(one.image):
        yield "warning", f"{one.image} is a tag: what it means can change"
    if one.bind != "127.0.0.1" and one.port is not None:
        open_door = "" if one.api_key or not one.kind.answers else ", without an API key"
        yield "warning", f"port {one.port} is open on {one.bind}{open_door}; published ports go past ufw"
    yield from _relaxed(one)
    if one.memory_bytes is None:
        yield "info", "it has no memory limit"
    yield from _by_version(one)


def _relaxed(one: Service) -> Iterator[tuple[str, str]]:
    if one.writable_root:
        yield "warning", "its root file system can be written"
    if one.capabilities:
        yield "warning", f"it keeps the capabilities {', '.join(one.capabilities)}"
    if one.ipc == "host" and not one.mps:
        yield "warning", "it shares the IPC namespace of the machine"
    if one.health is None:
        yield "warning", "it has no health check: running is taken for well"


def _by_version(one: Service) -> Iterator[tuple[str, str]]:
    if one.engine in KNOWLEDGE:
        table = tables()[KNOWLEDGE[one.engine]]
        if not table.understands(one.version):
            said = f"version {one.version!r} cannot be compared" if one.version else "no version is given"
            yield "info", f"{said}: flags are those of {table.engine} {table.newest}"
    for finding in _linted(one):
        if finding.severity != "error":
            yield finding.severity, finding.message
