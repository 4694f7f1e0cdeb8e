# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our own kernel parameters, in a GRUB drop-in of our own that is read last.

They go to GRUB_CMDLINE_LINUX_DEFAULT: recovery entries do not get it, so a parameter that keeps the
machine from booting can be escaped from the boot menu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..engine.change import Change, Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice, integer
from .command_line import (
    GrubFiles,
    Parameter,
    by_name,
    first_entry,
    not_shown,
    parse_command_line,
    print_command_line,
    read_grub_files,
    same_name,
)
from .command_line_trial import SCRIPT, TrialLook, end_choice, end_files, look_trial, mark, trial_keys, want_trial
from .drop_in import HEADER, FileLook, look_file, want_file

NAME = "kernel_command_line"

FOLDER = "/etc/default/grub.d"
MAIN_FILE = "/etc/default/grub"
GRUB_CFG = "/boot/grub/grub.cfg"
UPDATE_GRUB = "/usr/sbin/update-grub"
_VARIABLE = "GRUB_CMDLINE_LINUX_DEFAULT"

# The text passes through a shell file and GRUB's own script language: only what both leave alone.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT = re.compile(r"[A-Za-z0-9_.,:/=@%+!^-]+")
_LONGEST = 1500  # the kernel reads 2048 bytes in all on x86 (COMMAND_LINE_SIZE)

# Every one of these is used: two consoles, several sizes of huge pages.
_ADDITIVE = frozenset(("console", "earlycon", "hugepages", "hugepagesz", "memmap"))

# Name -> (the values that are meant, empty: all of them; why it is refused).
DANGEROUS: dict[str, tuple[tuple[str, ...], str]] = {
    "mitigations": (("off",), "leaves every known hole of the CPU open to any program on this machine"),
    "idle": (("poll",), "keeps every idle CPU at full power, and takes boost from the others"),
    "init": ((), "replaces the first program"),
    "rdinit": ((), "replaces the first program of the initramfs"),
    "root": ((), "is GRUB's to set; a wrong one does not boot"),
    "rootfstype": ((), "is found by the kernel; a wrong one does not boot"),
    "initrd": ((), "is GRUB's to set"),
    "single": ((), "boots to a root shell"),
    "emergency": ((), "boots to a root shell"),
    "rescue": ((), "boots to a root shell"),
    "systemd.unit": ((), "replaces what the machine boots into"),
    "nopti": ((), "switches a protection off"),
    "nosmap": ((), "switches a protection off"),
    "nosmep": ((), "switches a protection off"),
    "nokaslr": ((), "switches a protection off"),
    "nospectre_v1": ((), "switches a protection off"),
    "nospectre_v2": ((), "switches a protection off"),
    "pti": (("off",), "switches a protection off"),
    "spectre_v2": (("off",), "switches a protection off"),
    "apparmor": (("0",), "switches a protection off"),
    "selinux": (("0",), "switches a protection off"),
    "acpi": (("off",), "takes power management, and often the second CPU, away"),
    "noapic": ((), "breaks interrupts of modern devices"),
    "nolapic": ((), "leaves one CPU"),
    "nosmp": ((), "leaves one CPU"),
    "maxcpus": (("0", "1"), "leaves one CPU"),
    "mem": ((), "hides memory from the kernel"),
}


@dataclass(frozen=True)
class Desired:
    owner: str
    present: tuple[Parameter, ...]
    absent: frozenset[str]
    accept: frozenset[str]
    path: str
    optional: frozenset[str]
    trial: bool
    trial_seconds: int

    @property
    def content(self) -> str:
        return f'{HEADER}{_VARIABLE}="${_VARIABLE} {print_command_line(self.present)}"\n'


@dataclass(frozen=True)
class Snapshot:
    file: FileLook
    owned_original: tuple[Any] | None  # what was there before us; None: the file is not of our making
    grub: str  # "" or why there is no GRUB to configure
    others: GrubFiles
    running: tuple[Parameter, ...]
    entry: tuple[Parameter, ...] | None  # the first boot entry; None: cannot be read
    entry_is_newer: bool
    waiting: tuple[str, ...]  # removed earlier in this boot
    trial: TrialLook


def parse(params: Mapping[str, Any]) -> Desired:
    present = tuple(_parameters(params.get("present")))
    absent = frozenset(same_name(_name("absent", name)) for name in params.get("absent") or ())
    both = sorted(absent & set(by_name(present)))
    if both:
        raise InputError(f"absent: {both[0]} is in present as well; remove it from one of them")
    accept = frozenset(choice("accept", same_name(str(name)), DANGEROUS) for name in params.get("accept") or ())
    for name, value in present:
        known = same_name(name)
        values, reason = DANGEROUS.get(known, (("",), ""))
        if known not in accept and (not values or value in values):
            text = print_command_line([(name, value)])
            raise InputError(f"present: {text} {reason}; remove it, or add {known} to accept")
    length = len(print_command_line(present))
    if length > _LONGEST:
        raise InputError(f"present: {length} characters; the kernel reads 2048 in all, at most {_LONGEST} can be ours")
    name = str(params.get("name") or "ai-workstation")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"name: {name!r} becomes part of a file name; use letters, digits, '-' and '_'")
    return Desired(
        f"{params.get('owner') or 'default'}/{NAME}",
        present,
        absent,
        accept,
        f"{FOLDER}/99-zz-{name}.cfg",
        frozenset(params.get("optional") or ()),
        bool(params.get("trial")),
        integer("trial_seconds", params.get("trial_seconds", 1200), 60, 86400),
    )


def _parameters(value: Any) -> list[Parameter]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"present: {value!r} is not a dictionary or a list; write name: value, or ['name=value']")
    found: list[Parameter] = []
    for item in value:
        if isinstance(item, Mapping):
            found += _from_mapping(item)
        elif isinstance(item, str):
            name, equals, text = item.strip().partition("=")
            found.append(_parameter(name, text if equals else None))
        else:
            raise InputError(f"present: {item!r} is not a parameter; write 'name=value', or name: value")
    return found


def _from_mapping(value: Mapping[Any, Any]) -> list[Parameter]:
    """By name: a dictionary says nothing about order, and the one in the record is sorted. A list keeps its order."""
    lists = {str(name): list(item) if isinstance(item, (list, tuple)) else [item] for name, item in value.items()}
    for name, items in lists.items():
        if not items:
            raise InputError(f"present: {name} has an empty list; leave it out, or name values")
    sizes, numbers = lists.get("hugepagesz", []), lists.get("hugepages", [])
    if len(sizes) > 1 or (sizes and len(numbers) > 1):
        # A number belongs to the size before it: they are written in pairs.
        if len(sizes) != len(numbers):
            raise InputError(
                f"present: hugepagesz has {len(sizes)} values and hugepages {len(numbers)}; each size needs its number"
            )
        pairs = chain.from_iterable((("hugepagesz", size), ("hugepages", n)) for size, n in zip(sizes, numbers))
        rest = [(name, item) for name, items in sorted(lists.items()) if name[:9] != "hugepages" for item in items]
        return [_parameter(name, item) for name, item in (*rest, *pairs)]
    last = {"hugepagesz": 1, "hugepages": 2}  # a size goes before its number
    order = sorted(lists.items(), key=lambda item: (last.get(item[0], 0), item[0]))
    return [_parameter(name, item) for name, items in order for item in items]


def _name(parameter: str, name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{parameter}: {name!r} is not the name of a kernel parameter; write one like 'iommu'")
    return name


def _parameter(name: Any, value: Any) -> Parameter:
    _name("present", name)
    if value is None:
        return name, None
    if isinstance(value, bool):
        raise InputError(f"present {name}: YAML reads this as {value}; quote the word, or write null for a flag")
    text = str(value).strip() if isinstance(value, (str, int, float)) else ""
    if not text:
        raise InputError(f"present {name}: {value!r} is not a value; write a text or a number, or null for a flag")
    if not _TEXT.fullmatch(text):
        bad = "".join(sorted({char for char in text if not _TEXT.fullmatch(char)}))
        raise InputError(
            f"present {name}: {text!r} has {bad!r}, which the shell or GRUB would read otherwise; "
            "letters, digits and _.,:/=@%+!^- can be used"
        )
    return name, text


def look(machine: Machine, desired: Desired) -> Snapshot:
    host = machine.host
    paths = [MAIN_FILE, *(f"{FOLDER}/{name}" for name in host.names(FOLDER) if name.endswith(".cfg"))]
    texts = {path: host.text(path) or "" for path in paths}
    grub = next((f"there is no {path}" for path in (UPDATE_GRUB, MAIN_FILE) if not host.exists(path)), "")
    entry = machine.ledger.entries.get(f"file:{desired.path}")
    file = look_file(machine, desired.path)
    live = file.state.to_json() if file.state else None
    ours = entry is not None and entry.owner == desired.owner and entry.is_ours(live)
    grub_cfg = host.text(GRUB_CFG)
    running = parse_command_line(host.text("/proc/cmdline") or "")
    to_try = desired.trial and desired.present and not (file.state and file.state.content == desired.content)
    return Snapshot(
        file,
        (entry.original,) if entry and ours else None,
        grub and f"no GRUB as Debian and Ubuntu have it ({grub}); set the parameters where this machine boots from",
        read_grub_files(texts, desired.path),
        tuple(running),
        None if grub_cfg is None else tuple(first_entry(grub_cfg)),
        host.modified(GRUB_CFG) > host.modified(desired.path),
        tuple({*machine.ledger.waiting(f"file:{desired.path}"), *machine.ledger.waiting(f"file:{SCRIPT}")}),
        look_trial(machine, running, bool(to_try and not grub)),
    )


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(knows_reboot={f"file:{desired.path}", *trial_keys()}, report={"trial": "none"})
    wanted = by_name(desired.present)
    if wanted and desired.optional.issuperset({name for name, _value in desired.present}):
        draft.optional |= {f"file:{desired.path}"}
    removed = _removed(desired, snapshot, set(wanted))
    if wanted and snapshot.grub:
        draft.cannot(f"file:{desired.path}", snapshot.grub)
        wanted = {}
    elif wanted:
        _check_others(draft, desired, snapshot.others)
        waits = bool(not_shown(desired.present, snapshot.running) or removed)
        if waits and _to_try(desired, snapshot):
            _try(draft, desired, snapshot, removed)
        else:
            _set(draft, desired, snapshot, waits, removed)
    else:
        end_choice(draft, snapshot.trial)
        if snapshot.file.state and snapshot.owned_original:
            _want_release(draft, snapshot, removed)
        end_files(draft, snapshot.trial, removed)
    _check_absent(draft, desired, snapshot)
    _say_reboots(draft, desired.present if wanted else (), removed, snapshot)
    return draft


def _to_try(desired: Desired, snapshot: Snapshot) -> bool:
    """Whether the default would change, to something that does not run yet, and is to be tried first."""
    content = snapshot.file.state.content if snapshot.file.state else ""
    on_trial = snapshot.trial.running == mark(desired.present, desired.path)
    return desired.trial and content != desired.content and not on_trial


def _try(draft: Draft, desired: Desired, snapshot: Snapshot, removed: list[str]) -> None:
    """The default stays as it is; the next boot tries what is wanted."""
    trial, file = snapshot.trial, snapshot.file
    tries = print_command_line(desired.present)
    if file.state:  # as it is, with its folders
        want_file(draft, file, file.state.content, file.state.mode, file.state.uid, file.state.gid)
    draft.covered.add(f"file:{file.path}")
    draft.report["trial"] = "failed" if trial.tried and trial.tries == tries else "waits"
    if draft.report["trial"] == "failed":
        end_choice(draft, trial)
        end_files(draft, trial, removed)
        draft.failure = (
            f"the trial of {tries} failed: the machine did not come up with it, or nobody confirmed it in time, and it "
            "is back on the old command line; the trial is withdrawn: look at the console and at journalctl -b -1, "
            "change the parameters, or run again for another trial"
        )
    elif trial.obstacle:
        draft.cannot(
            f"file:{file.path}",
            f"trial: {trial.obstacle}; set trial: false (os_tuning_kernel_parameters_trial) to write the default",
        )
    else:
        want_trial(draft, trial, desired.present, _own_text(snapshot), desired.path, desired.trial_seconds)


def _set(draft: Draft, desired: Desired, snapshot: Snapshot, waits: bool, removed: list[str]) -> None:
    """What is wanted becomes the default: no trial was asked for, or it runs."""
    end_choice(draft, snapshot.trial)
    more: dict[str, Any] = {"actions": ("update-grub",), "reboot_required": waits, "until_reboot": tuple(removed)}
    want_file(draft, snapshot.file, desired.content, scope="boot", **more)
    if not draft.changes:
        _check_entry(draft, desired, snapshot)
    end_files(draft, snapshot.trial)
    if draft.changes and snapshot.trial.running == mark(desired.present, desired.path):
        draft.report["trial"] = "confirmed"


def _own_text(snapshot: Snapshot) -> str:
    """The parameters in our file as it is now."""
    text = snapshot.file.state.content if snapshot.file.state else ""
    lines = [line.partition("=")[2].strip().strip('"') for line in text.splitlines() if line.startswith(_VARIABLE)]
    return " ".join(line.partition(" ")[2] for line in lines)


def _own(snapshot: Snapshot) -> list[str]:
    """The names in our file as it is now, and in the trial that runs."""
    tries = snapshot.trial.tries if snapshot.trial.running else ""
    return [same_name(name) for name, _value in parse_command_line(f"{_own_text(snapshot)} {tries}")]


def _removed(desired: Desired, snapshot: Snapshot, wanted: set[str]) -> list[str]:
    """Names that were ours or must go, that nobody else sets, and that the running kernel still has."""
    elsewhere = {same_name(item.name) for item in snapshot.others.all}
    gone = {*_own(snapshot), *snapshot.waiting, *desired.absent} - wanted - elsewhere
    return sorted(gone & set(by_name(snapshot.running)))


def _want_release(draft: Draft, snapshot: Snapshot, removed: list[str]) -> None:
    state, key = snapshot.file.state, f"file:{snapshot.file.path}"
    place = Place(key, "file", snapshot.file.path)
    draft.covered.add(key)
    draft.changes.append(
        Change(
            place,
            state.to_json() if state else None,
            snapshot.owned_original[0] if snapshot.owned_original else None,
            "boot",
            reboot_required=bool(removed),
            actions=("update-grub",),
            until_reboot=tuple(removed),
            reason="no longer wanted: back to the value before us",
            release=True,
        )
    )


def _check_others(draft: Draft, desired: Desired, others: GrubFiles) -> None:
    wanted = by_name(desired.present)
    for item in others.all:
        name = same_name(item.name)
        if name in _ADDITIVE or name not in wanted or item.value in wanted[name]:
            continue
        text, ours = print_command_line([(item.name, item.value)]), print_command_line([(item.name, wanted[name][-1])])
        if item in others.after:
            draft.refusals.append(
                f"{item.name}: {item.where} sets {text}, is read after {desired.path} and wins over {ours}; remove one"
            )
        else:
            draft.warnings.append(
                f"{item.name}: {item.where} sets {text}; {ours} of {desired.path} comes later and wins; remove one"
            )
    if others.dropped_at:
        draft.refusals.append(
            f"file:{desired.path}: {others.dropped_at} sets {_VARIABLE} anew and drops our parameters; "
            f'let it begin with "${_VARIABLE} "'
        )
    if "isolcpus" in wanted:
        draft.warnings.append(
            "isolcpus: the scheduler does not spread threads over these CPUs, so all threads of a service pinned there "
            "pile up on one of them; a cpuset of the service does what is meant, without a reboot"
        )


def _check_absent(draft: Draft, desired: Desired, snapshot: Snapshot) -> None:
    for item in snapshot.others.all:
        if same_name(item.name) in desired.absent:
            text = print_command_line([(item.name, item.value)])
            draft.refusals.append(f"absent: {text} is set by {item.where}, which is not ours to edit; remove it there")


def _check_entry(draft: Draft, desired: Desired, snapshot: Snapshot) -> None:
    """Our file is as wanted; does the boot menu have it? A run killed in between left it behind."""
    missing = [] if snapshot.entry is None else not_shown(desired.present, snapshot.entry)
    if missing and snapshot.entry_is_newer:
        draft.warnings.append(
            f"{GRUB_CFG} was made after {desired.path} and does not show {', '.join(missing)}: "
            "its entries are built by something that does not read that file"
        )
    elif missing:
        draft.actions.add("update-grub")


def _say_reboots(draft: Draft, present: tuple[Parameter, ...], removed: list[str], snapshot: Snapshot) -> None:
    missing = not_shown(present, snapshot.running)
    wanted = by_name(present)
    for name in missing:
        text = print_command_line((name, value) for value in wanted[name])
        draft.reboot_reasons.append(f"kernel parameter {text} acts after a reboot")
    draft.reboot_reasons += [f"kernel parameter {name} was removed and acts until a reboot" for name in removed]
    draft.report["waiting"] = sorted({*missing, *removed})
