# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine in a folder whose systemctl enables and masks by symbolic links, as systemd does."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from fake_kernel import FakeKernel

ETC, LIB = "/etc/systemd/system", "/usr/lib/systemd/system"


class LinkedSystemd(FakeKernel):
    """systemctl on unit files and links. `known` is what the manager has read: links made by others are not in it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.running: set[str] = set()
        self.known: dict[str, str] = {}

    def unit(self, name: str, target: str, enabled: bool = True, running: bool = True, also: str = "") -> None:
        """A unit of the distribution."""
        install = f"[Install]\nWantedBy={target}\n" + (f"Also={also}\n" if also else "")
        self.put(f"{LIB}/{name}", f"[Unit]\n{install}")
        if enabled:
            self._link(f"{ETC}/{target}.wants/{name}", f"{LIB}/{name}")
        self.running |= {name} if running else set()
        self.reload()

    def _link(self, path: str, target: str) -> None:
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        os.symlink(target, self.at(path))

    def links(self) -> dict[str, str]:
        found = {}
        for folder, folders, names in os.walk(self.at(ETC)):
            for name in [*folders, *names]:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    found[path[len(self.root) :]] = os.readlink(path)
        return found

    def reload(self) -> None:
        names = {name for folder in (ETC, LIB) for name in self.names(folder) if not self.is_dir(f"{folder}/{name}")}
        self.known = {name: self.state(name) for name in sorted(names)}

    def state(self, name: str) -> str:
        if self.link(f"{ETC}/{name}") == "/dev/null":
            return "masked"
        if not self.exists(f"{LIB}/{name}") and not self.exists(f"{ETC}/{name}"):
            return ""
        wants = [path for path in self.links() if posixpath.dirname(path).endswith(".wants")]
        return "enabled" if any(posixpath.basename(path) == name for path in wants) else "disabled"

    def run(self, argv, timeout: float = 120) -> Completed:
        if argv[0] != "systemctl":
            return super().run(argv, timeout)
        reloads, argv = "--no-reload" not in argv, [word for word in argv if word != "--no-reload"]
        verb, names = argv[1], [word for word in argv[2:] if not word.startswith("-")]
        if verb == "daemon-reload":
            self.reload()
        elif verb == "show":
            return Completed(0, "\n\n".join(map(self._show, names)), "")
        elif verb == "is-enabled":
            return self._are_enabled(names)
        elif verb == "is-active":
            return Completed(0, "active" if names[0] in self.running else "inactive", "")
        else:
            done = self._change(verb, names[0])
            if reloads and verb not in ("start", "stop"):
                self.reload()
            return done
        return Completed(0, "", "")

    def _are_enabled(self, names: list[str]) -> Completed:
        """From the files, unlike show, as far as there are files."""
        states = []
        for name in names:
            if not self.state(name):
                return Completed(1, "\n".join(states), f"Failed to get unit file state for {name}: No such file")
            states.append(self.state(name))
        return Completed(0, "\n".join(states), "")

    def _show(self, name: str) -> str:
        state = self.known.get(name, "")
        load = "masked" if state == "masked" else "loaded" if name in self.known else "not-found"
        active = "active" if name in self.running else "inactive"
        return f"LoadState={load}\nUnitFileState={state}\nActiveState={active}"

    def _change(self, verb: str, name: str) -> Completed:
        text = self.text(f"{LIB}/{name}") or self.text(f"{ETC}/{name}") or ""
        install = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if verb == "start" and self.known.get(name) == "masked":
            return Completed(1, "", f"Failed to start {name}: Unit {name} is masked.")
        if verb == "start":
            self.running.add(name)
        elif verb == "stop":
            self.running.discard(name)
        elif verb == "mask":
            self._link(f"{ETC}/{name}", "/dev/null")
        elif verb == "unmask":
            Path(self.at(f"{ETC}/{name}")).unlink()
        else:
            for one in (name, *install.get("Also", "").split()):
                self._enable(verb, one)
        return Completed(0, "", "")

    def _enable(self, verb: str, name: str) -> None:
        text = self.text(f"{LIB}/{name}") or self.text(f"{ETC}/{name}") or ""
        install = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        path = f"{ETC}/{install['WantedBy']}.wants/{name}"
        if verb == "enable" and path not in self.links():
            self._link(path, f"{LIB}/{name}")
        elif verb == "disable":
            links = self.links().items()
            for found in [path for path, target in links if name in map(posixpath.basename, (path, target))]:
                Path(self.at(found)).unlink()
                folder = Path(self.at(found)).parent
                if folder.name.endswith(".wants") and not list(folder.iterdir()):
                    folder.rmdir()
