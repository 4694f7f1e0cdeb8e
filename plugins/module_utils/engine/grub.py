# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GRUB's environment block: a file of 1024 bytes that GRUB itself reads and writes (GRUB's manual, 17.2)."""

from __future__ import annotations

import errno

from ..doors.host import Host

GRUBENV = "/boot/grub/grubenv"
_SIGNATURE = b"# GRUB Environment Block\n"
_SIZE = 1024


def grub_environment(host: Host, path: str = GRUBENV) -> dict[str, str] | None:
    """Its variables; None where the file is not one that GRUB takes."""
    data = None if host.link(path) else host.raw(path)
    if data is None or len(data) != _SIZE or not data.startswith(_SIGNATURE):
        return None
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def set_next_entry(host: Host, path: str, value: str | None) -> None:
    """Choose the entry of the next boot alone; None: no such line."""
    verb = ("unset", "next_entry") if value is None else ("set", f"next_entry={value}")
    done = host.act(("grub-editenv", path, *verb))
    if done.code:
        words = (done.err or done.out).strip().splitlines()
        raise OSError(errno.EIO, f"grub-editenv {path} {' '.join(verb)}: {words[-1] if words else 'no message'}")
