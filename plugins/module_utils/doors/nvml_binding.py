# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How nvidia-ml-py reaches this process, and what every NVML error code means to a user.

pynvml.py (BSD, one file, standard library only) arrives as a parameter of the call: compressed text that
the action plugin read on the controller. It becomes a module object in memory. Nothing is installed
on the target, no file is left behind, no extra transfer is made and pipelining keeps working, which
a copy into the task's temporary directory would prevent.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import hashlib
import importlib
import sys
import types
import zlib
from typing import Any

LIBRARY = "libnvidia-ml.so.1"

# nvmlReturn_t of nvml.h: name, the errno that comes nearest, what to do about it.
_ERRORS: dict[int, tuple[str, int, str]] = {
    1: ("UNINITIALIZED", errno.EIO, "the NVML session was closed; run again"),
    2: (
        "INVALID_ARGUMENT",
        errno.EINVAL,
        "the driver does not take this value for this card; see the range it reports",
    ),
    3: ("NOT_SUPPORTED", errno.ENOTSUP, "this card or driver does not offer it; leave the setting out"),
    4: ("NO_PERMISSION", errno.EPERM, "run as root on the host (become: true), not in a container"),
    5: ("ALREADY_INITIALIZED", errno.EALREADY, "run again"),
    6: ("NOT_FOUND", errno.ENOENT, "the driver does not know it any more; list the GPUs with nvidia-smi -L"),
    7: ("INSUFFICIENT_SIZE", errno.ENOSPC, "the driver has more to say than the library can hold; update nvidia-ml-py"),
    8: ("INSUFFICIENT_POWER", errno.EIO, "a power cable of the card is missing or loose; check the connector"),
    9: ("DRIVER_NOT_LOADED", errno.ENODEV, "the nvidia kernel module is not loaded; modprobe nvidia, then dmesg"),
    10: ("TIMEOUT", errno.ETIMEDOUT, "the driver gave no answer in time; look for Xid lines in dmesg, then run again"),
    11: ("IRQ_ISSUE", errno.EIO, "the card's interrupts do not arrive; look for Xid lines in dmesg"),
    12: ("LIBRARY_NOT_FOUND", errno.ENOENT, f"{LIBRARY} is not installed; install the NVIDIA driver"),
    13: ("FUNCTION_NOT_FOUND", errno.ENOSYS, "the installed driver is older than this call; update the driver"),
    14: ("CORRUPTED_INFOROM", errno.EIO, "the card's InfoROM is damaged; ask the vendor"),
    15: (
        "GPU_IS_LOST",
        errno.ENODEV,
        "the GPU fell off the bus; look for Xid 79 in dmesg, then power-cycle the machine",
    ),
    16: ("RESET_REQUIRED", errno.EIO, "the GPU must be reset first: nvidia-smi --gpu-reset, or reboot"),
    17: ("OPERATING_SYSTEM", errno.EACCES, "the operating system blocked the request; check cgroup device rules"),
    18: ("LIB_RM_VERSION_MISMATCH", errno.EPROTO, "the driver was upgraded without a reboot; reboot, then run again"),
    19: ("IN_USE", errno.EBUSY, "a process uses the GPU; stop what nvidia-smi lists, then run again"),
    20: ("MEMORY", errno.ENOMEM, "the driver has no memory left; free some, then run again"),
    21: ("NO_DATA", errno.ENODATA, "the driver has no value for it"),
    22: ("VGPU_ECC_NOT_SUPPORTED", errno.ENOTSUP, "ECC cannot be used with virtual GPUs"),
    23: ("INSUFFICIENT_RESOURCES", errno.ENOSPC, "the driver has no resources left for it; free some, then run again"),
    24: ("FREQ_NOT_SUPPORTED", errno.EINVAL, "the card does not run at this frequency; see its list of clocks"),
    25: (
        "ARGUMENT_VERSION_MISMATCH",
        errno.EINVAL,
        "nvidia-ml-py does not fit the installed driver; update the older one",
    ),
    26: ("DEPRECATED", errno.ENOTSUP, "the driver dropped this call; leave the setting out"),
    27: ("NOT_READY", errno.EAGAIN, "the driver is still starting; run again in a moment"),
    28: ("GPU_NOT_FOUND", errno.ENODEV, "no such GPU; list the GPUs with nvidia-smi -L"),
    29: ("INVALID_STATE", errno.EBUSY, "the GPU is in a state that forbids it; see its MIG, ECC and reset state"),
    30: ("RESET_TYPE_NOT_SUPPORTED", errno.ENOTSUP, "the card does not offer this kind of reset; reboot"),
    999: ("UNKNOWN", errno.EIO, "an internal driver error; look for Xid lines in dmesg"),
}

NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, GPU_IS_LOST = 3, 4, 13, 15
# Answers that mean "this card or driver has no such thing", now and at every later call.
UNSUPPORTED = frozenset({NOT_SUPPORTED, 6, FUNCTION_NOT_FOUND, 21, 22, 26})
# Answers after which nothing more can be learnt from this GPU.
FATAL = frozenset({1, 9, GPU_IS_LOST, 16, 18})

# Why there is no NVML session: the state of the door by the code of nvmlInit.
INIT_STATES = {12: "no_library", 9: "not_loaded", 18: "mismatch", 4: "no_permission"}

# These pynvml functions return whatever the driver answered without checking it (nvidia-ml-py
# 13.615.71), so a failure would pass for a success. The door refuses to call them.
UNCHECKED = frozenset(
    {
        "nvmlDeviceGetClockOffsets",
        "nvmlDeviceSetClockOffsets",
        "nvmlDeviceGetPowerMizerMode_v1",
        "nvmlDeviceSetPowerMizerMode_v1",
        "nvmlDeviceSetPowerManagementLimit_v2",
        "nvmlDeviceGetCapabilities",
        "nvmlDeviceSetVirtualizationMode",
        "nvmlVgpuInstanceSetEncoderCapacity",
        "nvmlSystemGetConfComputeSettings",
    }
)


class NvmlError(OSError):
    """An answer of the driver other than success: an OSError to the engine, with the NVML name and code."""

    def __init__(self, code: int, function: str) -> None:
        name, number, words = _ERRORS.get(code, (f"code {code}", errno.EIO, "an answer this release does not know"))
        self.code, self.name, self.function = code, f"NVML_ERROR_{name}" if code in _ERRORS else name, function
        self.hint = words
        super().__init__(number, f"{function}: {self.name} ({code}): {words}")

    def __str__(self) -> str:
        return str(self.strerror)


class NoBindingError(Exception):
    """nvidia-ml-py is neither in the call nor on this machine; the text says what to do."""


def pack(source: bytes) -> str:
    """pynvml.py as it travels in a module parameter."""
    return base64.b64encode(zlib.compress(source, 9)).decode("ascii")


def unpack(packed: str) -> bytes:
    """The source that pack() was given. Raises ValueError or zlib.error for anything else."""
    return zlib.decompress(base64.b64decode(packed, validate=True))


def carried(packed: str | None) -> bytes | None:
    """The source that came with the call; None where none did."""
    return unpack(packed) if packed else None


def load(packed: str | None) -> Any:
    """The pynvml module: from the text that came with the call, else an installed one."""
    if not packed:
        try:
            return importlib.import_module("pynvml")
        except ImportError:
            raise NoBindingError(
                "nvidia-ml-py did not come with this call (its action plugin did not run or the controller lacks it) "
                "and is not installed here; pip install nvidia-ml-py on the controller"
            ) from None
    name = "_ai_workstation_pynvml_" + hashlib.sha256(packed.encode("ascii", "replace")).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    sys.modules[name] = module  # pynvml looks itself up there while it starts
    try:
        exec(compile(unpack(packed), "pynvml.py sent with the call", "exec"), module.__dict__)  # noqa: S102 -- the controller's own nvidia-ml-py
    except (ValueError, zlib.error, SyntaxError, ImportError, AttributeError, NameError) as error:
        del sys.modules[name]
        raise NoBindingError(f"the nvidia-ml-py that came with this call cannot be loaded ({error})") from None
    return module


def library_present() -> bool:
    """Whether the driver's library can be loaded: asked first, as most machines without a GPU end here."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True
