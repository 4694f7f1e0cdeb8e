# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A wish becomes the flag that this version of the engine has, or is refused with the version and the alternative."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, integer
from ..linter.knowledge import known, tables

# How a setting is written: its flag, its kind, and for a kind that needs it what is allowed.
# int: number. text: as it is. switch: the flag alone where true. either: --X or --no-X. share: a number from 0 to 1.
Spec = tuple[str, str, tuple[Any, ...]]

LLAMA_CPP: Mapping[str, Spec] = {
    "context": ("--ctx-size", "int", (0, 1 << 24)),
    "parallel": ("--parallel", "int", (1, 1024)),
    "threads": ("--threads", "int", (1, 8192)),
    "batch": ("--batch-size", "int", (1, 1 << 20)),
    "micro_batch": ("--ubatch-size", "int", (1, 1 << 20)),
    "gpu_layers": ("--n-gpu-layers", "int", (0, 9999)),
    "flash_attention": ("--flash-attn", "choice", ("on", "off", "auto")),
    "cache_type_k": ("--cache-type-k", "text", ()),
    "cache_type_v": ("--cache-type-v", "text", ()),
    "alias": ("--alias", "text", ()),
    "embeddings": ("--embeddings", "switch", ()),
    "jinja": ("--jinja", "switch", ()),
    "numa": ("--numa", "choice", ("distribute", "isolate", "numactl")),
    "split_mode": ("--split-mode", "choice", ("none", "layer", "row")),
    "tensor_split": ("--tensor-split", "text", ()),
}
VLLM: Mapping[str, Spec] = {
    "context": ("--max-model-len", "int", (1, 1 << 24)),
    "parallel": ("--max-num-seqs", "int", (1, 4096)),
    "batch": ("--max-num-batched-tokens", "int", (1, 1 << 20)),
    "gpu_memory_share": ("--gpu-memory-utilization", "share", ()),
    "tensor_parallel": ("--tensor-parallel-size", "int", (1, 64)),
    "dtype": ("--dtype", "text", ()),
    "quantization": ("--quantization", "text", ()),
    "kv_cache_dtype": ("--kv-cache-dtype", "text", ()),
    "eager": ("--enforce-eager", "switch", ()),
    "prefix_caching": ("--enable-prefix-caching", "either", ()),
    "alias": ("--served-model-name", "text", ()),
    "swap_space_gib": ("--swap-space", "int", (0, 1024)),
    "kv_offload_gib": ("--kv-offloading-size", "int", (1, 4096)),
    "attention_backend": ("--attention-backend", "text", ()),
    "reasoning_parser": ("--reasoning-parser", "text", ()),
}
SETTINGS: Mapping[str, Mapping[str, Spec]] = {"llama_cpp": LLAMA_CPP, "vllm": VLLM}
# The engine's name in the knowledge base.
KNOWLEDGE = {"llama_cpp": "llama.cpp", "vllm": "vllm"}
_LOADING = ("mmap", "mlock", "direct_io")


def names(engine: str) -> tuple[str, ...]:
    """The settings of an engine."""
    return (*SETTINGS[engine], *_LOADING) if engine in SETTINGS else ()


def render(where: str, engine: str, version: str | None, settings: Mapping[str, Any]) -> list[str]:
    """The flags of these settings, in the order of their names. Raises InputError."""
    if engine == "vllm":
        for name in _LOADING:
            if name in settings:
                raise InputError(
                    f"{where}: settings.{name}: vLLM has no such option in any version; it copies the weights to the "
                    "GPU. Leave it out; model_store can keep the files in memory"
                )
    found: list[str] = []
    for name in sorted(settings):
        if name in _LOADING:
            continue
        flag, kind, allowed = SETTINGS[engine][name]
        words = _words(f"{where}: settings.{name}", flag, kind, allowed, settings[name])
        if words:
            require(f"{where}: settings.{name}", engine, version, flag)
        found += words
    if engine == "llama_cpp":
        found += _loading(where, version, settings)
    return found


def _words(where: str, flag: str, kind: str, allowed: tuple[Any, ...], value: Any) -> list[str]:
    if kind == "int":
        return [flag, str(integer(where, value, allowed[0], allowed[1]))]
    if kind == "choice":
        # YAML reads on and off without quotes as booleans.
        value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        return [flag, choice(where, value, allowed)]
    if kind == "share":
        return [flag, _share(where, value)]
    if kind in ("switch", "either"):
        if not isinstance(value, bool):
            raise InputError(f"{where}: {value!r} is not a boolean; write true or false")
        if value:
            return [flag]
        return [f"--no-{flag[2:]}"] if kind == "either" else []
    text = str(value)
    if not text or text.startswith("-") or any(char.isspace() for char in text):
        raise InputError(f"{where}: {value!r} is not one word without a dash in front")
    return [flag, text]


def _share(where: str, value: Any) -> str:
    try:
        number = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number <= 1:
        raise InputError(f"{where}: {value!r} is not a share above 0 and up to 1, like 0.9")
    return f"{number:g}"


def _loading(where: str, version: str | None, settings: Mapping[str, Any]) -> Iterator[str]:
    """How llama.cpp loads the model: one option since 10229, three switches up to 10566."""
    wished = {name: settings[name] for name in _LOADING if name in settings}
    for name, value in wished.items():
        if not isinstance(value, bool):
            raise InputError(f"{where}: settings.{name}: {value!r} is not a boolean; write true or false")
    if not wished:
        return
    mmap, mlock, direct = wished.get("mmap", True), wished.get("mlock", False), wished.get("direct_io", False)
    if direct and (mlock or wished.get("mmap")):
        raise InputError(f"{where}: settings.direct_io: reads past the page cache, so mmap and mlock must be left out")
    if has("llama_cpp", version, "--load-mode"):
        mode = "dio" if direct else {(1, 0): "mmap", (0, 0): "none", (1, 1): "mmap+mlock", (0, 1): "mlock"}[mmap, mlock]
        yield from ("--load-mode", mode)
        return
    for wanted, flag in ((not mmap, "--no-mmap"), (mlock, "--mlock"), (direct, "--direct-io")):
        if wanted:
            require(f"{where}: settings", "llama_cpp", version, flag)
            yield flag


def has(engine: str, version: str | None, flag: str) -> bool:
    """Whether this version of the engine has the flag; without a version, the newest that was read."""
    return tables()[KNOWLEDGE[engine]].presence("flag", flag, version).state == "present"


def require(where: str, engine: str, version: str | None, flag: str) -> None:
    """Raise InputError where this version has no such flag, with what there is instead."""
    table = tables()[KNOWLEDGE[engine]]
    place = table.presence("flag", flag, version)
    if place.state == "present":
        return
    record = known("flag", KNOWLEDGE[engine]).get(flag)
    instead = f"use {record.replacement}" if record and record.replacement else "leave it out"
    name = f"{table.engine} {version or table.newest}"
    if place.state == "not_yet":
        raise InputError(f"{where}: {name} has no {flag} yet; {place.version} does. Take that version or leave it out")
    raise InputError(f"{where}: {name} has no {flag} any more, {place.version} was the last; {instead}")
