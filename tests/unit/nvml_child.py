# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a piece of a test in a forked process that has the stand-in driver loaded.

A driver library remembers its machine and counts its calls for the life of a process; a fork gives
each piece a fresh one and may give up root, in milliseconds.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import fake_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml_binding import NvmlError
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import WorkstationError

NOBODY = 65534

importlib.import_module("pynvml")  # once here, not once in every fork


class ChildError(AssertionError):
    """The child ended in a way that no product code may: a traceback, a signal."""


def in_child(machine: fake_nvml.Machine | None, piece: Callable[[], Any], uid: int | None = None) -> Any:
    """The result of `piece()`, or the product error it raised. Without a machine there is no driver library."""
    library = fake_nvml.build() if machine else None
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # test runners have threads; the child starts none
        child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_child(machine, library, piece, uid, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    _pid, status = os.waitpid(child, 0)
    if not answer:
        raise ChildError(f"no answer, wait status {status}")
    return _unpack(*pickle.loads(answer))  # noqa: S301 -- from our own child


def _unpack(kind: str, value: Any) -> Any:
    if kind == "value":
        return value
    if kind == "error":
        raise value
    if kind == "nvml":
        raise NvmlError(*value)
    raise ChildError(value)


def _child(machine: Any, library: Any, piece: Callable[[], Any], uid: int | None, writer: int) -> int:
    try:
        if machine:
            os.environ["FAKE_NVML_STATE"] = str(machine.directory)
            # By its soname it answers to the plain name that nvidia-ml-py asks for later.
            ctypes.CDLL(str(library))
        if uid is not None:
            os.seteuid(uid)
        answer = ("value", piece())
    except NvmlError as error:
        answer = ("nvml", (error.code, error.function))
    except WorkstationError as error:
        answer = ("error", error)
    except BaseException:  # noqa: BLE001 -- whatever it is, the parent shows it
        answer = ("crash", traceback.format_exc())
    with os.fdopen(writer, "wb") as stream:
        stream.write(pickle.dumps(answer))
    return 0
