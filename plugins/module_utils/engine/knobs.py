# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every kind of place a value can live in: how to read it and how to write it.

A knob is a pair of read and write with one canonical form of value between them; applying, proving,
undoing and verifying are derived from the pair and written once, in transaction.py. The kinds:

    text         one value in a /proc or /sys file, fields separated by one space
    choice       a /sys file that prints its choices with the chosen one in brackets
    cpulist      a CPU list ("0-3,8"); cpumask: the same as hexadecimal groups
    irq          the CPUs of an interrupt, address its identity (interrupts.py); None: its device is not there now
    file         a whole regular file of ours; None: absent
    dir          a directory of ours, by its mode; None: absent
    mount_point  a directory of ours by its existence (its mode is hidden under the mount); None: absent
    mount        what is mounted at a path: file system type and options as the kernel prints them
    mount_options  what the mount at a path is restricted to (noatime, nodev), as the kernel prints it
    unit_file    enablement of a systemd unit: enabled, disabled, masked, static, ...
    unit_links   the symbolic links by which a unit is enabled, aliased or masked, each as "path -> target"
    unit_active  active or inactive
    module       a kernel module: loaded or absent
    program      the executable file of program.py, by a hash of what is inside; None: absent
    grub_next_entry  what GRUB boots once, address its environment block; "": GRUB has booted it
    nvml         one property of one GPU, address UUID/property (doors/nvml.py)
"""

from __future__ import annotations

import errno
from typing import Callable

from ..doors.host import FileState, Host
from ..values import cpu_list, cpu_mask, cpus, mount_text, print_cpu_mask, selected, words
from . import program
from .change import Place, Value
from .grub import grub_environment, set_next_entry
from .interrupts import interrupts
from .machine import Machine

_Reader = Callable[[Machine, str], Value]
_Writer = Callable[[Machine, str, Value], None]


def _read_text(machine: Machine, path: str) -> Value:
    text = machine.host.text(path)
    return None if text is None else words(text)


def _read_choice(machine: Machine, path: str) -> Value:
    text = machine.host.text(path)
    return None if text is None else selected(text)


def _read_cpulist(machine: Machine, path: str) -> Value:
    text = machine.host.text(path)
    return None if text is None else cpu_list(cpus(path, text))


def _read_cpumask(machine: Machine, path: str) -> Value:
    text = machine.host.text(path)
    return None if text is None else cpu_list(cpu_mask(text))


# cpufreq takes a limit as a request, and a work item of its own brings it into force (drivers/cpufreq/cpufreq.c,
# cpufreq_notifier_min and _max): the file shows it a moment later, mostly at once, but not on a busy CPU.
_SHOWN_LATER = ("/scaling_min_freq", "/scaling_max_freq")
_LOOKS, _PAUSE = 100, 0.01


def _write_text(machine: Machine, path: str, value: Value) -> None:
    machine.host.write_value(path, str(value))
    if path.endswith(_SHOWN_LATER):
        for _look in range(_LOOKS):
            if _read_text(machine, path) == value:
                break
            machine.host.pause(_PAUSE)


def _write_cpumask(machine: Machine, path: str, value: Value) -> None:
    machine.host.write_value(path, print_cpu_mask(cpus(path, value)))


def _irq_path(machine: Machine, identity: str) -> str | None:
    found = interrupts(machine).get(identity)
    return f"{found.path}/smp_affinity_list" if found else None


def _read_irq(machine: Machine, identity: str) -> Value:
    path = _irq_path(machine, identity)
    return None if path is None else _read_cpulist(machine, path)


def _write_irq(machine: Machine, identity: str, value: Value) -> None:
    path = _irq_path(machine, identity)
    if path is None:
        raise OSError(errno.ENODEV, f"no interrupt {identity}: its driver is not loaded now")
    machine.host.write_value(path, str(value))


def _read_file(machine: Machine, path: str) -> Value:
    state = machine.host.file(path)
    return None if state is None else state.to_json()


def _write_file(machine: Machine, path: str, value: Value) -> None:
    if value is None:
        machine.host.remove_file(path)
    else:
        machine.host.write_file(path, FileState.from_json(value))


def _read_dir(machine: Machine, path: str) -> Value:
    return machine.host.dir_mode(path)


def _write_dir(machine: Machine, path: str, value: Value) -> None:
    if value is None:
        machine.host.remove_dir(path)
    else:
        machine.host.make_dir(path, value)


def _read_mount_point(machine: Machine, path: str) -> Value:
    return "present" if machine.host.is_dir(path) else None


def _write_mount_point(machine: Machine, path: str, value: Value) -> None:
    _write_dir(machine, path, None if value is None else 0o755)


def _read_mount(machine: Machine, path: str) -> Value:
    """Type and super block options of the topmost mount (proc_pid_mountinfo(5)), without the usual "rw"."""
    for line in reversed((machine.host.text("/proc/self/mountinfo") or "").splitlines()):
        fields = line.split()
        if mount_text(fields[4]) == path:
            kind, _source, options = fields[fields.index("-") + 1 :][:3]
            return f"{kind} {','.join(sorted(set(options.split(',')) - {'rw', 'seclabel'}))}"
    return None


def _write_mount(machine: Machine, path: str, value: Value) -> None:
    if _read_mount(machine, path) is not None:
        _command(machine.host, "umount", path)
    if value is not None:
        kind, _space, options = str(value).partition(" ")
        _command(machine.host, "mount", "-t", kind, "-o", options or "rw", kind, path)


# Per mount option that the kernel prints nothing for, by the one it prints.
_UNPRINTED = {"nodiratime": "diratime", "nodev": "dev", "nosuid": "suid", "noexec": "exec"}
MOUNT_DEFAULTS = ("strictatime", *_UNPRINTED.values())


def _read_mount_options(machine: Machine, path: str) -> Value:
    found = None
    for line in (machine.host.text("/proc/self/mountinfo") or "").splitlines():
        fields = line.split()
        if mount_text(fields[4]) == path:
            found = ",".join(sorted(fields[5].split(",")))
    return found


def _write_mount_options(machine: Machine, path: str, value: Value) -> None:
    """A bind remount changes this mount alone and leaves the file system as it is (mount(8))."""
    named = str(value).split(",")
    named += [word for printed, word in _UNPRINTED.items() if printed not in named]
    named += [] if {"noatime", "relatime"} & set(named) else ["strictatime"]
    argv = ("mount", "-o", f"remount,bind,{','.join(named)}", path)
    result = machine.host.act(argv)
    if result.code:
        message = result.err.strip().splitlines()
        code = errno.EPERM if "permission denied" in result.err or "must be superuser" in result.err else errno.EIO
        raise OSError(code, f"{' '.join(argv)}: {message[-1] if message else f'code {result.code}'}")


def _command(host: Host, *argv: str, told: int = -1) -> None:
    """Run it. told: which line of what it says is the reason of a failure."""
    result = host.act(argv)
    if result.code:
        message = (result.err or result.out).strip().splitlines()
        raise OSError(errno.EIO, f"{' '.join(argv)}: {message[told] if message else f'code {result.code}'}")


def _systemctl(host: Host, *argv: str) -> None:
    _command(host, "systemctl", *argv, told=0)  # the last line says where to read on


def _change_unit_file(host: Host, verb: str, unit: str) -> None:
    """Without the reload that would follow each of them: the action daemon-reload of the change is one for all."""
    _systemctl(host, "--no-reload", verb, unit)


def _read_unit_file(machine: Machine, unit: str) -> Value:
    # A unit whose file is gone (older systemd prints nothing, newer not-found) is not enabled.
    state = machine.host.run(("systemctl", "is-enabled", unit)).out.strip()
    return "disabled" if state in ("", "not-found") else state


def _write_unit_file(machine: Machine, unit: str, value: Value) -> None:
    verb = {"enabled": "enable", "disabled": "disable", "masked": "mask"}.get(str(value))
    live = _read_unit_file(machine, unit)
    if verb is None and live != "masked":
        raise OSError(errno.EINVAL, f"a unit cannot be made {value}")
    if live == "masked" and verb != "mask":
        # Without a mask a static or generated unit is again what it was.
        _change_unit_file(machine.host, "unmask", unit)
    if verb and _read_unit_file(machine, unit) != value:
        _change_unit_file(machine.host, verb, unit)


_UNITS = "/etc/systemd/system"


def _read_unit_links(machine: Machine, unit: str) -> Value:
    """Links below /etc/systemd/system with the unit at one end, and those of a start script of that name, which
    systemctl enables along (systemctl(1), enable; update-rc.d(8))."""
    stem = unit.rpartition(".")[0] if unit.endswith(".service") else ""
    links = _links(machine)
    return [f"{path} -> {target}" for path, target, names in links if unit in names or stem in names]


def _links(machine: Machine) -> list[tuple[str, str, tuple[str, ...]]]:
    """All such links: path, target, and the names that they stand for."""
    host = machine.host
    folders = [_UNITS, *(f"{_UNITS}/{name}" for name in host.names(_UNITS) if name.endswith(_WANTS))]
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for folder in folders:
        for name in host.names(folder):
            target = host.link(f"{folder}/{name}")
            if target is not None:
                found.append((f"{folder}/{name}", target, (name, target.rpartition("/")[2])))
    for path in host.glob("/etc/rc[0-6S].d/[SK][0-9][0-9]*"):
        target = host.link(path)
        if target is not None:
            found.append((path, target, (path.rpartition("/")[2][3:],)))
    return found


_WANTS = (".wants", ".requires", ".upholds")


def _write_unit_links(machine: Machine, unit: str, value: Value) -> None:
    host, live = machine.host, _read_unit_links(machine, unit)
    for link in live:
        path = link.partition(" -> ")[0]
        if link not in value:
            host.remove_file(path)
            folder = path.rpartition("/")[0]
            if folder.endswith(_WANTS) and not host.names(folder):
                host.remove_dir(folder)  # as systemctl does
    for link in value:
        path, _arrow, target = link.partition(" -> ")
        folder = path.rpartition("/")[0]
        if not host.is_dir(folder):
            host.make_dir(folder, 0o755)
        if link not in live:
            host.make_link(path, target)


def _read_unit_active(machine: Machine, unit: str) -> Value:
    return (
        "active"
        if machine.host.run(("systemctl", "is-active", unit)).out.strip() in ("active", "reloading")
        else "inactive"
    )


def _write_unit_active(machine: Machine, unit: str, value: Value) -> None:
    try:
        _systemctl(machine.host, "start" if value == "active" else "stop", unit)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_last_words(machine.host, unit)}") from None
    if value == "active" and "no" in machine.host.run(("systemctl", "show", "-P", "ConditionResult", unit)).out.split():
        raise OSError(errno.ENOTSUP, f"systemd did not start {unit}: a condition in the unit does not hold")


def _last_words(host: Host, unit: str) -> str:
    """What a unit's own processes have said last: systemctl only says where to look (journalctl(1), _SYSTEMD_UNIT)."""
    known = host.run(("journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=1", f"_SYSTEMD_UNIT={unit}"))
    said = " ".join(known.out.split())
    return f"; it said last: {said}" if said else ""


def _read_module(machine: Machine, name: str) -> Value:
    if machine.host.is_dir(f"/sys/module/{name.replace('-', '_')}"):
        return "loaded"
    # One that is compiled in and takes no parameters has no folder there.
    release = machine.host.text("/proc/sys/kernel/osrelease")
    compiled_in = (machine.host.text(f"/lib/modules/{release}/modules.builtin") or "").replace("-", "_")
    return "loaded" if f"/{name.replace('-', '_')}.ko" in compiled_in else "absent"


def _write_module(machine: Machine, name: str, value: Value) -> None:
    argv = ("modprobe", name) if value == "loaded" else ("modprobe", "-r", name)
    result = machine.host.act(argv)
    if result.code:
        code = errno.EBUSY if value == "absent" and "in use" in result.err else errno.EIO
        raise OSError(code, f"{' '.join(argv)}: {result.err.strip()}")


def _read_grub_next_entry(machine: Machine, path: str) -> Value:
    return (grub_environment(machine.host, path) or {}).get("next_entry")


def _write_grub_next_entry(machine: Machine, path: str, value: Value) -> None:
    set_next_entry(machine.host, path, value)


def _read_nvml(machine: Machine, address: str) -> Value:
    uuid, _slash, name = address.partition("/")
    return machine.nvml().read(uuid, name)


def _write_nvml(machine: Machine, address: str, value: Value) -> None:
    uuid, _slash, name = address.partition("/")
    machine.host.before_write(f"nvml:{address}")
    machine.nvml().write(uuid, name, value)


_KINDS: dict[str, tuple[_Reader, _Writer]] = {
    "text": (_read_text, _write_text),
    "choice": (_read_choice, _write_text),
    "cpulist": (_read_cpulist, _write_text),
    "cpumask": (_read_cpumask, _write_cpumask),
    "irq": (_read_irq, _write_irq),
    "file": (_read_file, _write_file),
    "dir": (_read_dir, _write_dir),
    "mount_point": (_read_mount_point, _write_mount_point),
    "mount": (_read_mount, _write_mount),
    "mount_options": (_read_mount_options, _write_mount_options),
    "unit_file": (_read_unit_file, _write_unit_file),
    "unit_links": (_read_unit_links, _write_unit_links),
    "unit_active": (_read_unit_active, _write_unit_active),
    "module": (_read_module, _write_module),
    "program": (program.read, program.write),
    "grub_next_entry": (_read_grub_next_entry, _write_grub_next_entry),
    "nvml": (_read_nvml, _write_nvml),
}


def read(machine: Machine, place: Place) -> Value:
    """The live value in its canonical form; None where the place does not exist."""
    return _KINDS[place.kind][0](machine, place.address)


def write(machine: Machine, place: Place, value: Value) -> None:
    """Write one value. Raises OSError (NVML errors included) as the kernel or driver answers."""
    _KINDS[place.kind][1](machine, place.address, value)


def has_getter(place: Place) -> bool:
    """False for what can be set but never read back: locked clocks (settings-facts 1.2)."""
    return not (place.kind == "nvml" and place.address.endswith("_locked_clocks"))
