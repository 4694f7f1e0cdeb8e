# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user may ask of a GPU, typed: parsed from parameters, then resolved against one card.

Sources: nvml.h (API 13) for units and ranges; the card itself for its limits and lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import InputError
from ..values import choice, integer

COMPUTE_MODES = ("default", "exclusive_process", "prohibited")
_POWER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([wW])|(%))?")
_MHZ = 100_000  # far above any clock: only catches nonsense before the card is asked


class OutOfRange(ValueError):  # noqa: N818 -- it is a verdict on a value, not a failure
    """This card does not take the value; the text says what it takes."""


@dataclass(frozen=True)
class Power:
    """A power limit as written: `watts`, `percent` of the card's default, its `default` or its `max`."""

    kind: str
    number: float = 0

    def milliwatts(self, default: int, low: int, high: int) -> int:
        """The limit in mW for a card with these constraints. Raises OutOfRange naming them."""
        wanted = {
            "default": default,
            "max": high,
            "watts": round(self.number * 1000),
            "percent": round(default * self.number / 100_000) * 1000,
        }[self.kind]
        if not low <= wanted <= high:
            raise OutOfRange(
                f"{watts(wanted)} W is not within what the card takes: "
                f"{watts(low)} to {watts(high)} W, default {watts(default)} W"
            )
        return wanted


@dataclass(frozen=True)
class Clocks:
    """A range of clocks in MHz; an open end means the card's own lowest or highest. `reset`: no lock at all."""

    low: int | None = None
    high: int | None = None
    reset: bool = False

    def lock(self, listed: Sequence[int]) -> str:
        """The range as the door writes it. Raises OutOfRange with the nearest clocks that the card lists."""
        low = listed[0] if self.low is None else self.low
        high = listed[-1] if self.high is None else self.high
        for mhz in (low, high):
            check_clock(mhz, listed)
        return f"{low}-{high}"


@dataclass(frozen=True)
class ApplicationClocks:
    """The pair of clocks in MHz that a data centre card runs applications at; `reset`: the card's own pair."""

    memory: int | None = None
    graphics: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class Wanted:
    """The settings of one GPU; None is not managed."""

    persistence: bool | None = None
    power_limit: Power | None = None
    allow_above_default: bool | None = None
    gpu_clocks: Clocks | None = None
    memory_clocks: Clocks | None = None
    application_clocks: ApplicationClocks | None = None
    compute_mode: str | None = None
    ecc: bool | None = None
    mig: bool | None = None

    def over(self, base: Wanted) -> Wanted:
        """These settings, and those of `base` where nothing is said here."""
        said = {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}
        return replace(base, **said)

    def is_empty(self) -> bool:
        return self == Wanted(allow_above_default=self.allow_above_default)


# `reset`: what a driver that was just loaded has. Persistence, ECC and MIG are named to be changed.
_DEFAULTS = Wanted(
    power_limit=Power("default"),
    gpu_clocks=Clocks(reset=True),
    memory_clocks=Clocks(reset=True),
    application_clocks=ApplicationClocks(reset=True),
    compute_mode="default",
)
NAMES = tuple(item.name for item in fields(Wanted) if item.name != "allow_above_default")


def parse_wanted(where: str, params: Mapping[str, Any]) -> Wanted:
    """The settings in one dictionary of parameters. `where` leads the parameter in messages."""
    wanted = Wanted(
        persistence=_flag(where, params, "persistence"),
        power_limit=_power(f"{where}power_limit", params.get("power_limit")),
        allow_above_default=_flag(where, params, "allow_above_default"),
        gpu_clocks=_clocks(f"{where}gpu_clocks", params.get("gpu_clocks")),
        memory_clocks=_clocks(f"{where}memory_clocks", params.get("memory_clocks")),
        application_clocks=_application(f"{where}application_clocks", params.get("application_clocks")),
        compute_mode=_mode(f"{where}compute_mode", params.get("compute_mode")),
        ecc=_flag(where, params, "ecc"),
        mig=_flag(where, params, "mig"),
    )
    return wanted.over(_DEFAULTS) if _flag(where, params, "reset") else wanted


def _flag(where: str, params: Mapping[str, Any], name: str) -> bool | None:
    value = params.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise InputError(f"{where}{name}: {value!r} is not true or false")


def _mode(parameter: str, value: Any) -> str | None:
    return None if value is None else choice(parameter, value, COMPUTE_MODES)


def _power(parameter: str, value: Any) -> Power | None:
    if value is None:
        return None
    text = "" if isinstance(value, bool) else str(value).strip()
    if text in ("default", "max"):
        return Power(text)
    match = _POWER.fullmatch(text)
    if not match or float(match.group(1)) == 0:
        raise InputError(
            f"{parameter}: {value!r} is not a power limit; write watts ('450' or '450W'), "
            "a percentage of the card's default ('85%'), 'default' or 'max'"
        )
    return Power("percent" if match.group(3) else "watts", float(match.group(1)))


def _mhz(parameter: str, value: Any) -> int | None:
    return None if value is None else integer(parameter, value, 1, _MHZ, "MHz")


def _pair(parameter: str, value: Any, first: str, second: str) -> tuple[int | None, int | None, bool]:
    """Two clocks or reset, and nothing else."""
    if not isinstance(value, Mapping) or set(value) - {first, second, "reset"}:
        raise InputError(f"{parameter}: {value!r} is not a dictionary of {first}, {second} or reset")
    reset = bool(_flag(f"{parameter}.", value, "reset"))
    numbers = [_mhz(f"{parameter}.{name}", value.get(name)) for name in (first, second)]
    if reset == any(number is not None for number in numbers):
        raise InputError(f"{parameter}: give clocks ({first}, {second}) or reset: true, one of the two")
    return numbers[0], numbers[1], reset


def _clocks(parameter: str, value: Any) -> Clocks | None:
    if value is None:
        return None
    low, high, reset = _pair(parameter, value, "min_mhz", "max_mhz")
    if low is not None and high is not None and low > high:
        raise InputError(f"{parameter}: min_mhz {low} is above max_mhz {high}; swap them")
    return Clocks(low, high, reset)


def _application(parameter: str, value: Any) -> ApplicationClocks | None:
    if value is None:
        return None
    memory, graphics, reset = _pair(parameter, value, "memory_mhz", "graphics_mhz")
    if not reset and None in (memory, graphics):
        raise InputError(f"{parameter}: the driver sets both clocks at once; give memory_mhz and graphics_mhz")
    return ApplicationClocks(memory, graphics, reset)


def check_clock(mhz: int, listed: Sequence[int]) -> None:
    """Raises OutOfRange naming the two nearest clocks and the range, unless the card lists this one."""
    if mhz in listed:
        return
    near = sorted(sorted(listed, key=lambda point: (abs(point - mhz), point))[:2])
    raise OutOfRange(
        f"{mhz} MHz is not on the card's list; nearest {' and '.join(str(point) for point in near)}, "
        f"range {listed[0]} to {listed[-1]} MHz"
    )


def watts(milliwatts: int) -> str:
    """mW as a person reads it: 575000 -> "575", 488750 -> "488.75"."""
    return f"{milliwatts / 1000:g}"
