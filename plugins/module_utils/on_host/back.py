# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ways back that need no controller: the rollback, and what nobody has confirmed."""

from __future__ import annotations

from ..engine.change import public_value
from ..engine.machine import Machine
from ..engine.plan import locked
from ..engine.rollback import roll_back
from ..engine.selection import Wish
from ..engine.switch import put_back, waits_from_another_boot

LEFT = "stays: "


def rollback(machine: Machine, owners: tuple[str, ...], keys: tuple[str, ...], force: bool, check: bool) -> list[str]:
    """Do it, or foretell it; what went back line by line. Lines of what did not begin with LEFT."""
    outcome = roll_back(Wish(owners, keys, force), check, machine)
    lines = [
        f"{change['key']}: {public_value(change['before'])} -> {public_value(change['after'])}"
        for change in outcome["changes"]
    ]
    lines += [f"{LEFT}{skip['key']}: {skip['reason']}" for skip in outcome["skipped_keys"]]
    lines += [f"{LEFT}{item['key']}: changed by someone else to {item['value']}" for item in outcome["left_alone"]]
    if outcome["reboot_reasons"]:
        lines.append(f"a reboot is needed: {', '.join(outcome['reboot_reasons'])}")
    return lines or ["nothing to take back"]


def restore(machine: Machine, after_boot: bool) -> list[str]:
    """What was not confirmed goes back; the timer of the switch and the boot call this."""
    with locked(machine):
        if after_boot and not waits_from_another_boot(machine.host):
            return ["nothing waits from an earlier boot"]
        return put_back(machine)
