# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a machine needs a reboot: said by every call until it happened.

What acts from the next boot on is compared with what this boot began with. The ledger keeps that value, for this
boot only: a value that was put back needs no reboot any more, and a boot clears all of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..doors.host import Host
from ..errors import RefusedError
from . import knobs
from .change import Change, Draft, Place, Value
from .ledger import Ledger
from .machine import Machine


def reboot_reasons(machine: Machine, owner: str, draft: Draft, changes: Iterable[Change]) -> list[str]:
    """The reasons of one owner: those that the subject read from the machine, and those of this boot's changes."""
    after: dict[str, tuple[Value, Value]] = {}  # key -> (what this boot began with, what is there after this call)
    for change in changes:
        began = machine.ledger.reboots.get(change.key)
        if began or change.reboot_required:
            after[change.key] = (began["at_boot"] if began else change.before, change.after)
    for key, began in machine.ledger.reboots.items():
        if began["owner"] == owner and key not in after and key not in draft.knows_reboot:
            after[key] = (began["at_boot"], _live(machine, Place(key, began["kind"], began["address"])))
    keys = [key for key, (at_boot, live) in after.items() if live != at_boot and key not in draft.knows_reboot]
    return [*draft.reboot_reasons, *(f"{key} acts after a reboot" for key in keys)]


def pending_reboots(host: Host) -> list[dict[str, str]]:
    """What the ledger knows to wait for a reboot, of all owners. For facts: nothing but files is compared."""
    try:
        noted = Ledger(host).reboots
    except RefusedError:
        return []  # state modules say so
    found = []
    for key, began in noted.items():
        if began["kind"] == "file":
            state = host.file(began["address"])
            if (state.to_json() if state else None) == began["at_boot"]:
                continue
        found.append({"owner": began["owner"].partition("/")[0], "key": key, "reason": f"{key} acts after a reboot"})
    return found


def _live(machine: Machine, place: Place) -> Value:
    """None where it cannot be read: that is no proof that the reboot is not needed any more."""
    try:
        return knobs.read(machine, place)
    except OSError:
        return None
