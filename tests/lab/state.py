# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole state of a machine, and what differs between two looks at it but for the noise of every boot.

python tests/lab/state.py    reboot an untouched machine twice, before the second time with an initial file system that
                             was built anew; print what differs and noise.txt does not name
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from fnmatch import translate
from pathlib import Path

from remote import Remote
from vm import BOOT_LIMIT, Vm

HERE = Path(__file__).resolve().parent
NOISE = HERE / "noise.txt"
ABSENT = "<absent>"

State = dict[str, str]


def look(vm: Remote) -> State:
    """All sysctls, files below /sys that our knobs are, /etc and /boot, units, the command line, the GPUs."""
    vm.ssh("systemctl is-system-running --wait", check=False, timeout=BOOT_LIMIT)
    found: State = json.loads(vm.python((HERE / "guest_state.py").read_text(encoding="utf-8"), timeout=300))
    for key in found:
        if key.startswith("file /boot/initrd.img"):
            found[key] = _by_content(vm, key.partition(" ")[2], found[key])
    return found


_CONTENTS: dict[str, str] = {}  # of initial file systems, by mode and hash of the file: unpacking one takes long


def _by_content(vm: Remote, path: str, file: str) -> str:
    """Each build of the same initial file system is another file: times and the order in it are new."""
    if file not in _CONTENTS:
        program = (HERE / "guest_initrd.py").read_text(encoding="utf-8")
        _CONTENTS[file] = f"{file.rpartition(' ')[0]} holds {vm.python(program, path, timeout=300).strip()}"
    return _CONTENTS[file]


def noise() -> list[str]:
    """Patterns of keys that move by themselves: one a line, the reason behind a number sign. ~: only a little."""
    lines = (line.partition("#")[0].strip() for line in NOISE.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def differences(before: Mapping[str, str], after: Mapping[str, str], patterns: Iterable[str] | None = None) -> State:
    """What is not as before, by key; keys that match a pattern (those of noise.txt) are left out."""
    known = list(noise() if patterns is None else patterns)
    quiet, about = (
        _any_of(line for line in known if line[0] != "~"),
        _any_of(line[1:] for line in known if line[0] == "~"),
    )
    found = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted(before.keys() | after.keys())}
    return {
        key: f"{old[:200]!r} -> {new[:200]!r}"
        for key, (old, new) in found.items()
        if old != new and not quiet.match(key) and not (about.match(key) and _nearly(old, new))
    }


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


def _nearly(old: str, new: str) -> bool:
    """Whether these are numbers, each less than a thousandth from the other."""
    pairs = list(zip(old.split(), new.split(), strict=False))
    if len(old.split()) != len(new.split()) or not all(word.isdigit() for pair in pairs for word in pair):
        return False
    return all(abs(int(one) - int(other)) * 1000 < int(one) for one, other in pairs)


def main() -> int:
    with Vm() as vm:
        seen = [look(vm)]
        for command in ("true", "update-initramfs -u"):
            vm.ssh(command, timeout=BOOT_LIMIT)
            vm.reboot()
            seen.append(look(vm))
    for first, second in ((0, 1), (1, 2), (0, 2)):
        for key, change in differences(seen[first], seen[second]).items():
            print(f"{key}    {change}")  # noqa: T201 its result
    return 0


if __name__ == "__main__":
    sys.exit(main())
