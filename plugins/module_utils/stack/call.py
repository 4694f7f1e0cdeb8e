# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call of the module service_stack: look, decide, and where it is no preview, apply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..doors.compose import Compose, Container
from ..doors.host import Host
from ..errors import RefusedError
from . import ground, report, units
from .apply import STOPPED, Change
from .decide import steps as decide
from .desired import Secrets, composed, desired
from .model import Record, Step, Wanted

LOCK = "/run/lock/ai-workstation-stack.lock"
AFTER_INSTALL = "after install"


def converge(params: Mapping[str, Any], check: bool, host: Host) -> dict[str, Any]:
    """Bring the stack to what the parameters say. Raises WorkstationError with one line."""
    if not host.is_root():
        raise RefusedError("service_stack needs root: it owns files below /var/lib and speaks to the container engine")
    call = Call(params, host)
    if check:
        return call.run(apply=False)
    with host.lock(LOCK):
        return call.run(apply=True)


class Call:
    """The parameters of one call and the machine."""

    def __init__(self, params: Mapping[str, Any], host: Host) -> None:
        self.params = params
        self.host = host
        self.directory = params["directory"].rstrip("/")
        self.rendered = params["compose"]
        project = self.rendered.get("name") or params["project"]
        self.compose = Compose(host, project, f"{self.directory}/compose.yml")
        self.base = {"networks": self.rendered.get("networks") or {}, "volumes": self.rendered.get("volumes") or {}}

    def run(self, *, apply: bool) -> dict[str, Any]:
        record = Record.from_json(self._json("state.json"))
        missing = self.compose.missing()
        if self.params["state"] == "absent":
            return self._absent(record, missing, apply=apply)
        if missing and apply:
            raise RefusedError(missing)
        secrets = Secrets(self.host, self.directory, self.params["secret_values"])
        wanted = self._wanted(secrets, missing)
        containers = [] if missing else self.compose.containers()
        later = [missing] if missing else [*ground.images(self.compose, wanted), *ground.models(self.host, wanted)]
        problems = [] if missing else self._problems(wanted, containers)
        if problems or (later and apply):
            raise RefusedError("; ".join([*problems, *later]))
        stopped = self._json(STOPPED)
        moved = bool(record.network) and record.network != self.base["networks"] and bool(containers)
        new = {one.name: one.record for one in wanted}
        hashes = {} if missing else self.compose.hashes(composed(self.compose.project, self.base, new))
        steps = decide(wanted, containers, hashes, record, stopped, network_changed=moved)
        unit_steps = units.steps(self.host, units.parse(self.params["units"]), record.units)
        result = self._result(steps, unit_steps, new, record, containers, moved)
        result["skipped_keys"] += [{"key": "service_stack", "reason": f"{AFTER_INSTALL}: {one}"} for one in later]
        if apply:
            change = Change(self.host, self.compose, self.directory, self.base, record, stopped)
            change.run(steps, wanted, unit_steps, secrets.made, network_changed=moved)
        return result

    def _json(self, name: str) -> dict[str, Any]:
        raw = self.host.raw(f"{self.directory}/{name}")
        try:
            found = json.loads(raw) if raw is not None else {}
            if isinstance(found, dict):
                return found
            problem = "no dictionary"
        except ValueError as error:
            problem = str(error)
        raise RefusedError(f"{self.directory}/{name}: it cannot be read ({problem}); move it away and run again")

    def _wanted(self, secrets: Secrets, missing: str) -> list[Wanted]:
        params = self.params
        image = (lambda _name: None) if missing else self.compose.image
        return desired(
            self.host,
            self.directory,
            self.rendered,
            params["services"],
            params["files"],
            params["secrets"],
            secrets,
            image,
        )

    def _problems(self, wanted: Sequence[Wanted], containers: Sequence[Container]) -> list[str]:
        """What another program has on this machine, and no role of ours will bring in order."""
        taken = ground.ports_taken(wanted, containers, ground.listeners(self.host))
        return [*taken, *ground.network_taken(self.host, self.compose, self.base["networks"])]

    def _result(
        self,
        steps: Sequence[Step],
        unit_steps: Sequence[units.UnitStep],
        new: Mapping[str, Mapping[str, Any]],
        record: Record,
        containers: Sequence[Container],
        moved: bool,
    ) -> dict[str, Any]:
        paths = [path for one in unit_steps for path in one.unit.files]
        texts = {path: (self.host.raw(path) or b"").decode() for path in paths if self.host.exists(path)}
        changes, diff = report.of_units(unit_steps, texts)
        more, more_diff = report.of_services(steps, new, record, containers)
        if moved:
            diff.append(report.of_network(record.network, self.base["networks"]))
        return {
            "changed": bool(changes or more),
            "changes": [*changes, *more],
            "diff": [*diff, *more_diff],
            "skipped_keys": units.skipped(self.host, unit_steps),
            "services": {one.service: {"step": one.kind, "reason": one.reason} for one in steps},
        }

    def _absent(self, record: Record, missing: str, *, apply: bool) -> dict[str, Any]:
        """Units, containers, network and files go; what people made stays, unless the call says otherwise."""
        containers = [] if missing else self.compose.containers()
        volumes = {} if missing else self.compose.volumes()
        going = {"none": (), "caches": record.caches, "all": volumes}[self.params["remove_volumes"]]
        chosen = sorted(set(volumes) & set(going))
        steps = [Step(one.service, "remove", "state is absent") for one in containers]
        unit_steps = units.steps(self.host, [], record.units)
        result = self._result(steps, unit_steps, {}, record, containers, moved=False)
        result["changes"] += [report.row(f"volume:{name}", "present", None, "remove") for name in chosen]
        if self.host.is_dir(self.directory):
            result["changes"].append(report.row(f"dir:{self.directory}", "present", None, "remove"))
        result["changed"] = bool(result["changes"])
        result["skipped_keys"] = []
        if apply and result["changed"]:
            change = Change(self.host, self.compose, self.directory, {}, record, {})
            change.remove_all(unit_steps, chosen, engine=not missing)
        return result
