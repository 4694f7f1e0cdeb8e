# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bringing back what a boot, a resume or a driver load has taken away: nothing else, and as far as it goes.

A call of a module is all or nothing, because somebody is there to read the refusal. Here nobody is: one GPU that
is gone must not keep the others from their limits. So refusals are said, and the rest is done key by key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .change import Change
from .machine import Machine
from .plan import Subject, owner_of
from .transaction import apply

# Values that live in the kernel and in the driver. Files, units and mounts come back by themselves.
_KINDS = ("text", "choice", "cpulist", "cpumask", "irq", "nvml")


@dataclass
class Outcome:
    """done: values that were brought back. left: what was not, with the reason, one line each.

    skipped: what the kernel does not take, as it did not when the call was made; no reason to worry anybody.
    """

    done: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def bring_back(
    subject: Subject, params: Mapping[str, Any], machine: Machine, left_alone: Collection[str] = frozenset()
) -> Outcome:
    """Write the runtime values that `params` describe and the machine has lost. The lock is held.

    Raises InputError, RefusedError and OSError; nothing is written then.
    """
    machine.reload_ledger()
    machine.memo.clear()
    desired = subject.parse(params)
    draft = subject.decide(desired, subject.look(machine, desired))
    changes = [
        change
        for change in draft.changes
        if change.scope == "runtime" and change.place.kind in _KINDS and change.key not in left_alone
    ]
    outcome = Outcome(left=list(draft.refusals))
    if changes:
        draft.key_by_key = True
        done = apply(machine, owner_of(subject, params), changes, draft, again=True)
        outcome.done = done.changes
        for skip in done.skipped:
            known = machine.ledger.refusal(skip["key"]) is not None
            (outcome.skipped if known else outcome.left).append(f"{skip['key']}: {skip['reason']}")
    return outcome
