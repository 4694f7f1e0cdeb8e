# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Queue settings of block devices, live and by a udev rule; options of the mounts on them (mount_options.py).

Sources: Documentation/block/queue-sysfs.rst, udev(7). The rule file sorts behind the
distribution's own (60-block-scheduler.rules and the like), so ours is the last word.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.change import READ_ONLY, Draft
from ..engine.machine import Machine
from ..errors import InputError
from ..facts.storage import disks_below
from ..values import integer, mount_text, offered, selected
from .drop_in import FileLook, look_file, want_lines
from .mount_options import MountLook, MountWish, look_mount, parse_mounts, want_mount_options

NAME = "block_device_settings"

RULES = "/etc/udev/rules.d/99-zz-ai-workstation-block.rules"
_ATTRIBUTES = ("scheduler", "read_ahead_kb")
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


@dataclass(frozen=True)
class Rule:
    """Which disks (a name pattern, or the disk under a path), and their settings.

    at_least: read_ahead_kb is a lower bound; a disk that has more already is left alone.
    """

    device: str
    path: str
    rotational: bool | None
    settings: dict[str, str]
    at_least: bool = False

    @property
    def words(self) -> str:
        return self.device or self.path


@dataclass(frozen=True)
class Desired:
    rules: tuple[Rule, ...]
    persist: bool
    optional: frozenset[str]
    mounts: tuple[MountWish, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A disk as sysfs and the udev database show it. values: attribute -> (text, writable).

    read_ahead_before: its read-ahead before us, where we set it and it is still ours.
    """

    name: str
    serial: str
    rotational: bool
    values: dict[str, tuple[str | None, bool]]
    read_ahead_before: str | None = None

    def raised(self, asked: str) -> str | None:
        """The read-ahead where `asked` is a lower bound; None where the disk has it without us."""
        before = self.read_ahead_before or self.values["read_ahead_kb"][0] or "0"
        if int(before) < int(asked):
            return asked
        return None if self.read_ahead_before is None else before


@dataclass(frozen=True)
class Under:
    """The disks that hold a folder, or why none is known.

    layer: what its files are read through where that is not the disk: a mapping, an array or btrfs. They are read
    ahead as the layer says.
    """

    disks: frozenset[str] = frozenset()
    layer: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    disks: tuple[Disk, ...]
    under: dict[str, Under]
    rules_file: FileLook
    mounts: tuple[MountLook, ...] = ()


def parse(params: Mapping[str, Any]) -> Desired:
    rules = []
    for item in params.get("devices") or ():
        device, path = item.get("device") or "", item.get("path") or ""
        if bool(device) == bool(path):
            raise InputError(
                "devices: give each entry either device (a name pattern like 'nvme*') or path (a folder on the disk)"
            )
        if device and not re.fullmatch(r"[A-Za-z0-9*?!\[\]_-]+", device):
            raise InputError(f"devices: {device!r} is not a kernel name or pattern; write one like 'nvme*' or 'sda'")
        if path and not path.startswith("/"):
            raise InputError(f"devices: path {path!r} is not absolute")
        settings = _parse_settings(device or path, item)
        rules.append(Rule(device, path, item.get("rotational"), settings, bool(item.get("at_least"))))
    return Desired(
        tuple(rules),
        bool(params.get("persist", True)),
        frozenset(params.get("optional") or ()),
        parse_mounts(params.get("mounts") or ()),
    )


def _parse_settings(words: str, item: Mapping[str, Any]) -> dict[str, str]:
    settings = {}
    if item.get("scheduler") is not None:
        settings["scheduler"] = str(item["scheduler"])
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", settings["scheduler"]):
            raise InputError(
                f"devices {words}: scheduler {settings['scheduler']!r} is not a name like none, mq-deadline, bfq"
            )
    if item.get("read_ahead_kb") is not None:
        settings["read_ahead_kb"] = str(
            integer(f"devices {words}: read_ahead_kb", item["read_ahead_kb"], 0, 1 << 20, "KiB")
        )
    if not settings:
        raise InputError(f"devices {words}: says nothing; give scheduler or read_ahead_kb")
    return settings


def look(machine: Machine, desired: Desired) -> Snapshot:
    host = machine.host
    disks = []
    for name in host.names("/sys/block"):
        if name.startswith(_NOT_DISKS):
            continue
        queue = f"/sys/block/{name}/queue"
        values = {
            attribute: (host.text(f"{queue}/{attribute}"), host.writable(f"{queue}/{attribute}"))
            for attribute in _ATTRIBUTES
        }
        number = host.text(f"/sys/block/{name}/dev") or ""
        udev = host.text(f"/run/udev/data/b{number}") or ""
        serial = next((line[12:] for line in udev.splitlines() if line.startswith("E:ID_SERIAL=")), "")
        rotational = host.text(f"{queue}/rotational") == "1"
        disks.append(Disk(name, serial, rotational, values, _before(machine, name, values["read_ahead_kb"][0])))
    under = {rule.path: _look_under(machine, rule.path) for rule in desired.rules if rule.path}
    mounts = tuple(look_mount(machine, wish) for wish in desired.mounts)
    return Snapshot(tuple(disks), under, look_file(machine, RULES), mounts)


def _before(machine: Machine, disk: str, live: str | None) -> str | None:
    entry = machine.ledger.entries.get(f"block:{disk}/read_ahead_kb")
    return str(entry.original) if entry and entry.is_ours(live) else None


def _look_under(machine: Machine, path: str) -> Under:
    """The longest mount point above a folder, its device, and the disks below that."""
    host = machine.host
    if not host.is_dir(path):
        return Under(
            reason="no such folder"
        )  # not the disk of the root folder: nothing is known about where it will be
    best: tuple[str, str, str, str] = ("", "", "", "")
    for line in (host.text("/proc/self/mountinfo") or "").splitlines():
        fields = line.split()
        mount = mount_text(fields[4])
        if (path == mount or path.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best[0]):
            kind, source = (*fields[fields.index("-", 6) + 1 :], "", "")[:2]
            best = mount, fields[2], kind, mount_text(source)
    _mount, number, kind, source = best
    target = host.resolve(f"/sys/dev/block/{number}") if number else ""
    if not host.is_dir(target) and source.startswith("/dev/"):
        # btrfs has device numbers of its own.
        target = host.resolve(f"/sys/class/block/{posixpath.basename(host.resolve(source))}")
    if not host.is_dir(target):
        return Under(
            reason=f"no disk is known below it ({kind or 'nothing'} is mounted there from {source or 'nowhere'})"
        )
    targets = [target]
    if kind == "btrfs":
        members = [host.names(f"/sys/fs/btrfs/{one}/devices") for one in host.names("/sys/fs/btrfs")]
        names = next((names for names in members if posixpath.basename(target) in names), [])
        targets = [host.resolve(f"/sys/class/block/{name}") for name in names] or targets
    found = [_disks_of(machine, target) for target in targets]
    layers = [one.layer for one in found if one.layer]
    layer = "btrfs" if kind == "btrfs" else next(iter(layers), "")
    return Under(frozenset().union(*(one.disks for one in found)), layer)


def _disks_of(machine: Machine, target: str) -> Under:
    """A block device may be a disk, a partition, or made of others (/sys/block/NAME/slaves)."""
    if machine.host.exists(f"{target}/partition"):
        target = posixpath.dirname(target)
    device = posixpath.basename(target)
    below = disks_below(machine.host, device)
    return Under(frozenset(below), device if below != {device} else "")


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    every = frozenset(f"block:{words}" for words in desired.optional)
    draft = Draft(optional=every)
    chosen: dict[str, str] = {}
    lines: dict[str, tuple[str, ...]] = {}
    for asked in desired.rules:
        under = snapshot.under.get(asked.path, Under())
        rule = _on_layer(draft, asked, under)
        disks = [disk for disk in snapshot.disks if _matches(rule, disk, under)]
        if not disks:
            there = ", ".join(disk.name for disk in snapshot.disks) or "none"
            draft.cannot(f"block:{rule.words}", under.reason or f"no disk matches; there is {there}")
            continue
        if rule.words in desired.optional:
            draft.optional |= {_key(disk, attribute) for disk in disks for attribute in rule.settings}
        done = [_want_disk(draft, rule, disk, chosen) for disk in disks]
        if rule.settings and all(done):
            for line, keys in _udev_lines(rule, disks):
                lines[line] = (*lines.get(line, ()), *keys)
    if desired.persist and lines:
        if desired.optional.issuperset(rule.words for rule in desired.rules):
            draft.optional |= {f"file:{RULES}"}
        want_lines(draft, snapshot.rules_file, lines, actions=("udev-reload",))
    for wish, look in zip(desired.mounts, snapshot.mounts):
        if wish.path in desired.optional:
            draft.optional |= {f"mount_options:{wish.path}"}
        want_mount_options(draft, wish, look, desired.persist)
    return draft


def _on_layer(draft: Draft, rule: Rule, under: Under) -> Rule:
    """The settings of disks that mean something below a layer: it has a read-ahead of its own."""
    if not under.layer or "read_ahead_kb" not in rule.settings:
        return rule
    draft.cannot(
        f"block:{rule.words}",
        f"files there are read ahead as {under.layer} says and not as its disks say; "
        "read_ahead_kb is only set for file systems on a plain disk",
    )
    return dataclasses.replace(rule, settings=_without_read_ahead(rule))


def _key(disk: Disk, attribute: str) -> str:
    return f"block:{disk.name}/{attribute}"


def _matches(rule: Rule, disk: Disk, under: Under) -> bool:
    if rule.rotational is not None and rule.rotational != disk.rotational:
        return False
    if rule.path:
        return disk.name in under.disks
    return fnmatch.fnmatchcase(disk.name, rule.device)


def _want_disk(draft: Draft, rule: Rule, disk: Disk, chosen: dict[str, str]) -> bool:
    """Plan the settings of one disk; whether all of them are possible."""
    possible = True
    for attribute, asked in rule.settings.items():
        key, path = _key(disk, attribute), f"/sys/block/{disk.name}/queue/{attribute}"
        text, writable = disk.values[attribute]
        bounded = rule.at_least and attribute == "read_ahead_kb" and text is not None
        value = disk.raised(asked) if bounded else asked
        if value is None:
            draft.covered.add(key)
            continue
        if chosen.setdefault(key, value) != value:
            draft.refusals.append(
                f"{key}: two entries of devices match {disk.name} and ask for {chosen[key]} and {value}"
            )
        elif text is None:
            draft.cannot(key, "this device has no such setting")
        elif attribute == "scheduler" and value not in offered(text):
            draft.cannot(key, f"{value!r} is not one of {', '.join(offered(text))}")
        elif not writable:
            draft.cannot(key, READ_ONLY)
        else:
            kind = "choice" if attribute == "scheduler" else "text"
            draft.want(key, kind, path, selected(text) if kind == "choice" else text, value)
            continue
        possible = False
    return possible


def _without_read_ahead(rule: Rule) -> dict[str, str]:
    return {attribute: value for attribute, value in rule.settings.items() if attribute != "read_ahead_kb"}


def _udev_lines(rule: Rule, disks: list[Disk]) -> list[tuple[str, list[str]]]:
    """The rule's own line, and one per disk where the lower bound is not met by all of them (udev cannot compare),
    each with the keys that it sets."""
    asked = rule.settings.get("read_ahead_kb")
    short = [disk for disk in disks if asked is None or disk.raised(asked) == asked]
    if asked is None or not rule.at_least or len(short) == len(disks):
        # Disks below a path have a line each, by serial number.
        return [_udev_line(rule, [disk]) for disk in disks] if rule.path else [_udev_line(rule, disks)]
    others = _without_read_ahead(rule)
    bound = {"read_ahead_kb": asked}
    lines = [_udev_line(dataclasses.replace(rule, settings=others), disks)] if others else []
    return lines + [_udev_line(dataclasses.replace(rule, path=disk.name, settings=bound), [disk]) for disk in short]


def _udev_line(rule: Rule, disks: list[Disk]) -> tuple[str, list[str]]:
    match = ['ACTION=="add|change"', 'SUBSYSTEM=="block"', 'ENV{DEVTYPE}=="disk"']
    if rule.path:
        # Kernel names move between boots, the serial number does not.
        disk = disks[0]
        match.append(f'ENV{{ID_SERIAL}}=="{disk.serial}"' if disk.serial else f'KERNEL=="{disk.name}"')
    else:
        match.append(f'KERNEL=="{rule.device}"')
    if rule.rotational is not None:
        match.append(f'ATTR{{queue/rotational}}=="{int(rule.rotational)}"')
    assign = [f'ATTR{{queue/{attribute}}}="{value}"' for attribute, value in rule.settings.items()]
    return ", ".join(match + assign), [_key(disk, attribute) for disk in disks for attribute in rule.settings]
