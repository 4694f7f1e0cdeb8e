# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images made on the machine: which of them are not as their context says, and how one is built.

The hash of a context (its files and arguments) is a label of the image. A context reaches the engine through the
standard input of its client, so nothing is left on the disk.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

from .doors.host import Host
from .errors import ApplyError, RefusedError

LABEL = "ai-workstation.context"
_LAST_LINES = 15


def found_context(host: Host, tag: str) -> str | None:
    """The hash that an image was built from; "" for one of somebody else; None where there is no image."""
    done = host.run(["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', tag])
    if done.code == 0:
        return done.out.strip().replace("<no value>", "")
    if "no such image" in done.err.lower():
        return None
    raise RefusedError(_no_engine(done.code, done.err))


def _no_engine(code: int, said: str) -> str:
    if code == 127:
        return "docker: not found; the role container_runtime installs it"
    return f"the Docker engine does not answer: {said.strip().splitlines()[-1] if said.strip() else 'no message'}"


def missing_engine(host: Host) -> str:
    """Why nothing can be built here, or an empty text."""
    done = host.run(["docker", "version", "--format", "{{.Server.Version}}"])
    return "" if done.code == 0 and done.out.strip() else _no_engine(done.code, done.err)


def build(host: Host, image: dict[str, Any], timeout: float) -> str:
    """Build one image and return its id; ApplyError with the end of the output when that fails."""
    command = ["docker", "build", "--tag", image["tag"], "--label", f"{LABEL}={image['context']}"]
    for name, value in sorted(image["args"].items()):
        command += ["--build-arg", f"{name}={value}"]
    done = host.run([*command, "-"], timeout, archive(image["files"]).decode("utf-8", "surrogateescape"))
    if done.code != 0:
        said = [line.strip() for line in f"{done.out}\n{done.err}".splitlines() if line.strip()]
        raise ApplyError(f"{image['tag']}: the build failed: {' | '.join(said[-_LAST_LINES:])}")
    return host.run(["docker", "image", "inspect", "--format", "{{.Id}}", image["tag"]]).out.strip()


def archive(files: list[dict[str, Any]]) -> bytes:
    """The files of a context as the archive that `docker build -` reads."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for file in files:
            data = file["content"].encode("utf-8")
            entry = tarfile.TarInfo(file["path"])
            entry.size, entry.mode = len(data), 0o755 if file["executable"] else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()
