# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway as a service of the stack, and what programs of the machine are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.stack import render

ENGINE = {"engine": "llama_cpp", "image": "llama:1", "local_image": True, "version": "11669", "model": "a.gguf"}
SETTINGS = {"alias": "tiny", "parallel": 4}
ONE = {**ENGINE, "name": "one", "port": 8001, "settings": SETTINGS, "memory": "1G"}
TWO = {**ENGINE, "name": "two", "port": 8002, "settings": SETTINGS, "memory": "1G"}
GATEWAY = {"image": "gateway:1", "local_image": True, "keys": "gateway_keys"}


def test_the_gateway_stands_before_the_engines_and_comes_last() -> None:
    found = render([ONE, TWO], gateway=GATEWAY)
    assert [one["name"] for one in found["services"]] == ["one", "two", "gateway"]
    service = found["compose"]["services"]["gateway"]
    assert service["ports"] == ["127.0.0.1:8080:8080", "127.0.0.1:8405:8405"]
    assert (service["cap_drop"], service["read_only"], service["user"]) == (["ALL"], True, "10001:10001")
    (config,) = [file["content"] for file in found["files"] if file["service"] == "gateway"]
    assert "server one one:8080 maxconn 4\n" in config
    assert "server two two:8080 maxconn 4\n" in config
    assert {"service": "gateway", "name": "gateway_keys", "uid": 10001, "gid": 10001} in found["secrets"]


def test_programs_are_told_where_all_of_it_is() -> None:
    content = json.loads(render([ONE, {**TWO, "api_key": "k"}])["discovery"]["json"])
    assert content["gateway"] is None
    assert (content["services"]["one"]["key"], content["services"]["two"]["key"]) == (False, True)
    content = json.loads(render([ONE], gateway=GATEWAY)["discovery"]["json"])
    assert content["gateway"] == {"url": "http://127.0.0.1:8080/v1", "key": True}
    assert content["services"]["gateway"]["metrics_url"] == "http://127.0.0.1:8405/metrics"
    assert content["services"]["one"]["models"] == ["tiny"]


def test_without_a_gateway_there_is_none() -> None:
    for none in (None, {}):
        assert list(render([ONE], gateway=none)["compose"]["services"]) == ["one"]


@pytest.mark.parametrize(
    ("services", "gateway", "message"),
    [
        ([ONE], {**GATEWAY, "image": None}, "service gateway: image: None is no image"),
        ([ONE], {**GATEWAY, "local_image": None}, "service gateway: image: 'gateway:1' is a tag"),
        ([{**ONE, "api_key": "k"}], GATEWAY, "service_stack_gateway: service one has an api_key of its own"),
        ([{**ONE, "port": 8405}], GATEWAY, "port 8405 is published by"),
        ([{**ONE, "port": 8080}], GATEWAY, "port 8080 is published by"),
        ([{**ONE, "name": "gateway"}], GATEWAY, "the name 'gateway' is that of service_stack_gateway"),
    ],
)
def test_a_gateway_that_cannot_be_is_refused(services: Any, gateway: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        render(services, gateway=gateway)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
