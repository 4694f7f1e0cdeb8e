# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Docker engine as systemd, its process and it itself describe it; how it takes a new configuration.

Sources: moby, cmd/dockerd (config.go: flags; daemon.go: conflicts of flags and file, --validate since 23.0),
docker.service of Debian, Ubuntu and Docker's own packages, systemctl(1), proc_pid_stat(5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..doors.host import Host
from ..errors import ApplyError
from .daemon_json import FILE, shown

_UNIT = "docker.service"
_PROPERTIES = "LoadState,ActiveState,MainPID,ExecStart,FragmentPath,DropInPaths"
# How long the engine may take to answer after a start or a reload.
_LOOKS, _PAUSE = 60, 0.5
# Flags whose configuration key is not spelt as the flag is (moby, cmd/dockerd/config.go).
_KEYS = {
    "H": "hosts",
    "host": "hosts",
    "D": "debug",
    "G": "group",
    "b": "bridge",
    "g": "data-root",
    "l": "log-level",
    "s": "storage-driver",
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
    "exec-opt": "exec-opts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
# dockerd adds these of both sides together.
_MERGED = frozenset({"runtimes"})


@dataclass(frozen=True)
class Engine:
    """argv: dockerd's command line, without variables of the unit where it does not run. identity: which process it is.

    started: seconds since 1970, 0 where it does not run. places: the files of its unit.
    """

    installed: bool
    unit: bool
    running: bool
    argv: tuple[str, ...] = ()
    identity: str = ""
    started: float = 0.0
    places: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        return "running" if self.running else "stopped" if self.installed else "not installed"


def look(host: Host) -> Engine:
    """The engine as it is now."""
    installed = any(host.exists(f"/usr/{folder}/dockerd") for folder in ("bin", "sbin", "local/bin"))
    answer = host.run(["systemctl", "show", _UNIT, f"--property={_PROPERTIES}"])
    shown_by_systemd = dict(line.partition("=")[::2] for line in answer.out.splitlines())
    unit = answer.code == 0 and shown_by_systemd.get("LoadState") == "loaded"
    pid = int(shown_by_systemd.get("MainPID") or 0) if unit else host.number("/var/run/docker.pid") or 0
    words = (host.raw(f"/proc/{pid}/cmdline") or b"").decode("utf-8", "surrogateescape").split("\0") if pid else []
    running = bool(words and words[0])
    argv = tuple(words[:-1]) if running else _exec_start(shown_by_systemd.get("ExecStart", ""))
    places = [shown_by_systemd.get("FragmentPath", ""), *shown_by_systemd.get("DropInPaths", "").split()]
    ticks = _start_ticks(host, pid) if running else 0
    return Engine(
        installed,
        unit,
        running,
        argv,
        f"{host.boot_id()} {pid} {ticks}" if running else "",
        _boot_time(host) + ticks / 100 if running else 0.0,
        tuple(place for place in places if place),
    )


def _exec_start(text: str) -> tuple[str, ...]:
    """The words of ExecStart= as systemctl shows them; a variable stands for words that are not known yet."""
    found = re.search(r"argv\[\]=(.*?) ;", text)
    return tuple(word for word in found.group(1).split() if not word.startswith("$")) if found else ()


def _start_ticks(host: Host, pid: int) -> int:
    """Field 22 of /proc/PID/stat, in ticks of 10 ms since boot. The name in field 2 may hold anything."""
    fields = (host.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def _boot_time(host: Host) -> float:
    found = re.search(r"^btime (\d+)", host.text("/proc/stat") or "", re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def flag_conflicts(argv: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Keys that the engine's command line sets as well: dockerd refuses to start then."""
    found = []
    for flag, key, value in _flags(argv):
        if key in config and key not in _MERGED:
            found.append(f"{key}: config says {shown(config[key])}, the flag {flag} of dockerd says {shown(value)}")
    return found


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for position, word in enumerate(argv):
        parts = re.fullmatch(r"(--?)([A-Za-z][\w-]*)(?:=(.*))?", word, re.DOTALL)
        if parts is None:
            continue
        dashes, name, value = parts.groups()
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if value is None:
            value = "true" if following.startswith("-") or not following else following
        yield f"{dashes}{name}", _KEYS.get(name, name), value


def validate(host: Host, engine: Engine, text: str) -> str:
    """What dockerd itself has against a configuration, with the flags it is started with; empty for nothing."""
    if not engine.installed:
        return ""
    flags = [word for word in engine.argv[1:] if not word.startswith("--config-file")]
    done = host.run(["dockerd", *flags, "--validate", "--config-file=/dev/stdin"], text=text)
    if done.code == 0 or "unknown flag: --validate" in done.err:  # Docker before 23.0 cannot
        return ""
    return _reason(done.err).replace("/dev/stdin", FILE)


def info(host: Host) -> dict[str, Any] | None:
    """What the engine says of itself (docker info); None when it does not answer."""
    done = host.run(["docker", "info", "--format", "{{json .}}"])
    try:
        found = json.loads(done.out) if done.code == 0 else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("ServerVersion") else None


def reload(host: Host, wanted: Mapping[str, Any]) -> str:
    """Let the running engine read what it can at SIGHUP, and see it there. Returns the reason when it does not."""
    done = host.act(["systemctl", "reload", _UNIT])
    if done.code != 0:
        return _reason(done.err)
    for _look in range(_LOOKS):
        if _shows(info(host), wanted):
            return ""
        host.pause(_PAUSE)
    return "docker info does not show it after the reload"


def _shows(answer: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether the engine shows those of the wanted values that it can show."""
    if answer is None:
        return False
    seen = {
        "live-restore": answer.get("LiveRestoreEnabled"),
        "debug": answer.get("Debug"),
        "default-runtime": answer.get("DefaultRuntime"),
    }
    runtimes = wanted.get("runtimes") or {}
    return set(runtimes) <= set(answer.get("Runtimes") or {}) and all(
        value == wanted[key] for key, value in seen.items() if key in wanted
    )


def restart(host: Host) -> str:
    """Restart the engine and wait until it answers. Returns the reason when it does not."""
    host.act(["systemctl", "reset-failed", _UNIT])
    done = host.act(["systemctl", "restart", _UNIT])
    if done.code == 0:
        for _look in range(_LOOKS):
            if info(host) is not None:
                return ""
            host.pause(_PAUSE)
    journal = host.run(["journalctl", "--unit", _UNIT, "--lines", "40", "--output", "cat", "--no-pager"])
    said = [
        line for line in journal.out.splitlines() if re.search(r"level=fatal|failed to start daemon|unable to", line)
    ]
    return _reason(said[-1] if said else done.err) or "the engine does not answer"


def bring_back(host: Host, action: str) -> None:
    """Let the engine go back to the configuration that is restored. ApplyError when even that fails.

    After a reload it still runs: a restart could cost containers.
    """
    done = host.act(["systemctl", "reload", _UNIT]) if action == "reload" else None
    reason = restart(host) if done is None or done.code != 0 else ""
    if reason:
        raise ApplyError(f"{FILE} is restored, but the engine does not start with it either: {reason}")


def _reason(text: str) -> str:
    """The last words of dockerd, without what its logger puts around them."""
    line = (text.strip().splitlines() or [""])[-1]
    quoted = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return quoted.group(1).replace('\\"', '"') if quoted else line
