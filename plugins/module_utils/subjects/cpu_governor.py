# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPU frequency policies, boost, idle states and SMT: one call, in the order in which the kernel accepts it.

    what leaves with its CPU goes back -> SMT -> boost -> per policy governor, EPP, limits -> idle

What an earlier call of the same owner set and this one does not name goes back within the same
order, because the kernel's rules (governor before EPP, minimum below maximum) hold for it as well.
Sources: Documentation/admin-guide/pm/{cpufreq,intel_pstate,amd-pstate,cpuidle}.rst and the kernel's
Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Union

from ..engine.change import READ_ONLY, Draft, Place
from ..engine.machine import Machine
from ..errors import InputError
from ..values import choice, cpu_list, cpus, integer
from .cpu_look import (
    BOOST,
    CPU,
    EPP,
    GLOBAL_BOOST,
    GOVERNOR,
    MAX,
    MIN,
    NO_TURBO,
    SMT_CONTROL,
    Idle,
    Policy,
    Snapshot,
    look_cpus,
    taken_away_with,
)

NAME = "cpu_governor"

KNOBS = ("governor", "epp", "boost", "min_mhz", "max_mhz", "idle_latency_us", "smt")
# The kernel prints these four numbers as words, so they are the words.
_EPP_WORDS = {"0": "performance", "128": "balance_performance", "192": "balance_power", "255": "power"}
# Drivers that choose the frequency themselves: governor performance holds EPP at its strongest.
_ACTIVE_DRIVERS = ("intel_pstate", "amd-pstate-epp")
_NO_CPUFREQ = "no cpufreq here (a virtual machine gives the choice to its host)"
_NO_IDLE = "no cpuidle states here (a virtual machine gives the choice to its host, or the firmware hides them)"
_POLLING = "only the polling state would be left: heat, and less boost for the other cores"

Limit = Union[int, str, None]  # kHz, or "hardware" for the limit of the policy itself


@dataclass(frozen=True)
class Desired:
    owner: str
    governor: str | None
    epp: str | None
    boost: bool | None
    min_khz: Limit
    max_khz: Limit
    policies: tuple[int, ...] | None
    idle_latency_us: int | None
    idle_mechanism: str
    smt: str | None
    accept_polling: bool
    optional: frozenset[str]

    @property
    def cpufreq_knobs(self) -> list[str]:
        values = (self.governor, self.epp, self.boost, self.min_khz, self.max_khz)
        return [knob for knob, value in zip(KNOBS, values) if value is not None]


def parse(params: Mapping[str, Any]) -> Desired:
    optional = frozenset(params.get("optional") or ())
    for name in sorted(optional):
        choice("optional", name, KNOBS)
    chosen = params.get("policies", "all")
    low, high = _limit("min_mhz", params.get("min_mhz")), _limit("max_mhz", params.get("max_mhz"))
    if isinstance(low, int) and isinstance(high, int) and low > high:
        raise InputError(f"min_mhz: {params['min_mhz']} is above max_mhz {params['max_mhz']}; lower it")
    bound = params.get("idle_latency_us")
    smt = params.get("smt")
    boost = params.get("boost")
    if boost is not None and not isinstance(boost, bool):
        raise InputError(f"boost: {boost!r} is not true or false")
    policies = None if chosen in (None, "all") else cpus("policies", chosen)
    if policies == ():
        raise InputError("policies: the list is empty; write 'all' or CPU numbers like '0-3,8'")
    return Desired(
        owner=f"{params.get('owner') or 'default'}/{NAME}",
        governor=_word("governor", params.get("governor")),
        epp=_epp(params.get("epp")),
        boost=boost,
        min_khz=low,
        max_khz=high,
        policies=policies,
        idle_latency_us=None if bound is None else integer("idle_latency_us", bound, 0, 2**31 - 1, "microseconds"),
        idle_mechanism=choice("idle_mechanism", params.get("idle_mechanism") or "pm_qos", ("pm_qos", "disable")),
        smt=None if smt is None else choice("smt", _on_off(smt), ("on", "off", "forceoff")),
        accept_polling=bool(params.get("accept_polling")),
        optional=optional,
    )


def _on_off(value: Any) -> Any:
    """YAML reads an unquoted `on` as true."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _word(parameter: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.replace("_", "").replace("-", "").isalnum():
        raise InputError(f"{parameter}: {value!r} is not a name; write one like 'performance'")
    return value


def _epp(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) or str(value).strip().lstrip("-").isdigit():
        text = str(integer("epp", value, 0, 255))
        return _EPP_WORDS.get(text, text)
    if value == "default":
        raise InputError(
            "epp: 'default' reads back as another word; write that word, or leave epp out: the value before us returns"
        )
    return choice("epp", value, [*_EPP_WORDS.values(), "0 to 255"])


def _limit(parameter: str, value: Any) -> Limit:
    if value is None:
        return None
    if value == "hardware":
        return "hardware"
    try:
        mhz = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        mhz = float("nan")
    if not 1 <= mhz <= 100_000:
        raise InputError(f"{parameter}: {value!r} is not a clock from 1 to 100000 MHz, and not 'hardware'")
    return round(mhz * 1000)


def look(machine: Machine, desired: Desired) -> Snapshot:
    return look_cpus(machine, desired.owner, desired.idle_latency_us is not None)


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    plan = _Plan(desired, snapshot)
    plan.smt()
    plan.boost()
    plan.frequencies()
    plan.idle()
    plan.finish()
    return plan.draft


class _Plan:
    """One decision in the making. Reasons that hold for many policies or CPUs are said once."""

    def __init__(self, desired: Desired, snapshot: Snapshot) -> None:
        self.desired, self.snapshot = desired, snapshot
        self.draft = Draft()
        self.reasons: dict[tuple[str, str, str], list[int]] = {}
        # One switch for all CPUs where there is one and all policies are meant, else one per policy.
        self.per_policy = desired.policies is not None or snapshot.boost is None
        self.global_boost = None if self.per_policy else desired.boost
        self.boost_moves_to: str | None = None
        self.freed: set[str] = set()
        self.chosen_policies = [policy for policy in snapshot.policies if self._chosen(policy)]
        self.smt_after = self._smt_after()
        self.online = snapshot.online_after(self.smt_after)
        self.draft.report["planned_online_cpus"] = cpu_list(self.online)

    # -- words ---------------------------------------------------------------------------------------

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

    # -- values --------------------------------------------------------------------------------------

    def returns(self, key: str) -> Any:
        """The original of a key that an earlier call set and this one lets go; None: nothing to take back."""
        owned = self.snapshot.owned.get(key)
        if owned is None or not owned.ours or (owned.touched_by and self._still_moved(owned.place)):
            return None
        return owned.original

    def _still_moved(self, place: Place) -> bool:
        """Whether a boost switch that moves this value along stays where we put it."""
        if self.desired.boost is None or not self.per_policy:
            return self.desired.boost is not None
        return any(place.key.startswith(f"cpufreq:{policy.name}/") for policy in self.chosen_policies)

    def _chosen(self, policy: Policy) -> bool:
        return self.desired.policies is None or bool(set(policy.cpus) & set(self.desired.policies))

    def put(self, place: Place, before: str, after: str, release: bool, **more: Any) -> None:
        if release:
            more.setdefault("reason", "no longer wanted: back to the value before us")
            # What moves back along is no new original; what we know of it is.
            more["touches"] = tuple(item for item in more.get("touches", ()) if item.key in self.snapshot.owned)
        self.draft.want(place.key, place.kind, place.address, before, after, release=release, **more)

    # -- SMT -----------------------------------------------------------------------------------------

    def _smt_after(self) -> str | None:
        return self.desired.smt or self.returns("cpu:smt") or self.snapshot.smt

    def smt(self) -> None:
        live, wanted, key = self.snapshot.smt, self.desired.smt, "cpu:smt"
        releasing = wanted is None and self.returns(key) is not None
        if wanted is None and not releasing:
            return
        if live == "forceoff" and self.smt_after != "forceoff":
            reason = "SMT is forced off, which only a reboot ends"
            if wanted:
                self.cannot("smt", key, reason)
            else:
                self.draft.covered.add(key)
                self.draft.reboot_reasons.append(f"{key}: {reason}")
            self.smt_after, self.online = live, self.snapshot.online
        elif live in (None, "notsupported", "notimplemented"):
            self.cannot(
                "smt", key, f"SMT control is {live or 'missing'} here (one thread per core, or a virtual machine)"
            )
            self.smt_after, self.online = live, self.snapshot.online
        elif SMT_CONTROL in self.snapshot.read_only:
            self.cannot("smt", key, READ_ONLY)
            self.smt_after, self.online = live, self.snapshot.online
        else:
            self._leave()
            self._warn_smt(str(live))
            self.put(Place(key, "text", SMT_CONTROL), str(live), str(self.smt_after), releasing)
        self.draft.report["planned_online_cpus"] = cpu_list(self.online)

    def _warn_smt(self, live: str) -> None:
        gone = sorted(set(self.snapshot.online) - set(self.online))
        if gone:
            self.draft.warnings.append(
                f"CPUs {cpu_list(gone)} go offline with SMT: interrupt masks and cpusets that name only them are moved "
                "by the kernel and do not return by themselves; restart the services that were pinned there"
            )
        if self.smt_after == "forceoff" != live:
            self.draft.warnings.append("cpu:smt: forceoff cannot be taken back before a reboot; 'off' can")

    def _leave(self) -> None:
        """What we set on CPUs that go offline goes back while they are still there."""
        gone = {cpu for cpu in self.snapshot.online if cpu not in self.online}
        policies = {int(policy.name[6:]) for policy in self.snapshot.policies if self._leaves(policy)}
        for owned in self.snapshot.owned.values():
            kind, number = taken_away_with(owned.place)
            if owned.ours and number in {"cpu": gone, "policy": policies}.get(kind, ()):
                self.put(
                    owned.place,
                    owned.live,
                    owned.original,
                    True,
                    presence="leaves",
                    reason="its CPU goes offline: back to the value before us",
                )

    def _leaves(self, policy: Policy) -> bool:
        return not set(policy.cpus) & set(self.online)

    # -- boost ---------------------------------------------------------------------------------------

    def boost(self) -> None:
        """The switch for all CPUs; the one of each policy is part of frequencies()."""
        wanted, switch = self.global_boost, self.snapshot.boost
        if switch is None:
            return
        path, live = switch
        place = Place("cpufreq:boost", "text", path)
        after = None if wanted is None else str(int(wanted != (path == NO_TURBO)))
        back = self.returns(place.key) if wanted is None else None
        if after is None and back is None:
            return
        if path in self.snapshot.read_only:
            self.cannot("boost", place.key, READ_ONLY)
            return
        # The kernel moves the upper limit, and the switch of each policy, along with this one.
        touches = tuple(
            Place(f"cpufreq:{policy.name}/{attribute}", "text", policy.path(attribute))
            for policy in self.snapshot.policies
            for attribute in ((MAX, BOOST) if path == GLOBAL_BOOST else (MAX,))
            if attribute in policy.files and not self._leaves(policy)
        )
        target = after or str(back)
        if target != live and target == ("1" if path == NO_TURBO else "0"):
            for policy in self.snapshot.policies:
                if self.desired.max_khz is None and not self._leaves(policy):
                    self._free_limit(policy)
        self.put(place, live, target, after is None, touches=touches)
        if target != live:
            self.boost_moves_to = target

    # -- frequency policies --------------------------------------------------------------------------

    def frequencies(self) -> None:
        desired, snapshot = self.desired, self.snapshot
        if desired.cpufreq_knobs and not snapshot.policies:
            for knob in desired.cpufreq_knobs:
                self.cannot(knob, f"cpufreq:{knob}", _NO_CPUFREQ)
            return
        if desired.policies is not None:
            self._check_selection(desired.policies)
        for policy in [*snapshot.policies, *self._appearing()]:
            if policy.appears or not self._leaves(policy):
                self._frequency(policy)

    def _check_selection(self, chosen: tuple[int, ...]) -> None:
        gone = sorted(set(chosen) - set(self.online))
        if gone:
            self.draft.refusals.append(
                f"policies: CPU {cpu_list(gone)} is not online in the planned state (online: {cpu_list(self.online)})"
            )
        for policy in self.snapshot.policies:
            others = set(policy.cpus) & set(self.online) - set(chosen)
            if others and set(policy.cpus) & set(chosen) and self.desired.cpufreq_knobs:
                self.draft.warnings.append(
                    f"{policy.name} also clocks CPU {cpu_list(others)}, which policies does not name"
                )

    def _appearing(self) -> list[Policy]:
        """Policies of CPUs that come online with SMT. Until then the kernel shows no value of theirs: they are
        taken to be like the first policy, and the ledger gets the true value before the first write."""
        known = {cpu for policy in self.snapshot.policies for cpu in policy.cpus}
        coming = sorted(set(self.online) - set(self.snapshot.online) - known)
        if not coming or not self.snapshot.policies:
            return []
        model = self.snapshot.policies[0]
        files = {
            name: str(owned.original) if owned and owned.ours else text
            for name, text in model.files.items()
            for owned in [self.snapshot.owned.get(f"cpufreq:{model.name}/{name}")]
        }
        return [replace(model, name=f"policy{cpu}", cpus=(cpu,), files=files, appears=True) for cpu in coming]

    def _frequency(self, policy: Policy) -> None:
        desired, chosen = self.desired, self._chosen(policy)
        if self.boost_moves_to is not None and BOOST in policy.files:
            policy = replace(policy, files={**policy.files, BOOST: self.boost_moves_to})
        wanted: dict[str, str] = {}
        if chosen:
            if desired.governor is not None and self._offers(policy, desired.governor):
                wanted[GOVERNOR] = desired.governor
            if desired.boost is not None and self.per_policy:
                self._want_boost(policy, wanted)
            self._want_limits(policy, wanted)
        governor = wanted.get(GOVERNOR) or self._back(policy, GOVERNOR) or policy.files[GOVERNOR]
        forced = governor == "performance" and policy.driver in _ACTIVE_DRIVERS
        if chosen and desired.epp is not None:
            self._want_epp(policy, forced, wanted)
        if forced and EPP in policy.files and EPP not in wanted:
            if GOVERNOR in wanted:
                wanted[EPP] = "performance"
            elif self._back(policy, EPP) not in (None, "performance"):
                # Someone else chose governor performance: the kernel would answer EBUSY.
                self.draft.covered.add(f"cpufreq:{policy.name}/{EPP}")
                return
        # Going to governor performance the preference goes first: the kernel forces it anyway, and this
        # way it is in the plan and, going back in reverse, it returns after the governor.
        order = [EPP, GOVERNOR] if forced else [GOVERNOR, EPP]
        ceiling = self._after(policy, MAX, wanted)
        limits = [MAX, MIN] if int(ceiling or 0) >= policy.khz(MAX) else [MIN, MAX]
        for attribute in [BOOST, *order, *limits]:
            self._put_attribute(policy, attribute, wanted, forced)

    def _put_attribute(self, policy: Policy, attribute: str, wanted: Mapping[str, str], forced: bool) -> None:
        place = Place(f"cpufreq:{policy.name}/{attribute}", "text", policy.path(attribute))
        after, live = self._after(policy, attribute, wanted), policy.files.get(attribute)
        if after is None or live is None:
            return
        knob = {GOVERNOR: "governor", EPP: "epp", BOOST: "boost", MIN: "min_mhz", MAX: "max_mhz"}[attribute]
        if attribute in policy.read_only:
            self.cannot_on(knob, "cpufreq:policy", int(policy.name[6:]), attribute, "read-only here (a container)")
            return
        more: dict[str, Any] = {}
        if policy.appears:
            gone = "the CPU did not come online with a policy of its own"
            more = {"presence": "appears", "tolerate": {errno.ENOENT: gone, errno.EBUSY: gone}}
        elif attribute == EPP and knob in self.desired.optional:
            more["tolerate"] = {
                errno.EINVAL: "the driver does not take this number",
                errno.EBUSY: "the driver holds it",
            }
        if attribute == EPP and forced and self.desired.epp is None and attribute in wanted:
            more["reason"] = "governor performance forces it"
        if attribute == BOOST:
            if after == "0" != live and MAX not in wanted:
                self._free_limit(policy)
            more["touches"] = (Place(f"cpufreq:{policy.name}/{MAX}", "text", policy.path(MAX)),)
        returned = attribute not in wanted and after == self.returns(place.key)
        self.put(place, live, after, returned, **more)

    def _free_limit(self, policy: Policy) -> None:
        """A maximum of ours that is let go while boost goes off: it can return only before boost goes, which
        then moves it to what the CPU does without boost."""
        key = f"cpufreq:{policy.name}/{MAX}"
        original = self.returns(key)
        if original is not None and policy.name not in self.freed:
            self.freed.add(policy.name)
            reason = "no longer wanted: back to the value before us, which boost then moves along"
            place = Place(key, "text", policy.path(MAX))
            self.put(place, policy.files[MAX], str(original), False, presence="leaves", reason=reason)

    def _back(self, policy: Policy, attribute: str) -> str | None:
        found = None if policy.appears else self.returns(f"cpufreq:{policy.name}/{attribute}")
        if found is None or (attribute == MAX and policy.name in self.freed):
            return None
        if attribute == MAX and self.boost_moves_to is None:
            return str(min(int(found), max(policy.khz("cpuinfo_max_freq"), policy.khz(MAX))))
        return str(found)

    def _after(self, policy: Policy, attribute: str, wanted: Mapping[str, str]) -> str | None:
        return wanted.get(attribute) or self._back(policy, attribute)

    def _offers(self, policy: Policy, governor: str) -> bool:
        offered = policy.files.get("scaling_available_governors", "").split()
        if governor in offered:
            return True
        hint = ""
        if policy.driver not in _ACTIVE_DRIVERS and governor in ("ondemand", "conservative", "powersave", "userspace"):
            hint = f"; it may be a module: modprobe cpufreq_{governor}"
        reason = f"governor {governor!r} is not offered by {policy.driver}: {', '.join(offered) or '(none)'}{hint}"
        self.cannot_on("governor", "cpufreq:policy", int(policy.name[6:]), GOVERNOR, reason)
        return False

    def _want_boost(self, policy: Policy, wanted: dict[str, str]) -> None:
        if BOOST in policy.files:
            wanted[BOOST] = str(int(bool(self.desired.boost)))
            return
        reason = f"{policy.driver} offers no boost switch"
        if self.snapshot.boost is not None:
            reason += f" per policy, only one for all CPUs ({self.snapshot.boost[0]}); use policies: all"
        self.cannot_on("boost", "cpufreq:policy", int(policy.name[6:]), BOOST, reason)

    def _want_epp(self, policy: Policy, forced: bool, wanted: dict[str, str]) -> None:
        epp = str(self.desired.epp)
        offered = policy.files.get("energy_performance_available_preferences", "").split()
        reason = self.snapshot.refused.get(f"cpufreq:{policy.name}/{EPP}")
        if EPP not in policy.files:
            reason = f"driver {policy.driver} has no {EPP}; it comes with intel_pstate (HWP) and amd-pstate-epp"
        elif forced and epp != "performance":
            reason = (
                f"{epp!r} with governor performance is refused by the kernel (EBUSY: {policy.driver} holds EPP at "
                "performance); use governor powersave with this EPP, or leave epp out"
            )
        elif not epp.isdigit() and offered and epp not in offered:
            reason = f"{epp!r} is not one of {', '.join(offered)}"
        elif self.snapshot.dynamic_epp and epp != policy.files[EPP]:
            reason = f"amd-pstate sets it itself: {CPU}/amd_pstate/dynamic_epp is enabled"
        if reason:
            self.cannot_on("epp", "cpufreq:policy", int(policy.name[6:]), EPP, reason)
        else:
            wanted[EPP] = epp

    def _want_limits(self, policy: Policy, wanted: dict[str, str]) -> None:
        low, high = policy.khz("cpuinfo_min_freq"), policy.khz("cpuinfo_max_freq")
        number = int(policy.name[6:])
        switched = wanted.get(BOOST, policy.files.get(BOOST)) != policy.files.get(BOOST)
        moves = switched or self.boost_moves_to is not None
        for knob, attribute, limit in (("min_mhz", MIN, self.desired.min_khz), ("max_mhz", MAX, self.desired.max_khz)):
            if limit is None:
                continue
            if limit == "hardware":
                # Boost moves the hardware limit, and the kernel moves the policy's own along with it.
                if not policy.appears and not (attribute == MAX and moves):
                    wanted[attribute] = str(low if attribute == MIN else high)
            elif low <= int(limit) <= high or (attribute == MAX and moves):
                wanted[attribute] = str(limit)
            else:
                reason = f"{_mhz(int(limit))} MHz is outside {_mhz(low)} to {_mhz(high)} MHz of this CPU"
                self.cannot_on(knob, "cpufreq:policy", number, attribute, reason)
        floor, ceiling = (int(self._after(policy, name, wanted) or policy.khz(name)) for name in (MIN, MAX))
        if floor > ceiling and {MIN, MAX} & set(wanted):
            knob = "min_mhz" if MIN in wanted else "max_mhz"
            reason = f"the minimum {_mhz(floor)} MHz would be above the maximum {_mhz(ceiling)} MHz; set both"
            self.cannot_on(knob, "cpufreq:policy", number, MIN if MIN in wanted else MAX, reason)
            wanted.pop(MIN, None)
            wanted.pop(MAX, None)

    # -- idle ----------------------------------------------------------------------------------------

    def idle(self) -> None:
        desired, snapshot = self.desired, self.snapshot
        for key, owned in snapshot.owned.items():
            if owned.live is None:
                self.draft.covered.add(key)  # its CPU is offline; the value comes back with it
        if desired.idle_latency_us is None:
            return
        chosen = set(self.online if desired.policies is None else desired.policies) & set(self.online)
        if not any(idle.states for idle in snapshot.idle.values()):
            self.cannot("idle_latency_us", "cpuidle:states", _NO_IDLE)
            return
        model = self._idle_model()
        for cpu in sorted(chosen):
            idle, appears = snapshot.idle.get(cpu, model), cpu not in snapshot.online
            self._idle_cpu(
                cpu, appears, replace(idle, states=model.states) if appears else idle, desired.idle_latency_us
            )

    def _idle_model(self) -> Idle:
        """The idle states of a CPU that comes online with this call: those of the first CPU, without our changes."""
        first = min(self.snapshot.online)
        states = []
        for state in self.snapshot.idle[first].states:
            owned = self.snapshot.owned.get(f"cpuidle:cpu{first}/{state.folder}/disable")
            states.append(replace(state, disable=str(owned.original)) if owned and owned.ours else state)
        return replace(self.snapshot.idle[first], states=tuple(states))

    def _idle_cpu(self, cpu: int, appears: bool, idle: Idle, bound: int) -> None:
        first_sleep = min((state.latency_us for state in idle.states if state.latency_us), default=0)
        if bound < first_sleep and not self.desired.accept_polling:
            reason = (
                f"{bound} us is below the first sleep state ({first_sleep} us): {_POLLING}; accept_polling allows it"
            )
            self.cannot_on("idle_latency_us", "cpu", cpu, "idle", reason)
            return
        more: dict[str, Any] = {}
        if appears:
            gone = "the CPU did not come online with idle states of its own"
            more = {"presence": "appears", "tolerate": {errno.ENOENT: gone}}
        if self.desired.idle_mechanism == "disable":
            for state in idle.states:
                place = Place(
                    f"cpuidle:cpu{cpu}/{state.folder}/disable",
                    "text",
                    f"{CPU}/cpu{cpu}/cpuidle/{state.folder}/disable",
                )
                if state.latency_us > bound and state.writable:
                    self.put(place, state.disable, "1", False, **more)
                elif state.latency_us > bound:
                    self.cannot_on("idle_latency_us", "cpuidle:cpu", cpu, "disable", "read-only here (a container)")
            return
        place = Place(f"pm_qos:cpu{cpu}", "text", f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us")
        if idle.pm_qos is None or not idle.writable:
            self.cannot_on(
                "idle_latency_us",
                "pm_qos:cpu",
                cpu,
                "bound",
                "no writable power/pm_qos_resume_latency_us here (a container)",
            )
        else:
            # "0" is the kernel's word for no bound; a bound of zero is written "n/a".
            self.put(place, idle.pm_qos, str(bound) if bound else "n/a", False)


def _mhz(khz: int) -> str:
    return f"{khz / 1000:g}"
