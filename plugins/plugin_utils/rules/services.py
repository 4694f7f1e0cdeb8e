# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about declared services, containers and units."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from .base import ERROR, NOTE, WARNING, Finding, rule
from .context import Context
from .driver import version

_UNIT_FILE = re.compile(r"^/etc/systemd/system/([^/]+\.(?:service|socket|timer|target|mount|slice|path))$")
_UNIT_TEXT = re.compile(r"^/etc/systemd/system/(?:([^/]+\.service)\.d/[^/]+\.conf|([^/]+\.service))$")
_AFTER = re.compile(r"^After=(.*)$", re.MULTILINE)
_GPU_WORDS = ("nvidia-smi", "nvidia-persistenced", "nvidia_gpu_state", "nvidia-cuda-mps")
# Packaged units whose names recipes take for files of their own, beside those that the facts show as installed.
_PACKAGED = frozenset(
    (
        "nvidia-persistenced.service",
        "nvidia-powerd.service",
        "docker.service",
        "containerd.service",
        "irqbalance.service",
    )
)
_CDI_TOOLKIT = (1, 18)
_SEVERITY = {"info": NOTE}


@rule(ERROR, acceptable=False)
def service_invalid(ctx: Context) -> Iterator[Finding]:
    """A declared service that cannot be understood."""
    problems = list(ctx.service_problems)
    if not problems and isinstance(ctx.placement, str):
        problems.append(ctx.placement)
    for problem in problems:
        what, _semicolon, fix = problem.partition("; ")
        yield Finding(
            what,
            "placement and rules go by what is declared",
            ("workstation_services",),
            fix or "write it as the README of workstation_plan says",
        )


def _reloads(ctx: Context) -> bool:
    """Whether the plan writes unit files, so that systemd reads all units again."""
    files = [*ctx.entries("os_tuning_files"), *ctx.parts.files]
    if any(
        "daemon-reload" in (one.get("actions") or ()) or "/systemd/system/" in str(one.get("path")) for one in files
    ):
        return True
    daemon = ctx.owner("nvidia_persistenced").get("installed")
    return bool(daemon and ctx.variables.get("gpu_tuning_manage_persistenced", True))


@rule(ERROR, "T05")
def containers_lose_the_gpu(ctx: Context) -> Iterator[Finding]:
    """A reload of systemd while containers have their GPU by the older hook."""
    docker = ctx.section("docker") or {}
    if not docker.get("active") or docker.get("cgroup_driver") != "systemd" or not _reloads(ctx):
        return
    hooked = [service.name for service in ctx.services if service.uses_gpu and service.gpu_access == "hook"]
    toolkit = version(docker.get("nvidia_container_toolkit"))
    old = bool(toolkit) and toolkit < _CDI_TOOLKIT
    cdi = bool((docker.get("cdi") or {}).get("specs")) and not old
    known = [service for service in ctx.services if service.uses_gpu]
    all_cdi = bool(known) and all(service.gpu_access == "cdi" for service in known)
    if hooked or (toolkit and not cdi and not all_cdi):
        names = f"services {', '.join(hooked)} get" if hooked else "containers may get"
        yield Finding(
            f"this plan makes systemd reload its units, and {names} the GPU by the runtime hook",
            "systemd sets the device rules of the containers anew and the hook's are lost: Failed to initialize "
            "NVML, Unknown Error (nvidia-container-toolkit issue 48)",
            ("workstation_services", "os_tuning_files", "gpu_tuning_manage_persistenced"),
            "give containers the GPU by CDI (gpu_access: cdi), or restart those that lose it after the run",
            severity="" if hooked else WARNING,
        )


@rule(ERROR, "T26")
def duplicate_port(ctx: Context) -> Iterator[Finding]:
    """Two services publish the same host port."""
    users: dict[int, list[tuple[str, str]]] = {}
    for service in ctx.services:
        for port in service.ports:
            users.setdefault(int(str(port["host"])), []).append((service.name, str(port.get("bind") or "0.0.0.0")))  # noqa: S104
    for number, found in sorted(users.items()):
        binds = [bind for _name, bind in found]
        if len(found) > 1 and (len(set(binds)) < len(binds) or "0.0.0.0" in binds):  # noqa: S104 it means all addresses
            names = list(dict.fromkeys(name for name, _bind in found))
            yield Finding(
                f"host port {number} is published by {' and '.join(names)}",
                "the second container does not start",
                tuple(f"workstation_services: {name}.ports" for name in names),
                "give each its own port, or its own bind address",
            )


@rule(ERROR, "T27")
def packaged_unit_replaced(ctx: Context) -> Iterator[Finding]:
    """A whole unit file with the name of a packaged one."""
    packaged = _PACKAGED | {str(one.get("unit")) for one in ctx.facts.get("owners") or () if one.get("command")}
    for item in ctx.entries("os_tuning_files"):
        match = _UNIT_FILE.match(str(item.get("path")))
        if match and match.group(1) in packaged and item.get("content") is not None:
            unit = match.group(1)
            yield Finding(
                f"os_tuning_files replaces the packaged unit {unit}",
                "a unit in /etc hides the packaged one with its user, its paths and every later correction",
                (f"os_tuning_files: {item.get('path')}",),
                f"write a drop-in, /etc/systemd/system/{unit}.d/50-local.conf, with the lines that differ",
            )


@rule(ERROR, "T35")
def gpu_unit_after_docker(ctx: Context) -> Iterator[Finding]:
    """A unit that sets up GPUs is ordered after Docker."""
    for item in ctx.entries("os_tuning_files"):
        path, content = str(item.get("path")), str(item.get("content") or "")
        match = _UNIT_TEXT.match(path)
        unit = (match.group(1) or match.group(2)) if match else ""
        if not unit or not (unit.startswith("nvidia-") or any(word in content for word in _GPU_WORDS)):
            continue
        late = {name for line in _AFTER.findall(content) for name in line.split()}
        late &= {"docker.service", "multi-user.target"}
        if late:
            yield Finding(
                f"{path} starts after {' and '.join(sorted(late))}",
                "GPU containers start before the limits and the persistence that this unit sets",
                (f"os_tuning_files: {path}",),
                "write Before=docker.service, and no After= of these two",
            )


def _linter() -> Callable[..., Any] | None:
    """The check of one service's environment and flags by the linter of settings, where it is there."""
    try:
        module = import_module(f"{__package__.rpartition('.')[0]}.linter.lint")
    except ImportError:
        return None
    return getattr(module, "lint_service", None)


@rule(ERROR, "T17")
def service_settings(ctx: Context) -> Iterator[Finding]:
    """What the linter of settings says of a service's environment and flags."""
    lint = _linter()
    for service in ctx.services:
        if lint is None or not (service.environment or service.flags):
            continue
        engine = service.engine.replace("llama_cpp", "llama.cpp")
        for one in lint(engine, service.version, service.environment, service.flags):
            where = "flags" if str(one.setting).startswith("-") else "environment"
            yield Finding(
                f"service {service.name}: {str(one.message).partition('; use ')[0]}",
                f"the linter of settings knows it so (rule {one.rule})",
                (f"workstation_services: {service.name}.{where}",),
                f"use {one.replacement}" if one.replacement else "leave it out, or write what was meant",
                severity=_SEVERITY.get(one.severity, one.severity),
            )
