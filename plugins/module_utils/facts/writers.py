# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who could have written a value: the files and services of this machine that set the same knob.

`look` reads, `who` is pure: a key, its live value and what was read in, one line for each suspect out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..doors.host import Host
from ..values import words
from . import owners, writer_files
from .writer_files import Line

UNKNOWN = "unknown, changed outside any file we know"

# Configuration of services, by the family of knob that a line in it sets. The service has to be installed.
_CONFIGURATION: tuple[tuple[str, str, str], ...] = (
    ("/etc/tlp.conf", r"^CPU_SCALING_GOVERNOR_ON_", "governor"),
    ("/etc/tlp.conf", r"^CPU_ENERGY_PERF_POLICY_ON_", "epp"),
    ("/etc/tlp.conf", r"^CPU_BOOST_ON_", "boost"),
    ("/etc/tlp.conf", r"^CPU_SCALING_M(IN|AX)_FREQ_ON_", "max_frequency"),
    ("/etc/tlp.conf", r"^DISK_IOSCHED", "block"),
    ("/etc/default/cpufrequtils", r"^GOVERNOR=", "governor"),
    ("/etc/default/cpufrequtils", r"^M(IN|AX)_SPEED=", "max_frequency"),
    ("/etc/default/cpupower", r"^(governor|CPUPOWER_START_OPTS)=", "governor"),
    ("/etc/auto-cpufreq.conf", r"^governor\s*=", "governor"),
    ("/etc/default/irqbalance", r"^(OPTIONS|IRQBALANCE_\w+)=", "irq_affinity"),
)
# tuned: what a line of a profile means, with the sysctl or the path behind it (tuned-profiles(7)).
_TUNED_FAMILIES = {
    "governor": "governor",
    "energy_performance_preference": "epp",
    "energy_perf_bias": "epp",
    "force_latency": "idle_states",
    "boost": "boost",
    "transparent_hugepages": "thp",
    "transparent_hugepage": "thp",
    "readahead": "block",
    "elevator": "block",
    "default_irq_smp_affinity": "irq_affinity",
}
# Commands by family, beside those that name the sysctl or the file.
_COMMANDS = {
    "governor": r"\b(cpupower\b.*\bfrequency-set\b.*(-g|--governor)|cpufreq-set\b.*-g|powerprofilesctl\s+set)",
    "epp": r"\b(x86_energy_perf_policy|powerprofilesctl\s+set)\b",
    "max_frequency": r"\b(cpupower\b.*\bfrequency-set\b.*-[du]|cpufreq-set\b.*-[du])",
    "idle_states": r"\bcpupower\b.*\bidle-set\b",
    "block": r"\bblockdev\b.*--setra\b",
    "irq_affinity": r"\bset_irq_affinity|/proc/irq/",
    "gpu_persistence": r"\bnvidia-smi\b.*(-pm|--persistence-mode)",
    "gpu_power_limit": r"\bnvidia-smi\b.*(-pl|--power-limit)",
    "gpu_clocks": r"\bnvidia-smi\b.*(-lgc|-lmc|-rgc|-rmc|--lock-|--reset-(gpu|memory)-clocks|-ac\b|-rac\b)",
    "gpu_modes": r"\bnvidia-smi\b.*(-c\b|--compute-mode|-e\b|--ecc-config|-mig|--multi-instance)",
}
_GPU = {
    "persistence": "gpu_persistence",
    "power_limit_mw": "gpu_power_limit",
    "gpu_locked_clocks": "gpu_clocks",
    "memory_locked_clocks": "gpu_clocks",
    "application_clocks": "gpu_clocks",
}
_CPU = "/sys/devices/system/cpu"


@dataclass(frozen=True)
class Sources:
    """What a machine says about who writes. configuration: (family, place) of lines in a service's own files."""

    lines: Sequence[Line]
    services: Sequence[dict[str, Any]]
    configuration: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Knob:
    """What a key is to others: its files, its sysctl (in slashes), and the family that services set."""

    paths: tuple[str, ...] = ()
    sysctl: str = ""
    family: str = ""


def look(host: Host) -> Sources:
    services = [owner for owner in owners.gather(host) if owner["active"] or owner["enabled"]]
    configuration = [
        (family, f"{path}:{number} ({line.strip()})")
        for path, pattern, family in _CONFIGURATION
        for number, line in enumerate(host.lines(path), 1)
        if re.match(pattern, line)
    ]
    lines = writer_files.gather(host)
    if any(owner["name"] == "tuned" for owner in services):
        found = list(_tuned(host))
        lines += [line for line in found if isinstance(line, Line)]
        configuration += [line for line in found if not isinstance(line, Line)]
    return Sources(lines, services, configuration)


def who(key: str, live: Any, sources: Sources) -> list[str]:
    """Everybody who sets this knob, those that set the live value first; never empty."""
    knob = _knob(key)
    found = [line for line in sources.lines if _sets(line, knob)]
    now = _plain(live)
    found.reverse()  # later lines win over earlier ones
    fits = [line for line in found if line.value is not None and _plain(line.value) == now]
    ranked = fits + [line for line in found if line not in fits]
    texts = [f"{line.where} sets it" + ("" if line.value is None else f" to {line.value}") for line in ranked]
    texts += [f"{where} sets it" for family, where in sources.configuration if family == knob.family]
    texts += [
        f"{owner['unit']} is {'active' if owner['active'] else 'enabled'} and sets values like this"
        for owner in sources.services
        if knob.family in owner["writes"] and not owner["name"].startswith("our_")
    ]
    return list(dict.fromkeys(texts)) or [UNKNOWN]


def _knob(key: str) -> _Knob:
    kind, _colon, rest = key.partition(":")
    return _KNOBS[kind](rest) if kind in _KNOBS else _Knob()


def _sysctl_knob(name: str) -> _Knob:
    return _Knob((f"/proc/sys/{_slashes(name)}",), _slashes(name), "sysctl")


def _file_knob(path: str) -> _Knob:
    name = path[len("/proc/sys/") :] if path.startswith("/proc/sys/") else ""
    return _Knob((path,), name, "thp" if "/transparent_hugepage/" in path else "")


def _pool_knob(_pool: str) -> _Knob:
    return _Knob(("/proc/sys/vm/nr_hugepages", "/sys/kernel/mm/hugepages/*/nr_hugepages"), "vm/nr_hugepages")


def _disk_knob(rest: str) -> _Knob:
    disk, _slash, attribute = rest.partition("/")
    return _Knob((f"/sys/block/{disk}/queue/{attribute}",), "", "block")


def _irq_knob(identity: str) -> _Knob:
    return _Knob(("/proc/irq/default_smp_affinity",) if identity == "default" else (), "", "irq_affinity")


def _gpu_knob(rest: str) -> _Knob:
    return _Knob((), "", _GPU.get(rest.rpartition("/")[2], "gpu_modes"))


_CPU_FAMILIES = {
    "scaling_governor": "governor",
    "energy_performance_preference": "epp",
    "boost": "boost",
    "no_turbo": "boost",
    "scaling_min_freq": "max_frequency",
    "scaling_max_freq": "max_frequency",
}


def _cpu_knob(rest: str) -> _Knob:
    policy, _slash, attribute = rest.rpartition("/")
    cpu = policy.replace("policy", "cpu")
    paths = (f"{_CPU}/cpufreq/{policy}/{attribute}", f"{_CPU}/{cpu}/cpufreq/{attribute}", f"{_CPU}/cpufreq/{attribute}")
    return _Knob(paths, "", _CPU_FAMILIES.get(attribute, "governor"))


def _idle_knob(_rest: str) -> _Knob:
    return _Knob((), "", "idle_states")


_KNOBS: dict[str, Callable[[str], _Knob]] = {
    "sysctl": _sysctl_knob,
    "sysfs": _file_knob,
    "hugepages": _pool_knob,
    "block": _disk_knob,
    "irq": _irq_knob,
    "gpu": _gpu_knob,
    "cpufreq": _cpu_knob,
    "cpuidle": _idle_knob,
    "pm_qos": _idle_knob,
}


def _sets(line: Line, knob: _Knob) -> bool:
    if line.kind == "sysctl":
        return bool(knob.sysctl) and fnmatch.fnmatchcase(knob.sysctl, _slashes(line.target))
    if line.kind == "path":
        return any(_alike(path, line.target) for path in knob.paths)
    if line.kind == "attribute":
        return any(path.startswith("/sys/") and path.endswith(f"/{line.target}") for path in knob.paths)
    return _commands(line.target, knob)


def _alike(path: str, target: str) -> bool:
    return fnmatch.fnmatchcase(path, target) or fnmatch.fnmatchcase(target, path)


def _commands(text: str, knob: _Knob) -> bool:
    """Whether a command names the file or the sysctl, or is one that sets the family."""
    dotted = knob.sysctl.replace("/", ".")
    if dotted and re.search(rf"(?<![\w.]){re.escape(dotted)}\s*=", text):
        return True
    words_of = re.split(r"[\s\"'=;,>]+", text)
    if any(path in words_of or _globbed(words_of, path) for path in knob.paths if "*" not in path):
        return True
    pattern = _COMMANDS.get(knob.family)
    return bool(pattern and re.search(pattern, text))


def _globbed(found: Iterable[str], path: str) -> bool:
    return any("*" in word and word.startswith("/") and fnmatch.fnmatchcase(path, word) for word in found)


def _slashes(name: str) -> str:
    """A sysctl as a path below /proc/sys; a name whose first separator is a slash is one already (sysctl.d(5))."""
    first = re.search("[./]", name)
    return name if first and first.group() == "/" else name.translate(str.maketrans("./", "/."))


def _plain(value: Any) -> str:
    return words(str(value).lower())


def _tuned(host: Host) -> Iterable[Line | tuple[str, str]]:
    """Lines of the profile that tuned has now, with those of the profiles that it includes."""
    names = (host.text("/etc/tuned/active_profile") or "").split()
    seen: set[str] = set()
    while names:
        name = names.pop(0)
        folders = ("/etc/tuned", "/etc/tuned/profiles", "/usr/lib/tuned", "/usr/lib/tuned/profiles")
        path = next((f"{folder}/{name}/tuned.conf" for folder in folders if host.exists(f"{folder}/{name}")), "")
        if not path or path in seen:
            continue
        seen.add(path)
        section = ""
        for number, text in enumerate(host.lines(path), 1):
            line = text.strip()
            if line.startswith("["):
                section = line.strip("[]")
            option, equals, value = (part.strip() for part in line.partition("="))
            if not equals or line[0] in "#;":
                continue
            where = f"{path}:{number} (tuned)"
            if section == "main" and option == "include":
                names += value.replace(",", " ").split()
            elif section == "sysctl":
                yield Line("sysctl", option, value.strip('"'), where)
            elif section == "sysfs" or option.startswith("/"):
                yield Line("path", option, value.strip('"'), where)
            elif option in _TUNED_FAMILIES:
                yield _TUNED_FAMILIES[option], f"{where} ({line})"
