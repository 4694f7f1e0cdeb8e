# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what the controller rendered to what this machine is to run: images by identity, files and secrets by path.

Files are kept under a name with a digest of their content, so that new content is a new path, a service that is given
it is made anew, and the version before is still there to come back to. The digest of a secret is keyed with the
machine's identity: whoever sees a path in a diff cannot guess secrets with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random_secrets
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ..doors.host import Host
from ..errors import InputError, RefusedError
from .model import FILES_LABEL, IMAGE_LABEL, Content, Wanted

_GENERATED_BYTES = 32


class Secrets:
    """The declared secrets of a call, by name."""

    def __init__(self, host: Host, directory: str, declared: Sequence[Mapping[str, Any]]) -> None:
        self._host = host
        self._directory = directory
        self._declared = {str(one["name"]): one for one in declared}
        self.made: dict[str, str] = {}

    def text(self, name: str) -> str:
        """The content of a secret. Raises InputError or RefusedError without ever naming a content."""
        one = self._declared.get(name)
        if one is None:
            raise InputError(f"secrets: {name!r} is used and not declared; add it to service_stack_secrets")
        given = [key for key in ("value", "file", "generate") if one.get(key)]
        if len(given) != 1:
            raise InputError(f"secrets: {name!r} must have one of value, file and generate")
        if given == ["value"]:
            return str(one["value"])
        if given == ["file"]:
            raw = self._host.text(str(one["file"]))
            if not raw:
                raise RefusedError(f"secrets: {name!r}: {one['file']} cannot be read or is empty on this machine")
            return raw
        return self._generated(name)

    def mark(self, name: str, text: str, key: bytes) -> str:
        """What its file is called by: a keyed digest of its content, or that we made it, once."""
        if self._declared[name].get("generate"):
            return "generated"
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12]

    def _generated(self, name: str) -> str:
        path = f"{self._directory}/generated/{name}"
        known = self._host.text(path)
        if not known:
            known = self.made.setdefault(path, random_secrets.token_urlsafe(_GENERATED_BYTES))
        return known


def desired(
    host: Host,
    directory: str,
    compose: Mapping[str, Any],
    services: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    wanted_secrets: Sequence[Mapping[str, Any]],
    secrets: Secrets,
    image: Callable[[str], str | None],
) -> list[Wanted]:
    """The services in their order. image: the identity of an image that is on the machine, or None."""
    key = (host.text("/etc/machine-id") or "").encode()
    found = []
    for service in services:
        name = str(service["name"])
        definition = dict(compose["services"][name])
        if service.get("local_image"):
            definition = _pinned(definition, image(definition["image"]))
        contents = {}
        for one in files:
            if one["service"] == name:
                digest = hashlib.sha256(one["content"].encode()).hexdigest()[:12]
                path = f"{directory}/files/{name}_{one['name']}.{digest}"
                contents[f"{name}_{one['name']}"] = Content(path, one["content"])
        for one in wanted_secrets:
            if one["service"] == name:
                text = secrets.text(str(one["name"]))
                path = f"{directory}/secrets/{name}_{one['name']}.{secrets.mark(str(one['name']), text, key)}"
                contents[f"{name}_{one['name']}"] = Content(path, text, int(one["uid"]), int(one["gid"]), secret=True)
        found.append(_wanted(service, definition, contents))
    return found


def _pinned(definition: Mapping[str, Any], identity: str | None) -> dict[str, Any]:
    """The definition with the image that its tag means on this machine now, the tag kept as a label."""
    if identity is None:
        return dict(definition)
    labels = {**definition.get("labels", {}), IMAGE_LABEL: definition["image"]}
    return {**definition, "image": identity, "labels": labels}


def _wanted(service: Mapping[str, Any], definition: Mapping[str, Any], contents: Mapping[str, Content]) -> Wanted:
    name = str(service["name"])
    probe = service.get("probe")
    if contents:
        marks = " ".join(sorted(one.path.rpartition("/")[2] for one in contents.values()))
        definition = {**definition, "labels": {**definition.get("labels", {}), FILES_LABEL: marks}}
    key = contents.get(f"{name}_{probe['secret']}") if probe and probe.get("secret") else None
    return Wanted(
        name=name,
        definition=definition,
        contents=tuple(contents[source] for source in sorted(contents)),
        configs={source: one.path for source, one in sorted(contents.items()) if not one.secret},
        secrets={source: one.path for source, one in sorted(contents.items()) if one.secret},
        health_seconds=int(service.get("health_seconds") or 0),
        models=tuple(service.get("models") or ()),
        caches=tuple(service.get("caches") or ()),
        probe=probe,
        key_path=key.path if key else "",
    )


def composed(project: str, base: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One compose file of these services. base: where the network and the options of volumes come from."""
    found: dict[str, Any] = {
        "name": project,
        "services": {name: dict(one["definition"]) for name, one in sorted(records.items())},
    }
    if base.get("networks"):
        found["networks"] = dict(base["networks"])
    # Those of the services that are in the file: an earlier version may have others than the one that is wanted.
    mounts = [mount for one in found["services"].values() for mount in one.get("volumes", ())]
    volumes = sorted({mount["source"] for mount in mounts if mount["type"] == "volume"})
    if volumes:
        found["volumes"] = {name: (base.get("volumes") or {}).get(name) or {} for name in volumes}
    for part in ("configs", "secrets"):
        paths = {source: {"file": path} for one in records.values() for source, path in one[part].items()}
        if paths:
            found[part] = paths
    return found
