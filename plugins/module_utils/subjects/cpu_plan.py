# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One decision of cpu_governor in the making: what its parts (SMT, boost, frequencies, idle) share."""

from __future__ import annotations

from typing import Any

from ..engine.change import Draft, Place
from ..values import cpu_list
from .cpu_look import Policy, Snapshot
from .cpu_wishes import Desired


class Plan:
    """The draft, the online CPUs that it leads to and the keys of earlier calls that it takes back.

    Reasons that hold for many policies or CPUs are said once.
    """

    def __init__(self, desired: Desired, snapshot: Snapshot) -> None:
        self.desired, self.snapshot = desired, snapshot
        self.draft = Draft()
        self.reasons: dict[tuple[str, str, str], list[int]] = {}
        self.smt_after = desired.smt or self.returns("cpu:smt") or snapshot.smt
        self.online: tuple[int, ...] = ()
        self.smt_becomes(self.smt_after)

    def smt_becomes(self, smt: str | None) -> None:
        self.smt_after = smt
        self.online = self.snapshot.online_after(smt)
        self.draft.report["planned_online_cpus"] = cpu_list(self.online)

    def cannot(self, knob: str, key: str, reason: str) -> None:
        if knob in self.desired.optional:
            self.draft.optional |= {key}
        self.draft.cannot(key, reason)

    def cannot_on(self, knob: str, kind: str, number: int, attribute: str, reason: str) -> None:
        """A reason that may hold for many policies or CPUs: gathered here, said once by finish()."""
        self.reasons.setdefault((knob, f"{kind}%s/{attribute}", reason), []).append(number)

    def finish(self) -> None:
        for (knob, pattern, reason), numbers in self.reasons.items():
            self.cannot(knob, pattern % cpu_list(numbers), reason)
        for unit in self.snapshot.writers if self.desired.cpufreq_knobs else ():
            self.draft.warnings.append(
                f"{unit} is active and writes the same frequency settings: one of the two must go; "
                f"stop it with 'systemctl disable --now {unit}', or leave these settings to it"
            )
        for key, owned in self.snapshot.owned.items():
            if owned.live is None:
                self.draft.covered.add(key)  # its CPU is offline; the value comes back with it

    def returns(self, key: str) -> Any:
        """The original of a key that an earlier call set or moved along; None: nothing to take back."""
        owned = self.snapshot.owned.get(key)
        return owned.original if owned is not None and owned.ours else None

    def chosen(self, policy: Policy) -> bool:
        return self.desired.policies is None or bool(set(policy.cpus) & set(self.desired.policies))

    def leaves(self, policy: Policy) -> bool:
        """Whether the last CPU of a policy goes offline with SMT."""
        return not set(policy.cpus) & set(self.online)

    def put(self, place: Place, before: str, after: str, release: bool, **more: Any) -> None:
        if release:
            more.setdefault("reason", "no longer wanted: back to the value before us")
            # What moves back along is no new original; what we know of it is.
            more["touches"] = tuple(item for item in more.get("touches", ()) if item.key in self.snapshot.owned)
        self.draft.want(place.key, place.kind, place.address, before, after, release=release, **more)
