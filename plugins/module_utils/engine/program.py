# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program on the machine: one executable file with the very code of the call that wrote it.

A zip archive that Python runs (zipapp): this tree, and nvidia-ml-py as it came with the call. It serves boot and
verify, which have no controller to ask. As a knob its value is a hash of what is inside, so that the ledger holds a
line and not the file, and a second run finds the same whatever compressed it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import posixpath
import re
import zipfile
from collections.abc import Mapping

from ..doors.host import FileState
from ..doors.sources import own_binding, own_sources
from .change import Value
from .machine import Machine

PATH = "/usr/local/sbin/ai-workstation"
PYTHON = "/usr/bin/python3"  # of the distribution: it is there at boot, and after an upgrade of it
# -I: no variable and no folder of a user has a say in it. -S: nothing but the standard library is needed.
_FIRST_LINE = f"#!{PYTHON} -IS\n".encode()
_MARK = b"Written by ai_infra.workstation; changes here are lost. Undo: playbooks/rollback.yml"
_PACKAGE = "ai_workstation"
_MAIN = f"from {_PACKAGE}.on_host.main import main\n\nraise SystemExit(main())\n"
_MODE = 0o755
# Where it begins, and where all subjects are named; what these import is what is inside, whatever else came along.
_ROOTS = ("on_host/main.py", "subjects/boot_unit.py")
_IMPORT = re.compile(r"^\s*from (\.+)([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def contents(machine: Machine) -> dict[str, bytes]:
    """The files inside, made of the code that runs now."""
    inside = {f"{_PACKAGE}/{name}": text for name, text in _needed(own_sources()).items()}
    inside.update({f"{_PACKAGE}/__init__.py": b"", "__main__.py": _MAIN.encode()})
    binding = machine.binding() or own_binding()
    if binding:
        inside["pynvml.py"] = binding
    return inside


def _needed(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    left = list(_ROOTS)
    while left:
        name = left.pop()
        if name in found or name not in sources:
            continue
        found[name] = sources[name]
        left += [posixpath.join(posixpath.dirname(name), "__init__.py"), *_imported(name, sources[name].decode())]
    return found


def _imported(name: str, text: str) -> list[str]:
    """Files that a file may import, also such that there are not: a name may be a module or something in one."""
    found: list[str] = []
    for dots, module, names in _IMPORT.findall(text):
        folder = name
        for _dot in dots:
            folder = posixpath.dirname(folder)
        base = posixpath.join(folder, *module.split("."))
        found.append(f"{base}.py")
        words = re.findall(r"\w+", re.sub(r"#.*", "", names))
        found += [posixpath.join(base, f"{word}.py") for word in words]
    return found


def value_of(inside: Mapping[str, bytes], mode: int = _MODE) -> str:
    digest = hashlib.sha256(_FIRST_LINE)
    for name, text in sorted(inside.items()):
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return f"sha256:{digest.hexdigest()[:16]} mode {mode:04o}"


def wanted(machine: Machine) -> str:
    """The value that the code of this call gives the program."""
    return value_of(contents(machine))


def read(machine: Machine, path: str) -> Value:
    """What is inside, as a hash; None where there is no file. Raises OSError for anything but a regular file."""
    state = machine.host.file(path)
    if state is None:
        return None
    data = state.content.encode("utf-8", "surrogateescape")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            if opened.comment == _MARK and data.startswith(_FIRST_LINE) and (state.uid, state.gid) == (0, 0):
                return value_of({name: opened.read(name) for name in opened.namelist()}, state.mode)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, EOFError, NotImplementedError):
        pass
    return f"sha256:{hashlib.sha256(data).hexdigest()[:16]} mode {state.mode:04o}, not as we wrote it"


def is_ours(machine: Machine, path: str) -> bool:
    """Whether the file carries our mark, whatever has become of the rest."""
    state = machine.host.file(path)
    return state is not None and state.content.encode("utf-8", "surrogateescape").endswith(_MARK)


def write(machine: Machine, path: str, value: Value) -> None:
    """Put in place what the value names: the code of this call, or what this call has found and replaced."""
    if value is None:
        machine.host.remove_file(path)
        return
    found, state = read(machine, path), machine.host.file(path)
    if state is not None:
        machine.replaced.setdefault(str(found), state)
    inside = contents(machine)
    if value == value_of(inside):
        machine.host.write_file(path, FileState(_pack(inside).decode("utf-8", "surrogateescape"), _MODE))
    elif str(value) in machine.replaced:
        machine.host.write_file(path, machine.replaced[str(value)])
    else:
        raise OSError(errno.ESTALE, f"{path}: the bytes of {value} are not at hand; run the release that wrote it")


def packed(machine: Machine) -> bytes:
    """The whole file."""
    return _pack(contents(machine))


def _pack(inside: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    target.write(_FIRST_LINE)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.comment = _MARK
        for name, text in sorted(inside.items()):
            opened.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return target.getvalue()
