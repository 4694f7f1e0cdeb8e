# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call of the model store: plan, and unless only the plan is asked for, carry it out.

The manifest is written after every file, so that a run that is killed loses none of its work. A file is put in place
before the manifest says so: what the next run then finds it proves by its hash.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ..doors.big_files import Access, BigFiles, FileLook
from ..doors.download import Downloads, TransferError
from ..doors.host import Host
from ..errors import ApplyError, InputError, RefusedError
from ..values import size
from . import plan as planning
from .decide import ADOPT, FETCH, Step
from .manifest import LOCK, MANIFEST, Archive, Models, Record, dump
from .plan import NOTHING, Plan
from .transfer import PARTIAL, Limits, Transfer, check_space, mib, staged
from .unpack import unpack
from .wishes import STATE_DIR, Model, parse_models

_SHARE = re.compile(r"(\d{1,2})%")
# What a path can have in a systemd unit without being quoted.
_ROOT = re.compile(r"/[A-Za-z0-9._+:=@/-]+")
_HIDDEN, _OPEN = 0o700, 0o755


@dataclass(frozen=True)
class Call:
    """The parameters of a call, parsed. reserve and memory_reserve: bytes, or a share of the whole."""

    root: str
    models: tuple[Model, ...]
    purge: bool
    access: Access
    reserve: str
    memory_reserve: str
    retries: int


def parse(params: Mapping[str, Any], host: Host, gid: int) -> Call:
    root = str(params["root"])
    if not _ROOT.fullmatch(root) or posixpath.normpath(root) != root:
        raise InputError(f"root: {root!r} is not a plain absolute path below /, like '/mnt/ai-data/models'")
    mode = str(params["mode"])
    if not re.fullmatch(r"0?[46][04][04]", mode):
        raise InputError(
            f"mode: {mode!r} is not one of 0644, 0640, 0600, 0444, 0440 or 0400: services read models, and never "
            "write them"
        )
    for name in ("space_reserve", "memory_reserve"):
        if not _SHARE.fullmatch(str(params[name])):
            size(name, params[name])
    if not 0 <= params["retries"] <= 100:
        raise InputError(f"retries: {params['retries']} is not a whole number from 0 to 100")
    models = parse_models(params["models"], str(params["hub_url"]))
    access = Access(int(mode, 8), host.uid(), gid)
    shares = str(params["space_reserve"]), str(params["memory_reserve"])
    return Call(root, models, params["purge"], access, *shares, params["retries"])


def reserve_of(text: str, whole: int) -> int:
    """Bytes of a reserve: "10G", or "5%" of the whole."""
    share = _SHARE.fullmatch(text)
    return whole * int(share[1]) // 100 if share else size("reserve", text)


def converge(call: Call, host: Host, downloads: Downloads, check: bool, log: Callable[[str], None]) -> dict[str, Any]:
    """The result of the module. Without a change nothing is written, not even a lock."""
    files = BigFiles(host, call.root)
    plan = planning.make_plan(files, call.models, call.access, call.purge)
    _check_memory(call, host, _sizes(plan, files))
    if check or not plan.changed:
        _check_sources(plan)
        return outcome(plan, call, files)
    files.make_state_folder(STATE_DIR, call.access, _OPEN)
    with host.lock(f"{call.root}/{LOCK}"):
        # Another run may have done it meanwhile.
        plan = planning.make_plan(files, call.models, call.access, call.purge)
        _Run(call, files, plan, downloads, log).carry_out()
        return outcome(plan, call, files)


def outcome(plan: Plan, call: Call, files: BigFiles) -> dict[str, Any]:
    changes = planning.changes(plan)
    adopted = [f"{call.root}/{step.wanted.path}" for _name, step in plan.steps if step.action == ADOPT]
    pinned = [step.wanted.path for _name, step in plan.steps if step.changes and not step.wanted.sha256]
    paths = {model.name: [f"{call.root}/{file.path}" for file in model.files] for model in plan.models if model.present}
    entries = planning.after(plan)
    kept = {use: sorted(name for name, entry in entries.items() if entry.purpose()[use]) for use in NOTHING.purpose()}
    return {
        "changed": plan.changed,
        "changes": changes,
        "skipped_keys": planning.skipped(plan),
        "diff": planning.diff(plan, f"{call.root}/{MANIFEST}"),
        "paths": paths,
        "kept": kept,
        "adopted": adopted,
        "pinned": pinned,
        "warnings": list(_warnings(call, files)),
    }


def _warnings(call: Call, files: BigFiles) -> Iterator[str]:
    mode = files.host.dir_mode(call.root)
    if mode is not None and mode & 0o022:
        yield (f"{call.root} has the mode {mode:04o}: others than its owner can replace models; chmod go-w {call.root}")


def _check_sources(plan: Plan) -> None:
    """Sources on the machine itself can be checked without a connection."""
    for name, step in plan.steps:
        if step.action == FETCH and step.wanted.source.startswith("file:"):
            try:
                Downloads().size(step.wanted.source)
            except OSError as error:
                raise RefusedError(f"models {name}: {step.wanted.origin}: {error.strerror}") from error


def _sizes(plan: Plan, files: BigFiles) -> dict[str, int]:
    """Bytes of the files whose size is known before anything is asked of a server."""
    found = {}
    for name, step in plan.steps:
        look = files.look(step.wanted.path)
        if step.wanted.unpack:
            members = plan.before.get(name, NOTHING).members(step.wanted.path)
            found[step.wanted.path] = sum(record.size for record in members.values())
        elif look and step.action != FETCH:
            found[step.wanted.path] = look.size
    return found


def _check_memory(call: Call, host: Host, sizes: Mapping[str, int]) -> None:
    """Refuse to keep more in memory than the machine has beside its reserve and its huge pages."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", host.text("/proc/meminfo") or "", re.MULTILINE))
    whole = int(fields.get("MemTotal", 0)) << 10
    usable = whole - (int(fields.get("Hugetlb", 0)) << 10) - reserve_of(call.memory_reserve, whole)
    kept = [model for model in call.models if model.present and model.preload]
    wanted = sum(sizes.get(file.path, 0) for model in kept for file in model.files)
    if whole and wanted > usable:
        names = ", ".join(model.name for model in kept)
        raise RefusedError(
            f"models: preload and lock of {names} keep {mib(wanted)} in memory, and {mib(max(usable, 0))} are left "
            f"beside huge pages and the reserve of {call.memory_reserve}; preload fewer models"
        )


class _Run:
    """One plan being carried out under the lock."""

    def __init__(
        self, call: Call, files: BigFiles, plan: Plan, downloads: Downloads, log: Callable[[str], None]
    ) -> None:
        self._call, self._files, self._plan, self._downloads = call, files, plan, downloads
        self._reserve = reserve_of(call.reserve, files.space()[0])
        self._transfer = Transfer(files, downloads, Limits(self._reserve, call.retries), log)
        self._models: Models = dict(plan.before)
        self._done: list[str] = []

    def carry_out(self) -> None:
        self._files.make_state_folder(PARTIAL, self._call.access, _HIDDEN)
        self._ask_sizes()
        try:
            self._remove(set(self._plan.gone))
            for name in self._plan.gone:
                self._models.pop(name, None)
            for name, step in self._plan.steps:
                if step.changes:
                    self._take(name, step)
                    self._done.append(step.wanted.path)
            self._remove({model.name for model in self._plan.models if model.present})
            self._set_purposes()
        except (ApplyError, RefusedError) as error:
            done = f"; done before: {', '.join(self._done)}" if self._done else ""
            raise type(error)(f"{error}{done}", done=self._done) from error

    def _ask_sizes(self) -> None:
        """Ask for the sizes of all that is missing: addresses, space and memory are checked before the first byte."""
        sizes = _sizes(self._plan, self._files)
        needed = 0
        for _name, step in self._plan.steps:
            if step.action != FETCH:
                continue
            try:
                total = self._downloads.size(step.wanted.source)
            except TransferError:
                total = None  # the transfer itself tries again, and says what is wrong
            if total is not None:
                sizes[step.wanted.path] = total
                needed += max(0, total - self._transfer.have(step.wanted))
        if needed:
            check_space(self._files, "models", needed, self._reserve)
        _check_memory(self._call, self._files.host, sizes)

    def _take(self, name: str, step: Step) -> None:
        """Do one step, write it down, and then clean up behind it: what is left at a crash the next run finds."""
        if step.wanted.unpack:
            self._take_archive(name, step)
        else:
            self._take_file(name, step)
        self._save()
        self._transfer.drop(step.wanted)

    def _take_file(self, name: str, step: Step) -> None:
        wanted, entry = step.wanted, self._models.get(name, NOTHING)
        sha256, how = step.after or "", "adopted" if step.action == ADOPT else "downloaded"
        old = next((found.files[wanted.path] for found in self._models.values() if wanted.path in found.files), None)
        if step.action == FETCH:
            sha256 = self._transfer.bring(wanted)
            look = self._files.publish(staged(wanted), wanted.path, self._call.access)
        else:
            if step.access:
                self._files.set_access(wanted.path, self._call.access)
            look = self._look(wanted.path)
            how = old.how if old else how
        source = wanted.origin or (old.source if old else "")
        for owner, found in self._models.items():
            self._models[owner] = found.without(wanted.path)
        self._models[name] = entry.without(wanted.path).with_file(wanted.path, _record(sha256, look, source, how))

    def _take_archive(self, name: str, step: Step) -> None:
        wanted, entry = step.wanted, self._models.get(name, NOTHING)
        members = entry.members(wanted.path)
        if step.action == FETCH:
            sha256 = self._transfer.bring(wanted)
            known = {path: record for found in self._models.values() for path, record in found.files.items()}
            placed = unpack(self._files, wanted, staged(wanted), known, self._call.access, self._reserve)
            for path in members.keys() - placed.keys():
                self._files.remove(path)
                self._files.prune(path)
            members = {
                path: _record(proven, look, wanted.origin, "downloaded", wanted.path)
                for path, (proven, look) in placed.items()
            }
        else:
            sha256 = entry.archives[wanted.path].sha256
            for path, record in members.items():
                if step.access:
                    self._files.set_access(path, self._call.access)
                members[path] = _record(record.sha256, self._look(path), wanted.origin, record.how, wanted.path)
        self._models[name] = entry.with_archive(wanted.path, Archive(sha256, wanted.origin), members)

    def _look(self, path: str) -> FileLook:
        found = self._files.look(path)
        if found is None:
            raise ApplyError(f"{path} has vanished meanwhile; run again")
        return found

    def _remove(self, names: set[str]) -> None:
        for gone in self._plan.removals:
            if gone.model not in names:
                continue
            if gone.ours:
                self._files.remove(gone.path)
                self._files.prune(gone.path)
                self._done.append(gone.path)
            self._models[gone.model] = self._models[gone.model].without(gone.path)
            self._save()

    def _set_purposes(self) -> None:
        for model in self._plan.models:
            if model.present:
                self._models[model.name] = self._models.get(model.name, NOTHING).serving(**model.purpose())
        self._save()

    def _save(self) -> None:
        self._files.write_text(MANIFEST, dump(self._models), 0o644)


def _record(sha256: str, look: FileLook, source: str, how: str, archive: str = "") -> Record:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Record(sha256, look.size, source, how, now, look.mtime_ns, look.inode, archive)
