# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SMT, and what earlier calls set on the CPUs that leave with it."""

from __future__ import annotations

from ..engine.change import READ_ONLY, Place
from ..values import cpu_list
from .cpu_boost import Boost
from .cpu_look import BOOST, SMT_CONTROL, taken_away_with
from .cpu_plan import Plan

KEY = "cpu:smt"


def smt_switches(plan: Plan) -> bool:
    """Whether this call writes the switch. Where it wants to and cannot, the CPUs stay as they are."""
    live, wanted = plan.snapshot.smt, plan.desired.smt
    releasing = wanted is None and plan.returns(KEY) is not None
    obstacle = ""
    if live == "forceoff" and plan.smt_after != "forceoff":
        obstacle = "SMT is forced off, which only a reboot ends"
    elif live in (None, "notsupported", "notimplemented"):
        obstacle = f"SMT control is {live or 'missing'} here (one thread per core, or a virtual machine)"
    elif SMT_CONTROL in plan.snapshot.read_only:
        obstacle = READ_ONLY
    if wanted is None and not releasing:
        return False
    if not obstacle:
        return True
    plan.smt_becomes(live)
    if releasing and live == "forceoff":
        plan.draft.covered.add(KEY)
        plan.draft.reboot_reasons.append(f"{KEY}: {obstacle}")
    else:
        plan.cannot("smt", KEY, obstacle)
    return False


def switch_smt(plan: Plan, boost: Boost) -> None:
    live = str(plan.snapshot.smt)
    _leave(plan, boost)
    _warn(plan, live)
    risk = "CPUs go offline" if set(plan.snapshot.online) - set(plan.online) else ""
    plan.put(Place(KEY, "text", SMT_CONTROL), live, str(plan.smt_after), release=plan.desired.smt is None, risk=risk)


def _warn(plan: Plan, live: str) -> None:
    gone = sorted(set(plan.snapshot.online) - set(plan.online))
    if gone:
        plan.draft.warnings.append(
            f"CPUs {cpu_list(gone)} go offline with SMT: interrupt masks and cpusets that name only them are moved "
            "by the kernel and do not return by themselves; restart the services that were pinned there"
        )
    if plan.smt_after == "forceoff" != live:
        plan.draft.warnings.append(f"{KEY}: forceoff cannot be taken back before a reboot; 'off' can")


def _leave(plan: Plan, boost: Boost) -> None:
    """What we set on CPUs that go offline goes back while they are still there."""
    gone = {cpu for cpu in plan.snapshot.online if cpu not in plan.online}
    policies = {int(policy.name[6:]) for policy in plan.snapshot.policies if plan.leaves(policy)}
    switched_off = boost.off_now and boost.off_after
    for key, owned in plan.snapshot.owned.items():
        kind, number = taken_away_with(owned.place)
        if not owned.ours or number not in {"cpu": gone, "policy": policies}.get(kind, ()):
            continue
        if switched_off and key.endswith(f"/{BOOST}"):
            # Not to be written now; with its CPU it comes back as the switch for all CPUs is then.
            plan.draft.gone.add(key)
        else:
            reason = "its CPU goes offline: back to the value before us"
            plan.put(owned.place, owned.live, owned.original, True, presence="leaves", reason=reason)
