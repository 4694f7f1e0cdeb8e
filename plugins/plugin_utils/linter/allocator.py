# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PYTORCH_CUDA_ALLOC_CONF: what its options do together, and together with the engine's flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .context import Context, Flag, Variable
from .findings import Finding
from .versions import near, version_key

NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
# Options of PyTorch's c10/core/AllocatorConfig and c10/cuda/CUDAAllocatorConfig. True: only for the native backend.
OPTIONS = {
    "backend": False,
    "max_split_size_mb": True,
    "max_non_split_rounding_mb": True,
    "garbage_collection_threshold": True,
    "roundup_power2_divisions": True,
    "roundup_bypass_threshold_mb": True,
    "expandable_segments": True,
    "release_lock_on_cudamalloc": True,
    "release_lock_on_hipmalloc": True,
    "graph_capture_record_stream_reuse": True,
    "per_process_memory_fraction": True,
    "throw_on_cudamalloc_oom": True,
    "pinned_use_cuda_host_register": False,
    "pinned_use_hip_host_register": False,
    "pinned_num_register_threads": False,
    "pinned_use_background_threads": False,
    "pinned_reserve_segment_size_mb": False,
    "pinned_max_round_threshold_mb": False,
    "pinned_max_cached_size_mb": False,
    "pinned_max_register_segment_size_mb": False,
}
_WITHOUT_EFFECT = ("garbage_collection_threshold", "max_split_size_mb")


def options(value: str) -> dict[str, str]:
    """key:value pairs, separated by commas; a list in brackets is one value."""
    pairs: dict[str, str] = {}
    depth, start = 0, 0
    for place, character in enumerate(value + ","):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth <= 0:
            key, _colon, text = value[start:place].partition(":")
            if key.strip():
                pairs[key.strip()] = text.strip()
            start = place + 1
    return pairs


def check_allocator(variables: Sequence[Variable], context: Context, flags: Sequence[Flag]) -> Iterator[Finding]:
    """Everything that is wrong with the allocator's options."""
    given = [one for one in variables if one.name in NAMES]
    if len({one.name for one in given}) == 2:
        text = f"{' and '.join(NAMES)} are both set; PyTorch reads the new name and vLLM's guards the old one"
        yield context.finding(given[-1].line, "allocator-two-names", given[-1].name, text, "one of the two")
    for variable in given:
        if variable.value is not None:
            pairs = options(variable.value)
            yield from _check_options(variable, pairs, context)
            if pairs.get("expandable_segments", "").lower() in ("true", "1"):
                yield from _check_expandable(variable, pairs, context, flags)


def _check_options(variable: Variable, pairs: Mapping[str, str], context: Context) -> Iterator[Finding]:
    for key in pairs:
        if key not in OPTIONS:
            like = near(key, OPTIONS)
            hint = f"; did you mean {like}?" if like else ""
            text = f"{key} is no option of PyTorch's allocator, and the program stops at import{hint}"
            yield context.finding(variable.line, "allocator-unknown-option", variable.name, text, like)
    ignored = [key for key in pairs if OPTIONS.get(key)]
    if pairs.get("backend") == "cudaMallocAsync" and ignored:
        text = f"backend:cudaMallocAsync ignores {', '.join(ignored)}"
        yield context.finding(variable.line, "allocator-backend", variable.name, text, "one or the other")


def _check_expandable(
    variable: Variable, pairs: Mapping[str, str], context: Context, flags: Sequence[Flag]
) -> Iterator[Finding]:
    idle = [key for key in _WITHOUT_EFFECT if key in pairs]
    if idle:
        text = f"{' and '.join(idle)} do not touch expandable segments (PyTorch 134338)"
        yield context.finding(
            variable.line, "allocator-no-effect", variable.name, text, "expandable_segments:True alone"
        )
    if context.engine == "vllm":
        for reason, severity in _vllm_reasons({flag.name: flag.value for flag in flags}, context.version):
            text = f"expandable_segments:True with {reason}"
            yield context.finding(variable.line, "allocator-expandable", variable.name, text, "", severity)


def _vllm_reasons(flags: Mapping[str, str | None], version: str | None) -> Iterator[tuple[str, str]]:
    cards = flags.get("--tensor-parallel-size", flags.get("-tp")) or "1"
    if cards.isdigit() and int(cards) > 1 and "--disable-custom-all-reduce" not in flags:
        yield f"{cards} cards and vLLM's own all-reduce fails (vLLM 42609); add --disable-custom-all-reduce", "error"
    if "--kv-transfer-config" in flags:
        yield "a KV connector is refused by vLLM", "error"
    if "--enable-sleep-mode" in flags:
        old = bool(version) and version_key(version or "") < (0, 19)
        yield "sleep mode stops vLLM before its pull request 40812", "error" if old else "warning"
