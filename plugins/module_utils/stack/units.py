# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd units that belong to the stack, each with the program it runs where that is ours too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..doors.host import FileState, Host
from ..errors import ApplyError, RefusedError

_FOLDER = "/etc/systemd/system"
_MARK = "# Written by ai_infra.workstation"
_NO_SYSTEMD = "systemd does not run here"


@dataclass(frozen=True)
class Unit:
    """One unit. program: a text that is installed at program_path for it."""

    name: str
    content: str = ""
    program_path: str = ""
    program: str = ""

    @property
    def path(self) -> str:
        return f"{_FOLDER}/{self.name}"

    @property
    def files(self) -> dict[str, str]:
        found = {self.path: self.content}
        return {**found, self.program_path: self.program} if self.program_path else found


@dataclass(frozen=True)
class UnitStep:
    """kind: install, change, start, remove or keep."""

    unit: Unit
    kind: str


def parse(units: Sequence[Mapping[str, Any]]) -> list[Unit]:
    return [
        Unit(one["name"], _text(one["content"]), one.get("program_path") or "", _text(one.get("program") or ""))
        for one in units
    ]


def _text(text: str) -> str:
    # Lookups of the controller leave the last newline out.
    return text if not text or text.endswith("\n") else text + "\n"


def steps(host: Host, wanted: Sequence[Unit], known: Mapping[str, str]) -> list[UnitStep]:
    """What each unit needs. known: those that earlier calls installed, with the path of their program.

    Raises RefusedError where a file of somebody else has the name.
    """
    names = {one.name for one in wanted}
    gone = [
        UnitStep(Unit(name, program_path=path), "remove") for name, path in sorted(known.items()) if name not in names
    ]
    return gone + [UnitStep(one, _kind(host, one)) for one in wanted]


def _kind(host: Host, unit: Unit) -> str:
    found = host.file(unit.path)
    if found and not found.content.startswith(_MARK):
        raise RefusedError(f"{unit.path}: this unit exists and is not ours; move it away")
    if found is None:
        return "install"
    if any(host.file(path) != FileState(text) for path, text in unit.files.items()):
        return "change"
    if not _systemd(host):
        return "keep"
    well = all(host.run(["systemctl", "--quiet", word, unit.name]).code == 0 for word in ("is-enabled", "is-active"))
    return "keep" if well else "start"


def _systemd(host: Host) -> bool:
    return host.is_dir("/run/systemd/system")


def skipped(host: Host, found: Sequence[UnitStep]) -> list[dict[str, str]]:
    """Units that are installed and cannot be started here."""
    if _systemd(host):
        return []
    return [{"key": f"unit:{one.unit.name}", "reason": _NO_SYSTEMD} for one in found if one.kind != "remove"]


def apply(host: Host, found: Sequence[UnitStep]) -> None:
    """Raises ApplyError where systemd does not start one."""
    for one in found:
        if one.kind == "remove":
            _remove(host, one.unit)
        elif one.kind != "keep":
            _install(host, one.unit)


def _install(host: Host, unit: Unit) -> None:
    for path, text in unit.files.items():
        folder = path.rpartition("/")[0]
        if host.dir_mode(folder) is None:
            host.make_dir(folder, 0o755)
        if host.file(path) != FileState(text):
            host.write_file(path, FileState(text))
    if _systemd(host):
        _must(host, "daemon-reload")
        _must(host, "enable", "--quiet", unit.name)
        _must(host, "restart", unit.name)


def _remove(host: Host, unit: Unit) -> None:
    if _systemd(host) and host.file(unit.path):
        _must(host, "disable", "--quiet", "--now", unit.name)
    host.remove_file(unit.path)
    if unit.program_path:
        host.remove_file(unit.program_path)
    if _systemd(host):
        _must(host, "daemon-reload")


def _must(host: Host, *words: str) -> None:
    answer = host.act(["systemctl", *words])
    if answer.code != 0:
        lines = answer.err.strip().splitlines() or ["it says nothing"]
        raise ApplyError(f"systemctl {' '.join(words)}: {lines[0]}")
