# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A process that uses the real pynvml: it reads calls as JSON lines and answers each with a line,
{"value": ...} or {"error": code}. Its parent is nvml_client.Client."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

import pynvml


def _plain(value: Any) -> Any:
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        return {name: _plain(getattr(value, name)) for name, *_type in value._fields_}
    if isinstance(value, (list, tuple, ctypes.Array)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__"):  # pynvml's "friendly" copies of structures
        return {name: _plain(item) for name, item in vars(value).items()}
    return value.decode() if isinstance(value, bytes) else value


def _raw(function: str, handle: Any, structure: str, values: dict[str, Any]) -> Any:
    """A call that pynvml would not check: the structure filled by name, the code from the library."""
    info = getattr(pynvml, structure)()
    for name, value in values.items():
        setattr(info, name, value)
    code = pynvml._nvmlGetFunctionPointer(function)(handle, ctypes.byref(info))
    if code:
        raise pynvml.NVMLError(code)
    return _plain(info)


def _answer(request: list[Any]) -> dict[str, Any]:
    function, gpu, *arguments = request
    try:
        if function == "setuid":
            os.setuid(arguments[0])
            return {"value": None}
        first = [] if gpu is None else [pynvml.nvmlDeviceGetHandleByIndex(gpu)]
        if function == "raw":
            return {"value": _raw(arguments[0], first[0], *arguments[1:])}
        if function == "code":  # the bare return code, where pynvml offers no function
            return {"value": pynvml._nvmlGetFunctionPointer(arguments[0])(*first, *arguments[1:])}
        value = getattr(pynvml, function)(*first, *arguments)
        if type(value).__name__.startswith("LP_"):  # a handle: answer with what it stands for
            value = pynvml.nvmlDeviceGetIndex(value)
        return {"value": _plain(value)}
    except pynvml.NVMLError as error:
        return {"error": error.value}


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
