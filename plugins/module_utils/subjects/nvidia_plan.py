# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The decisions about one GPU: what it lacks, what it does not take, what is not as wanted."""

from __future__ import annotations

import errno
from typing import Any

from ..engine.change import Draft
from .nvidia_look import LOCKS, Card, key_of
from .nvidia_settings import Clocks, OutOfRange, Power, Wanted, check_clock, watts

# What the driver forgets when it lets go of an idle GPU.
_FORGOTTEN = ("power_limit_mw", *LOCKS, "application_clocks", "compute_mode")


class CardPlan:
    """The decisions about one GPU, setting by setting."""

    def __init__(self, draft: Draft, card: Card, wanted: Wanted) -> None:
        self.draft, self.card, self.wanted = draft, card, wanted
        live = card.settings["persistence"]
        self.persistent = live == "on" if wanted.persistence is None else wanted.persistence

    def decide(self) -> None:
        # Persistence first, or the driver may forget the rest as soon as nobody holds the GPU.
        self.persistence()
        self.power_limit()
        self.locks()
        self.application_clocks()
        self.compute_mode()
        self.ecc()
        self.mig()
        self.advise()

    def _key(self, name: str) -> str:
        return key_of(self.card.gpu, name)

    def _want(self, name: str, before: Any, after: Any, **more: Any) -> None:
        """One property, once it is known that the card has it and takes the value."""
        key = self._key(name)
        if key in self.card.refusals and before != after:
            tell = self.draft.skip if after == "reset" else self.draft.cannot  # without a lock nothing is to be reset
            tell(key, self.card.refusals[key])
            return
        if key in self.draft.optional or after == "reset":
            reason = "the driver does not let this be set on this card (NVML_ERROR_NOT_SUPPORTED)"
            more["tolerate"] = {errno.ENOTSUP: reason, errno.ENOSYS: reason}
        self.draft.want(key, "nvml", f"{self.card.gpu.uuid}/{name}", before, after, **more)

    def _missing(self, name: str, what: str, to_default: bool = False, reading: str = "") -> bool:
        """Whether the card lacks it: a skip or a refusal. Its default is what a card without it has anyway."""
        values, reading = self.card.settings, reading or name
        if reading in values.errors:
            # The card may well have it: what a getter could not say is nothing to skip over.
            self.draft.refusals.append(f"{self._key(name)}: {values.errors[reading]}")
            return True
        if values[reading] is not None:
            return False
        if to_default:
            self.draft.skip(self._key(name), f"this card has no {what}: nothing to reset")
        else:
            self.draft.cannot(self._key(name), f"this card has no {what} (NVML_ERROR_NOT_SUPPORTED)")
        return True

    def persistence(self) -> None:
        wanted = self.wanted.persistence
        if wanted is not None and not self._missing("persistence", "persistence mode"):
            self._want("persistence", self.card.settings["persistence"], "on" if wanted else "off")

    def power_limit(self) -> None:
        power, name, values = self.wanted.power_limit, "power_limit_mw", self.card.settings
        if power is None:
            return
        for reading in (name, "power_default_mw", "power_range_mw"):
            if self._missing(name, "power limit", power == Power("default"), reading):
                return
        default, (low, high) = values["power_default_mw"], values["power_range_mw"]
        try:
            limit = power.milliwatts(default, low, high)
        except OutOfRange as verdict:
            self.draft.refusals.append(f"{self._key(name)}: power_limit: {verdict}")
            return
        if limit > default and not self.wanted.allow_above_default:
            self.draft.refusals.append(
                f"{self._key(name)}: power_limit: {watts(limit)} W is above the card's default of {watts(default)} W; "
                "when power supply, connector and cooling are good for it, set allow_above_default: true"
            )
            return
        self._want(name, values[name], limit)

    def locks(self) -> None:
        gpu = self.card.gpu
        blackwell_geforce = gpu.architecture == "blackwell" and gpu.brand == "geforce"
        memory = self.wanted.memory_clocks
        if memory and not memory.reset and blackwell_geforce:
            self.draft.cannot(
                self._key(LOCKS[1]),
                "memory_clocks: on a Blackwell GeForce any memory lock slows the whole card by up to a third "
                "(open-gpu-kernel-modules issue 1266); use reset: true, or leave it out",
            )
            memory = None
        self._lock(LOCKS[0], "gpu_clocks", self.wanted.gpu_clocks, self.card.graphics_clocks)
        self._lock(LOCKS[1], "memory_clocks", memory, self.card.memory_clocks)

    def _lock(self, name: str, parameter: str, clocks: Clocks | None, listed: tuple[int, ...]) -> None:
        if clocks is None:
            return
        after = "reset"
        if not clocks.reset:
            if not listed:
                self.draft.cannot(self._key(name), f"{parameter}: the driver lists no clocks for this card")
                return
            try:
                after = clocks.lock(listed)
            except OutOfRange as verdict:
                self.draft.refusals.append(f"{self._key(name)}: {parameter}: {verdict}")
                return
            if not self.persistent:
                self.draft.refusals.append(
                    f"{self._key(name)}: {parameter}: without persistence the driver forgets a clock lock as soon as "
                    "nothing uses the GPU; add persistence: true"
                )
                return
        self._want(name, self.card.locks[name], after, identity=self.card.identity)

    def application_clocks(self) -> None:
        wanted, name, values = self.wanted.application_clocks, "application_clocks", self.card.settings
        if wanted is None or self._missing(name, name.replace("_", " "), wanted.reset):
            return
        if wanted.reset:
            after = values["default_application_clocks"]
        else:
            try:
                check_clock(wanted.memory or 0, self.card.memory_clocks)
                check_clock(wanted.graphics or 0, self.card.application_graphics)
            except OutOfRange as verdict:
                self.draft.refusals.append(f"{self._key(name)}: application_clocks (memory, graphics): {verdict}")
                return
            after = f"{wanted.memory},{wanted.graphics}"
        self._want(name, values[name], after)

    def compute_mode(self) -> None:
        wanted = self.wanted.compute_mode
        if wanted and not self._missing("compute_mode", "compute mode", wanted == "default"):
            self._want("compute_mode", self.card.settings["compute_mode"], wanted)

    def ecc(self) -> None:
        if self.wanted.ecc is None or self._missing("ecc", "ECC"):
            return
        current, pending = self.card.settings["ecc"]
        after = "on" if self.wanted.ecc else "off"
        self._pending("ecc", current, pending, after, "a reboot")

    def mig(self) -> None:
        if self.wanted.mig is None or self._missing("mig", "MIG mode"):
            return
        current, pending = self.card.settings["mig"]
        after = "on" if self.wanted.mig else "off"
        # Ampere takes the mode at a GPU reset; Hopper and later at once, unless someone uses the GPU.
        waits = self.card.gpu.architecture == "ampere" or self.card.processes > 0
        if waits or pending == after:
            self._pending("mig", current, pending, after, "a GPU reset (nothing may use the GPU) or a reboot")
        else:
            self._want("mig", pending, after)

    def _pending(self, name: str, current: str, pending: str, after: str, when: str) -> None:
        """A mode that is stored now and taken later: what can be written, and compared, is the pending mode."""
        waits = current != after
        self.draft.knows_reboot.add(self._key(name))
        if waits:
            self.draft.reboot_reasons.append(f"{self._key(name)}: {current} now, {after} after {when}")
        reason = f"acts after {when}" if waits else ""
        self._want(name, pending, after, scope="boot", reboot_required=waits, reason=reason)

    def advise(self) -> None:
        """Combinations that work and do less than they seem to."""
        values = self.card.settings
        defaults = ("reset", "default", values["power_default_mw"], values["default_application_clocks"])
        asked = {change.key for change in self.draft.changes if change.after not in defaults}
        volatile = [name for name in _FORGOTTEN if self._key(name) in asked]
        if volatile and not self.persistent:
            self.draft.warnings.append(
                f"gpu:{self.card.gpu.uuid}: without persistence the driver forgets {', '.join(volatile)} as soon as "
                "nothing uses the GPU; add persistence: true"
            )
        clocks, power = self.wanted.gpu_clocks, self.wanted.power_limit
        if clocks and clocks.low is not None and power and power.kind in ("watts", "percent"):
            self.draft.warnings.append(
                f"gpu:{self.card.gpu.uuid}: gpu_clocks.min_mhz with a power limit: under load the power limit wins"
            )
