# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Boost: the switch for all CPUs, and the state of each policy before and after the call.

What the kernel does at such a switch (drivers/cpufreq: cpufreq.c, intel_pstate.c, amd-pstate.c): the
switch of each policy follows the one for all, and cannot be written while that one is off (EINVAL).
The upper limit of a policy shows what was asked for, cut to what the CPU does without boost
(acpi-cpufreq: uncut). So a limit or a switch that goes back to a value above that waits for boost:
until then it is where boost leaves it.
"""

from __future__ import annotations

from ..engine.change import READ_ONLY, Place
from .cpu_look import BOOST, GLOBAL_BOOST, MAX, NO_TURBO, Policy
from .cpu_plan import Plan

KEY = "cpufreq:boost"


class Boost:
    """Where boost is now and where it goes, for all CPUs and for each policy."""

    def __init__(self, plan: Plan) -> None:
        self.plan, desired, switch = plan, plan.desired, plan.snapshot.boost
        # One switch for all CPUs where there is one and all policies are meant, else one per policy.
        self.per_policy = desired.policies is not None or switch is None
        wanted = None if self.per_policy else desired.boost
        path, self.live = switch or ("", "")
        self.inverse = path == NO_TURBO
        back = plan.returns(KEY) if wanted is None else None
        self.release = back is not None
        self.target = str(int(wanted != self.inverse)) if wanted is not None else str(back or self.live)
        self.place = Place(KEY, "text", path)
        self.speaks = wanted is not None or self.release
        self.locked = self.speaks and path in plan.snapshot.read_only
        if self.locked:
            self.target = self.live
        self.moves = self.target != self.live
        self.off_now, self.off_after = self._is_off(self.live), self._is_off(self.target)

    def _is_off(self, text: str) -> bool:
        return text == ("1" if self.inverse else "0")

    def switch(self) -> None:
        """The change of the switch for all CPUs. Before what needs boost, after what needs to be rid of it."""
        if self.locked:
            self.plan.cannot("boost", KEY, READ_ONLY)
        elif self.speaks:
            touches = tuple(
                Place(f"cpufreq:{policy.name}/{attribute}", "text", policy.path(attribute))
                for policy in self.plan.snapshot.policies
                for attribute in ((MAX, BOOST) if self.place.address == GLOBAL_BOOST else (MAX,))
                if attribute in policy.files and not self.plan.leaves(policy)
            )
            self.plan.put(self.place, self.live, self.target, self.release, touches=touches)

    # -- one policy ----------------------------------------------------------------------------------

    def own(self, policy: Policy) -> bool:
        """Whether this call sets the switch of this policy."""
        return self.per_policy and self.plan.desired.boost is not None and self.plan.chosen(policy)

    def shown(self, policy: Policy) -> str | None:
        """What the switch of a policy shows once the one for all CPUs is where it goes."""
        live = policy.files.get(BOOST)
        return live if live is None or not self.moves else str(int(not self.off_after))

    def returned(self, policy: Policy) -> str | None:
        """The original of a policy's switch; None where the one for all CPUs holds it, or nothing is ours."""
        return None if self.off_after else self.plan.returns(f"cpufreq:{policy.name}/{BOOST}")

    def is_off(self, policy: Policy) -> bool:
        return policy.files[BOOST] == "0" if BOOST in policy.files else self.off_now

    def will_be_off(self, policy: Policy) -> bool:
        if BOOST not in policy.files or self.off_after:
            return self.off_after
        if self.own(policy):
            return not self.plan.desired.boost
        return (self.returned(policy) or self.shown(policy)) == "0"

    def goes_off(self, policy: Policy) -> bool:
        return self.will_be_off(policy) and not self.is_off(policy)

    def goes_on(self, policy: Policy) -> bool:
        return self.is_off(policy) and not self.will_be_off(policy)

    def mover(self, policy: Policy) -> str:
        """The key of the switch that moves the limit of a policy along."""
        return KEY if self.off_after or BOOST not in policy.files else f"cpufreq:{policy.name}/{BOOST}"

    def ceiling(self, policy: Policy) -> int:
        """The highest limit in kHz that holds as boost is now.

        Until Linux 6.10 intel_pstate kept cpuinfo_max_freq at the turbo frequency; what is above
        base_frequency is turbo (intel_pstate.rst).
        """
        high, base = policy.khz("cpuinfo_max_freq"), policy.khz("base_frequency")
        return min(high, base) if base and self.is_off(policy) else high

    def uncut(self, policy: Policy) -> str:
        """The upper limit of a policy without what our switch for all CPUs, or its own, takes off it.

        A CPU that came online while boost was off has never shown it: it is taken to be like the others.
        """
        live, owned = policy.files[MAX], self.plan.snapshot.owned
        known = owned.get(f"cpufreq:{policy.name}/{MAX}")
        if known is not None:
            return str(known.original) if known.ours and known.touched_by else live
        for_all, own = self.plan.returns(KEY), self.plan.returns(f"cpufreq:{policy.name}/{BOOST}")
        ours = own == "1" or (for_all is not None and not self._is_off(str(for_all)))
        if not ours or policy.khz(MAX) < self.ceiling(policy):
            return live
        alike = (item for item in self.plan.snapshot.policies if self.ceiling(item) == self.ceiling(policy))
        originals = (self.plan.returns(f"cpufreq:{item.name}/{MAX}") for item in alike)
        return str(max((int(value) for value in originals if value is not None), default=int(live)))
