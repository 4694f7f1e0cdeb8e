# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of NVIDIA GPUs: persistence, power limit, clocks, modes.

Everything but ECC and MIG is forgotten by the driver at reboot and at driver reload; a next
run applies it again. Sources: nvml.h (API 13); open-gpu-kernel-modules issue 1266 (memory locks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..doors.nvml import Gpu, Nvml
from ..doors.nvml_binding import NvmlError
from ..engine.change import Draft
from ..engine.machine import Machine
from ..errors import InputError
from .nvidia_look import (
    Card,
    daemon_forbids_persistence,
    describe,
    key_of,
    look_card,
    select,
)
from .nvidia_plan import CardPlan
from .nvidia_settings import NAMES, Wanted, parse_wanted

NAME = "nvidia_gpu_state"

# What a user calls it -> the property in the driver door.
_PROPERTIES = {
    "persistence": "persistence",
    "power_limit": "power_limit_mw",
    "gpu_clocks": "gpu_locked_clocks",
    "memory_clocks": "memory_locked_clocks",
    "application_clocks": "application_clocks",
    "compute_mode": "compute_mode",
    "ecc": "ecc",
    "mig": "mig",
}
# Without a driver these say "there is no GPU to set"; every other state of the door is a defect.
_NO_GPU = ("no_library", "not_loaded")


@dataclass(frozen=True)
class Desired:
    every: Wanted
    gpus: tuple[tuple[str, Wanted], ...]
    require_gpu: bool
    optional: frozenset[str]


@dataclass(frozen=True)
class Snapshot:
    state: str
    reason: str
    present: tuple[Gpu, ...] = ()
    cards: tuple[Card, ...] = ()
    recorded: frozenset[str] = frozenset()
    daemon_forbids_persistence: bool = False
    matches: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)


def parse(params: Mapping[str, Any]) -> Desired:
    gpus = []
    for number, item in enumerate(params.get("gpus") or ()):
        name = str(item.get("id") if item.get("id") is not None else "").strip()
        if not name:
            raise InputError(
                f"gpus[{number}].id: say which GPU: a UUID, PCI address, index, a part of the name, or all"
            )
        gpus.append((name, parse_wanted(f"gpus[{name}].", item)))
    allowed = {*NAMES, "*", *(name for name, _wanted in gpus)}
    for word in params.get("optional") or ():
        if word not in allowed:
            raise InputError(
                f"optional: {word!r} is no setting and no id of this call; allowed: {', '.join(sorted(allowed))}"
            )
    return Desired(
        parse_wanted("", params),
        tuple(gpus),
        bool(params.get("require_gpu", True)),
        frozenset(params.get("optional") or ()),
    )


# -- looking ------------------------------------------------------------------------------------------


def look(machine: Machine, desired: Desired) -> Snapshot:
    nvml: Nvml = machine.nvml()
    recorded = frozenset(key for key, entry in machine.ledger.entries.items() if entry.kind == "nvml")
    if nvml.state != "ok":
        return Snapshot(nvml.state, nvml.reason, recorded=recorded)
    present = tuple(nvml.devices())
    driver = str(nvml.versions()["driver"])
    matches = {name: tuple(select(name, present)) for name, _wanted in desired.gpus}
    cards = [look_card(machine, gpu, wanted, driver) for gpu, wanted in _targets(desired, present, matches)]
    return Snapshot("ok", "", present, tuple(cards), recorded, daemon_forbids_persistence(machine), matches)


def _targets(
    desired: Desired, present: tuple[Gpu, ...], matches: Mapping[str, tuple[Gpu, ...]]
) -> list[tuple[Gpu, Wanted]]:
    """The GPUs that a call speaks about, each with its settings: the general ones under its own."""
    wanted = {gpu.index: desired.every for gpu in present}
    named: set[int] = set()
    for name, settings in desired.gpus:
        for gpu in matches[name]:
            wanted[gpu.index] = settings.over(wanted[gpu.index])
            named.add(gpu.index)
    everyone = not desired.every.is_empty() or not desired.gpus
    return [(gpu, wanted[gpu.index]) for gpu in present if everyone or gpu.index in named]


# -- deciding -----------------------------------------------------------------------------------------


def decide(desired: Desired, snapshot: Snapshot) -> Draft:
    draft = Draft(report={"gpus": []})
    if not _have_gpus(draft, desired, snapshot):
        return draft
    _check_names(draft, desired, snapshot)
    _let_go(draft, snapshot)
    cards = {card.gpu.index: card for card in snapshot.cards}
    for gpu, wanted in _targets(desired, snapshot.present, snapshot.matches):
        names = {name for name, ids in snapshot.matches.items() if gpu in ids}
        _decide_card(draft, desired, cards[gpu.index], wanted, bool(names & desired.optional))
    if snapshot.daemon_forbids_persistence and any("/persistence" in key for key in draft.covered):
        draft.warnings.append(
            "nvidia-persistenced runs with --no-persistence-mode: persistence set here ends when it restarts; "
            "a drop-in for its unit makes it last"
        )
    draft.report["gpus"] = [describe(card) for card in snapshot.cards]
    return draft


def _have_gpus(draft: Draft, desired: Desired, snapshot: Snapshot) -> bool:
    """Whether there is something to decide; says why not otherwise."""
    if snapshot.state == "ok" and snapshot.present:
        return True
    reason = snapshot.reason or "the driver is loaded and finds no GPU; see dmesg and lspci -d 10de:"
    if snapshot.state in (*_NO_GPU, "ok") and not desired.require_gpu:
        draft.skip("gpu:*", f"no GPU to set: {reason}")
        draft.covered |= snapshot.recorded
    else:
        draft.refusals.append(f"{NAME}: no access to a GPU ({snapshot.state}): {reason}")
    return False


def _check_names(draft: Draft, desired: Desired, snapshot: Snapshot) -> None:
    """Every id means one GPU (or all), and no GPU is meant twice."""
    meant: dict[int, str] = {}
    for name, _wanted in desired.gpus:
        found = snapshot.matches[name]
        if not found:
            text = f"no GPU matches {name!r}; there are {_list(snapshot.present)}"
            if desired.optional & {name, "*"}:
                draft.skip(f"gpu:{name}", text)
            else:
                draft.refusals.append(f"gpus: {text}")
        elif len(found) > 1 and name.lower() != "all":
            draft.refusals.append(
                f"gpus: {name!r} matches {len(found)} GPUs, {' and '.join(gpu.uuid for gpu in found)}; "
                "name each by UUID or PCI address, or use all"
            )
        for gpu in found if name.lower() != "all" else ():
            if gpu.index in meant and len(found) == 1:
                draft.refusals.append(
                    f"gpus: {meant[gpu.index]!r} and {name!r} are the same GPU {gpu.uuid}; merge them"
                )
            meant.setdefault(gpu.index, name)


def _list(gpus: tuple[Gpu, ...]) -> str:
    return ", ".join(f"{gpu.index}: {gpu.name} {gpu.pci} {gpu.uuid}" for gpu in gpus)


def _let_go(draft: Draft, snapshot: Snapshot) -> None:
    """Keys of GPUs that are gone or lost cannot be taken back: say so instead of failing on them."""
    problems = {gpu.uuid: gpu.problem for gpu in snapshot.present}
    problems.update({card.gpu.uuid: card.problem for card in snapshot.cards})
    for key in sorted(snapshot.recorded):
        uuid = key.partition(":")[2].partition("/")[0]
        if problems.get(uuid, "gone"):
            draft.covered.add(key)
            draft.warnings.append(
                f"{key} cannot be reached: {problems.get(uuid) or 'this GPU is not in the machine now'}"
            )


def _decide_card(draft: Draft, desired: Desired, card: Card, wanted: Wanted, optional: bool) -> None:
    uuid = card.gpu.uuid
    if card.problem:
        draft.refusals.append(f"gpu:{uuid or card.gpu.pci or card.gpu.index}: {card.problem}")
        return
    names = _PROPERTIES if optional or "*" in desired.optional else desired.optional & set(_PROPERTIES)
    draft.optional |= {key_of(card.gpu, _PROPERTIES[name]) for name in names}
    CardPlan(draft, card, wanted).decide()


def report(machine: Machine, desired: Desired) -> dict[str, Any]:
    """What the driver really has after the writes."""
    try:
        return {"gpus": [describe(card) for card in look(machine, desired).cards]}
    except NvmlError as error:
        return {"gpus": [{"problem": str(error)}]}
