# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a small model as Hugging Face has them, which vLLM loads and which answers (nonsense).

    tests/models/make_llama.py FOLDER [SEED]      about 470 kB; the same seed gives the same bytes

What make_gguf.py is for llama.cpp: two layers with random weights, and a vocabulary of single bytes.
"""

from __future__ import annotations

import array
import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

# Heads of 32: the least that vLLM's attention on CPUs takes.
WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT = 64, 128, 2, 2, 2048
SPECIAL = ["<unk>", "<s>", "</s>"]
SIZE = len(SPECIAL) + 256

# Rows and columns of each weight (safetensors: https://github.com/huggingface/safetensors#format).
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (SIZE, WIDTH),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(LAYERS)
        for name, shape in {
            "input_layernorm": (WIDTH,),
            **{f"self_attn.{one}_proj": (WIDTH, WIDTH) for one in "qkvo"},
            "post_attention_layernorm": (WIDTH,),
            **{f"mlp.{one}_proj": (HIDDEN, WIDTH) for one in ("gate", "up")},
            "mlp.down_proj": (WIDTH, HIDDEN),
        }.items()
    },
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (SIZE, WIDTH),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": WIDTH // HEADS,
    "vocab_size": SIZE,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"


def weights(seed: int = 1) -> bytes:
    """The file model.safetensors."""
    rng, head, data = random.Random(seed), {}, bytearray()  # noqa: S311 -- weights, no secrets
    for name, shape in SHAPES.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if "norm" in name else [rng.gauss(0, 0.08) for _value in range(count)]
        start = len(data)
        data += array.array("f", values).tobytes()
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary: itself where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]


def tokenizer() -> dict[str, Any]:
    """The file tokenizer.json: every byte is a token."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters()])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "special": True, **flags} for number, token in enumerate(SPECIAL)
        ],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2:
        sys.stderr.write("usage: make_llama.py FOLDER [SEED]\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": CONTEXT,
        "chat_template": TEMPLATE,
    }
    for name, content in (("config", CONFIG), ("tokenizer", tokenizer()), ("tokenizer_config", known)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights(int(arguments[1]) if len(arguments) > 1 else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
