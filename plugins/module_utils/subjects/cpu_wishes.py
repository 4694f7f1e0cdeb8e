# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a caller of cpu_governor may ask for: typed, and checked before the machine is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from ..errors import InputError
from ..values import choice, cpus, integer

NAME = "cpu_governor"

KNOBS = ("governor", "epp", "boost", "min_mhz", "max_mhz", "idle_latency_us", "smt")
# The kernel prints these four numbers as words, so they are the words.
_EPP_WORDS = {"0": "performance", "128": "balance_performance", "192": "balance_power", "255": "power"}

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
