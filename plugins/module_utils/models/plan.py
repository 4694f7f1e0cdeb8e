# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of one call: what happens to every file of every model, known before the first write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..doors.big_files import Access, BigFiles
from .decide import KEEP, RECORD, Seen, Step, decide_archive, decide_file, may_remove
from .manifest import MANIFEST, Archive, Entry, Models, Record, load
from .transfer import leftovers
from .wishes import Model

NOTHING = Entry()


@dataclass(frozen=True)
class Removal:
    """A file that goes. ours: still as we left it; else it stays and only the manifest forgets it."""

    model: str
    path: str
    record: Record
    there: bool
    ours: bool


@dataclass(frozen=True)
class Plan:
    """steps by model, in the order of the wishes; `gone` are the models that the manifest forgets."""

    before: Models
    models: tuple[Model, ...]
    steps: tuple[tuple[str, Step], ...]
    removals: tuple[Removal, ...]
    gone: tuple[str, ...]

    @property
    def changed(self) -> bool:
        return bool(self.removals or self.gone or any(step.changes for _name, step in self.steps)) or any(
            self.before.get(model.name, NOTHING).purpose() != model.purpose() for model in self.models if model.present
        )


def make_plan(files: BigFiles, models: tuple[Model, ...], access: Access, purge: bool) -> Plan:
    """Look at the store and decide. Reads files whose content the manifest cannot vouch for."""
    before = load(files.text(MANIFEST), f"{files.root}/{MANIFEST}")
    wanted_paths = {file.path for model in models for file in model.files}
    named = {model.name for model in models}
    steps: list[tuple[str, Step]] = []
    removals: list[Removal] = []
    for model in models:
        if model.present:
            steps += [(model.name, step) for step in _steps(files, before, model, access)]
            removals += _removals(files, model.name, _stale(before, model, wanted_paths))
    gone = [model.name for model in models if not model.present and model.name in before]
    gone += sorted(set(before) - named) if purge else []
    for name in gone:
        kept = {path: record for path, record in before[name].files.items() if path not in wanted_paths}
        removals += _removals(files, name, kept)
    return Plan(before, models, tuple(steps), tuple(removals), tuple(gone))


def _steps(files: BigFiles, before: Models, model: Model, access: Access) -> Iterator[Step]:
    entry = before.get(model.name, NOTHING)
    for wanted in model.files:
        if wanted.unpack:
            seen = {path: see(files, path, record) for path, record in entry.members(wanted.path).items()}
            yield _clean(files, decide_archive(wanted, entry, seen, access))
            continue
        owner, record = _recorded(before, model.name, wanted.path)
        step = decide_file(model.name, wanted, record, see(files, wanted.path, record), access)
        if step.action == KEEP and owner != model.name:
            step = replace(step, action=RECORD, reason=f"it belonged to the model {owner}")
        yield _clean(files, step)


def _clean(files: BigFiles, step: Step) -> Step:
    """What a killed run left of a download goes, also where the file itself is as wanted."""
    if step.action == KEEP and leftovers(files, step.wanted):
        return replace(step, action=RECORD, reason="what is left of its download goes")
    return step


def _recorded(before: Models, name: str, path: str) -> tuple[str, Record | None]:
    """Who has the file in the manifest: this model, or the one that had it under another name."""
    for owner in (name, *sorted(before)):
        record = before.get(owner, NOTHING).files.get(path)
        if record:
            return owner, record
    return name, None


def see(files: BigFiles, path: str, record: Record | None) -> Seen:
    """The file as it is; read whole only where its directory entry is not the recorded one."""
    look = files.look(path)
    if look is None or not look.regular or (record is not None and record.holds(look)):
        return Seen(look)
    return Seen(look, str(files.sha256(path).hexdigest()))


def _stale(before: Models, model: Model, wanted_paths: set[str]) -> Mapping[str, Record]:
    """Files that an earlier wish for the model had and this one has not."""
    archives = {file.path for file in model.files if file.unpack}
    files = before.get(model.name, NOTHING).files.items()
    return {path: record for path, record in files if path not in wanted_paths and record.archive not in archives}


def _removals(files: BigFiles, name: str, records: Mapping[str, Record]) -> Iterator[Removal]:
    for path, record in sorted(records.items()):
        seen = see(files, path, record)
        yield Removal(name, path, record, seen.look is not None, may_remove(record, seen))


# -- what the user is told --------------------------------------------------------------------------


def changes(plan: Plan) -> list[dict[str, Any]]:
    """The changes, in the shape that all modules of the collection return."""
    found = []
    for name, step in plan.steps:
        if step.changes:
            reason = step.reason or "its owner or mode is another"
            found.append(_change(f"model:{name}:{step.wanted.path}", step.before, step.after, reason))
    for gone in plan.removals:
        reason = "" if gone.there else "it is not there any more"
        if gone.ours or not gone.there:
            found.append(_change(f"model:{gone.model}:{gone.path}", gone.record.sha256, None, reason))
    for model in plan.models:
        old, new = plan.before.get(model.name, NOTHING).purpose(), model.purpose()
        if model.present and old != new:
            found.append(_change(f"model:{model.name}", _print(old), _print(new), ""))
    return found


def skipped(plan: Plan) -> list[dict[str, str]]:
    """What is left alone, with the reason."""
    return [
        {
            "key": f"model:{gone.model}:{gone.path}",
            "reason": "someone else has changed it since; it stays and is not ours any more",
        }
        for gone in plan.removals
        if gone.there and not gone.ours
    ]


def diff(plan: Plan, path: str) -> dict[str, str]:
    """The manifest before and after, without what only the run can know (times, inodes, members of archives)."""
    return {"before": _text(plan.before), "after": _text(after(plan)), "before_header": path, "after_header": path}


def after(plan: Plan) -> Models:
    """The models as they will be, with what is known of their files now."""
    found = dict(plan.before)
    for gone in plan.removals:
        found[gone.model] = found[gone.model].without(gone.path)
    for name in plan.gone:
        del found[name]
    for model in plan.models:
        if model.present:
            found[model.name] = found.get(model.name, NOTHING).serving(**model.purpose())
    for name, step in plan.steps:
        wanted, expected = step.wanted, step.after or ""
        if wanted.unpack:
            archive = Archive(expected, wanted.origin)
            found[name] = found[name].with_archive(wanted.path, archive, found[name].members(wanted.path))
            continue
        owner, old = _recorded(plan.before, name, wanted.path)
        source = wanted.origin or (old.source if old else "")
        if owner != name and owner in found:
            found[owner] = found[owner].without(wanted.path)
        found[name] = found[name].with_file(wanted.path, Record(expected, 0, source, "", "", 0, 0))
    return found


def _text(models: Models) -> str:
    """One line for each file, and for each archive instead of its members."""
    lines = []
    for name, entry in sorted(models.items()):
        lines.append(f"{name}: {_print(entry.purpose())}")
        single = [(path, one.sha256, one.source) for path, one in entry.files.items() if not one.archive]
        unpacked = [(path, one.sha256, one.source) for path, one in entry.archives.items()]
        lines += [f"  {path}: {sha256} from {source or 'here'}" for path, sha256, source in sorted(single + unpacked)]
    return "".join(f"{line}\n" for line in lines)


def _print(purpose: Mapping[str, bool]) -> str:
    return ", ".join(name for name, wanted in purpose.items() if wanted) or "use from disk"


def _change(key: str, before: str | None, after: str | None, reason: str) -> dict[str, Any]:
    return {
        "key": key,
        "before": before,
        "after": after,
        "scope": "persistent",
        "reboot_required": False,
        "reason": reason,
    }
