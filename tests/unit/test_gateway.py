# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration of the gateway as a text. What it does is in tests/gateway."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.module_utils.values import size
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway import haproxy_config
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.endpoints import HEALTH
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.front import Member, gateway_service
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.keys import keys_file
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.options import Options

ROOT = Path(__file__).resolve().parents[2]
GPU = {"name": "gpu", "address": "gpu:8080", "kind": "llama.cpp", "models": ["b", "a"]}
VLLM = {"name": "vllm", "address": "[::1]:8000", "kind": "vllm", "models": ["b"]}
OTHER = {"name": "other", "address": "10.0.0.7:80", "models": ["b", "org/c:q4"]}
EVERYBODY = "0.0.0.0"  # noqa: S104
KEY = "0123456789abcdef0123"


def test_the_order_of_the_input_does_not_matter() -> None:
    options = {"keys_file": "/k", "client_rate_limits": {"x": 1, "a": 2}, "paths": ["/v1/x", "/v1/a"]}
    turned = {**options, "client_rate_limits": {"a": 2, "x": 1}, "paths": ["/v1/a", "/v1/x"]}
    texts = {
        haproxy_config(list(order), wanted)
        for order in itertools.permutations([GPU, VLLM, {**OTHER, "models": ["org/c:q4", "b"]}])
        for wanted in (options, turned)
    }
    assert len(texts) == 1


def backends(text: str) -> dict[str, str]:
    return dict(re.findall(r"^backend (\S+)\n((?: .*\n)+)", text, re.MULTILINE))


def test_engines_with_the_same_models_are_one_pool() -> None:
    found = backends(haproxy_config([GPU, VLLM, OTHER]))
    assert list(found) == ["pool.gpu", "pool.gpu.other.vllm", "pool.other", "pool.vllm"]
    assert "uri /health " in found["pool.gpu"]
    assert "uri /v1/models " in found["pool.gpu.other.vllm"]
    assert "server other 10.0.0.7:80\n" in found["pool.gpu.other.vllm"]


def test_the_breaker_is_for_pools_that_have_a_choice() -> None:
    found = backends(haproxy_config([GPU, VLLM, OTHER]))
    assert [name for name, text in found.items() if "observe layer7" in text] == ["pool.gpu.other.vllm"]
    assert "observe" not in haproxy_config([GPU, VLLM, OTHER], {"breaker_errors": 0})


def test_names_are_followed_only_where_docker_answers_for_them() -> None:
    assert "127.0.0.11" not in haproxy_config([GPU])
    text = haproxy_config([GPU], {"docker_dns": True})
    assert "nameserver engine 127.0.0.11:53" in text
    assert "resolvers docker init-addr libc,none" in text


def test_null_is_as_good_as_left_out() -> None:
    names = [field.name for field in dataclasses.fields(Options)]
    assert haproxy_config([{**GPU, "backup": None}], dict.fromkeys(names)) == haproxy_config([GPU])


@pytest.mark.parametrize(
    ("options", "fine"),
    [
        ({"bind": "0.0.0.0:80"}, False),
        ({"bind": "0.0.0.0:80", "keys_file": "/k"}, True),
        ({"bind": "0.0.0.0:80", "published_address": "127.0.0.1"}, True),
        ({"bind": "[::]:80", "published_address": "192.168.1.2"}, False),
        ({"bind": "localhost:80"}, True),
        ({"bind": "[::1]:80"}, True),
    ],
)
def test_what_others_reach_has_keys(options: dict[str, Any], fine: bool) -> None:
    if fine:
        assert haproxy_config([GPU], options)
        return
    with pytest.raises(InputError, match="is open to other machines and there is no keys_file"):
        haproxy_config([GPU], options)


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        (None, "endpoints: None is not a list of engines"),
        ([], "endpoints: [] is not a list of engines"),
        ("gpu", "endpoints: 'gpu' is not a list of engines"),
        (["gpu"], "endpoints[0]: 'gpu' is not a dictionary"),
        ([{**GPU, "name": "a b"}], "endpoints[0].name: 'a b' is not a name"),
        ([{**GPU, "name": "v1"}], "endpoints[0].name: 'v1' is the path of all engines"),
        ([{**GPU, "model": ["x"]}], "endpoint gpu: 'model' is not a field of it; did you mean models?"),
        ([{**GPU, "kind": "ollama"}], "endpoint gpu: kind: 'ollama' is not one of llama.cpp, vllm, openai"),
        ([{**GPU, "models": []}], "endpoint gpu: models: none"),
        ([{**GPU, "models": "a"}], "endpoint gpu: models: 'a' is not a list of texts"),
        ([{**GPU, "models": ["a'\n x"]}], 'endpoint gpu: models: "a\'\\n x" is not a model'),
        ([{**GPU, "address": "gpu"}], "endpoint gpu: address: 'gpu' is not an address; write HOST:PORT"),
        ([{**GPU, "address": "::1:80"}], "endpoint gpu: address: '::1:80' is not an address"),
        ([{**GPU, "address": "[gpu]:80"}], "endpoint gpu: address: '[gpu]:80' is not an address"),
        ([{**GPU, "address": "gpu:99999"}], "endpoint gpu: address: port: '99999' is not a whole number from 1"),
        ([{**GPU, "address": None}], "endpoint gpu: address: None is not an address"),
        ([{**GPU, "max_requests": -1}], "endpoint gpu: max_requests: -1 is not a whole number from 0"),
        ([{**GPU, "backup": "maybe"}], "endpoint gpu: backup: 'maybe' is not a boolean"),
        ([GPU, {**VLLM, "name": "gpu"}], "endpoints: the name 'gpu' is there more than once"),
        ([GPU, {**VLLM, "address": "gpu:8080"}], "endpoints: the address 'gpu:8080' is there more than once"),
    ],
)
def test_wrong_engines_are_refused_in_one_line(endpoints: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        haproxy_config(endpoints)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "gateway: [] is not a dictionary"),
        ({"bnd": "x"}, "gateway: 'bnd' is not a field of it; did you mean bind?"),
        ({"bind": "8080"}, "gateway: bind: '8080' is not an address"),
        ({"metrics_bind": "127.0.0.1:8080"}, "gateway: metrics_bind: '127.0.0.1:8080' is the address of bind"),
        ({"published_address": "a b"}, "gateway: published_address: 'a b:1' is not an address"),
        ({"admin_socket": "run/x"}, "gateway: admin_socket: 'run/x' is not an absolute path"),
        ({"keys_file": "/k y"}, "gateway: keys_file: '/k y' is not an absolute path"),
        ({"log": "stderr"}, "gateway: log: 'stderr' is not 'stdout' or the path"),
        ({"rate_limit_requests": "many"}, "gateway: rate_limit_requests: 'many' is not a whole number from 0"),
        ({"client_rate_limits": {"x": 1}}, "gateway: client_rate_limits: without keys_file nobody knows"),
        ({"client_rate_limits": {"x y": 1}, "keys_file": "/k"}, "gateway: client_rate_limits: 'x y' is not a client"),
        ({"client_rate_limits": ["x"], "keys_file": "/k"}, "gateway: client_rate_limits: ['x'] is not a dictionary"),
        ({"default_model": "z"}, "gateway: default_model: 'z' is not one of a, b"),
        ({"session_header": "X Y"}, "gateway: session_header: 'X Y' is not a header"),
        ({"paths": ["/slots"]}, "gateway: paths: '/slots' is not a path below /v1/"),
        ({"body_buffer_bytes": "1K"}, "gateway: body_buffer_bytes: 1024 is not a whole number from 16384"),
        ({"max_body_bytes": "big"}, "gateway: max_body_bytes: 'big' is not a size"),
        ({"docker_dns": "perhaps"}, "gateway: docker_dns: 'perhaps' is not a boolean"),
        ({"breaker_checks": 0}, "gateway: breaker_checks: 0 is not a whole number from 1 to 100 checks"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        haproxy_config([GPU], options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_documentation_has_every_option_with_its_default() -> None:
    page = yaml.safe_load((ROOT / "plugins" / "filter" / "haproxy_config.yml").read_text())["DOCUMENTATION"]["options"]
    documented = page["options"]["suboptions"]
    defaults = {field.name: getattr(Options(), field.name) for field in dataclasses.fields(Options)}
    assert documented.keys() == defaults.keys()
    for name, option in documented.items():
        said = option.get("default")
        said = size(name, said) if name.endswith("_bytes") else said
        assert (said or None) == (list(defaults[name]) if option["type"] == "list" else defaults[name] or None) or (
            not said and not defaults[name]
        ), name
    assert page["_input"]["suboptions"]["kind"]["choices"] == list(HEALTH)


def test_keys_are_kept_as_hashes() -> None:
    text = keys_file({"b": KEY, "a": KEY + "x"})
    assert text.splitlines()[1] == f"{hashlib.sha256(KEY.encode()).hexdigest()} b"
    assert KEY not in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "keys: not a dictionary of CLIENT: KEY"),
        ([KEY], "keys: not a dictionary of CLIENT: KEY"),
        ({"a b": KEY}, "keys: 'a b' is not a client"),
        ({"a": "short"}, "keys: the key of a is not 20 to 512 printable characters"),
        ({"a": KEY + " x"}, "keys: the key of a is not 20 to 512 printable characters"),
        ({"a": KEY, "b": KEY}, "keys: a and b have the same key"),
    ],
)
def test_wrong_keys_are_refused_without_telling_them(keys: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        keys_file(keys)
    assert str(error.value).startswith(message)
    assert KEY not in str(error.value)


# --- as a service of a stack -----------------------------------------------------------------------

IMAGE = {"image": "ai-workstation/gateway:3.0", "local_image": True}
MEMBERS = [Member("llama_gpu", "llama_cpp", 8080, "qwen", 4), Member("llama_cpu", "llama_cpp", 8080, "qwen")]


def test_a_stack_gets_a_gateway_in_front_of_its_engines() -> None:
    found = gateway_service({**IMAGE, "keys": "gateway_keys", "bind": EVERYBODY, "backups": ["llama_cpu"]}, MEMBERS)
    text = found["files"]["/etc/haproxy/haproxy.cfg"]
    assert "server llama_gpu llama_gpu:8080 maxconn 4\n" in backends(text)["pool.llama_cpu.llama_gpu"]
    assert "server llama_cpu llama_cpu:8080 backup\n" in backends(text)["pool.llama_cpu.llama_gpu"]
    assert "map(/run/secrets/gateway_keys)" in text
    assert "stats socket /run/gateway/admin.sock" in text
    assert (found["port"], found["bind"], found["secret_files"]) == (8080, EVERYBODY, ["gateway_keys"])
    assert found["volumes"] == ["/var/lib/ai-workstation/gateway:/run/gateway:rw"]


def test_a_gateway_with_a_certificate_speaks_tls() -> None:
    found = gateway_service({**IMAGE, "certificate": "gateway_pem"}, MEMBERS)
    assert "ssl crt /run/secrets/gateway_pem " in found["files"]["/etc/haproxy/haproxy.cfg"]
    assert found["secret_files"] == ["gateway_pem"]
    assert found["environment"] == {"GATEWAY_URL": "https://127.0.0.1:8080"}


def test_an_engine_without_a_name_for_its_model_offers_its_own() -> None:
    text = gateway_service(IMAGE, [Member("llama_cpu", "llama_cpp", 8080)])["files"]["/etc/haproxy/haproxy.cfg"]
    assert '"id": "llama_cpu"' in text


@pytest.mark.parametrize(
    ("wish", "members", "message"),
    [
        ("x", MEMBERS, "service_stack_gateway: 'x' is not a dictionary"),
        ({"prt": 1}, MEMBERS, "service_stack_gateway: 'prt' is not a field of it; did you mean port?"),
        (IMAGE, [], "service_stack_gateway: no service of the stack speaks OpenAI's protocol"),
        ({"bind": EVERYBODY}, MEMBERS, "service_stack_gateway: bind: '0.0.0.0' is open to other machines"),
        ({"options": {"bind": "x"}}, MEMBERS, "service_stack_gateway: options: 'bind' is decided by the stack"),
        ({"options": {"breaker": 1}}, MEMBERS, "gateway: 'breaker' is not a field of it"),
        ({"backups": ["x"]}, MEMBERS, "service_stack_gateway: backups: 'x' is not one of llama_gpu, llama_cpu"),
        (IMAGE, [Member("v", "vllm", 8000)], "service_stack_gateway: service v does not name its model"),
        (
            IMAGE,
            [Member("v", "vllm", 8000, "m", key=True)],
            "service_stack_gateway: service v has an api_key of its own",
        ),
    ],
)
def test_a_gateway_that_cannot_be_is_refused_in_one_line(wish: Any, members: list[Member], message: str) -> None:
    with pytest.raises(InputError) as error:
        gateway_service(wish, members)
    assert str(error.value).startswith(message)
