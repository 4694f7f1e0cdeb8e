# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take the steps, one service at a time; one that does not come up goes back to what was proven well."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..doors.compose import Compose
from ..doors.host import FileState, Host
from ..errors import ApplyError
from . import bring_up, units
from .desired import composed
from .model import Content, Record, Step, Wanted
from .yaml_text import dump

# Which services the watch has stopped, and why (roles/service_stack/files/stack_watch.py).
STOPPED = "stopped.json"
FOLDERS = ("", "/files", "/secrets", "/generated")
HEAD = "# Written by ai_infra.workstation (service_stack). Changes here are lost; declare services in the inventory.\n"


class Change:
    """One call that changes the stack. base: the rendered compose file, for its network and volumes."""

    def __init__(
        self,
        host: Host,
        compose: Compose,
        directory: str,
        base: Mapping[str, Any],
        record: Record,
        stopped: Mapping[str, str],
    ) -> None:
        self.host = host
        self.compose = compose
        self.directory = directory
        self.base = base
        self.record = record
        self.stopped = dict(stopped)
        self.done: list[str] = []

    def run(
        self,
        steps: Sequence[Step],
        wanted: Sequence[Wanted],
        unit_steps: Sequence[units.UnitStep],
        made: Mapping[str, str],
        *,
        network_changed: bool,
    ) -> None:
        """Raises ApplyError naming what failed, what went back, and what was not tried."""
        self._lay_out(wanted, made)
        self._install(unit_steps)
        self._remove([one.service for one in steps if one.kind == "remove"], everything=network_changed)
        self.record.network = self.base.get("networks") or {}
        self.record.caches = sorted({*self.record.caches, *(name for one in wanted for name in one.caches)})
        by_name = {one.name: one for one in wanted}
        todo = [one for one in steps if one.kind != "remove"]
        for place, step in enumerate(todo):
            self._take(step, by_name[step.service], [one.service for one in todo[place + 1 :] if one.changes])
        self._write(self.record.services)
        self._save()
        self._tidy()

    # -- files -------------------------------------------------------------------------------------

    def _lay_out(self, wanted: Sequence[Wanted], made: Mapping[str, str]) -> None:
        """Folders, generated secrets, files and secrets: all under new names, so that nothing that runs sees them."""
        self._folder(self.directory.rpartition("/")[0], 0o755)
        for folder in FOLDERS:
            self._folder(self.directory + folder, 0o700)
        for path, text in made.items():
            self.host.write_file(path, FileState(text, 0o600))
        for content in (content for one in wanted for content in one.contents):
            state = _state(content)
            if self.host.file(content.path) != state:
                self.host.write_file(content.path, state)

    def _folder(self, path: str, mode: int) -> None:
        if self.host.dir_mode(path) is None:
            self.host.make_dir(path, mode)

    def _write(self, services: Mapping[str, Mapping[str, Any]]) -> None:
        text = HEAD + dump(composed(self.compose.project, self.base, services))
        state = FileState(text, 0o600)
        if self.host.file(self.compose.file) != state:
            self.host.write_file(self.compose.file, state)

    def _save(self) -> None:
        path = f"{self.directory}/state.json"
        before = self.host.raw(path)
        if before is None or json.loads(before) != self.record.to_json():
            self.host.save_json(path, self.record.to_json())
        note = f"{self.directory}/{STOPPED}"
        if self.stopped:
            self.host.save_json(note, self.stopped)
        elif self.host.exists(note):
            self.host.remove_file(note)

    def _tidy(self) -> None:
        """Remove files and secrets that no service has any more."""
        used = {
            path
            for one in self.record.services.values()
            for part in ("configs", "secrets")
            for path in one[part].values()
        }
        for folder in ("files", "secrets"):
            for name in self.host.names(f"{self.directory}/{folder}"):
                if f"{self.directory}/{folder}/{name}" not in used:
                    self.host.remove_file(f"{self.directory}/{folder}/{name}")

    def _install(self, unit_steps: Sequence[units.UnitStep]) -> None:
        # Noted first: a run that is killed in between leaves nothing behind that nobody knows.
        self.record.units = {one.unit.name: one.unit.program_path for one in unit_steps}
        self._save()
        units.apply(self.host, unit_steps)
        self.record.units = {one.unit.name: one.unit.program_path for one in unit_steps if one.kind != "remove"}

    # -- services ----------------------------------------------------------------------------------

    def _remove(self, names: Sequence[str], *, everything: bool) -> None:
        """Remove containers; all of them, and the network with them, where the network itself has changed."""
        gone = [one for one in self.compose.containers() if everything or one.service in names]
        self.compose.remove([one.id for one in gone])
        if everything:
            self.compose.remove_network()
        for name in names:
            self.record.services.pop(name, None)

    def _take(self, step: Step, wanted: Wanted, rest: Sequence[str]) -> None:
        before = self.record.services.get(step.service)
        try:
            if step.kind in ("keep", "prove"):
                bring_up.prove(self.compose, wanted, time.time())
            else:
                self._write({**self.record.services, step.service: wanted.record})
                bring_up.start(self.compose, wanted, again=step.kind == "start")
        except bring_up.NotWellError as problem:
            raise self._failed(step, wanted, before, str(problem), rest) from problem
        self.record.services[step.service] = wanted.record
        self.stopped.pop(step.service, None)
        self._save()
        if step.changes:
            self.done.append(step.service)

    def _failed(
        self, step: Step, wanted: Wanted, before: Mapping[str, Any] | None, problem: str, rest: Sequence[str]
    ) -> ApplyError:
        back = self._back(wanted, before) if before != wanted.record else ""
        self._write(self.record.services)
        self._save()
        parts = [f"service {step.service}: {problem}", back]
        parts.append(f"not tried after it: {', '.join(rest)}" if rest else "")
        parts.append(f"updated before it: {', '.join(self.done)}" if self.done else "")
        return ApplyError(
            "; ".join(part for part in parts if part),
            service=step.service,
            returned=before is not None and back.startswith("returned"),
            updated=list(self.done),
            not_tried=list(rest),
        )

    def _back(self, wanted: Wanted, before: Mapping[str, Any] | None) -> str:
        """Return to what was proven well, or remove what never was."""
        if before is None:
            found = self.compose.container(wanted.name)
            self.compose.remove([found.id] if found else [])
            return "there is no earlier version, so its container was removed"
        self._write({**self.record.services, wanted.name: before})
        earlier = Wanted(wanted.name, before["definition"], health_seconds=wanted.health_seconds)
        try:
            bring_up.start(self.compose, earlier)
        except bring_up.NotWellError as problem:
            return f"the last good version does not come up either: {problem}"
        return "returned to its last good version, which is well"

    # -- taking all of it away -----------------------------------------------------------------------

    def remove_all(self, unit_steps: Sequence[units.UnitStep], volumes: Sequence[str], *, engine: bool) -> None:
        """Units, containers, network, the named volumes and our files; models, images and other volumes stay."""
        units.apply(self.host, unit_steps)
        if engine:
            self._remove([], everything=True)
            self.compose.remove_volumes(volumes)
        for folder in reversed(FOLDERS):
            place = self.directory + folder
            for name in self.host.names(place):
                if not self.host.is_dir(f"{place}/{name}"):
                    self.host.remove_file(f"{place}/{name}")
            with contextlib.suppress(OSError):
                self.host.remove_dir(place)


def _state(content: Content) -> FileState:
    return FileState(content.text, 0o400 if content.secret else 0o444, content.uid, content.gid)
