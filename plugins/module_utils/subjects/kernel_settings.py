# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel modules, sysctls and /sys values as one set, live and at every boot.

Sources: Documentation/admin-guide/sysctl/, sysctl.d(5), tmpfiles.d(5), modules-load.d(5).
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import knobs
from ..engine.change import READ_ONLY, Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import offered, selected, words
from .drop_in import FileLook, look_file, sysctl_name, sysctl_overrides, sysctl_path, want_lines

NAME = "kernel_settings"

# Writing the one zeroes the other, and 0 cannot be written back to the bytes side
# (Documentation/admin-guide/sysctl/vm.rst, dirty_bytes). Both are journaled together.
EXCLUSIVE = {
    "vm.dirty_bytes": "vm.dirty_ratio",
    "vm.dirty_ratio": "vm.dirty_bytes",
    "vm.dirty_background_bytes": "vm.dirty_background_ratio",
    "vm.dirty_background_ratio": "vm.dirty_background_bytes",
}
# The kernel raises and lowers it as khugepaged starts and stops (mm/khugepaged.c, set_recommended_min_free_kbytes).
_MIN_FREE = Place("sysctl:vm.min_free_kbytes", "text", "/proc/sys/vm/min_free_kbytes")
_KHUGEPAGED = re.compile(r"/sys/kernel/mm/transparent_hugepage/(hugepages-\d+kB/)?(shmem_)?enabled")


@dataclass(frozen=True)
class Desired:
    sysctl: dict[str, str]
    sysfs: dict[str, str]
    persist: bool
    name: str
    optional: frozenset[str]
    at_least: frozenset[str] = frozenset()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Live:
    """One value as it is: its text (None: not there), its choices, whether root may write it.

    original: what it was before us, where we set it and it is still ours.
    """

    text: str | None
    choices: tuple[str, ...]
    writable: bool
    neighbours: tuple[str, ...] = ()
    original: str | None = None


@dataclass(frozen=True)
class Snapshot:
    values: dict[str, Live]
    sysctl_file: FileLook
    tmpfiles_file: FileLook
    overrides: dict[str, str]
    modules: dict[str, str]
    modules_file: FileLook


def parse(params: Mapping[str, Any]) -> Desired:
    sysctl: dict[str, str] = {}
    for key, value in (params.get("sysctl") or {}).items():
        name = _sysctl_key(key)
        if name in sysctl:
            raise InputError(f"sysctl {name}: given in two spellings, with dots and with slashes; remove one")
        sysctl[name] = _value(f"sysctl {key}", value)
    sysfs = {_sysfs_key(key): _value(f"sysfs {key}", value) for key, value in (params.get("sysfs") or {}).items()}
    for key, other in EXCLUSIVE.items():
        if sysctl.get(key, "0") != "0" and sysctl.get(other, "0") != "0":
            raise InputError(f"sysctl {key}: {other} is set as well, and the kernel keeps only one of them; remove one")
    name = str(params.get("name") or "ai-workstation")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"name: {name!r} becomes part of a file name; use letters, digits, '-' and '_'")
    return Desired(
        sysctl,
        sysfs,
        bool(params.get("persist", True)),
        name,
        frozenset(map(_any_name, params.get("optional") or ())),
        _at_least(map(_any_name, params.get("at_least") or ()), {**sysctl, **sysfs}),
        tuple(dict.fromkeys(_module_name(module) for module in params.get("modules") or ())),
    )


def _any_name(name: str) -> str:
    """A sysctl in its one spelling; paths and modules as they are."""
    return name if name.startswith("/") else sysctl_name(name)


def _at_least(names: Iterable[str], values: Mapping[str, str]) -> frozenset[str]:
    bounds = frozenset(names)
    for name in sorted(bounds):
        if name not in values:
            raise InputError(f"at_least: {name!r} is neither in sysctl nor in sysfs; take it out, or give it a value")
        if _numbers(values[name]) is None:
            raise InputError(f"at_least: {name} has the value {values[name]!r}; only whole numbers can be compared")
    return bounds


def _numbers(text: str) -> list[int] | None:
    fields = text.split()
    return [int(field) for field in fields] if fields and all(re.fullmatch(r"\d+", field) for field in fields) else None


def _module_name(name: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
        raise InputError(f"modules: {name!r} is not the name of a kernel module; write one like 'tcp_bbr'")
    return str(name)


def _sysctl_key(key: str) -> str:
    path = sysctl_path(key)
    if not key or posixpath.normpath(path) != path or not all(ch.isalnum() or ch in "._-/:@" for ch in key):
        raise InputError(f"sysctl {key!r}: not a sysctl name; write one like 'vm.swappiness'")
    return sysctl_name(key)


def _sysfs_key(key: str) -> str:
    if not key.startswith("/sys/") or posixpath.normpath(key) != key:
        raise InputError(f"sysfs {key!r}: not a plain path below /sys; write one like '/sys/kernel/mm/ksm/run'")
    return key


def _value(parameter: str, value: Any) -> str:
    if isinstance(value, bool):
        raise InputError(f"{parameter}: YAML reads this as {value}; write 1 or 0, or quote the word the kernel uses")
    if not isinstance(value, (str, int)) or words(value) == "":
        raise InputError(
            f"{parameter}: {value!r} is not a value; write a number or a text (null is not managed: leave the key out)"
        )
    if isinstance(value, str) and "\n" in value.strip():
        raise InputError(f"{parameter}: a value is one line")
    return words(value)


def moved_along(path: str) -> tuple[Place, ...]:
    """What the kernel changes of its own where a /sys file is written."""
    return (_MIN_FREE,) if _KHUGEPAGED.fullmatch(path) else ()


def look(machine: Machine, desired: Desired) -> Snapshot:
    keys = set(desired.sysctl)
    keys |= {EXCLUSIVE[key] for key in desired.sysctl if key in EXCLUSIVE}
    values = {f"sysctl:{key}": _look_value(machine, f"sysctl:{key}", sysctl_path(key)) for key in keys}
    values.update({f"sysfs:{path}": _look_value(machine, f"sysfs:{path}", path) for path in desired.sysfs})
    sysctl_file = f"/etc/sysctl.d/99-zz-{desired.name}.conf"
    return Snapshot(
        values,
        look_file(machine, sysctl_file),
        look_file(machine, f"/etc/tmpfiles.d/99-zz-{desired.name}.conf"),
        sysctl_overrides(machine, sysctl_file, desired.sysctl),
        {name: _look_module(machine, name) for name in desired.modules},
        look_file(machine, f"/etc/modules-load.d/{desired.name}.conf"),
    )


def _look_module(machine: Machine, name: str) -> str:
    """loaded, absent, or the reason why it cannot be loaded here."""
    state = str(knobs.read(machine, Place("", "module", name)))
    if state == "loaded":
        return state
    if not machine.host.writable("/sys/module"):
        return "it is not loaded, and a container loads no kernel modules"
    if machine.host.run(("modprobe", "--dry-run", "--quiet", name)).code:
        release = machine.host.text("/proc/sys/kernel/osrelease")
        return f"the kernel {release} has no such module; on Ubuntu it may be in linux-modules-extra-{release}"
    return state


def _look_value(machine: Machine, key: str, path: str) -> Live:
    text = machine.host.text(path)
    if text is None:
        return Live(None, (), False, tuple(machine.host.names(posixpath.dirname(path))))
    choices = offered(text) if "[" in text else ()
    live = selected(text) if choices else words(text)
    entry = machine.ledger.entries.get(key)
    original = str(entry.original) if entry and entry.is_ours(live) and entry.original is not None else None
    return Live(live, choices, machine.host.writable(path), original=original)


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    kinds = ("sysctl", "sysfs", "module")
    draft = Draft(optional=frozenset(f"{kind}:{key}" for key in desired.optional for kind in kinds))
    # Modules bring keys and choices of their own. /sys before sysctl: transparent huge pages move vm.min_free_kbytes.
    modules = [name for name in desired.modules if _want_module(draft, name, snapshot.modules[name])]
    sysfs = _want_all(draft, snapshot, desired, "sysfs", {path: path for path in desired.sysfs})
    sysctl = _want_all(draft, snapshot, desired, "sysctl", {key: sysctl_path(key) for key in desired.sysctl})
    for key, where in sorted(snapshot.overrides.items()):
        if key not in sysctl:
            continue
        draft.warnings.append(
            f"sysctl {key}: {where}, which wins at the next boot; remove that line or the setting here"
        )
    if desired.persist:
        lines = {f"{key} = {value}": (f"sysctl:{key}",) for key, value in sorted(sysctl.items())}
        _want_drop_in(draft, snapshot.sysctl_file, lines, desired.optional.issuperset(sysctl))
        lines = {
            f"w {path} - - - - {value.replace('%', '%%')}": (f"sysfs:{path}",) for path, value in sorted(sysfs.items())
        }
        _want_drop_in(draft, snapshot.tmpfiles_file, lines, desired.optional.issuperset(sysfs))
        lines = {name: (f"module:{name}",) for name in modules}
        _want_drop_in(draft, snapshot.modules_file, lines, desired.optional.issuperset(modules))
    return draft


def _want_module(draft: Draft, name: str, state: str) -> bool:
    key = f"module:{name}"
    if state not in ("loaded", "absent"):
        draft.cannot(key, state)
        return False
    draft.want(key, "module", name, state, "loaded")
    return True


def _want_all(
    draft: Draft, snapshot: Snapshot, desired: Desired, family: str, paths: Mapping[str, str]
) -> dict[str, str]:
    """Plan the values of one family; returns those that our boot file has to hold."""
    kept = {}
    for name, path in paths.items():
        value = (desired.sysctl if family == "sysctl" else desired.sysfs)[name]
        live = snapshot.values[f"{family}:{name}"]
        if name in desired.at_least:
            value, enough = _raised(value, live)
            if enough:
                draft.covered.add(f"{family}:{name}")
                continue
        if _want(draft, snapshot, family, name, path, value):
            kept[name] = value
    return kept


def _raised(asked: str, live: Live) -> tuple[str, bool]:
    """The value to set where each number is a lower bound, and whether the machine has it without us."""
    before = _numbers(live.original or live.text or "")
    wanted = _numbers(asked)
    if before is None or wanted is None or len(before) != len(wanted):
        return asked, False
    value = " ".join(str(max(pair)) for pair in zip(wanted, before))
    return value, live.original is None and value == live.text


def _want_drop_in(draft: Draft, look: FileLook, lines: Mapping[str, tuple[str, ...]], optional: bool) -> None:
    # Without a line and without a file there is nothing to say; a file that an earlier call wrote
    # and this one does not name goes away as a release.
    if optional:
        draft.optional |= {f"file:{look.path}"}
    if lines:
        want_lines(draft, look, lines)


def _want(draft: Draft, snapshot: Snapshot, family: str, name: str, path: str, value: str) -> bool:
    """Plan one value; whether it is available, and so worth a line in the boot file."""
    key = f"{family}:{name}"
    live = snapshot.values[key]
    if live.text is None:
        near = difflib.get_close_matches(posixpath.basename(path), live.neighbours, 1)
        hint = f"; nearest name: {near[0]}" if near else ""
        draft.cannot(key, f"this kernel has no {path}{hint}")
    elif live.choices and value not in live.choices:
        draft.cannot(key, f"{value!r} is not one of {', '.join(live.choices)}")
    elif not live.writable:
        draft.cannot(key, READ_ONLY)
    else:
        other = EXCLUSIVE.get(name) if family == "sysctl" else None
        touches = (Place(f"sysctl:{other}", "text", sysctl_path(other)),) if other else moved_along(path)
        draft.want(key, "choice" if live.choices else "text", path, live.text, value, touches=touches)
        if other:
            draft.covered.add(f"sysctl:{other}")
        return True
    return False
