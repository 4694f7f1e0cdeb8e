# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the code that is running: this tree as files, from wherever Python has it.

That is the archive that Ansible made for the call, the program on the machine itself, or a checkout.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

_HERE = Path(__file__)
_TREE = _HERE.parent.parent
_SUFFIX = ".py"


def own_sources() -> dict[str, bytes]:
    """Every Python file of this tree that came along, by its path in the tree."""
    if _HERE.is_file():
        return {str(path.relative_to(_TREE)): path.read_bytes() for path in sorted(_TREE.rglob(f"*{_SUFFIX}"))}
    archive = next(folder for folder in _HERE.parents if folder.is_file())
    prefix = f"{_TREE.relative_to(archive)}/"
    with zipfile.ZipFile(archive) as opened:
        return {
            name[len(prefix) :]: opened.read(name)
            for name in sorted(opened.namelist())
            if name.startswith(prefix) and name.endswith(_SUFFIX)
        }


def own_binding() -> bytes | None:
    """The nvidia-ml-py inside the program, where it is the program that runs."""
    archive = next((folder for folder in _HERE.parents if folder.is_file()), None)
    if archive is None:
        return None
    with zipfile.ZipFile(archive) as opened:
        return opened.read("pynvml.py") if "pynvml.py" in opened.namelist() else None
