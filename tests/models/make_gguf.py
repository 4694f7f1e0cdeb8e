# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a small model that real engines load and that answers (nonsense): for tests that serve one.

    tests/models/make_gguf.py FILE [SEED]      about 460 kB; the same seed gives the same bytes

Two layers of the llama architecture with random weights and a vocabulary of single bytes. GGUF version 3:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import array
import random
import struct
import sys
from pathlib import Path
from typing import Any

WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT = 64, 128, 2, 4, 4096
ALIGNMENT = 32
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
UNKNOWN, CONTROL, BYTE = 2, 3, 6

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
KINDS = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]

SHAPES: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (WIDTH, len(TOKENS)),
    **{
        f"blk.{layer}.{name}.weight": shape
        for layer in range(LAYERS)
        for name, shape in {
            "attn_norm": (WIDTH,),
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH)),
            "ffn_norm": (WIDTH,),
            **dict.fromkeys(("ffn_gate", "ffn_up"), (WIDTH, HIDDEN)),
            "ffn_down": (HIDDEN, WIDTH),
        }.items()
    },
    "output_norm.weight": (WIDTH,),
    "output.weight": (WIDTH, len(TOKENS)),
}


def gguf(seed: int = 1) -> bytes:
    """The file."""
    rng, infos, data = random.Random(seed), bytearray(), bytearray()  # noqa: S311 -- weights, no secrets
    for name, shape in SHAPES.items():
        infos += _text(name) + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 0, len(data))  # 0: float32
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if "norm" in name else [rng.gauss(0, 0.08) for _value in range(count)]
        data += array.array("f", values).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    keys = _keys()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(SHAPES), len(keys)) + b"".join(keys) + infos
    return bytes(head + bytes(-len(head) % ALIGNMENT) + data)


def _keys() -> list[bytes]:
    numbers = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(TOKENS),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    texts = {"general.architecture": "llama", "general.name": "nonsense", "tokenizer.ggml.model": "llama"}
    return [
        *(_key(name, STRING, _text(text)) for name, text in texts.items()),
        *(_key(name, UINT32, struct.pack("<I", number)) for name, number in numbers.items()),
        _key("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        _key("tokenizer.ggml.tokens", ARRAY, _array(STRING, [_text(token) for token in TOKENS])),
        _key("tokenizer.ggml.scores", ARRAY, _array(FLOAT32, [struct.pack("<f", 0)] * len(TOKENS))),
        _key("tokenizer.ggml.token_type", ARRAY, _array(INT32, [struct.pack("<i", kind) for kind in KINDS])),
    ]


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def _array(kind: int, items: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def main(arguments: list[Any]) -> int:
    if not 1 <= len(arguments) <= 2:
        sys.stderr.write("usage: make_gguf.py FILE [SEED]\n")
        return 2
    Path(arguments[0]).write_bytes(gguf(int(arguments[1]) if len(arguments) > 1 else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
