# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each frequency policy gets: its boost switch, governor, energy preference (EPP) and limits."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from ..engine.change import Place
from ..values import cpu_list
from .cpu_boost import Boost
from .cpu_look import BOOST, CPU, EPP, GOVERNOR, MAX, MIN, Policy
from .cpu_plan import Plan

# Drivers that choose the frequency themselves: governor performance holds EPP at its strongest.
_ACTIVE_DRIVERS = ("intel_pstate", "amd-pstate-epp")
_NO_CPUFREQ = "no cpufreq here (a virtual machine gives the choice to its host)"
_KNOB = {GOVERNOR: "governor", EPP: "epp", BOOST: "boost", MIN: "min_mhz", MAX: "max_mhz"}


def decide_frequencies(plan: Plan, boost: Boost) -> None:
    desired, snapshot = plan.desired, plan.snapshot
    if desired.cpufreq_knobs and not snapshot.policies:
        for knob in desired.cpufreq_knobs:
            plan.cannot(knob, f"cpufreq:{knob}", _NO_CPUFREQ)
        return
    if desired.policies is not None:
        _check_selection(plan, desired.policies)
    for policy in [*snapshot.policies, *_appearing(plan, boost)]:
        if policy.appears or not plan.leaves(policy):
            _OnePolicy(plan, boost, policy).decide()


def _check_selection(plan: Plan, chosen: tuple[int, ...]) -> None:
    gone = sorted(set(chosen) - set(plan.online))
    if gone:
        plan.draft.refusals.append(
            f"policies: CPU {cpu_list(gone)} is not online in the planned state (online: {cpu_list(plan.online)})"
        )
    for policy in plan.snapshot.policies:
        others = set(policy.cpus) & set(plan.online) - set(chosen)
        if others and set(policy.cpus) & set(chosen) and plan.desired.cpufreq_knobs:
            plan.draft.warnings.append(
                f"{policy.name} also clocks CPU {cpu_list(others)}, which policies does not name"
            )


def _appearing(plan: Plan, boost: Boost) -> list[Policy]:
    """Policies of CPUs that come online with SMT. Until then the kernel shows no value of theirs: they are
    taken to be like the first policy, and the ledger gets the true value before the first write."""
    known = {cpu for policy in plan.snapshot.policies for cpu in policy.cpus}
    coming = sorted(set(plan.online) - set(plan.snapshot.online) - known)
    if not coming or not plan.snapshot.policies:
        return []
    model = plan.snapshot.policies[0]
    files = {name: str(plan.returns(f"cpufreq:{model.name}/{name}") or text) for name, text in model.files.items()}
    if boost.off_now and BOOST in files:
        files[BOOST] = "0"  # a CPU comes with the switch for all CPUs
    if boost.off_now and boost.off_after:
        files[MAX] = str(min(int(files[MAX]), boost.ceiling(model)))
    return [replace(model, name=f"policy{cpu}", cpus=(cpu,), files=files, appears=True) for cpu in coming]


class _OnePolicy:
    """The values that one policy gets, in `wanted`, and the order in which the kernel takes them."""

    def __init__(self, plan: Plan, boost: Boost, policy: Policy) -> None:
        self.plan, self.boost, self.policy = plan, boost, policy
        self.wanted: dict[str, str] = {}

    def decide(self) -> None:
        desired, policy, wanted = self.plan.desired, self.policy, self.wanted
        chosen = self.plan.chosen(policy)
        if chosen:
            if desired.governor is not None and self._offers(desired.governor):
                wanted[GOVERNOR] = desired.governor
            if self.boost.own(policy):
                self._want_boost(bool(desired.boost))
            self._want_limits()
        governor = self._after(GOVERNOR) or policy.files[GOVERNOR]
        forced = governor == "performance" and policy.driver in _ACTIVE_DRIVERS
        if chosen and desired.epp is not None:
            self._want_epp(desired.epp, forced)
        # Going to governor performance the preference goes first: the kernel forces it anyway, and this
        # way it is in the plan and, going back in reverse, it returns after the governor.
        order = [EPP, GOVERNOR] if forced else [GOVERNOR, EPP]
        if forced and EPP in policy.files and EPP not in wanted:
            if GOVERNOR in wanted:
                wanted[EPP] = "performance"
            elif self._back(EPP) not in (None, "performance"):
                # Someone else chose governor performance: the kernel would answer EBUSY.
                self.plan.draft.covered.add(self._key(EPP))
                order = [GOVERNOR]
        limits = [MAX, MIN] if int(self._after(MAX) or 0) >= policy.khz(MAX) else [MIN, MAX]
        # With boost the limits have their whole range: they move before it goes and after it comes.
        order = [*limits, BOOST, *order] if self.boost.goes_off(policy) else [BOOST, *order, *limits]
        for attribute in order:
            self._put(attribute, forced)

    # -- what is wanted ------------------------------------------------------------------------------

    def _cannot(self, attribute: str, reason: str) -> None:
        number = int(self.policy.name[6:])
        self.plan.cannot_on(_KNOB[attribute], "cpufreq:policy", number, attribute, reason)

    def _offers(self, governor: str) -> bool:
        policy = self.policy
        offered = policy.files.get("scaling_available_governors", "").split()
        if governor in offered:
            return True
        hint = ""
        if policy.driver not in _ACTIVE_DRIVERS and governor in ("ondemand", "conservative", "powersave", "userspace"):
            hint = f"; it may be a module: modprobe cpufreq_{governor}"
        listed = ", ".join(offered) or "(none)"
        self._cannot(GOVERNOR, f"governor {governor!r} is not offered by {policy.driver}: {listed}{hint}")
        return False

    def _want_boost(self, on: bool) -> None:
        switch = self.plan.snapshot.boost
        if BOOST not in self.policy.files:
            reason = f"{self.policy.driver} offers no boost switch"
            if switch is not None:
                reason += f" per policy, only one for all CPUs ({switch[0]}); use policies: all"
            self._cannot(BOOST, reason)
        elif on and self.boost.off_after:
            self._cannot(BOOST, f"the switch for all CPUs is off ({self.boost.place.address}); use policies: all")
        else:
            self.wanted[BOOST] = str(int(on))

    def _want_epp(self, epp: str, forced: bool) -> None:
        policy = self.policy
        offered = policy.files.get("energy_performance_available_preferences", "").split()
        reason = self.plan.snapshot.refused.get(self._key(EPP))
        if EPP not in policy.files:
            reason = f"driver {policy.driver} has no {EPP}; it comes with intel_pstate (HWP) and amd-pstate-epp"
        elif forced and epp != "performance":
            reason = (
                f"{epp!r} with governor performance is refused by the kernel (EBUSY: {policy.driver} holds EPP at "
                "performance); use governor powersave with this EPP, or leave epp out"
            )
        elif not epp.isdigit() and offered and epp not in offered:
            reason = f"{epp!r} is not one of {', '.join(offered)}"
        elif self.plan.snapshot.dynamic_epp and epp != policy.files[EPP]:
            reason = f"amd-pstate sets it itself: {CPU}/amd_pstate/dynamic_epp is enabled"
        if reason:
            self._cannot(EPP, reason)
        else:
            self.wanted[EPP] = epp

    def _want_limits(self) -> None:
        policy, wanted = self.policy, self.wanted
        low, high = policy.khz("cpuinfo_min_freq"), self.boost.ceiling(policy)
        rises = self.boost.goes_on(policy)
        for attribute, limit in ((MIN, self.plan.desired.min_khz), (MAX, self.plan.desired.max_khz)):
            if limit is None:
                continue
            if limit == "hardware":
                # Where boost comes, the kernel moves the hardware limit and the policy's own along with it.
                if not policy.appears and not (attribute == MAX and rises):
                    wanted[attribute] = str(low if attribute == MIN else high)
            elif low <= int(limit) and (int(limit) <= high or rises):
                wanted[attribute] = str(limit)
            else:
                text = f"{_mhz(int(limit))} MHz is outside {_mhz(low)} to {_mhz(high)} MHz of this CPU"
                self._cannot(attribute, text)
        floor, ceiling = (int(self._after(name) or policy.khz(name)) for name in (MIN, MAX))
        if floor > ceiling and {MIN, MAX} & set(wanted):
            reason = f"the minimum {_mhz(floor)} MHz would be above the maximum {_mhz(ceiling)} MHz; set both"
            self._cannot(MIN if MIN in wanted else MAX, reason)
            wanted.pop(MIN, None)
            wanted.pop(MAX, None)

    # -- what is written -----------------------------------------------------------------------------

    def _key(self, attribute: str) -> str:
        return f"cpufreq:{self.policy.name}/{attribute}"

    def _after(self, attribute: str) -> str | None:
        return self.wanted.get(attribute) or self._back(attribute)

    def _back(self, attribute: str) -> str | None:
        """What an attribute that is not wanted goes back to, as far as it goes without boost."""
        policy, boost = self.policy, self.boost
        if policy.appears:
            return None
        if attribute == BOOST:
            return boost.returned(policy)
        original = self.plan.returns(self._key(attribute))
        if attribute == MAX and original is not None and boost.is_off(policy) and boost.will_be_off(policy):
            owned = self.plan.snapshot.owned[self._key(MAX)]
            return str(owned.live if owned.touched_by else min(int(original), boost.ceiling(policy)))
        return None if original is None else str(original)

    def _put(self, attribute: str, forced: bool) -> None:
        policy, boost, key = self.policy, self.boost, self._key(attribute)
        after, live = self._after(attribute), policy.files.get(attribute)
        if attribute == BOOST:
            live = boost.shown(policy)
        elif attribute == MAX and live is not None and boost.goes_on(policy):
            live = boost.uncut(policy)
        if live is None:
            return
        if after is None:
            if self.plan.returns(key) is not None:
                self.plan.draft.covered.add(key)  # the switch for all CPUs is off and holds this one
            return
        if attribute in policy.read_only:
            self._cannot(attribute, "read-only here (a container)")
            return
        wanted, more = attribute in self.wanted, self._details(attribute, forced)
        release = not wanted and after == self.plan.returns(key)
        if attribute == MAX and boost.will_be_off(policy):
            if boost.goes_off(policy) and (not wanted or self.plan.desired.max_khz == "hardware"):
                more["presence"] = "leaves"
            if not wanted:
                release, more["moved_by"] = False, boost.mover(policy)
                more["reason"] = "no longer wanted: back to the value before us, as far as it goes without boost"
            more["partial"] = not wanted or self.plan.desired.max_khz == "hardware"
            more["original"] = boost.uncut(policy)
        place = Place(key, "text", policy.path(attribute))
        self.plan.put(place, live, after, release, **more)

    def _details(self, attribute: str, forced: bool) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.policy.appears:
            gone = "the CPU did not come online with a policy of its own"
            more = {"presence": "appears", "tolerate": {errno.ENOENT: gone, errno.EBUSY: gone}}
        elif attribute == EPP and "epp" in self.plan.desired.optional:
            refusals = {errno.EINVAL: "the driver does not take this number", errno.EBUSY: "the driver holds it"}
            more = {"tolerate": refusals}
        if attribute == EPP and forced and self.plan.desired.epp is None and EPP in self.wanted:
            more["reason"] = "governor performance forces it"
        if attribute == BOOST:
            more["touches"] = (Place(self._key(MAX), "text", self.policy.path(MAX)),)
        return more


def _mhz(khz: int) -> str:
    return f"{khz / 1000:g}"
