# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine in a folder whose systemctl keeps enablement and activity of units."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from fake_kernel import FakeKernel


class FakeSystemd(FakeKernel):
    """Answers the systemctl calls that the subject and the knobs make."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.units = {
            "fstrim.timer": ["disabled", "inactive"],
            "ppd.service": ["enabled", "active"],
            "udev.service": ["static", "active"],
        }
        self.restarted: list[str] = []
        # Enablement as systemd knows it: as it was when it last read its files.
        self.seen: dict[str, str] = {}
        self.known: set[str] = set()
        self.was: dict[str, str] = {}
        self.broken: set[str] = set()
        self.unmet: set[str] = set()
        self.tests_conditions = True

    def run(self, argv, timeout: float = 120) -> Completed:
        if argv[0] == "systemd-analyze":
            return self._condition(argv[2].partition("=")[2])
        if argv[0] != "systemctl":
            return super().run(argv, timeout)
        reloads, argv = "--no-reload" not in argv, [word for word in argv if word != "--no-reload"]
        verb, names = argv[1], [word for word in argv[2:] if not word.startswith("--")]
        if verb == "daemon-reload":
            return self._reload()
        if verb == "try-restart" and not set(names) <= self.units.keys():
            return Completed(5, "", f"Failed to try-restart {names[0]}: Unit {names[0]} not found.")
        if verb == "try-restart":
            self.restarted += [name for name in names if self.units.get(name, ["", ""])[1] == "active"]
            return Completed(0, "", "")
        if verb == "show" and "-P" in argv:
            return Completed(0, "no" if names[-1] in self.unmet else "yes", "")
        if verb == "show":
            return Completed(0, "\n\n".join(self._show(name) for name in names) + "\n", "")
        if verb == "is-enabled" and set(names) <= self.units.keys():
            return Completed(0, "".join(f"{self.units[name][0]}\n" for name in names), "")
        done = self._state(verb, names[0])
        if reloads and verb in ("enable", "disable", "mask", "unmask"):
            self._reload()
        return done

    def _state(self, verb: str, name: str) -> Completed:
        if name not in self.units:
            return Completed(1, "", f"Unit {name} not found.")
        if name in self.broken:
            return Completed(1, "", "Job failed")
        unit = self.units[name]
        if verb == "start" and self.seen.get(name, unit[0]) == "masked":
            return Completed(1, "", f"Failed to start {name}: Unit {name} is masked.")
        if verb in ("is-enabled", "is-active"):
            return Completed(0, unit[verb == "is-active"] + "\n", "")
        if verb == "mask":
            self.was[name] = unit[0]
        natural = self.was.get(name, "disabled")
        effect = {
            "enable": (0, "enabled"),
            "disable": (0, "disabled"),
            "mask": (0, "masked"),
            "unmask": (0, natural if natural in ("generated", "static") else "disabled"),
            "start": (1, "active"),
            "stop": (1, "inactive"),
        }[verb]
        if verb != "start" or name not in self.unmet:
            unit[effect[0]] = effect[1]
        return Completed(0, "", "")

    def _condition(self, name: str) -> Completed:
        failed = name in self.unmet and self.tests_conditions
        return Completed(int(failed), "", "fstrim.timer: ConditionVirtualization=!container failed." if failed else "")

    def _reload(self) -> Completed:
        """systemd learns of the units whose files are there, and forgets those that are gone and do not run."""
        there = {name for name in self.names("/etc/systemd/system") if not self.is_dir(f"/etc/systemd/system/{name}")}
        self.units.update({name: ["disabled", "inactive"] for name in there - self.units.keys()})
        for name in self.known - there:
            self.units.pop(name)
        self.known = there
        self.seen = {name: unit[0] for name, unit in self.units.items()}
        return Completed(0, "", "")

    def _show(self, name: str) -> str:
        if name not in self.units:
            return "LoadState=not-found\nUnitFileState=\nActiveState=inactive"
        return f"LoadState=loaded\nUnitFileState={self.units[name][0]}\nActiveState={self.units[name][1]}"
