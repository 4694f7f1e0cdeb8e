# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules about memory: what is promised to whom, swap and the guards against running out, huge pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import integer, size
from ..os_side.swap import foreign_swap, zram_obstacle
from .base import ERROR, WARNING, Finding, gib, rule, said
from .context import Context

RESERVE_BYTES = 8 << 30  # the system, page cache, models that are being loaded
_SWAPLESS_BYTES = 32 << 30  # below this a machine keeps its swap
_DEFAULT_HUGE_PAGE = 2 << 20


def _bytes(value: Any) -> int:
    """A size; 0 for what is none, which the module names."""
    try:
        return 0 if value is None else size("", value)
    except InputError:
        return 0


def _number(value: Any) -> int:
    try:
        return 0 if value is None else integer("", value, 0, 1 << 40)
    except InputError:
        return 0


def pool_bytes(ctx: Context) -> int:
    """Memory that the plan reserves as huge pages, at once or at the next boot."""
    pools = sum(
        (_bytes(item.get("size")) or _DEFAULT_HUGE_PAGE) * _number(item.get("count"))
        for item in ctx.entries("os_tuning_hugepages")
    )
    pools += _DEFAULT_HUGE_PAGE * _number(ctx.sysctl.get("vm.nr_hugepages"))
    parameters = ctx.kernel_parameters
    sizes, counts = parameters.get("hugepagesz", []), parameters.get("hugepages", [])
    for index, count in enumerate(counts):
        page = _bytes(sizes[index]) if index < len(sizes) else 0
        pools += (page or _DEFAULT_HUGE_PAGE) * _number(count)
    return pools


def zram_bytes(ctx: Context) -> int:
    """The size of the planned zram device: what it takes when nothing compresses. 0 where it cannot be had."""
    value = ctx.value("os_tuning_zram")
    if not isinstance(value, Mapping) or not value or zram_obstacle(ctx.facts):
        return 0
    asked = _bytes(value.get("size", "8G"))
    mine = "size" in (ctx.variables.get("os_tuning_zram") or {})
    return asked if mine or not ctx.memory_bytes else min(asked, ctx.memory_bytes // 4)


def zswap_wanted(ctx: Context) -> bool | None:
    """Whether zswap is asked for; None: left alone."""
    value = ctx.value("os_tuning_zswap")
    if isinstance(value, Mapping):
        return value.get("enabled") is not False
    if value is None:
        boot = ctx.kernel_parameters.get("zswap.enabled")
        return None if boot is None else boot[-1] in ("1", "Y", "y")
    return value in (True, "on", "yes", 1)


def swap_off(ctx: Context) -> bool:
    """Whether swap is to be switched off."""
    return bool(ctx.value("os_tuning_swap") == "off")


def guard(ctx: Context) -> str:
    """Who ends programs before the kernel has to: the planned guard where it is installed, else what runs already."""
    planned = ctx.value("os_tuning_oom_guard")
    if planned is not None and ctx.owner(str(planned).replace("-", "_")).get("installed", True):
        return str(planned)
    running = [name for name in ("earlyoom", "systemd-oomd") if ctx.owner(name.replace("-", "_")).get("active")]
    return running[0] if running else "none"


@rule(ERROR, "T10")
def memory_overcommitted(ctx: Context) -> Iterator[Finding]:
    """Memory limits, huge pages, zram and the system's reserve are more than there is."""
    limits = {f"service {one.name}": one.memory_bytes for one in ctx.services if one.memory_bytes}
    pool = max(pool_bytes(ctx), sum(one.hugepages_bytes for one in ctx.services))
    total = ctx.memory_bytes
    if total is None or not (limits or pool):
        return
    parts = {
        **limits,
        "huge pages": pool,
        "zram": zram_bytes(ctx),
        "files in /tmp": _bytes(ctx.value("os_tuning_tmp_size")),
    }
    wanted = {name: number for name, number in parts.items() if number}
    over = sum(wanted.values()) + RESERVE_BYTES - total
    if over > 0:
        largest = max(wanted, key=lambda name: wanted[name])
        words = said(f"{name} {gib(number)}" for name, number in wanted.items())
        yield Finding(
            f"{words}, and {gib(RESERVE_BYTES)} for the system: {gib(over)} more than the {gib(total)} there are",
            "limits are promises that services will use; together they end in the kernel's out-of-memory killer",
            ("workstation_services", "os_tuning_hugepages", "os_tuning_zram", "os_tuning_tmp_size"),
            f"lower them by {gib(over)} together; the largest is {largest}",
        )


@rule(ERROR, "T10")
def huge_pages_without_user(ctx: Context) -> Iterator[Finding]:
    """A huge page pool that no declared service maps."""
    pool = pool_bytes(ctx)
    if pool and not any(service.uses_hugetlb for service in ctx.services):
        yield Finding(
            f"{gib(pool)} are reserved as huge pages and no service says that it uses them",
            "neither llama.cpp nor vLLM maps such a pool; it only takes memory away from everything else",
            ("os_tuning_hugepages", "os_tuning_kernel_parameters", "workstation_services"),
            "set os_tuning_hugepages: [], or declare the service that maps them with uses_hugetlb: true",
        )


@rule(ERROR, "T11")
def swap_off_is_unsafe(ctx: Context) -> Iterator[Finding]:
    """Swap is to be switched off on a machine that needs it."""
    if not swap_off(ctx):
        return
    total, available = ctx.memory_bytes, ctx.section("memory", "available_bytes")
    used = sum(one.get("used_bytes") or 0 for one in foreign_swap(ctx.facts) or ())
    command_line = str(ctx.section("kernel", "cmdline") or "").split()
    reasons = []
    if total is not None and total < _SWAPLESS_BYTES:
        reasons.append(f"there are only {gib(total)} of memory")
    if any(word.startswith("resume=") for word in command_line):
        reasons.append("hibernation is configured (resume= on the kernel's command line) and writes to swap")
    if available is not None and used > available:
        reasons.append(f"{gib(used)} are swapped out and only {gib(available)} of memory are free for them")
    if guard(ctx) != "earlyoom":
        reasons.append("earlyoom does not watch over the memory")
    if reasons:
        yield Finding(
            f"os_tuning_swap: off, but {said(reasons)}",
            "without swap the machine stalls on page cache when memory runs out, before anything is killed; models "
            "are file cache and never go to swap anyway",
            ("os_tuning_swap", "os_tuning_oom_guard"),
            "set os_tuning_swap: keep with a low vm.swappiness, or solve what is named and set "
            "os_tuning_oom_guard: earlyoom",
        )


@rule(ERROR, "T12")
def oomd_without_swap(ctx: Context) -> Iterator[Finding]:
    """systemd-oomd is the only guard and there is no swap."""
    # zram is swap as well.
    there = bool(ctx.section("memory", "swap")) and not swap_off(ctx)
    if guard(ctx) == "systemd-oomd" and ctx.section("memory") and not there and not zram_bytes(ctx):
        yield Finding(
            "systemd-oomd is the guard and there is no swap",
            "it acts on memory pressure, which without swap rises only when the machine hardly answers any more "
            "(systemd-oomd.service(8))",
            ("os_tuning_oom_guard", "os_tuning_swap", "os_tuning_zram"),
            "set os_tuning_oom_guard: earlyoom, or give the machine swap, os_tuning_zram: {size: 8G} for one",
        )


@rule(ERROR, "T13")
def zram_and_zswap(ctx: Context) -> Iterator[Finding]:
    """zram and zswap at the same time."""
    zram_planned, zswap_planned = zram_bytes(ctx) > 0, zswap_wanted(ctx)
    zram = zram_planned or (bool(ctx.section("memory", "zram")) and not swap_off(ctx))
    zswap = ctx.section("memory", "zswap") is True if zswap_planned is None else zswap_planned
    if zram and zswap:
        ours = zram_planned or zswap_planned
        yield Finding(
            "zram and zswap are both on",
            "pages are compressed twice, and zswap keeps in memory what was to leave it",
            ("os_tuning_zram", "os_tuning_zswap"),
            "keep one: os_tuning_zswap: false, or os_tuning_zram: null",
            severity="" if ours else WARNING,
        )


@rule(ERROR, "T23")
def thp_never_with_wish(ctx: Context) -> Iterator[Finding]:
    """Transparent huge pages are to be never used, and a service wants them."""
    if ctx.value("os_tuning_thp") != "never":
        return
    users = [one for one in ctx.services if one.uses_thp or ("--no-mmap" in one.flags and one.engine == "llama_cpp")]
    for service in users:
        yield Finding(
            f"service {service.name} wants huge pages for its model, and os_tuning_thp is never",
            "weights that are read into memory get transparent huge pages or none: a hugetlb pool is another thing",
            ("os_tuning_thp", f"workstation_services: {service.name}"),
            "set os_tuning_thp: madvise, or always on a machine for this alone",
        )


@rule(ERROR, "T23")
def thp_stalls(ctx: Context) -> Iterator[Finding]:
    """Transparent huge pages and their compaction both at always."""
    latency = ctx.profile != "conservative"
    if latency and ctx.value("os_tuning_thp") == "always" and ctx.value("os_tuning_thp_defrag") == "always":
        yield Finding(
            f"os_tuning_thp and os_tuning_thp_defrag are both always in the profile {ctx.profile}",
            "every page fault of every program may wait for compaction; the profile is for low latency",
            ("os_tuning_thp", "os_tuning_thp_defrag"),
            "set os_tuning_thp_defrag: defer+madvise",
        )


@rule(ERROR, "T25")
def locked_model_too_large(ctx: Context) -> Iterator[Finding]:
    """A service locks its model and its memory limit is smaller."""
    for service in ctx.services:
        limit, model = service.memory_bytes, service.model_bytes
        if service.mlock and limit is not None and model is not None and limit < model:
            yield Finding(
                f"service {service.name} locks a model of {gib(model)} with a memory limit of {gib(limit)}",
                "locked pages cannot be reclaimed: the service is killed while it loads",
                (f"workstation_services: {service.name}.memory_bytes", f"workstation_services: {service.name}.mlock"),
                f"raise memory_bytes above {gib(model)}, or set mlock: false",
            )


@rule(ERROR, "T25")
def locked_memory_too_much(ctx: Context) -> Iterator[Finding]:
    """Services lock more than 80 % of memory."""
    locked = {service.name: service.locked_bytes for service in ctx.services if service.locked_bytes}
    total = ctx.memory_bytes
    if total is not None and sum(locked.values()) * 5 > total * 4:
        yield Finding(
            f"{said(f'{name} {gib(number)}' for name, number in locked.items())} may be locked, that is more than "
            f"80 % of {gib(total)}",
            "the kernel cannot take locked memory back, and kills others for it",
            tuple(f"workstation_services: {name}.mlock" for name in locked),
            "set mlock: false on one of them, or lower its memory_bytes",
        )
