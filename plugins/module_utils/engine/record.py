# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record: what every owner asked for last, so that the machine itself can bring it back and compare.

One JSON file beside the ledger. The ledger says how to go back, the record says where to be: the typed parameters of
each part of each owner, as the last call that succeeded had them. A part that speaks about no key is not in it.
`left_alone` names keys that were taken back one by one: nobody brings them back until a call speaks about them again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Callable

from ..doors.host import Host
from ..errors import RefusedError

PATH = "/var/lib/ai-workstation/record.json"
_VERSION = 1
# Of the call, not of the state that it describes.
_OF_THE_CALL = ("owner", "expect", "pynvml")

Params = Mapping[str, Any]


class Record:
    """What is on disk; `problem` says in one line why it cannot be relied upon."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.wanted: dict[str, dict[str, dict[str, Any]]] = {}
        self.left_alone: set[str] = set()
        self.problem = ""
        self._text = host.text(PATH)
        if self._text is None:
            there = host.exists(PATH)
            self.problem = f"{PATH} can be read by root only" if there else f"there is no {PATH}: nothing was set here"
            return
        try:
            data = json.loads(self._text)
            if data["version"] == _VERSION:
                self.wanted = {owner: dict(parts) for owner, parts in data["wanted"].items()}
                self.left_alone = set(data["left_alone"])
            else:
                self.problem = f"{PATH} has version {data['version']}, known is {_VERSION}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.problem = f"{PATH} cannot be read ({error})"
        if self.problem:
            self.problem += "; the next run of the roles writes it anew"

    def note(self, part: str, params: Params, covered: Collection[str]) -> None:
        """What a call asked of one part, and the keys that it speaks about."""
        parts = self.wanted.setdefault(str(params.get("owner") or "default"), {})
        parts.pop(part, None)
        if covered:
            said = {name: value for name, value in params.items() if name not in _OF_THE_CALL and value is not None}
            parts[part] = said
        self.left_alone.difference_update(covered)

    def leave_alone(self, keys: Iterable[str]) -> None:
        """Keys that were taken back although their part is still wanted."""
        self.left_alone.update(keys)

    def forget(self, means_owner: Callable[[str], bool]) -> None:
        """Drop what owners want that are meant: each is asked for as owner/part."""
        for owner, parts in self.wanted.items():
            self.wanted[owner] = {part: said for part, said in parts.items() if not means_owner(f"{owner}/{part}")}
        if not any(self.wanted.values()):
            self.left_alone.clear()

    def parts(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Owner, part and the parameters to call it with. Raises RefusedError where there is nothing to rely on."""
        if self.problem:
            raise RefusedError(self.problem)
        return [
            (owner, part, {**params, "owner": owner})
            for owner, parts in sorted(self.wanted.items())
            for part, params in sorted(parts.items())
        ]

    def save(self) -> None:
        """Write what differs from the file. Raises OSError; the lock of the ledger is held."""
        data = {
            "version": _VERSION,
            "wanted": {owner: parts for owner, parts in self.wanted.items() if parts},
            "left_alone": sorted(self.left_alone),
        }
        text = self.host.json_text(data)
        if text.strip() == self._text or (self._text is None and not data["wanted"]):
            return
        self.host.save_json(PATH, data)
        self._text = text.strip()
