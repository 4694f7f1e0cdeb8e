# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files in which a system sets kernel values, as lines: who sets which place to what, and where it says so.

Each kind of file is read as its own program reads it. Sources: sysctl.d(5), sysctl(8), tmpfiles.d(5), udev(7),
modprobe.d(5), systemd.service(5), Documentation/admin-guide/kernel-parameters.rst.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ..doors.host import Host
from .owners import FOLDERS

# Weakest first: of two files with one name the stronger folder's counts, and all are read in the order of their names.
_LAYERS = ("/usr/lib", "/usr/local/lib", "/run", "/etc")
_OURS = "ai-workstation"
_SCRIPTS = ("/etc/rc.local", "/etc/crontab", "/etc/cron.d/*", "/var/spool/cron/crontabs/*", "/etc/cpufreqd.conf")
_SCRIPT_BYTES = 65536
_ASSIGNS = re.compile(r"""(ATTR|SYSCTL)\{([^}]+)\}\s*=(?!=)\s*"([^"]*)\"""")


@dataclass(frozen=True)
class Line:
    """One line that sets something. kind: how `target` is to be read. value: None where a command decides."""

    kind: str
    target: str
    value: str | None
    where: str


def gather(host: Host) -> list[Line]:
    """Every line of foreign files that sets a value, in the order in which they act at boot."""
    return [
        *_modprobe(host),
        *_command_line(host),
        *_sysctl(host),
        *_tmpfiles(host),
        *_udev(host),
        *_units(host),
        *_scripts(host),
    ]


def _layered(host: Host, folder: str, suffix: str) -> list[str]:
    """Files of a layered folder that count, in the order of their names. Ours are not among them."""
    found: dict[str, str] = {}
    for layer in _LAYERS:
        found.update({name: f"{layer}/{folder}/{name}" for name in host.names(f"{layer}/{folder}")})
    return [found[name] for name in sorted(found) if name.endswith(suffix) and _OURS not in name]


def _lines(host: Host, path: str) -> Iterator[tuple[str, str]]:
    """Lines that say something, with file and number. A line that ends in a backslash goes on in the next."""
    begun, start = "", 0
    for number, text in enumerate(host.lines(path), 1):
        start = start if begun else number
        if text.endswith("\\"):
            begun += text[:-1] + " "
            continue
        line, begun = (begun + text).strip(), ""
        if line and line[0] not in "#;":
            yield line, f"{path}:{start}"


def _sysctl(host: Host) -> Iterator[Line]:
    files = _layered(host, "sysctl.d", ".conf")
    # sysctl --system reads it last; systemd-sysctl only where a link in sysctl.d names it (Debian 12, Ubuntu).
    for path in [path for path in files if host.link(path) != "../sysctl.conf"] + ["/etc/sysctl.conf"]:
        for line, where in _lines(host, path):
            key, equals, value = line.partition("=")
            if equals:
                yield Line("sysctl", key.strip().lstrip("-"), " ".join(value.split()), where)


def _tmpfiles(host: Host) -> Iterator[Line]:
    for path in _layered(host, "tmpfiles.d", ".conf"):
        for line, where in _lines(host, path):
            fields = line.split(None, 6)
            if len(fields) == 7 and fields[0].rstrip("!-=~^+") in ("w", "f"):
                yield Line("path", fields[1], fields[6].strip("\"'"), where)


def _udev(host: Host) -> Iterator[Line]:
    for path in _layered(host, "udev/rules.d", ".rules"):
        for line, where in _lines(host, path):
            for kind, name, value in _ASSIGNS.findall(line):
                yield Line("attribute" if kind == "ATTR" else "sysctl", name, value, where)
            if "RUN" in line:
                yield Line("command", line, None, where)


def _modprobe(host: Host) -> Iterator[Line]:
    for path in _layered(host, "modprobe.d", ".conf"):
        for line, where in _lines(host, path):
            words = line.split()
            for option in words[2:] if words[0] == "options" else ():
                name, equals, value = option.partition("=")
                if equals:
                    module = words[1].replace("-", "_")
                    yield Line("path", f"/sys/module/{module}/parameters/{name}", value, where)


# Kernel parameters that set what a knob sets later: the file, for a parameter.
_PARAMETERS = {
    "transparent_hugepage": "/sys/kernel/mm/transparent_hugepage/enabled",
    "transparent_hugepage_shmem": "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "cpufreq.default_governor": "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "hugepages": "/proc/sys/vm/nr_hugepages",
    "irqaffinity": "/proc/irq/default_smp_affinity",
    "nosmt": "/sys/devices/system/cpu/smt/control",
}


def _command_line(host: Host) -> Iterator[Line]:
    for word in (host.text("/proc/cmdline") or "").split():
        name, equals, value = word.partition("=")
        module, dot, parameter = name.partition(".")
        if name in _PARAMETERS:
            yield Line("path", _PARAMETERS[name], value if equals else None, f"/proc/cmdline ({word})")
        elif dot and module != "sysctl":
            path = f"/sys/module/{module.replace('-', '_')}/parameters/{parameter}"
            yield Line("path", path, value, f"/proc/cmdline ({word})")
        elif dot:
            yield Line("sysctl", parameter, value, f"/proc/cmdline ({word})")


def _units(host: Host) -> Iterator[Line]:
    """Commands of units, and the lines of the scripts that they start."""
    seen: set[str] = set()
    for folder in FOLDERS:
        if host.link(folder.rpartition("/systemd")[0]) is not None:
            continue  # /lib is a link to /usr/lib
        names = [name for name in host.names(folder) if _OURS not in name]
        files = [f"{folder}/{name}" for name in names if name.endswith(".service")]
        for name in (name for name in names if name.endswith(".service.d")):
            files += [f"{folder}/{name}/{part}" for part in host.names(f"{folder}/{name}") if _OURS not in part]
        for path in files:
            for line, where in _lines(host, path):
                name, equals, value = line.partition("=")
                if equals and name.startswith("Exec"):
                    yield Line("command", value, None, where)
                    yield from _started(host, value, seen)


def _started(host: Host, command: str, seen: set[str]) -> Iterator[Line]:
    """The lines of the scripts among the words of a command."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    for word in words:
        path = word.lstrip("-@:+!")
        if path.startswith(("/usr/local/", "/opt/", "/root/", "/home/", "/srv/", "/etc/")) and path not in seen:
            seen.add(path)
            yield from _script(host, path)


def _script(host: Host, path: str) -> Iterator[Line]:
    start = (host.raw(path) or b"")[:_SCRIPT_BYTES]
    if b"\0" not in start[:512]:
        yield from (Line("command", line, None, where) for line, where in _lines(host, path))


def _scripts(host: Host) -> Iterator[Line]:
    for pattern in _SCRIPTS:
        for path in host.glob(pattern):
            yield from _script(host, path)
