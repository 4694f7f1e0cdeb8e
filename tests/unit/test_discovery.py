# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files that tell programs where the services of a workstation are."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.discovery import discovery

SERVICES: list[dict[str, Any]] = [
    {
        "name": "vllm-gpu",
        "engine": "vllm",
        "port": 8005,
        "openai": True,
        "models": ["b", "a"],
        "gpu": True,
        "key": True,
    },
    {
        "name": "llama_cpu",
        "engine": "llama_cpp",
        "address": "0.0.0.0",  # noqa: S104 the address of a declared service
        "port": 8001,
        "openai": True,
        "models": ["it's"],
    },
    {"name": "gateway", "address": "10.0.0.7", "port": 8080, "openai": True, "key": True, "tls": True},
    {"name": "worker", "port": None},
]


def test_json_and_shell_say_the_same() -> None:
    found = discovery(SERVICES, "ai-stack", "gateway")
    content = json.loads(found["json"])
    assert content["gateway"] == {"url": "https://10.0.0.7:8080/v1", "key": True}
    assert content["services"]["vllm-gpu"] == {
        "engine": "vllm", "url": "http://127.0.0.1:8005", "openai_url": "http://127.0.0.1:8005/v1",
        "models": ["a", "b"], "gpu": True, "key": True, "metrics_url": None,
    }  # fmt: skip
    assert content["services"]["worker"]["url"] is None
    script = (
        found["shell"]
        + 'for v in PROJECT SERVICES GPU_SERVICES CPU_SERVICES GATEWAY_URL; do eval "echo \\$AI_$v"; done\n'
    )
    script += 'echo "$AI_VLLM_GPU_URL|$AI_VLLM_GPU_MODELS|$AI_LLAMA_CPU_URL|$AI_LLAMA_CPU_MODELS|$AI_WORKER_URL"'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "ai-stack",
        "gateway llama_cpu vllm-gpu worker",
        "vllm-gpu",
        "gateway llama_cpu worker",
        "https://10.0.0.7:8080/v1",
        "http://127.0.0.1:8005/v1|a b|http://127.0.0.1:8001/v1|it's|",
    ]


def test_the_order_does_not_matter_and_no_gateway_is_said() -> None:
    assert discovery(SERVICES[::-1], "x") == discovery(SERVICES, "x")
    assert json.loads(discovery([], "x")["json"])["gateway"] is None


@pytest.mark.parametrize(
    ("services", "gateway", "message"),
    [
        ("x", None, "services: 'x' is not a list of services"),
        ([{"name": "a b"}], None, "services[0].name: 'a b' is not a name"),
        ([{"name": "a", "prt": 1}], None, "services[0]: 'prt' is not a field of it; did you mean port?"),
        ([{"name": "a", "port": 0}], None, "service a: port: 0 is not a whole number"),
        ([{"name": "a"}], "b", "gateway: 'b' is none of the services"),
    ],
)
def test_bad_input_is_one_line(services: Any, gateway: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        discovery(services, "x", gateway)
    assert str(error.value).startswith(message)
