# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is in the store, for readers and for machines. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ..doors import page_cache
from ..doors.big_files import BigFiles
from ..errors import InputError
from .manifest import MANIFEST, Entry, Record, load
from .transfer import PARTIAL, Note, mib
from .wishes import STATE_DIR

# From best to worst; the state of a model is that of its worst file.
OK, MOVED, MISSING, WRONG = "ok", "touched", "missing", "wrong"
_WORSE = (OK, MOVED, MISSING, WRONG)
BROKEN = (MOVED, MISSING, WRONG)


def report(files: BigFiles, names: Sequence[str], verify: bool) -> dict[str, Any]:
    """The models (all of them where no names are given), the files that are not ours, and what is half fetched."""
    models = load(files.text(MANIFEST), f"{files.root}/{MANIFEST}")
    unknown = [name for name in names if name not in models]
    if unknown:
        raise InputError(f"names: {unknown[0]!r} is not in the store; it has {', '.join(sorted(models)) or 'no model'}")
    entries = [_model(files, name, models[name], verify) for name in sorted(names or models)]
    known = {path for entry in models.values() for path in entry.files}
    foreign = [path for path in files.walk(STATE_DIR) if path not in known]
    whole, free = files.space()
    found = {
        "root": files.root,
        "models": entries,
        "foreign": foreign,
        "partial": list(_partial(files)),
        "size_bytes": whole,
        "free_bytes": free,
        "broken": [entry["name"] for entry in entries if entry["state"] in BROKEN],
    }
    return {**found, "lines": list(_lines(found))}


def _model(files: BigFiles, name: str, entry: Entry, verify: bool) -> dict[str, Any]:
    found = [_file(files, path, record, verify) for path, record in sorted(entry.files.items())]
    states = [one["state"] for one in found]
    return {
        "name": name,
        "state": max(states, key=_WORSE.index) if states else OK,
        "size_bytes": sum(one["size_bytes"] for one in found),
        "resident_bytes": sum(one["resident_bytes"] for one in found),
        **entry.purpose(),
        "files": found,
    }


def _file(files: BigFiles, path: str, record: Record, verify: bool) -> dict[str, Any]:
    """States: ok, touched (the directory entry is not the recorded one), missing, wrong (the content is another)."""
    look, state = files.look(path), OK
    if look is None or not look.regular:
        state = MISSING
    elif verify:
        state = OK if files.sha256(path).hexdigest() == record.sha256 else WRONG
    elif not record.holds(look):
        state = MOVED if look.size == record.size else WRONG
    return {
        "path": f"{files.root}/{path}",
        "state": state,
        "size_bytes": record.size,
        "resident_bytes": _resident(files, path) if state != MISSING else 0,
        "sha256": record.sha256,
        "source": record.source,
        "how": record.how,
        "time": record.time,
        "archive": record.archive,
    }


def _resident(files: BigFiles, path: str) -> int:
    try:
        return page_cache.resident(files.at(path))[0]
    except OSError:
        return 0


def _partial(files: BigFiles) -> Iterator[dict[str, Any]]:
    for name in files.names(PARTIAL):
        look, note = files.look(f"{PARTIAL}/{name}"), Note.read(files, f"{PARTIAL}/{name}.json")
        if look is not None and note is not None:
            yield {"source": note.source, "have_bytes": look.size, "size_bytes": note.total}


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['root']}: {mib(found['free_bytes'])} of {mib(found['size_bytes'])} free"
    width = max([len(model["name"]) for model in found["models"]], default=0)
    for model in found["models"]:
        share = 100 * model["resident_bytes"] // model["size_bytes"] if model["size_bytes"] else 100
        purpose = [name for name in ("preload", "lock", "hugepages") if model[name]]
        yield (
            f"{model['name']:<{width}}  {model['state']:<8} {mib(model['size_bytes']):>13}  {share:>3} % in memory  "
            f"{len(model['files'])} file{'s' if len(model['files']) > 1 else ''}  {', '.join(purpose)}"
        ).rstrip()
        for one in model["files"]:
            if one["state"] != OK:
                yield f"    {os.path.basename(one['path'])}: {one['state']}, {one['path']}"
    for one in found["partial"]:
        of = f" of {mib(one['size_bytes'])}" if one["size_bytes"] else ""
        yield f"half fetched: {mib(one['have_bytes'])}{of} from {one['source']}"
    for path in found["foreign"]:
        yield f"not ours: {path}"
