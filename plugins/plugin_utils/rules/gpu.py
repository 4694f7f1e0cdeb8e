# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about GPUs: who may use them, power, clocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.subjects.nvidia_settings import NAMES, OutOfRange, Wanted, parse_wanted
from .base import ERROR, WARNING, Finding, rule, said
from .context import Context, Facts
from .declared import Service
from .driver import is_blackwell

MPS_PIPES = "/tmp/nvidia-mps"  # noqa: S108 NVIDIA's default of CUDA_MPS_PIPE_DIRECTORY
_INDEX = re.compile(r"^\s*\d+(\s*,\s*\d+)*\s*$")


def _base(ctx: Context) -> Mapping[str, Any]:
    return {name: ctx.value(f"gpu_tuning_{name}") for name in NAMES if ctx.value(f"gpu_tuning_{name}") is not None}


def _means(name: str, index: int, gpu: Facts) -> bool:
    """Whether the id of an entry of gpu_tuning_gpus means this card (as nvidia_gpu_state reads it)."""
    text = name.strip().lower()
    if text == "all" or (text.isdigit() and int(text) == index):
        return True
    address = str(gpu.get("pci_address") or "").lower()
    same = {str(gpu.get("uuid") or "").lower(), address, address.removeprefix("0000:")}
    return text in same or (not text.isdigit() and bool(text) and text in str(gpu.get("name") or "").lower())


def wanted(ctx: Context) -> list[tuple[Facts, Wanted]]:
    """What each card is to have. Nothing for settings that nvidia_gpu_state does not take."""
    try:
        base = parse_wanted("", _base(ctx))
        own = [(str(item.get("id", "")), parse_wanted("", item)) for item in ctx.entries("gpu_tuning_gpus")]
    except InputError:
        return []
    found = []
    for index, gpu in enumerate(ctx.gpus):
        one = base
        for name, settings in own:
            one = settings.over(one) if _means(name, index, gpu) else one
        found.append((gpu, one))
    return found


def _named(gpu: Facts) -> str:
    return f"{gpu.get('name') or 'GPU'} {gpu.get('uuid') or gpu.get('pci_address')}"


@rule(ERROR, acceptable=False)
def gpu_setting_invalid(ctx: Context) -> Iterator[Finding]:
    """A GPU setting that the module does not take."""
    sources = [("gpu_tuning_", _base(ctx))]
    sources += [(f"gpu_tuning_gpus {item.get('id')}: ", item) for item in ctx.entries("gpu_tuning_gpus")]
    for where, settings in sources:
        for name in (*NAMES, "reset"):
            try:
                parse_wanted(where, {name: settings.get(name)})
            except InputError as error:
                variable = f"gpu_tuning_{name}" if where == "gpu_tuning_" else "gpu_tuning_gpus"
                yield Finding(str(error), "the whole set is checked before the first GPU is changed", (variable,),
                              "write it as the message says")  # fmt: skip


@rule(ERROR, "T01")
def exclusive_gpu_shared(ctx: Context) -> Iterator[Finding]:
    """Compute mode exclusive_process with two services on the card and no MPS."""
    users = ctx.on_gpus()
    for gpu, settings in wanted(ctx):
        services = users.get(str(gpu.get("uuid")), [])
        mode = settings.compute_mode or gpu.get("compute_mode")
        if mode == "exclusive_process" and len(services) > 1 and not all(service.mps for service in services):
            yield Finding(
                f"{_named(gpu)} is to be exclusive_process and has {len(services)} services, "
                f"{said(service.name for service in services)}",
                "the second process on the card fails with CUDA error 46, device busy or unavailable",
                ("gpu_tuning_compute_mode", "workstation_services"),
                "set gpu_tuning_compute_mode: default, or run all of them as MPS clients (mps: true)",
            )


@rule(ERROR, "T02")
def mps_clients(ctx: Context) -> Iterator[Finding]:
    """MPS clients that cannot share one server."""
    for uuid, services in sorted(ctx.on_gpus().items()):
        clients = [service for service in services if service.mps]
        users = sorted({service.uid for service in clients if service.uid is not None})
        if len(users) > 1:
            yield Finding(
                f"the MPS clients on {uuid} run as users {said(map(str, users))}",
                "an MPS server serves one user: clients of another wait until it ends",
                tuple(f"workstation_services: {service.name}.uid" for service in clients),
                "run all MPS clients of a GPU with the same uid",
            )
    for service in ctx.services:
        if service.mps:
            yield from _mps_client(service)


def _mps_client(service: Service) -> Iterator[Finding]:
    where = f"workstation_services: {service.name}"
    if service.ipc != "host":
        yield Finding(
            f"service {service.name} is an MPS client with ipc {service.ipc}",
            "client and server share memory of the host's IPC namespace",
            (f"{where}.ipc",),
            "set ipc: host on this service",
        )
    pipes = service.environment.get("CUDA_MPS_PIPE_DIRECTORY", MPS_PIPES).rstrip("/")
    targets = [volume.split(":")[1].rstrip("/") if ":" in volume else volume for volume in service.volumes]
    if pipes not in targets:
        yield Finding(
            f"service {service.name} is an MPS client and does not mount {pipes}",
            "without the server's pipes CUDA goes on without MPS and says nothing",
            (f"{where}.volumes", f"{where}.environment"),
            f"mount the pipe directory of the control daemon at {pipes}, or name it in CUDA_MPS_PIPE_DIRECTORY",
        )
    devices = service.environment.get("CUDA_VISIBLE_DEVICES", "")
    if _INDEX.match(devices):
        yield Finding(
            f"service {service.name} is an MPS client with CUDA_VISIBLE_DEVICES={devices}",
            "the server counts the GPUs that it was given itself, so an index means another card or none (error 805)",
            (f"{where}.environment",),
            "name the GPU by its UUID",
        )


@rule(ERROR, "T03")
def gpu_memory(ctx: Context) -> Iterator[Finding]:
    """Services want more of the GPUs than there is."""
    placed = ctx.placement
    for conflict in placed["conflicts"] if isinstance(placed, Mapping) else ():
        if conflict["resource"] == "gpu":
            what, _semicolon, fix = conflict["message"].partition("; ")
            yield Finding(
                what,
                "each CUDA process takes 0.5 GiB beside model and cache, and 1 GiB of a card stays free; what does "
                "not fit fails when the last service starts",
                tuple(f"workstation_services: {wish}" for wish in conflict["wishes"]),
                fix,
            )


@rule(ERROR, "T06", acceptable=False)
def memory_clock_lock_on_blackwell(ctx: Context) -> Iterator[Finding]:
    """A memory clock lock on a Blackwell GeForce."""
    for gpu, settings in wanted(ctx):
        lock = settings.memory_clocks
        if lock and not lock.reset and is_blackwell(gpu) and gpu.get("brand") in (None, "geforce"):
            yield Finding(
                f"{_named(gpu)} is to get a memory clock lock",
                "on a Blackwell GeForce any highest memory clock slows the whole card by up to a third "
                "(open-gpu-kernel-modules issue 1266)",
                ("gpu_tuning_memory_clocks",),
                "leave gpu_tuning_memory_clocks out, or set {reset: true}",
            )


@rule(ERROR, "T07", acceptable=False)
def power_limit_out_of_range(ctx: Context) -> Iterator[Finding]:
    """A power limit that the card does not take, or that nobody vouches for."""
    for gpu, settings in wanted(ctx):
        power = gpu.get("power") or {}
        default, low, high = power.get("default_watts"), power.get("min_watts"), power.get("max_watts")
        if settings.power_limit is None or default is None or low is None or high is None:
            continue
        fix = f"write a limit from {low:g} to {high:g} W, or a percentage of the default of {default:g} W"
        try:
            limit = settings.power_limit.milliwatts(round(default * 1000), round(low * 1000), round(high * 1000))
        except OutOfRange as verdict:
            yield Finding(f"{_named(gpu)}: power limit {verdict}", "the driver refuses what the card does not take",
                          ("gpu_tuning_power_limit",), fix)  # fmt: skip
            continue
        vouched = settings.allow_above_default or ctx.value("gpu_tuning_psu_attested") is True
        if limit > round(default * 1000) and not vouched:
            yield Finding(
                f"{_named(gpu)}: power limit {limit / 1000:g} W is above the card's default of {default:g} W",
                "power supply, connector and cooling must be made for it, and Linux cannot see whether they are",
                ("gpu_tuning_power_limit", "gpu_tuning_psu_attested"),
                "set gpu_tuning_psu_attested: true when they are, else lower the limit",
            )


@rule(ERROR, "T16", acceptable=False)
def clock_lock_without_persistence(ctx: Context) -> Iterator[Finding]:
    """A clock lock on a card without persistence."""
    for gpu, settings in wanted(ctx):
        locks = [lock for lock in (settings.gpu_clocks, settings.memory_clocks) if lock and not lock.reset]
        persistent = gpu.get("persistence") if settings.persistence is None else settings.persistence
        if locks and persistent is not True:
            yield Finding(
                f"{_named(gpu)} is to get a clock lock without persistence",
                "the driver forgets the lock as soon as nothing uses the card",
                ("gpu_tuning_gpu_clocks", "gpu_tuning_memory_clocks", "gpu_tuning_persistence"),
                "set gpu_tuning_persistence: true, or leave the lock out",
            )


@rule(WARNING, "T16")
def clock_lock_under_power_limit(ctx: Context) -> Iterator[Finding]:
    """A clock lock on a card whose power limit is lowered."""
    for gpu, settings in wanted(ctx):
        default = (gpu.get("power") or {}).get("default_watts")
        if not settings.gpu_clocks or settings.gpu_clocks.reset or not settings.power_limit or not default:
            continue
        try:
            limit = settings.power_limit.milliwatts(round(default * 1000), 0, 1 << 40)
        except OutOfRange:
            continue
        if limit < round(default * 1000):
            yield Finding(
                f"{_named(gpu)} has a clock lock and a power limit of {limit / 1000:g} W, below its default",
                "the power limit wins: under load the lock is a ceiling, no promise of a clock",
                ("gpu_tuning_gpu_clocks", "gpu_tuning_power_limit"),
                "keep the one that you mean; a power limit alone is enough for heat",
            )
