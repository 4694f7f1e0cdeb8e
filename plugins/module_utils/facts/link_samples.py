# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The PCIe links of GPUs, watched for some seconds: the speed of a link falls while its card rests.

No load is made here: without CUDA there is no program to make it. Run this while the card works.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Callable

from ..doors.host import Host
from .pci import DEVICES, generation, lanes
from .reading import Facts

# The driver looks at the load of a card every 1/6 to 1 second (nvml.h, nvmlUtilization_t).
INTERVAL_SECONDS = 0.2


def sample(
    host: Host,
    nvml: Any,
    gpus: Sequence[Facts],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, Facts]:
    """By PCI address, the best of all looks: {looks, generation, width, utilization_percent}; null where untold.

    `gpus`: the `gpus` section of the facts. `nvml`: a session, or None. The files of the kernel are read as well,
    because a card whose driver does not answer has a link all the same.
    """
    best = {gpu["pci_address"]: _nothing() for gpu in gpus if gpu["pci_address"]}
    end = clock() + seconds
    while True:
        for gpu in gpus:
            if gpu["pci_address"] in best:
                _take(best[gpu["pci_address"]], _look(host, nvml, gpu))
        if clock() >= end:
            return best
        wait(INTERVAL_SECONDS)


def _nothing() -> Facts:
    return {"looks": 0, "generation": None, "width": None, "utilization_percent": None}


def _look(host: Host, nvml: Any, gpu: Facts) -> list[Facts]:
    base = f"{DEVICES}/{gpu['pci_address']}"
    speed, width = host.many([f"{base}/current_link_speed", f"{base}/current_link_width"])
    found = [{"generation": generation(speed), "width": lanes(width), "utilization_percent": None}]
    if nvml is not None and nvml.state == "ok" and gpu["uuid"] and not gpu["problem"]:
        try:
            now = nvml.link(gpu["uuid"])
        except OSError:
            return found  # it fell off the bus while we looked: its facts say so
        found.append(
            {
                "generation": now["pcie_generation"],
                "width": now["pcie_width"],
                "utilization_percent": now["utilization_percent"],
            }
        )
    return found


def _take(best: Facts, looks: Sequence[Facts]) -> None:
    best["looks"] += 1
    for look in looks:
        for name, value in look.items():
            if value is not None and (best[name] is None or value > best[name]):
                best[name] = value
