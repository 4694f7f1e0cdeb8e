# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interrupts placed on CPUs by the device they belong to, as one set.

Sources: Documentation/core-api/irq/irq-affinity.rst (smp_affinity_list, default_smp_affinity), managed_irq.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.change import READ_ONLY, Draft
from ..engine.interrupts import Interrupt, interrupts
from ..engine.machine import Machine
from ..errors import InputError
from ..values import cpu_list, cpu_mask, cpus
from . import irqbalance
from .irq_rules import Cpus, Rule, managed, nearest, obstacle, parse_rule, target

NAME = "irq_affinity"

_DEFAULT = "/proc/irq/default_smp_affinity"
_DEBUG = "/sys/kernel/debug/irq/irqs"
_SURPRISE = "the kernel refused to move it: managed by the kernel, or bound to a CPU by its driver"


@dataclass(frozen=True)
class Desired:
    rules: tuple[Rule, ...]
    default_cpus: tuple[int, ...] | None
    online: tuple[int, ...] | None
    irqbalance: irqbalance.Wanted | None
    optional: frozenset[str]


@dataclass(frozen=True)
class Live:
    """An interrupt that a rule matches. debug: its debugfs file, if readable. refused: why a write failed earlier."""

    interrupt: Interrupt
    cpus: str | None
    effective: str | None
    writable: bool
    debug: str | None
    refused: str | None

    @property
    def key(self) -> str:
        return f"irq:{self.interrupt.identity}"


@dataclass(frozen=True)
class Snapshot:
    """live: interrupts that some rule matches. everything: all there are, for hints."""

    cpus: Cpus
    live: tuple[Live, ...]
    everything: tuple[Interrupt, ...]
    default: tuple[str | None, bool]
    irqbalance: irqbalance.Look


def parse(params: Mapping[str, Any]) -> Desired:
    optional = frozenset(params.get("optional") or ())
    rules = tuple(parse_rule(item, optional) for item in params.get("rules") or ())
    default = None if params.get("default_cpus") is None else cpus("default_cpus", params["default_cpus"])
    online = None if params.get("online_cpus") is None else cpus("online_cpus", params["online_cpus"])
    for name, value in (("default_cpus", default), ("online_cpus", online)):
        if value == ():
            raise InputError(f"{name}: is empty; name at least one CPU, or leave it out")
    return Desired(rules, default, online, irqbalance.parse_irqbalance(params.get("irqbalance")), optional)


def look(machine: Machine, desired: Desired) -> Snapshot:
    host = machine.host
    found = interrupts(machine)
    matched = [item for item in found.values() if any(rule.matches(item) for rule in desired.rules)]
    return Snapshot(
        _look_cpus(machine, desired),
        tuple(_look_one(machine, item) for item in matched),
        tuple(found.values()),
        (host.text(_DEFAULT), host.writable(_DEFAULT)),
        irqbalance.look_irqbalance(machine),
    )


def _look_cpus(machine: Machine, desired: Desired) -> Cpus:
    host = machine.host
    root = "/sys/devices/system/cpu"
    online = frozenset(desired.online or cpus("online", host.text(f"{root}/online") or ""))
    possible = frozenset(cpus("possible", host.text(f"{root}/possible") or "")) or online
    nodes = {}
    for path in host.glob("/sys/devices/system/node/node[0-9]*/cpulist"):
        number = path.split("/")[-2][4:]
        nodes[int(number)] = frozenset(cpus(path, host.text(path) or ""))
    return Cpus(online, possible | online, nodes)


def _look_one(machine: Machine, interrupt: Interrupt) -> Live:
    host = machine.host
    path = f"{interrupt.path}/smp_affinity_list"
    return Live(
        interrupt,
        _list(host.text(path)),
        _list(host.text(f"{interrupt.path}/effective_affinity_list")),
        host.writable(path),
        host.text(f"{_DEBUG}/{interrupt.number}"),
        machine.ledger.refusal(f"irq:{interrupt.identity}"),
    )


def _list(text: str | None) -> str | None:
    return None if text is None else cpu_list(cpus("affinity", text))


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(optional=desired.optional | {_rule_key(rule) for rule in desired.rules if rule.optional})
    usable = [rule for rule in desired.rules if _is_usable(draft, rule, snapshot)]
    if desired.irqbalance:
        irqbalance.want_irqbalance(
            draft, desired.irqbalance, snapshot.irqbalance, snapshot.cpus.online, snapshot.cpus.possible
        )
    placed = _place_all(draft, usable, snapshot)
    drivers = [live.interrupt.device.driver if live.interrupt.device else "" for live in placed]
    irqbalance.check_pins(draft, desired.irqbalance, snapshot.irqbalance, drivers)
    if desired.default_cpus is not None:
        _want_default(draft, desired.default_cpus, snapshot)
    return draft


def report(machine: Machine, desired: Desired) -> dict[str, Any]:
    """The matched interrupts as they are after the writes."""
    found = look(machine, desired)
    return {"interrupts": [_row(live, live.cpus, _note(desired.rules, live, found.cpus)) for live in found.live]}


def _rule_key(rule: Rule) -> str:
    return f"irq_rule:{rule.words}"


def _is_usable(draft: Draft, rule: Rule, snapshot: Snapshot) -> bool:
    """Whether a rule names CPUs and interrupts that are there."""
    reason = obstacle(rule, snapshot.cpus)
    if not reason and not any(rule.matches(live.interrupt) for live in snapshot.live):
        reason = f"no interrupt matches{nearest(rule, snapshot.everything)}"
    if reason:
        draft.cannot(_rule_key(rule), reason)
    return not reason


def _place_all(draft: Draft, rules: list[Rule], snapshot: Snapshot) -> list[Live]:
    """State the CPUs of every matched interrupt; returns those that can be moved."""
    placed: list[Live] = []
    rows: list[dict[str, Any]] = []
    turns: dict[tuple[Rule, tuple[int, ...]], int] = {}
    conflicts: set[tuple[str, str]] = set()
    for live in snapshot.live:
        choices = [
            (rule, *target(rule, live.interrupt, snapshot.cpus)) for rule in rules if rule.matches(live.interrupt)
        ]
        if not choices:
            continue
        rule, chosen, note = choices[0]
        for other, others, _note_of_other in choices[1:]:
            pair = (rule.words, other.words)
            if (others, other.spread) != (chosen, rule.spread) and pair not in conflicts:
                conflicts.add(pair)
                draft.refusals.append(
                    f"rules {rule.words} and {other.words} both match {live.interrupt.identity} and give it "
                    f"{cpu_list(chosen) or 'no CPU'} and {cpu_list(others) or 'no CPU'}; make one of them narrower"
                )
        after = cpu_list(chosen)
        reason = managed(live.interrupt, live.debug)
        if chosen and rule.spread and not reason:
            turn = turns[rule, chosen] = turns.get((rule, chosen), -1) + 1
            after = str(chosen[turn % len(chosen)])
        if _place(draft, live, rule, after, reason):
            placed.append(live)
        else:
            after = live.cpus or ""
        rows.append(_row(live, after, note))
    draft.report = {"interrupts": rows}
    return placed


def _place(draft: Draft, live: Live, rule: Rule, after: str, reason: str) -> bool:
    """State the CPUs of one interrupt; False where it stays as it is."""
    if reason or live.refused:
        draft.skip(live.key, reason or f"{live.refused} (at a write earlier in this boot)")
        return False
    if rule.optional:
        draft.optional |= {live.key}
    if not after:
        draft.cannot(live.key, f"rule {rule.words} leaves no online CPU for it")
    elif live.cpus is None or not live.writable:
        draft.cannot(live.key, READ_ONLY)
    else:
        draft.want(
            live.key,
            "irq",
            live.interrupt.identity,
            live.cpus,
            after,
            tolerate={errno.EIO: _SURPRISE, errno.EPERM: _SURPRISE},
            risk=_risk(live.interrupt),
        )
        return True
    return False


def _risk(interrupt: Interrupt) -> str:
    """What may go wrong when it moves: a network card that is not served any more ends the connection."""
    names = sorted(interrupt.device.interfaces) if interrupt.device else []
    return f"an interrupt of the network interface {', '.join(names)} moves" if names else ""


def _note(rules: Iterable[Rule], live: Live, there: Cpus) -> str:
    return next((target(rule, live.interrupt, there)[1] for rule in rules if rule.matches(live.interrupt)), "")


def _row(live: Live, after: str | None, note: str) -> dict[str, Any]:
    device = live.interrupt.device
    return {
        "key": live.key,
        "irq": live.interrupt.number,
        "names": list(live.interrupt.names),
        "pci": device.address if device else None,
        "node": device.node if device else None,
        "cpus": after,
        "effective_cpus": live.effective,
        "note": note,
    }


def _want_default(draft: Draft, wanted: tuple[int, ...], snapshot: Snapshot) -> None:
    key = "irq:default"
    if "default_cpus" in draft.optional:
        draft.optional |= {key}
    text, writable = snapshot.default
    missing = set(wanted) - snapshot.cpus.online
    if missing:
        draft.cannot(
            key, f"default_cpus {cpu_list(missing)} are not online; online are {cpu_list(snapshot.cpus.online)}"
        )
    elif text is None or not writable:
        draft.cannot(key, f"{_DEFAULT} is missing or read-only here (a container, or the kernel offers no write)")
    else:
        draft.want(key, "cpumask", _DEFAULT, cpu_list(cpu_mask(text)), cpu_list(wanted))
