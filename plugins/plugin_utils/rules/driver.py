# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about the NVIDIA driver and the cards that it has to know."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .base import ERROR, Finding, rule
from .context import Context, Facts

# The first driver that knows a Blackwell GeForce (10de:2b85), from the list of chips in the README of its tag.
BLACKWELL_DRIVER = (570, 86, 16)
# PCI ids of GB202, GB203, GB206 and GB205.
_BLACKWELL = re.compile(r"^10de:2[bcdf]", re.IGNORECASE)


def version(text: str | None) -> tuple[int, ...]:
    """The numbers of a version; empty where there is none."""
    return tuple(int(part) for part in re.findall(r"\d+", text or ""))


def is_blackwell(gpu: Facts) -> bool:
    """Whether a card is of the generation that only newer and open drivers know."""
    return bool(_BLACKWELL.match(str(gpu.get("device_id") or ""))) or gpu.get("architecture") == "blackwell"


def _name(gpu: Facts) -> str:
    return f"{gpu.get('name') or gpu.get('device_id')} at {gpu.get('pci_address')}"


@rule(ERROR, "T15")
def driver_too_old(ctx: Context) -> Iterator[Finding]:
    """A Blackwell card with a driver from before it."""
    found = version(ctx.section("gpu_driver", "version"))
    for gpu in ctx.gpus:
        if is_blackwell(gpu) and found and found < BLACKWELL_DRIVER:
            yield Finding(
                f"{_name(gpu)} needs driver 570.86.16 or newer, this is {ctx.section('gpu_driver', 'version')}",
                "older drivers do not list the card at all, and no setting reaches it",
                (),
                "install a driver of the 570 branch or a newer one, then reboot",
            )


@rule(ERROR, "T15")
def driver_not_open(ctx: Context) -> Iterator[Finding]:
    """A Blackwell card with the proprietary kernel module."""
    for gpu in ctx.gpus:
        if is_blackwell(gpu) and ctx.section("gpu_driver", "module") == "proprietary":
            yield Finding(
                f"{_name(gpu)} needs the open kernel module, and the proprietary one is loaded",
                "NVIDIA supports Blackwell by the open kernel modules only; with the other one no device is found",
                (),
                "install the -open flavour of the same driver, then reboot",
            )


@rule(ERROR, "T15")
def driver_mismatch(ctx: Context) -> Iterator[Finding]:
    """The driver's library and its kernel module are of different versions."""
    if ctx.section("gpu_driver", "state") == "mismatch":
        yield Finding(
            "the driver's library does not match the loaded kernel module",
            "the driver was upgraded without a reboot: every call to it fails, in services too",
            (),
            "reboot, or unload and load the nvidia modules while nothing uses them",
        )


@rule(ERROR, "T15")
def cuda_too_new(ctx: Context) -> Iterator[Finding]:
    """The image of a service needs a newer CUDA than the driver has."""
    most = version(ctx.section("gpu_driver", "cuda_version"))[:2]
    for service in ctx.services:
        if service.cuda and service.uses_gpu and most and version(service.cuda)[:2] > most:
            yield Finding(
                f"service {service.name} is built for CUDA {service.cuda}, the driver offers "
                f"{ctx.section('gpu_driver', 'cuda_version')}",
                "the driver runs code of its own CUDA version and of older ones; the container ends at its start",
                (f"workstation_services: {service.name}.cuda",),
                "take an image for the driver's CUDA version, or install a newer driver",
            )
