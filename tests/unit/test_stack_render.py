# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declared services become one compose file: golden text, promises that hold for any service, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.module_utils.stack.yaml_text import dump
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.stack import render
from hypothesis import given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).parent / "stack"
DIGEST = "sha256:" + "0123456789abcdef" * 4
EVERYBODY = "0.0.0.0"  # noqa: S104
UUID = "GPU-5e7a1f4c-0000-1111-2222-333344445555"
LLAMA = {"name": "llama_cpu", "image": f"llama@{DIGEST}", "version": "11549", "model": "a.gguf", "memory": "8G"}
VLLM = {
    "name": "vllm_gpu",
    "image": f"vllm@{DIGEST}",
    "version": "0.20.0",
    "model": "b",
    "gpus": [UUID],
    "memory": "16G",
}
WEBUI = {
    "name": "open_webui",
    "image": f"webui@{DIGEST}",
    "secret_environment": {"WEBUI_SECRET_KEY": "sessions"},
    "memory": "4G",
}


def one(entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The definition of a single service."""
    found: dict[str, Any] = render([entry], **more)["compose"]["services"][entry["name"]]
    return found


def flags(entry: dict[str, Any]) -> str:
    return " ".join(one(entry)["command"])


def test_the_stack_of_the_documentation_is_rendered_as_it_always_was() -> None:
    declared = yaml.safe_load((GOLDEN / "services.yml").read_text(encoding="utf-8"))
    places = {
        "llama_cpu": {"cpus": "0-3", "exclusive": True, "memory_limit_bytes": 8 << 30, "gpus": []},
        "llama_gpu": {"cpus": "4-5", "memory_limit_bytes": 4 << 30, "gpus": [UUID]},
    }
    found = render(declared, {"project": "example"}, {"services": places}, {"gpus": [{"uuid": UUID}]})
    assert dump(found["compose"]) == (GOLDEN / "compose.txt").read_text(encoding="utf-8")


def test_the_same_services_make_the_same_text_and_the_text_says_what_the_data_says() -> None:
    found = render([LLAMA, VLLM, WEBUI])["compose"]
    assert dump(found) == dump(render([LLAMA, VLLM, WEBUI])["compose"])
    assert yaml.safe_load(dump(found)) == json.loads(json.dumps(found))


# -- what holds for every service --------------------------------------------------------------------

_SERVICE = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
        "image": st.just(f"x@{DIGEST}"),
        "engine": st.just("custom"),
    },
    optional={
        "command": st.lists(st.text("abc$-{}\"' ", max_size=8), max_size=3),
        "environment": st.dictionaries(st.from_regex(r"[A-Z]{1,5}X", fullmatch=True), st.text(max_size=9), max_size=3),
        "memory": st.sampled_from(["64M", "1G", 12345678]),
        "user": st.sampled_from(["1000", "1000:100", "65534:65534"]),
        "settings": st.just({}),
        "data": st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.just("/data"), max_size=1),
        "tmp_exec": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_SERVICE, max_size=4, unique_by=lambda entry: entry["name"]))
def test_every_service_is_closed_unless_it_asks(services: list[dict[str, Any]]) -> None:
    found = render(services)["compose"]
    for entry in services:
        made = found["services"][entry["name"]]
        assert made["read_only"] is True
        assert made["cap_drop"] == ["ALL"]
        assert "cap_add" not in made
        assert "privileged" not in made
        assert made["security_opt"] == ["no-new-privileges:true"]
        assert int(made["user"].split(":")[0]) > 0
        assert made["pids_limit"] > 0
        assert "ports" not in made
        assert "ulimits" not in made
        assert made.get("mem_limit") == made.get("memswap_limit")
        assert ("noexec" in made["tmpfs"][0]) is not entry.get("tmp_exec", False)
        assert made["logging"]["options"]["max-size"]
        # Compose reads $$ as $: what was asked for is what arrives.
        assert [word.replace("$$", "$") for word in made.get("command", [])] == entry.get("command", [])
        text = dict(made.get("environment", {}))
        assert {name: value.replace("$$", "$") for name, value in text.items()} == entry.get("environment", {})
        assert not any(re.search(r"(?<!\$)\$(?!\$)", value.replace("$$", "")) for value in text.values())
    assert yaml.safe_load(dump(found)) == json.loads(json.dumps(found))


def test_ports_are_bound_to_this_machine_alone_unless_asked() -> None:
    assert one(LLAMA)["ports"] == ["127.0.0.1:8001:8080"]
    assert one(VLLM)["ports"] == ["127.0.0.1:8005:8000"]
    asked = {**LLAMA, "bind": EVERYBODY, "port": 9000}
    assert one(asked)["ports"] == ["0.0.0.0:9000:8080"]
    assert any("open on 0.0.0.0, without an API key" in row["message"] for row in render([asked])["findings"])


def test_the_placement_gives_cpus_memory_and_gpus_and_a_service_overrules_it() -> None:
    placement = {"services": {"llama_gpu": {"cpus": "2-5", "memory_limit_bytes": 1 << 30, "gpus": [UUID]}}}
    entry = {**LLAMA, "name": "llama_gpu", "memory": None}
    made = one(entry, placement=placement)
    assert (made["cpuset"], made["mem_limit"]) == ("2-5", 1 << 30)
    assert made["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={UUID}"], "capabilities": ["gpu"]}
    ]
    assert "--threads 4" in " ".join(made["command"])
    assert "--n-gpu-layers 999" in " ".join(made["command"])
    other = one({**entry, "cpus": "7", "memory": "2G", "gpus": []}, placement=placement)
    assert (other["cpuset"], other["mem_limit"]) == ("7", 2 << 30)
    assert "deploy" not in other


def test_only_a_service_that_locks_memory_may_lock_memory() -> None:
    assert "ulimits" not in one(LLAMA)
    locked = {**LLAMA, "settings": {"mlock": True}}
    assert one(locked)["ulimits"] == {"memlock": {"soft": -1, "hard": -1}}
    assert one({**locked, "memlock": "8M"})["ulimits"] == {"memlock": {"soft": 8 << 20, "hard": 8 << 20}}


def test_health_waits_as_long_as_loading_takes_and_the_limit_knows_it() -> None:
    found = render([VLLM])
    check = found["compose"]["services"]["vllm_gpu"]["healthcheck"]
    assert check["start_period"] == "900s"
    assert found["services"][0]["health_seconds"] >= 900
    assert "http://127.0.0.1:8000/health" in check["test"][1]


# -- secrets -----------------------------------------------------------------------------------------


def test_secrets_are_files_and_stand_nowhere_else() -> None:
    found = render([{**LLAMA, "api_key": "llama"}, {**VLLM, "api_key": "vllm"}, WEBUI])
    made = found["compose"]["services"]
    assert made["llama_cpu"]["secrets"] == [{"source": "llama_cpu_llama", "target": "api_key"}]
    assert made["llama_cpu"]["command"][-2:] == ["--api-key-file", "/run/secrets/api_key"]
    assert 'VLLM_API_KEY="$$(cat /run/secrets/api_key)"' in made["vllm_gpu"]["entrypoint"][2]
    assert "VLLM_API_KEY" not in made["vllm_gpu"]["environment"]
    # Open WebUI has the keys of its backends, in the order of their addresses.
    web = made["open_webui"]
    assert web["environment"]["OPENAI_API_BASE_URLS"] == "http://llama_cpu:8080/v1;http://vllm_gpu:8000/v1"
    assert 'OPENAI_API_KEYS="$$(cat /run/secrets/llama);$$(cat /run/secrets/vllm)"' in web["entrypoint"][2]
    assert {(row["service"], row["name"]) for row in found["secrets"]} == {
        ("llama_cpu", "llama"),
        ("vllm_gpu", "vllm"),
        ("open_webui", "llama"),
        ("open_webui", "vllm"),
        ("open_webui", "sessions"),
    }


def test_a_backend_without_a_key_keeps_its_place_among_the_keys() -> None:
    web = render([LLAMA, {**VLLM, "api_key": "vllm"}, WEBUI])["compose"]["services"]["open_webui"]
    assert 'OPENAI_API_KEYS=";$$(cat /run/secrets/vllm)"' in web["entrypoint"][2]


def test_open_webui_takes_what_is_declared_at_each_start_unless_told_otherwise() -> None:
    def environment(**more: Any) -> dict[str, str]:
        return render([LLAMA, {**WEBUI, **more}])["compose"]["services"]["open_webui"]["environment"]

    assert environment()["RESET_CONFIG_ON_START"] == "true"
    # It opens accounts to everybody at each such start, if it is not told to keep them closed.
    assert environment()["ENABLE_SIGNUP"] == "false"
    assert environment(environment={"RESET_CONFIG_ON_START": False})["RESET_CONFIG_ON_START"] == "false"


# -- flags by version ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "wish", "flag"),
    [
        ("8929", {"mmap": False}, "--no-mmap"),
        ("8929", {"mlock": True}, "--mlock"),
        ("8929", {"mlock": True, "mmap": False}, "--no-mmap --mlock"),
        ("8929", {"direct_io": True}, "--direct-io"),
        ("11549", {"mmap": False}, "--load-mode none"),
        ("11549", {"mmap": True}, "--load-mode mmap"),
        ("11549", {"mlock": True}, "--load-mode mmap+mlock"),
        ("11549", {"mlock": True, "mmap": False}, "--load-mode mlock"),
        ("11549", {"direct_io": True}, "--load-mode dio"),
        ("11549", {"flash_attention": True}, "--flash-attn on"),
        (None, {"mmap": False}, "--load-mode none"),
    ],
)
def test_how_a_model_is_loaded_is_said_in_the_words_of_the_version(version, wish, flag) -> None:
    assert flags({**LLAMA, "version": version, "settings": wish}).endswith(flag)


@pytest.mark.parametrize(
    ("version", "wish", "flag"),
    [
        ("0.16.0", {"swap_space_gib": 4}, "--swap-space 4"),
        ("0.20.0", {"kv_offload_gib": 8}, "--kv-offloading-size 8"),
        ("0.20.0", {"prefix_caching": False}, "--no-enable-prefix-caching"),
        ("0.20.0", {"gpu_memory_share": 0.5}, "--gpu-memory-utilization 0.5"),
    ],
)
def test_vllm_has_the_flags_of_its_version(version, wish, flag) -> None:
    assert flag in flags({**VLLM, "version": version, "settings": wish})


def test_two_gpus_are_a_tensor_parallel_pair() -> None:
    assert "--tensor-parallel-size 2" in flags({**VLLM, "gpus": [UUID, "GPU-1"]})


# -- refusals ----------------------------------------------------------------------------------------

REFUSED = [
    ({**VLLM, "settings": {"swap_space_gib": 4}}, "has no --swap-space any more, 0.17.0 was the last; use --kv-off"),
    ({**VLLM, "version": "0.9.0", "settings": {"kv_offload_gib": 4}}, "0.9.0 has no --kv-offloading-size yet"),
    ({**VLLM, "settings": {"mlock": True}}, "vLLM has no such option in any version"),
    ({**LLAMA, "settings": {"direct_io": True, "mlock": True}}, "settings.direct_io: reads past the page cache"),
    ({**LLAMA, "settings": {"contxt": 1}}, "'contxt' is not a field of it; did you mean context"),
    ({**LLAMA, "settings": {"context": "big"}}, "settings.context: 'big' is not a whole number"),
    ({**LLAMA, "settings": {"mmap": "no"}}, "settings.mmap: 'no' is not a boolean"),
    ({**LLAMA, "settings": {"alias": "a b"}}, "settings.alias: 'a b' is not one word"),
    ({**LLAMA, "settings": {"mlock": True}, "memory": None}, "settings.mlock: locked memory cannot be reclaimed"),
    ({**LLAMA, "flags": ["--mlock"]}, "had it up to 10566"),
    ({**LLAMA, "flags": ["--api-key=hunter2"]}, "--api-key: a secret would stand in the compose file"),
    ({**LLAMA, "environment": {"HF_TOKEN": "hunter2"}}, "environment.HF_TOKEN: a secret would stand in the"),
    ({**LLAMA, "environment": {"GGML_CUDA_F16": 1}}, "GGML_CUDA_F16"),
    ({**LLAMA, "image": "llama:latest"}, "'llama:latest' is a tag"),
    ({**LLAMA, "image": ""}, "image: '' is no image"),
    ({**LLAMA, "model": None}, "model: missing"),
    ({**LLAMA, "model": "../etc/shadow"}, "is no path below /mnt/ai-data/models"),
    ({**LLAMA, "name": "Llama"}, "'Llama' is no name"),
    ({**LLAMA, "imagee": "x"}, "'imagee' is not a field of it; did you mean image"),
    ({**LLAMA, "user": "0:0"}, "user: '0:0' is not UID or UID:GID with a UID above 0"),
    ({**LLAMA, "bind": "localhost"}, "bind: 'localhost' is not an IPv4 address"),
    ({**LLAMA, "port": 70000}, "port: 70000 is not a whole number"),
    ({**LLAMA, "gpus": ["0"]}, "gpus: '0' is not a UUID"),
    ({**LLAMA, "name": "llama_gpu"}, "it needs a GPU"),
    ({**LLAMA, "volumes": ["cache:/x"]}, "volumes: 'cache:/x' is not /on/the/machine:/inside"),
    ({**LLAMA, "api_key": "sk-0123 456"}, "api_key: 'sk-'... is not the name of a secret"),
    ({**VLLM, "mps": True, "ipc": "private"}, "ipc: 'private' with mps"),
    ({**LLAMA, "mps": True}, "mps: it has no GPU"),
    ({**WEBUI, "secret_environment": {}}, "WEBUI_SECRET_KEY is missing"),
    ({**WEBUI, "settings": {"backends": ["nobody"]}}, "'nobody' is no service of the stack"),
    ({"name": "x", "image": f"x@{DIGEST}", "secret_environment": {"A": "a"}}, "the program must be known"),
    ({"name": "x", "image": f"x@{DIGEST}", "port": 80}, "container_port: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        render([entry])
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = [{**LLAMA, "port": 8005, "image": "llama:1"}, {**VLLM, "settings": {"mlock": True}}, {**LLAMA, "bind": "x"}]
    with pytest.raises(InputError) as caught:
        render(wrong)
    for part in (
        "is a tag",
        "vLLM has no such option",
        "port 8005 is published by llama_cpu and vllm_gpu",
        "'x' is not an",
    ):
        assert part in str(caught.value)


def test_services_of_one_name_and_cpus_of_others_are_refused() -> None:
    with pytest.raises(InputError, match="'llama_cpu' is there more than once"):
        render([LLAMA, LLAMA])
    placement = {"services": {"other": {"cpus": "0-3", "exclusive": True}}}
    with pytest.raises(InputError, match="cpus: 2-3 belong to other alone"):
        render([{**LLAMA, "cpus": "2-5"}], placement=placement)


@pytest.mark.parametrize(
    ("facts", "entry", "message"),
    [
        ({"cpu": {"online": "0-3"}}, {"cpus": "2-5"}, "cpus: 4-5 are not online here (0-3 are)"),
        (
            {"memory": {"total_bytes": 4 << 30}},
            {},
            "the limits (llama_cpu 8G) are more than the machine has (4096 MiB)",
        ),
        ({"gpus": [{"uuid": UUID}]}, {"gpus": ["GPU-other"]}, "gpus: GPU-other is not in this machine"),
    ],
)
def test_what_the_machine_does_not_have_is_refused(facts, entry, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        render([{**LLAMA, **entry}], facts=facts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subnet": "172.20.0.0"}, "must be a private network of 16 addresses or more"),
        ({"subnet": "8.8.8.0/24"}, "must be a private network"),
        ({"subnet": "x"}, "service_stack_subnet: 'x' is not an IPv4 network"),
        ({"project": "A"}, "service_stack_project: 'A' is no project name"),
        ({"log_size": "big"}, "service_stack_log_size: 'big' is not a size"),
        ({"models_path": "models"}, "service_stack_models_path: 'models' is not an absolute path"),
    ],
)
def test_options_of_the_stack_are_checked(options, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        render([LLAMA], options)


# -- MPS -----------------------------------------------------------------------------------------------


def test_mps_clients_have_its_pipes_its_namespace_and_one_user() -> None:
    second = {**LLAMA, "name": "llama_gpu", "gpus": [UUID], "mps": True, "mps_thread_percent": 30}
    found = render([{**VLLM, "mps": True, "mps_memory": "8G"}, second])
    for made in found["compose"]["services"].values():
        assert made["ipc"] == "host"
        assert made["environment"]["CUDA_MPS_PIPE_DIRECTORY"] == "/run/nvidia-mps"
        assert {"source": "/run/nvidia-mps", "target": "/run/nvidia-mps", "read_only": False}.items() <= made[
            "volumes"
        ][-1].items()
    made = found["compose"]["services"]
    assert made["vllm_gpu"]["environment"]["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M"
    assert made["llama_gpu"]["environment"]["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    assert f"CUDA_VISIBLE_DEVICES={UUID}" in found["mps"]["content"]
    assert "User=10001" in found["mps"]["content"]
    assert render([VLLM])["mps"] is None


def test_mps_clients_of_two_users_and_strangers_on_their_gpu_are_refused() -> None:
    first, second = {**VLLM, "mps": True}, {**LLAMA, "name": "llama_gpu", "gpus": [UUID]}
    with pytest.raises(InputError, match=r"a server serves one user.*vllm_gpu \(10001\), llama_gpu \(10002\)"):
        render([first, {**second, "mps": True, "user": "10002"}])
    with pytest.raises(InputError, match="service llama_gpu: mps: its GPU is shared through MPS by others"):
        render([first, second])
