# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the NVIDIA driver: the only code that calls NVML, through nvidia-ml-py.

One session per call, addressed by UUID: the driver's index order may differ after a reboot. Values
have one canonical form, the same for reading and writing (PROPERTIES), so that the engine can prove and
undo them. Source of names, units and codes: nvml.h, API 13.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .host import Host
from .nvml_binding import (
    FATAL,
    FUNCTION_NOT_FOUND,
    INIT_STATES,
    UNCHECKED,
    UNSUPPORTED,
    NoBindingError,
    NvmlError,
    library_present,
    load,
)
from .nvml_properties import HARDWARE, LINK, MOMENT, PROPERTIES, SETTINGS, Getter, processes

_PCI = re.compile(r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?$")
_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
_BRANDS = {1: "quadro", 2: "tesla", 5: "geforce", 6: "titan", 12: "quadro_rtx", 13: "nvidia_rtx", 14: "nvidia"}
_BRANDS.update({15: "geforce", 16: "titan"})


@dataclass(frozen=True)
class Gpu:
    """Which GPU: what stays (UUID, PCI address) and what people call it. `problem`: why it cannot be asked."""

    index: int
    uuid: str
    pci: str
    name: str
    architecture: str = "unknown"
    brand: str = "unknown"
    device_id: str = ""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """Values of one GPU; None where the card has no such thing. `errors`: getters that failed otherwise."""

    values: Mapping[str, Any]
    errors: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def normal_pci(text: str) -> str | None:
    """A PCI address as Linux prints it, "0000:01:00.0"; None for another text. NVML pads the domain to 8 digits."""
    match = _PCI.match(text.strip().lower())
    if not match:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function or '0'}"


class Nvml:
    """One NVML session. `state` is "ok", or why there is none, with `reason` in one line:

    no_binding, no_library, not_loaded, mismatch, no_permission, unknown. `calls` counts pynvml calls.
    """

    def __init__(self, binding: Any, state: str = "ok", reason: str = "") -> None:
        self._binding = binding
        self.state, self.reason = state, reason
        self.calls = 0
        self._handles: dict[str, Any] = {}
        self._gpus: list[Gpu] | None = None

    def call(self, function: str, *arguments: Any) -> Any:
        """One pynvml call. Raises NvmlError for every answer of the driver but success."""
        if function in UNCHECKED:
            raise ValueError(f"{function} of nvidia-ml-py hides the driver's answer and must not be used")
        if self._binding is None:
            raise NvmlError(12 if self.state == "no_library" else 1, function)
        self.calls += 1
        found = getattr(self._binding, function, None)
        if found is None:
            raise NvmlError(FUNCTION_NOT_FOUND, function)
        try:
            return found(*arguments)
        except self._binding.NVMLError as error:
            raise NvmlError(int(error.value), function) from None

    def ask(self, function: str, *arguments: Any) -> Any:
        """A call whose absence on a card is an answer: None where the card or driver has no such thing."""
        try:
            return self.call(function, *arguments)
        except NvmlError as error:
            if error.code in UNSUPPORTED:
                return None
            raise

    # -- which GPUs --------------------------------------------------------------------------------

    def devices(self) -> list[Gpu]:
        """All GPUs in the driver's order; one that does not answer is listed with its problem."""
        if self._gpus is None:
            count = self.call("nvmlDeviceGetCount") if self.state == "ok" else 0
            self._gpus = [self._identify(index) for index in range(count)]
        return self._gpus

    def _identify(self, index: int) -> Gpu:
        known: dict[str, Any] = {"uuid": "", "pci": "", "name": "unknown"}
        try:
            handle = self.call("nvmlDeviceGetHandleByIndex", index)
            # The PCI address first: the driver still knows it when the GPU is gone.
            info = self.call("nvmlDeviceGetPciInfo_v3", handle)
            bus_id = info.busId.decode("ascii", "replace") if isinstance(info.busId, bytes) else str(info.busId)
            known["pci"] = normal_pci(bus_id) or bus_id
            known["device_id"] = f"{info.pciDeviceId & 0xFFFF:04x}:{info.pciDeviceId >> 16:04x}"
            known["uuid"] = self.call("nvmlDeviceGetUUID", handle)
            self._handles[known["uuid"]] = handle
            known["name"] = self.call("nvmlDeviceGetName", handle)
            known["architecture"] = _ARCHITECTURES.get(self.ask("nvmlDeviceGetArchitecture", handle), "unknown")
            known["brand"] = _BRANDS.get(self.ask("nvmlDeviceGetBrand", handle), "unknown")
        except NvmlError as error:
            known["problem"] = str(error.strerror)
        return Gpu(index=index, **known)

    def handle(self, uuid: str) -> Any:
        """The driver's handle of one GPU, asked for once."""
        if uuid not in self._handles:
            self._handles[uuid] = self.call("nvmlDeviceGetHandleByUUID", uuid)
        return self._handles[uuid]

    # -- one property, for the engine --------------------------------------------------------------

    def read(self, uuid: str, name: str) -> Any:
        """One property in its canonical form; None where the card has none, and always where NVML has no getter."""
        reader = PROPERTIES[name][0]
        try:
            return reader(self, self.handle(uuid))
        except NvmlError as error:
            if error.code in UNSUPPORTED:
                return None
            raise

    def write(self, uuid: str, name: str, value: Any) -> None:
        """Set one property. Raises NvmlError as the driver answers."""
        PROPERTIES[name][1](self, self.handle(uuid), value)

    # -- everything at once ------------------------------------------------------------------------

    def settings(self, uuid: str) -> Reading:
        """What can be set on one GPU, and the limits of it. Raises NvmlError when the GPU is lost."""
        return self._gather(uuid, SETTINGS)

    def hardware(self, uuid: str) -> Reading:
        """What one GPU is and does: memory, link, clocks, temperature, processes."""
        return self._gather(uuid, HARDWARE)

    def link(self, uuid: str) -> Reading:
        """The PCIe link of one GPU at this moment, and how busy the GPU is."""
        return self._gather(uuid, LINK)

    def moment(self, uuid: str) -> Reading:
        """What a monitor asks for: power, temperature, clocks, load, memory, link, errors."""
        return self._gather(uuid, MOMENT)

    def _gather(self, uuid: str, getters: Mapping[str, Getter]) -> Reading:
        handle = self.handle(uuid)
        values: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, getter in getters.items():
            values[name], problem = self._try(getter, handle)
            if problem:
                errors[name] = problem
        return Reading(values, errors)

    def _try(self, getter: Getter, handle: Any) -> tuple[Any, str]:
        try:
            return getter(self, handle), ""
        except NvmlError as error:
            if error.code in FATAL:
                raise
            return None, "" if error.code in UNSUPPORTED else str(error.strerror)

    def memory_clocks(self, uuid: str) -> list[int]:
        """The memory clocks the card lists (MHz), ascending; empty where it lists none."""
        return sorted(self.ask("nvmlDeviceGetSupportedMemoryClocks", self.handle(uuid)) or [])

    def graphics_clocks(self, uuid: str, memory_mhz: int | None = None) -> list[int]:
        """The graphics clocks the card lists (MHz), ascending: at one memory clock, else at any."""
        rungs = self.memory_clocks(uuid) if memory_mhz is None else [memory_mhz]
        found: set[int] = set()
        for rung in rungs:
            found.update(self.ask("nvmlDeviceGetSupportedGraphicsClocks", self.handle(uuid), rung) or [])
        return sorted(found)

    def processes(self, uuid: str) -> list[dict[str, Any]]:
        """The processes that use one GPU."""
        return processes(self, self.handle(uuid))

    def versions(self) -> dict[str, Any]:
        """Versions of driver, library and the CUDA level that the driver offers."""
        if self.state != "ok":
            return {"driver": None, "nvml": None, "cuda": None}
        cuda = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return {
            "driver": self.ask("nvmlSystemGetDriverVersion"),
            "nvml": self.ask("nvmlSystemGetNVMLVersion"),
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        }

    def close(self) -> None:
        """End the session; a driver that is gone cannot object."""
        if self.state != "ok":
            return
        self.state, self.reason = "closed", "the NVML session was closed"
        with contextlib.suppress(NvmlError):
            self.call("nvmlShutdown")


def open_nvml(source: str | None = None) -> Nvml:
    """Open the session. Never raises: the state of the result says what is missing.

    `source` is pynvml.py as nvml_binding.pack() made it on the controller; None uses an installed one.
    """
    if not library_present():
        # Compiling the binding costs more than this whole call: do it only where there is a driver.
        return Nvml(None, "no_library", str(NvmlError(12, "nvmlInit").hint))
    try:
        binding = load(source)
    except NoBindingError as error:
        return Nvml(None, "no_binding", str(error))
    nvml = Nvml(binding)
    try:
        nvml.call("nvmlInitWithFlags", 0)
    except NvmlError as error:
        nvml.state, nvml.reason = INIT_STATES.get(error.code, "unknown"), str(error.strerror)
    return nvml


def open_present(host: Host, source: str | None = None) -> Nvml:
    """open_nvml() without its side effect: it loads the driver where there is a GPU and no driver (nvidia-modprobe).

    Nobody asked for that at boot: the GPU may be meant for a virtual machine, or its driver be under repair.
    """
    devices = (host.text(f"/sys/bus/pci/devices/{name}/vendor") for name in host.names("/sys/bus/pci/devices"))
    if not host.is_dir("/sys/module/nvidia") and "0x10de" in devices:
        return Nvml(None, "not_loaded", str(NvmlError(9, "nvmlInit").hint))
    return open_nvml(source)
