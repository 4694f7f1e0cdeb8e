# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that a call makes of its own code: the same from every call and from a checkout."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import private
import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine import program
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine

pytestmark = pytest.mark.skipif(bool(private.why_not()), reason=private.why_not() or "possible")

# systemd seems to run, and nothing of this machine can be changed: the calls are in check mode besides.
_ENTER = r"""
mount -t tmpfs none /run; mkdir -p /run/systemd/system
mount --bind "$1" /var/lib; mount --bind "$1" /usr/local/sbin; shift; exec "$@"
"""


def foretold(tmp_path: Path, name: str, **arguments: object) -> str:
    empty = tmp_path / "empty"
    empty.mkdir(exist_ok=True)
    enter = [*private._UNSHARE, "sh", "-ec", _ENTER, "sh", str(empty)]
    result = private.call(enter, name, arguments, tmp_path / "call", {}, "--check")
    changes = {change["key"]: change for change in result["changes"]}
    assert os.listdir(empty) == [], result["output"]
    return str(changes[f"program:{program.PATH}"]["after"])


def test_every_call_makes_the_same_program_as_the_checkout(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("pynvml")
    assert spec
    binding = Path(str(spec.origin)).read_bytes()
    expected = program.wanted(Machine(Host(), binding=lambda: binding))
    assert foretold(tmp_path, "boot_unit", enabled=True) == expected
    assert foretold(tmp_path, "workstation_state", boot_unit={"enabled": True}) == expected
