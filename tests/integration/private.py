# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run our modules through real Ansible on this machine, with a /var/lib of their own.

A private mount namespace keeps the ledger away from the machine; an ordinary user gets one together
with a user namespace, where he is root as far as a module can tell.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_USER = () if os.geteuid() == 0 else ("--map-root-user",)
_UNSHARE = ("unshare", *_USER, "--mount", "--propagation", "private")


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why no private namespace can be had here; empty when one can."""
    try:
        done = subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "none", "/var/lib"], capture_output=True, check=False)
    except OSError as error:
        return f"unshare: {error.strerror}"
    return f"no private mounts here: {done.stderr.decode().strip()}" if done.returncode else ""


def module(
    name: str, arguments: Mapping[str, Any], var_lib: Path, environment: Mapping[str, str], *flags: str
) -> dict[str, Any]:
    """The result of one module, failed or not, run with the target's own Python and this folder as /var/lib."""
    enter = [*_UNSHARE, "sh", "-ec", 'mount --bind "$1" /var/lib; shift; exec "$@"', "sh", str(var_lib)]
    return call(enter, name, arguments, var_lib, environment, *flags)


def call(
    enter: Sequence[str],
    name: str,
    arguments: Mapping[str, Any],
    folder: Path,
    environment: Mapping[str, str],
    *flags: str,
) -> dict[str, Any]:
    """The result of one module; `enter` is put before the command, `folder` is for the play and its result."""
    folder.mkdir(parents=True, exist_ok=True)
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "environment": dict(environment),
        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "tasks": [{"name": "call", f"ai_infra.workstation.{name}": dict(arguments)}],
    }
    book, result = folder / "play.json", folder / "result.json"
    book.write_text(json.dumps([play]), encoding="utf-8")
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [*enter, "ansible-playbook", "-i", "localhost,", str(book), *flags],
        cwd=ROOT,
        env={
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "whole_result",
            "WHOLE_RESULT": str(result),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if not result.exists():
        raise AssertionError(f"no result: {done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    found["output"] = done.stdout + done.stderr
    return found
