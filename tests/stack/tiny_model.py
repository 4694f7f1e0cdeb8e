# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A language model small enough to be made on the spot: two llama layers of noise over a vocabulary of bytes.

    python tests/stack/tiny_model.py FILE

The real llama-server loads it and generates from it. Standard library only; the same bytes for the same seed.
The format: ggml docs/gguf.md.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_WIDTH, _HEADS, _LAYERS, _INNER, _CONTEXT = 64, 4, 2, 128, 512
_ALIGN = 32


def _text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


def _list(kind: int, items: Iterable[bytes]) -> bytes:
    rows = list(items)
    return struct.pack("<IQ", kind, len(rows)) + b"".join(rows)


def _metadata() -> list[bytes]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    kinds = [2, 3, 3, *[6] * 256]  # unknown, control, byte
    numbers = {
        "llama.context_length": _CONTEXT,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": _LAYERS,
        "llama.feed_forward_length": _INNER,
        "llama.rope.dimension_count": _WIDTH // _HEADS,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return [
        _pair("general.architecture", _STRING, _text("llama")),
        _pair("general.name", _STRING, _text("tiny")),
        *(_pair(key, _UINT32, struct.pack("<I", value)) for key, value in numbers.items()),
        _pair("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5)),
        _pair("tokenizer.ggml.model", _STRING, _text("llama")),
        _pair("tokenizer.ggml.tokens", _ARRAY, _list(_STRING, map(_text, tokens))),
        _pair("tokenizer.ggml.scores", _ARRAY, _list(_FLOAT32, (struct.pack("<f", 0.0) for _ in tokens))),
        _pair("tokenizer.ggml.token_type", _ARRAY, _list(_INT32, (struct.pack("<i", kind) for kind in kinds))),
    ]


def _shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (_WIDTH, 259),
        "output_norm.weight": (_WIDTH,),
        "output.weight": (_WIDTH, 259),
    }
    for number in range(_LAYERS):
        layer = f"blk.{number}"
        found |= {f"{layer}.{part}_norm.weight": (_WIDTH,) for part in ("attn", "ffn")}
        found |= {f"{layer}.attn_{part}.weight": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")}
        found |= {f"{layer}.ffn_{part}.weight": (_WIDTH, _INNER) for part in ("gate", "up")}
        found[f"{layer}.ffn_down.weight"] = (_INNER, _WIDTH)
    return found


def tiny_model(seed: int = 1) -> bytes:
    """The file's content, about 400 kB."""
    noise = random.Random(seed)  # noqa: S311 weights, not secrets
    heads, data, place = [], [], 0
    for name, shape in _shapes().items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if name.endswith("_norm.weight") else [noise.gauss(0, 0.1) for _ in range(count)]
        block = struct.pack(f"<{count}f", *values)
        heads.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, place))
        data.append(block + b"\0" * (-len(block) % _ALIGN))
        place += len(data[-1])
    pairs = _metadata()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(heads), len(pairs)) + b"".join(pairs) + b"".join(heads)
    return head + b"\0" * (-len(head) % _ALIGN) + b"".join(data)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(tiny_model())
