# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each engine is: how it listens, answers, caches and starts; and the services that are known by their name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CACHE = "/cache"


@dataclass(frozen=True)
class Engine:
    """One kind of program.

    program: what is run, where the image's own entry point would not do. port: the one it listens on inside.
    start_seconds: what loading a large model may take. tmp_exec: whether it builds code at run time, and loads it from
    /tmp. answers: whether it speaks the OpenAI API, so that a token can be asked for.
    """

    port: int
    health: str = "/"
    program: tuple[str, ...] = ()
    start_seconds: int = 60
    answers: bool = False
    tmp_exec: bool = False
    tmp_size: str = "256m"
    shm_size: str | None = None
    pids: int = 512
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    caches: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


ENGINES: Mapping[str, Engine] = {
    "llama_cpp": Engine(
        port=8080,
        health="/health",
        start_seconds=300,
        answers=True,
        arguments=("--host", "0.0.0.0", "--port", "8080", "--metrics"),  # noqa: S104 inside its container
        environment={"HOME": "/tmp", "CUDA_CACHE_PATH": f"{CACHE}/nv"},  # noqa: S108 its own tmpfs
        caches={"cache": CACHE},
    ),
    # vLLM compiles kernels and loads them from its caches and from /tmp.
    "vllm": Engine(
        port=8000,
        health="/health",
        program=("vllm", "serve"),
        start_seconds=900,
        answers=True,
        tmp_exec=True,
        tmp_size="2g",
        shm_size="8g",
        pids=4096,
        arguments=("--host", "0.0.0.0", "--port", "8000"),  # noqa: S104 inside its container
        environment={
            "HOME": CACHE,
            "HF_HOME": f"{CACHE}/hf",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
            "VLLM_NO_USAGE_STATS": "1",
            "TRITON_CACHE_DIR": f"{CACHE}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
            "CUDA_CACHE_PATH": f"{CACHE}/nv",
        },
        caches={"cache": CACHE},
    ),
    "open_webui": Engine(
        port=8080,
        health="/health",
        program=("open-webui", "serve"),
        start_seconds=180,
        arguments=("--host", "0.0.0.0", "--port", "8080"),  # noqa: S104 inside its container
        environment={
            "HOME": "/tmp",  # noqa: S108 its own tmpfs
            "DATA_DIR": "/data",
            "STATIC_DIR": "/data/static",
            "OFFLINE_MODE": "true",
            # Else what its database has from the first start wins: another backend or key would never be used. And with
            # that, accounts are closed again at each start, but for the first one, which it always lets in.
            "RESET_CONFIG_ON_START": "true",
            "ENABLE_SIGNUP": "false",
            "RAG_EMBEDDING_ENGINE": "openai",
            "ENABLE_OLLAMA_API": "false",
            "ANONYMIZED_TELEMETRY": "false",
            "SCARF_NO_ANALYTICS": "true",
            "DO_NOT_TRACK": "true",
        },
        data={"data": "/data"},
    ),
    "sd_forge": Engine(
        port=7860,
        start_seconds=600,
        tmp_exec=True,
        tmp_size="2g",
        pids=2048,
        arguments=("--listen", "--port", "7860"),
        environment={"HOME": CACHE, "CUDA_CACHE_PATH": f"{CACHE}/nv", "HF_HOME": f"{CACHE}/hf"},
        caches={"cache": CACHE},
        data={"outputs": "/data"},
    ),
    "custom": Engine(port=0),
}

# Services that are known by their name: engine, port on the machine, whether they need a GPU.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "llama_gpu": {"engine": "llama_cpp", "port": 8004, "gpu": True},
    "vllm_gpu": {"engine": "vllm", "port": 8005, "gpu": True},
    "llama_cpu": {"engine": "llama_cpp", "port": 8001},
    "open_webui": {"engine": "open_webui", "port": 3000},
    "sd_forge": {"engine": "sd_forge", "port": 7860, "gpu": True},
}
