# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every rule of the settings linter: a file where it fires, in the right line, and one where it must not."""

from __future__ import annotations

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter import knowledge, lint

VLLM = "services:\n  a:\n    image: vllm/vllm-openai:{version}\n"


def vllm(text: str, version: str = "v0.11.0") -> str:
    return VLLM.format(version=version) + text


def service(text: str) -> str:
    return "services:\n  a:\n    image: registry.example/app:1.2\n" + text


def llama(text: str) -> str:
    return "services:\n  a:\n    image: ghcr.io/ggml-org/llama.cpp:server-b9538\n" + text


def gpu(request: str, more: str = "") -> str:
    return service(
        f"    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, capabilities: [gpu], {request}}}]}}}}}}\n"  # noqa: E501
        + more
    )


UUID = "GPU-2f5a5d1c-0000-0000-0000-000000000001"
C, D, S, K, E = "compose.yaml", "Dockerfile", "setup.sh", "sysctl.d/90.conf", "app.env"
# rule, file, text that is wrong, line of the finding, its severity, text that is right
CASES = [
    ("env-fictitious", E, "A=1\nVLLM_CUDA_GRAPHS=1\n", 2, "error", "VLLM_LOGGING_LEVEL=DEBUG\n"),
    (
        "env-fictitious",
        D,
        "FROM a:1\nENV A=1 \\\n    CUDA_TENSOR_CORES=1\n",
        3,
        "error",
        "FROM a:1\nENV CUDA_TENSORS=$X\n",
    ),
    (
        "env-fictitious",
        C,
        vllm("    environment: {VLLM_MAX_MODEL_LEN: 1}\n"),
        4,
        "error",
        vllm("    command: --max-model-len 1\n"),
    ),
    (
        "env-unknown",
        C,
        vllm("    environment:\n      - VLLM_LOGING_LEVEL=INFO\n"),
        5,
        "error",
        vllm("    environment: [VLLM_ASCEND_X=1]\n"),
    ),
    ("env-unknown", E, "CUDA_VISIBLE_DEVICE=1\n", 1, "warning", "CUDA_VISIBLE_DEVICES=" + UUID + "\nOTHER_THING=1\n"),
    ("env-unknown", E, "NVIDIA_VISIBLE_DEVICE=x\n", 1, "warning", "NVIDIA_MY_COMPANY=x\n"),
    ("env-unknown", E, "LLAMA_ARG_TREADS=1\n", 1, "warning", "LLAMA_ARG_THREADS=1\nLLAMA_ARG_NO_PERF=1\n"),
    (
        "env-removed",
        C,
        vllm("    environment: [VLLM_USE_V1=1]\n", "v0.13.0"),
        4,
        "error",
        vllm("    environment: [VLLM_USE_V1=1]\n"),
    ),
    ("env-removed", E, "VLLM_USE_V1=1\n", 1, "warning", "VLLM_CACHE_ROOT=/c\n"),
    (
        "env-not-yet",
        C,
        vllm("    environment: [VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE=1]\n", "v0.8.5"),
        4,
        "error",
        vllm("    environment: [VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE=1]\n", "v0.12.0"),
    ),
    ("env-deprecated", E, "TRANSFORMERS_CACHE=/c\n", 1, "warning", "HF_HOME=/c\n"),
    ("env-no-op", E, "NCCL_P2P_DISABLE=0\n", 1, "info", "NCCL_P2P_DISABLE=1\n"),
    ("env-no-op", E, "CUDA_AUTO_BOOST=0\n", 1, "warning", "CUDA_HOME=/usr/local/cuda\n"),
    ("env-wrong-value", E, "CUDA_DEVICE_MAX_CONNECTIONS=64\n", 1, "error", "CUDA_DEVICE_MAX_CONNECTIONS=32\n"),
    ("env-wrong-value", E, "CUDA_CACHE_PATH=/tmp/c\n", 1, "warning", "CUDA_CACHE_PATH=/cache/nv\n"),
    ("env-wrong-value", E, "CUBLAS_WORKSPACE_CONFIG=4096\n", 1, "error", "CUBLAS_WORKSPACE_CONFIG=:4096:8\n"),
    ("env-wrong-value", E, "NCCL_DEBUG=loud\n", 1, "warning", "NCCL_DEBUG=info\n"),
    ("env-harmful", E, "CUDA_LAUNCH_BLOCKING=1\n", 1, "warning", "CUDA_LAUNCH_BLOCKING=$X\n"),
    (
        "env-conflict",
        E,
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics\n",
        1,
        "info",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility\n",
    ),
    (
        "env-quoted",
        C,
        service('    environment:\n      - A=1\n      - B="x y"\n'),
        6,
        "error",
        service('    environment:\n      B: "x y"\n      C: \'"json"\'\n'),
    ),
    ("env-comment", E, "A=1 # one\n", 1, "warning", "# one\nA=1\nB='a # b'\n"),
    ("env-device-index", E, "CUDA_VISIBLE_DEVICES=0,1\n", 1, "warning", f"CUDA_VISIBLE_DEVICES={UUID}\n"),
    ("env-device-index", C, gpu('device_ids: ["0"]'), 4, "warning", gpu(f"device_ids: [{UUID}]")),
    (
        "allocator-unknown-option",
        E,
        "PYTORCH_CUDA_ALLOC_CONF=max_split_mb:1\n",
        1,
        "error",
        "PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:1,roundup_power2_divisions:[256:1,512:2]\n",
    ),
    (
        "allocator-backend",
        E,
        "PYTORCH_ALLOC_CONF=backend:cudaMallocAsync,expandable_segments:True\n",
        1,
        "error",
        "PYTORCH_ALLOC_CONF=backend:cudaMallocAsync\n",
    ),
    (
        "allocator-expandable",
        C,
        vllm(
            "    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True]\n    command: -tp 2\n    ipc: host\n"
        ),
        4,
        "error",
        vllm(
            "    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True]\n    command: -tp 2 --disable-custom-all-reduce\n    ipc: host\n"  # noqa: E501
        ),
    ),
    (
        "allocator-expandable",
        C,
        vllm(
            "    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True]\n    command: --kv-transfer-config={}\n"  # noqa: E501
        ),
        4,
        "error",
        vllm(
            "    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True]\n    command: --tensor-parallel-size 1\n"  # noqa: E501
        ),
    ),
    (
        "allocator-expandable",
        C,
        vllm("    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True]\n    command: --enable-sleep-mode\n"),
        4,
        "error",
        vllm(
            "    environment: [PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False]\n    command: --enable-sleep-mode\n"
        ),
    ),
    (
        "allocator-no-effect",
        E,
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True,max_split_size_mb:9\n",
        1,
        "warning",
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False,max_split_size_mb:9\n",
    ),
    (
        "allocator-two-names",
        E,
        "PYTORCH_CUDA_ALLOC_CONF=a\nPYTORCH_ALLOC_CONF=a\n",
        2,
        "error",
        "PYTORCH_ALLOC_CONF=backend:native\n",
    ),
    (
        "flag-unknown",
        C,
        vllm("    command:\n      - --model=x\n      - --gpu-memory=1\n"),
        6,
        "error",
        vllm(
            "    command: [--model=x, --no-enable-prefix-caching, -O3, --max_model_len, '1', --compilation-config.mode, '3']\n"  # noqa: E501
        ),
    ),
    (
        "flag-unknown",
        S,
        "llama-server -m x \\\n  --contex-size 1\n",
        2,
        "warning",
        "llama-server -m x --ctx-size 1 -ngl 99\n",
    ),
    (
        "flag-removed",
        C,
        vllm("    command: --swap-space 4\n", "v0.18.0"),
        4,
        "error",
        vllm("    command: --swap-space 4\n"),
    ),
    (
        "flag-removed",
        S,
        "python -m vllm.entrypoints.openai.api_server --swap-space 4\n",
        1,
        "warning",
        "other --swap-space 4\n",
    ),
    (
        "flag-not-yet",
        C,
        vllm("    command: --attention-backend X\n"),
        4,
        "error",
        vllm("    command: --attention-backend X\n", "v0.13.0"),
    ),
    ("flag-fictitious", S, "llama-server --hugepages\n", 1, "error", "llama-server --threads 8\n"),
    (
        "flag-wrong-value",
        S,
        "vllm serve m --gpu-memory-utilization 90\n",
        1,
        "error",
        "vllm serve m --gpu-memory-utilization 0.9\n",
    ),
    ("flag-wrong-value", S, "sudo nvidia-smi -pl 600\n", 1, "warning", "nvidia-smi -L\n"),
    (
        "flag-deprecated",
        S,
        "nvidia-smi -pm 1\n",
        1,
        "warning",
        "nvidia-smi --query-gpu=persistence_mode --format=csv\n",
    ),
    ("flag-deprecated", S, "nvidia-smi --applications-clocks=3002,2550\n", 1, "error", "echo -ac\n"),
    ("flag-harmful", S, "true && nvidia-smi -i 0 -lmc 3002 || true\n", 1, "error", "nvidia-smi -rmc\n"),
    ("flag-conflict", S, "nvidia-smi -c 3\n", 1, "warning", "nvidia-smi -c DEFAULT\n"),
    ("flag-removed", S, "nvidia-smi -c EXCLUSIVE_THREAD\n", 1, "error", "nvidia-smi -c 0\n"),
    ("flag-no-op", S, "nvidia-smi --auto-boost-default=0\n", 1, "warning", "nvidia-smi -q\n"),
    ("sysctl-fictitious", K, "vm.transparent_hugepage = never\n", 1, "error", "vm.dirty_ratio = 5\n"),
    ("sysctl-removed", K, "#\n-kernel.sched_latency_ns = 1\n", 2, "error", "kernel.sched_rt_runtime_us = 1\n"),
    ("sysctl-unknown", K, "vm.swapiness=1\n", 1, "warning", "vm.page-cluster=0\nnet.ipv4.conf.*.rp_filter=1\n"),
    ("sysctl-harmful", K, "vm/overcommit_memory=2\n", 1, "error", "vm.overcommit_memory=1\n"),
    ("sysctl-harmful", S, "sudo sysctl -w vm.drop_caches=3\n", 1, "error", "sysctl vm.swappiness\n"),
    ("sysctl-wrong-value", K, "kernel.shmmax=68719476736\n", 1, "error", "kernel.shmmax=18446744073692774399\n"),
    ("sysctl-wrong-value", K, "vm.swappiness=0\n", 1, "warning", "vm.swappiness=10\n"),
    ("sysctl-wrong-value", K, "vm.swappiness=201\n", 1, "error", "vm.swappiness=1\n"),
    ("sysctl-no-op", K, "kernel.numa_balancing=0\n", 1, "info", "kernel.numa_balancing=1\n"),
    ("sysctl-syntax", K, "vm.swappiness 10\n", 1, "error", "; note\n-vm.swappiness\n"),
    ("sysctl-syntax", K, "vm.swappiness=10 # low\n", 1, "error", "# low\nvm.swappiness=10\n"),
    (
        "compose-sysctl",
        C,
        service("    sysctls:\n      - vm.swappiness=10\n"),
        5,
        "error",
        service("    sysctls: {net.core.somaxconn: 1, kernel.msgmax: 1, fs.mqueue.msg_max: 2}\n"),
    ),
    (
        "compose-sysctl",
        C,
        service("    network_mode: host\n    sysctls: {net.ipv4.tcp_fin_timeout: 9}\n"),
        5,
        "error",
        service("    sysctls: [net.ipv4.tcp_fin_timeout=9]\n"),
    ),
    (
        "compose-sysctl",
        C,
        service("    sysctls: [net.core.rmem_max=9]\n"),
        4,
        "error",
        service("    sysctls: [net.unix.max_dgram_qlen=9]\n"),
    ),
    (
        "compose-publish",
        C,
        service("    ports:\n      - '8000:8000'\n"),
        5,
        "warning",
        service("    ports: ['127.0.0.1:8000:8000', '[::1]:8000:8000']\n"),
    ),
    (
        "compose-publish",
        C,
        service("    ports:\n      - {target: 80, published: 81}\n"),
        5,
        "warning",
        service("    ports: [{target: 80, published: 81, host_ip: 127.0.0.1}]\n"),
    ),
    (
        "compose-duplicate-port",
        C,
        service("    ports: ['127.0.0.1:8000-8002:80-82']\n  b:\n    image: b:1\n    ports: ['127.0.0.1:8001:1']\n"),
        7,
        "error",
        service(
            "    ports: ['127.0.0.1:8000:1']\n    profiles: [x]\n  b:\n    image: b:1\n    profiles: [y]\n    ports: ['127.0.0.1:8000:1', '127.0.0.2:8001:1', '127.0.0.1:8001:1', '127.0.0.1:8001:1/udp']\n"  # noqa: E501
        ),
    ),
    (
        "compose-healthcheck-port",
        C,
        vllm("    healthcheck:\n      test: curl -f http://localhost:8006/health\n"),
        5,
        "error",
        vllm("    command: --port 8006\n    healthcheck: {test: 'curl -f http://localhost:8006/health'}\n"),
    ),
    (
        "compose-healthcheck-port",
        C,
        service("    ports: ['127.0.0.1:81:80']\n    healthcheck: {test: [CMD, curl, 'http://127.0.0.1:81/']}\n"),
        5,
        "warning",
        service("    ports: ['127.0.0.1:81:80']\n    healthcheck: {test: [CMD, curl, 'http://127.0.0.1:80/']}\n"),
    ),
    (
        "compose-healthcheck-path",
        C,
        vllm("    healthcheck: {test: 'curl -f localhost:8000/v1/health'}\n"),
        4,
        "error",
        llama("    healthcheck: {test: 'curl -f localhost:8080/v1/health'}\n"),
    ),
    (
        "compose-read-only",
        C,
        service("    read_only: true\n"),
        4,
        "error",
        service("    read_only: true\n    tmpfs: /tmp\n"),
    ),
    (
        "compose-read-only",
        C,
        vllm("    read_only: true\n    tmpfs: ['/tmp:exec']\n"),
        4,
        "error",
        vllm("    read_only: true\n    tmpfs: ['/tmp:exec']\n    volumes: ['cache:/root/.cache']\n"),
    ),
    (
        "compose-tmp-noexec",
        C,
        vllm("    tmpfs: ['/tmp:size=1g']\n"),
        4,
        "error",
        vllm("    tmpfs: ['/tmp:rw,exec,size=1g']\n"),
    ),
    ("compose-gpu-selectors", C, gpu("count: 1", "    runtime: nvidia\n"), 5, "error", gpu("count: 1")),
    (
        "compose-gpu-selectors",
        C,
        service("    gpus: all\n    devices: [nvidia.com/gpu=all]\n"),
        5,
        "error",
        service("    devices: [nvidia.com/gpu=all, /dev/fuse]\n"),
    ),
    (
        "compose-gpu-variable",
        C,
        gpu("count: 1", f"    environment: [CUDA_VISIBLE_DEVICES={UUID}]\n"),
        5,
        "warning",
        service(f"    runtime: nvidia\n    environment: [NVIDIA_VISIBLE_DEVICES={UUID}]\n"),
    ),
    ("compose-device-option", C, gpu("options: [compute-mode=exclusive]"), 4, "error", gpu("count: 1")),
    ("compose-device-count", C, gpu(f"count: 1, device_ids: [{UUID}]"), 4, "error", gpu(f"device_ids: [{UUID}]")),
    (
        "compose-mlock",
        C,
        llama("    command: --mlock\n    ulimits: {memlock: -1}\n"),
        3,
        "warning",
        llama("    command: --mlock\n    mem_limit: 8g\n    ulimits: {memlock: -1}\n"),
    ),
    (
        "compose-mlock",
        C,
        llama("    environment: {LLAMA_ARG_LOAD_MODE: mlock}\n    mem_limit: 8g\n"),
        3,
        "warning",
        llama("    environment: {LLAMA_ARG_LOAD_MODE: mmap}\n"),
    ),
    (
        "compose-memlock",
        C,
        service("    ulimits: {memlock: -1}\n"),
        4,
        "info",
        service("    ulimits: {nofile: 1024}\n"),
    ),
    (
        "compose-shared-memory",
        C,
        vllm("    command: --tensor-parallel-size 2\n"),
        3,
        "warning",
        vllm("    command: --tensor-parallel-size 2\n    shm_size: 8gb\n"),
    ),
    (
        "compose-cap-numa",
        C,
        service("    command: numactl --membind=0 x\n"),
        4,
        "warning",
        service("    command: numactl --membind=0 x\n    cap_add: [SYS_NICE]\n"),
    ),
    (
        "image-tag",
        C,
        "services: {a: {image: 'vllm/vllm-openai:latest'}}\n",
        1,
        "warning",
        "services: {a: {image: 'vllm/vllm-openai:${V}'}, b: {image: b, build: .}, c: {image: 'r:5000/c@sha256:0'}}\n",
    ),
    ("image-tag", D, "FROM ubuntu\n", 1, "warning", "FROM ubuntu:24.04 AS base\nFROM base\nFROM scratch\n"),
    ("compose-fictitious", C, service("    cpuset_mems: '0'\n"), 4, "error", service("    cpuset: '0'\n")),
    ("compose-unknown", C, service("    enviroment: {}\n"), 4, "error", service("    x-mine: {}\n")),
    (
        "compose-no-op",
        C,
        service("    mem_swappiness: 0\n"),
        4,
        "warning",
        service("    memswap_limit: 1g\n    mem_limit: 1g\n"),
    ),
    ("compose-removed", C, service("    kernel_memory: 1g\n"), 4, "error", service("    mem_limit: 1g\n")),
    ("compose-version", C, "version: '3'\n" + service(""), 1, "info", service("")),
    (
        "dockerfile-env-comment",
        D,
        "FROM a:1\nENV A=1  # one\n",
        2,
        "error",
        "FROM a:1\n# one\nENV A=1 \\\n  # two\n  B='# 3'\n",
    ),
    ("dockerfile-env-comment", D, "FROM a:1\nENV A 1 # one\n", 2, "error", "FROM a:1\nENV A 1#one\n"),
    ("dockerfile-env-syntax", D, "FROM a:1\nENV A=1 B\n", 2, "error", "FROM a:1\nENV A=1 B='x y' C=x\\ y\n"),
    (
        "dockerfile-mps",
        D,
        "FROM a:1\nENV CUDA_MPS_PIPE_DIRECTORY=/run/mps\n",
        2,
        "warning",
        "FROM a:1\nENV CUDA_HOME=/c\n",
    ),
    (
        "shell-drop-caches",
        S,
        "sync\necho 3 | sudo tee /proc/sys/vm/drop_caches\n",
        2,
        "error",
        "cat /proc/sys/vm/drop_caches # not > /proc\n",
    ),
    (
        "shell-throttle-name",
        S,
        "nvidia-smi -q | grep 'Clocks Throttle Reasons'\n",
        1,
        "warning",
        "nvidia-smi -q | grep 'Clocks Event Reasons'\n",
    ),
    ("shell-no-such-field", S, "nvidia-smi -q | grep 'Tensor Cores'\n", 1, "error", "grep 'Tensor Cores' notes.txt\n"),
    ("shell-world-writable-cache", S, "chmod 1777 /tmp/cuda_cache\n", 1, "warning", "chmod 0700 /tmp/cuda_cache\n"),
    ("file-unreadable", C, "services:\n  a: [\n", 3, "error", service("")),
    ("file-unreadable", C, "- a\n", 1, "error", "services: {}\n"),
]


def found(name: str, text: str, tmp_path) -> list:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return lint.lint_path(tmp_path).findings


@pytest.mark.parametrize(("rule", "name", "bad", "line", "severity", "good"), CASES, ids=lambda value: str(value)[:40])
def test_a_rule_fires_where_it_must_and_only_there(rule, name, bad, line, severity, good, tmp_path) -> None:
    hits = [one for one in found(name, bad, tmp_path) if one.rule == rule]
    assert {(one.line, one.severity) for one in hits} == {(line, severity)}
    assert hits[0].setting
    assert "\n" not in hits[0].message
    assert rule not in {one.rule for one in found(name, good, tmp_path)}


def test_every_rule_has_a_case() -> None:
    # file-skipped is in test_linter.py: its file is too large for a table.
    assert {case[0] for case in CASES} == knowledge.rules().keys() - {"file-skipped"}


def test_what_a_good_file_is_made_of_is_all_right(tmp_path) -> None:
    text = llama(
        f"""    read_only: true
    tmpfs: [/tmp]
    mem_limit: 8g
    ports: ["127.0.0.1:8004:8080"]
    volumes: ["/models:/models:ro"]
    environment: {{LLAMA_ARG_N_GPU_LAYERS: "99", LLAMA_ARG_CTX_SIZE: "8192"}}
    command: [--model, /models/a.gguf, --mlock]
    ulimits: {{memlock: -1}}
    deploy: {{resources: {{reservations: {{devices: [{{driver: cdi, device_ids: ["nvidia.com/gpu={UUID}"]}}]}}}}}}
    healthcheck: {{test: [CMD, curl, -f, "http://127.0.0.1:8080/health"]}}
"""
    )
    assert found(C, text, tmp_path) == []
