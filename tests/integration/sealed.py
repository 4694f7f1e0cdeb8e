# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run whole playbooks on this machine, in check mode and for real, without a way to change it.

In a private mount namespace /proc and /sys are read-only, /run (and so the way to systemd) and /boot are empty, and
/etc and /var/lib are copies of their own. What is left to change is files below these, and the stand-in driver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import private

_SEAL = r"""
for tree in /proc /sys; do mount --bind $tree $tree; mount -o remount,bind,ro $tree; done
mount -t tmpfs none /run
mount -t tmpfs none /boot
mount --bind "$1/etc" /etc
mount --bind "$1/var_lib" /var/lib
# Writing back the value that is there keeps the machine as it is even where the seal does not hold.
for file in /proc/sys/vm/swappiness /proc/sys/kernel/printk; do
    if sh -c 'value=$(cat "$0") && echo "$value" > "$0"' $file 2>/dev/null; then echo "$file is writable"; exit 99; fi
done
shift
exec "$@"
"""


def _sealed(folder: Path, *command: str) -> list[str]:
    return [*private._UNSHARE, "sh", "-ec", _SEAL, "sh", str(folder), *command]


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why nothing can be sealed here; empty when it can."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            Host(Path(folder))
            done = subprocess.run(_sealed(Path(folder), "true"), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no sealed machine here: {error}"
    return f"no sealed machine here: {done.stdout}{done.stderr}".strip() if done.returncode else ""


class Host:
    """A sealed copy of this machine in a folder: its /etc and /var/lib last as long as the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "var_lib").mkdir(parents=True, exist_ok=True)
        if not (folder / "etc").exists():
            shutil.copytree("/etc", folder / "etc", symlinks=True, ignore=_unreadable)

    def play(
        self, book: str, inventory: Mapping[str, Any], environment: Mapping[str, str], *arguments: str
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        """Run a playbook of the checkout: the process, and what the summary wrote."""
        hosts, report = self.folder / "hosts.json", self.folder / "report.json"
        hosts.write_text(json.dumps(inventory), encoding="utf-8")
        report.unlink(missing_ok=True)
        done = subprocess.run(
            _sealed(
                self.folder, str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(hosts), book, *arguments
            ),
            cwd=private.ROOT,
            env={
                **os.environ,
                **environment,
                "AI_INFRA_WORKSTATION_REPORT": str(report),
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return done, json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}


def _unreadable(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not os.access(os.path.join(folder, name), os.R_OK, follow_symlinks=False)]
