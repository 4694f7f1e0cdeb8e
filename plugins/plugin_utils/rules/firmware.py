# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about what the firmware is expected to do. Linux cannot set it; wishes may still contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from .base import WARNING, Finding, rule
from .context import Context

# The fastest that the standards knew when these boards were made (JESD79-4, JESD79-5); more is an overclock.
_STANDARD_MTS = {"DDR4": 3200, "DDR5": 5600}


@rule(WARNING, "T28")
def c_states_off_with_boost(ctx: Context) -> Iterator[Finding]:
    """Idle states are expected to be off while the processor boosts."""
    if ctx.value("bios_verification_expect_c_states") == "disabled" and ctx.value("os_tuning_boost") is not False:
        yield Finding(
            "idle states are expected to be off in the firmware, and boost stays on",
            "idle cores in deep states leave power and heat to the busy ones: without them the highest boost drops",
            ("bios_verification_expect_c_states", "os_tuning_boost"),
            "leave idle states on and bound their latency from Linux, os_tuning_idle_latency_us: 20",
        )


@rule(WARNING, "T28")
def memory_overclock_for_stability(ctx: Context) -> Iterator[Finding]:
    """Memory above its standard in the profile for stability."""
    dimms = [dimm for dimm in ctx.section("memory", "dimms") or () if dimm.get("size_bytes")]
    standard = min((_STANDARD_MTS.get(str(dimm.get("type")), 1 << 30) for dimm in dimms), default=1 << 30)
    running = max((dimm.get("configured_mts") or 0 for dimm in dimms), default=0)
    asked = ctx.value("bios_verification_expect_memory_mts")
    speed = max(running, asked if isinstance(asked, int) else 0)
    if ctx.profile == "conservative" and dimms and speed > standard:
        yield Finding(
            f"memory at {speed} MT/s is above the standard's {standard} MT/s, and the profile is conservative",
            "EXPO and XMP are overclocks; a wrong bit in a model or in a file shows nowhere without ECC",
            ("workstation_profile", "bios_verification_expect_memory_mts"),
            "test the memory for a night, or run it at the standard's speed",
        )


@rule(WARNING, "T31")
def memory_speed_with_four_dimms(ctx: Context) -> Iterator[Finding]:
    """An expected memory speed that four DIMMs on two channels do not reach."""
    asked = ctx.value("bios_verification_expect_memory_mts")
    dimms = [dimm for dimm in ctx.section("memory", "dimms") or () if dimm.get("size_bytes")]
    sockets = ctx.section("firmware", "sockets") or ()
    small = len({row.get("package") for row in ctx.section("cpu", "cpus") or ()} - {None}) <= 1 and len(sockets) <= 1
    four = len(dimms) == 4 and all(dimm.get("type") == "DDR5" for dimm in dimms)
    if small and four and isinstance(asked, int) and asked > _STANDARD_MTS["DDR5"]:
        yield Finding(
            f"{asked} MT/s are expected of four DDR5 DIMMs",
            "two DIMMs on a channel train at 3600 to 5600 MT/s on desktop boards, so this check would always fail",
            ("bios_verification_expect_memory_mts",),
            "expect what the board's manual gives for four DIMMs, or take two larger ones",
        )
