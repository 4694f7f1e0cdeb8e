# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway through a real HAProxy, in front of engines that do what they are told."""

# What one `with` line names is used in the same line; pylint takes that for an error.
# pylint: disable=used-before-assignment

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.keys import keys_file
from rig import CLIENTS, Engine, Load, ask, chat, endpoint, gateway, running, until

KEYS = {"ann": "sk-ann-0123456789abcdef", "ci": "sk-ci-0123456789abcdef"}


@pytest.fixture(scope="module")
def engines():
    with running(Engine("a"), Engine("b"), Engine("c")) as found:
        yield found


@pytest.fixture(scope="module")
def door(engines, tmp_path_factory):
    a, b, c = engines
    endpoints = [endpoint(a, "m", "only-a"), endpoint(b, "m", kind="vllm"), endpoint(c, "org/c:1", kind="openai")]
    with gateway(tmp_path_factory.mktemp("door"), endpoints, max_body_bytes="1M") as found:
        yield found


def test_a_request_goes_to_an_engine_that_serves_its_model(door) -> None:
    assert {ask(door.port, content=chat()).json["engine"] for _request in range(8)} == {"a", "b"}
    assert ask(door.port, content=chat("only-a")).json["engine"] == "a"
    found = ask(door.port, "/v1/embeddings", chat("org/c:1"))
    assert (found.json["engine"], found.json["path"]) == ("c", "/v1/embeddings")
    assert found.headers["x-gateway-server"] == "c"


def test_the_header_names_the_model_before_the_body(door) -> None:
    assert ask(door.port, content=chat("m"), X_Model="org/c:1").json["engine"] == "c"
    assert ask(door.port, content=b"no JSON", X_Model="only-a").json["engine"] == "a"


def test_the_path_names_an_engine(door, engines) -> None:
    for name in "abc":
        found = ask(door.port, f"/{name}/v1/completions", chat("whatever")).json
        assert found == {"engine": name, "path": "/v1/completions"}
    assert ask(door.port, "/a/v1/models").json == {"engine": "a"}


@pytest.mark.parametrize(
    "path",
    ["/", "/slots", "/a/slots", "/a/health", "/nobody/v1/models", "/v1/load_lora_adapter", "/metrics", "/a/../b"],
)
def test_nothing_else_of_the_engines_is_reached(door, path: str) -> None:
    found = ask(door.port, path, chat())
    assert (found.status, found.json["error"]["code"]) == (404, "unknown_url")


def test_models_are_listed_once(door) -> None:
    found = ask(door.port, "/v1/models").json
    assert {model["id"]: model["owned_by"] for model in found["data"]} == {"m": "a,b", "only-a": "a", "org/c:1": "c"}
    assert {model["object"] for model in found["data"]} == {"model"}


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (chat("gone"), 404, "model_not_found"),
        (chat('quote " and \\ and\nline'), 404, "model_not_found"),
        (chat("%[src]"), 404, "model_not_found"),
        ({"messages": []}, 400, "missing_model"),
        (b"no JSON", 400, "missing_model"),
        (b"", 400, "missing_model"),
    ],
)
def test_errors_have_the_shape_of_openai(door, content, status: int, code: str) -> None:
    found = ask(door.port, content=content, method="POST")
    assert (found.status, found.headers["content-type"]) == (status, "application/json")
    assert found.json["error"].keys() == {"message", "type", "param", "code"}
    assert found.json["error"]["code"] == code
    if status == 404:
        assert content["model"] in found.json["error"]["message"]


def test_a_large_body_passes_when_its_model_can_be_read(door, engines) -> None:
    # The model stands first and the body is larger than the buffer.
    assert ask(door.port, content=chat("only-a", pad="x" * 500_000)).status == 200
    assert engines[0].seen["last"]["bytes"] > 500_000
    late = {"pad": "x" * 500_000, "model": "only-a"}
    found = ask(door.port, content=late)
    assert (found.status, found.json["error"]["code"]) == (413, "request_too_large")
    assert "X-Model" in found.json["error"]["message"]
    assert ask(door.port, content=late, X_Model="only-a").json["engine"] == "a"


def test_a_large_body_of_unknown_length_is_told_so(door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    pieces = iter([json.dumps({"pad": "x" * 200_000, "model": "only-a"}).encode()])
    connection.request("POST", "/v1/chat/completions", pieces, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_above_the_limit_is_refused_before_it_is_read(door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(2 << 20))
    connection.putheader("Expect", "100-continue")
    connection.endheaders(b"{" + b" " * 200_000)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_stream_passes_token_by_token(door, engines) -> None:
    engines[2].told(tokens=5, token_s=0.2)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat("org/c:1", stream=True)))
    answer = connection.getresponse()
    arrived = [(time.monotonic(), line) for line in answer if line.startswith(b"data: ")]
    connection.close()
    engines[2].told(tokens=5, token_s=0)
    assert [json.loads(line[6:])["token"] for _when, line in arrived[:-1]] == [0, 1, 2, 3, 4]
    assert arrived[-1][1] == b"data: [DONE]\n"
    # Buffered, they would come together.
    gaps = [later[0] - sooner[0] for sooner, later in itertools.pairwise(arrived)]
    assert min(gaps) > 0.1, gaps


def test_a_client_that_goes_frees_its_engine(door, engines) -> None:
    engines[2].told(wait_s=30)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat("org/c:1")))

    def at_work() -> int:
        rows = [row.split(",") for row in door.admin("show stat -1 4 -1").splitlines() if row.startswith("pool.c,")]
        return int(rows[0][4])

    until(lambda: at_work() == 1, "the request is with the engine")
    connection.close()
    until(lambda: at_work() == 0, "the engine is free")
    engines[2].told(wait_s=0)


def test_sessions_stay_with_their_engine(door) -> None:
    for session in ("one", "two", "three", "x" * 500):
        served = {ask(door.port, content=chat(), X_Session_Id=session).json["engine"] for _request in range(10)}
        assert len(served) == 1, session


def test_metrics_are_on_their_own_port(door) -> None:
    found = ask(door.metrics_port, "/metrics")
    assert b'haproxy_server_status{proxy="pool.a.b",server="a",state="UP"} 1' in found.body
    assert ask(door.metrics_port, "/v1/models").status == 404


def test_the_gateway_says_that_it_lives(door) -> None:
    assert ask(door.port, "/healthz").status == 200


def test_the_admin_socket_is_the_owners_alone(door) -> None:
    assert door.socket.stat().st_mode & 0o777 == 0o600


# --- keys and limits -------------------------------------------------------------------------------


def test_keys_and_rate_limits(engines, tmp_path) -> None:
    (tmp_path / "keys").write_text(keys_file(KEYS))
    options = {"keys_file": str(tmp_path / "keys"), "rate_limit_requests": 3, "client_rate_limits": {"ci": 5}}
    with gateway(tmp_path, [endpoint(engines[0])], **options) as door:
        for wrong in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {KEYS['ann']}"}):
            found = ask(door.port, content=chat(), **wrong)
            assert (found.status, found.json["error"]["code"]) == (401, "invalid_api_key")
        # The hash that stands in the file is no key.
        stored = (tmp_path / "keys").read_text().split()[0]
        assert ask(door.port, content=chat(), Authorization=f"Bearer {stored}").status == 401
        assert ask(door.port, "/v1/models").status == 401
        assert ask(door.port, "/healthz").status == 200

        def statuses(client: str, count: int) -> list[int]:
            header = {"Authorization": f"Bearer {KEYS[client]}"}
            return [ask(door.port, content=chat(), **header).status for _request in range(count)]

        assert statuses("ann", 6) == [200] * 3 + [429] * 3
        assert statuses("ci", 7) == [200] * 5 + [429] * 2
        refused = ask(door.port, content=chat(), Authorization=f"Bearer {KEYS['ann']}")
        assert (refused.json["error"]["type"], refused.headers["retry-after"]) == ("rate_limit_error", "15")
        assert "Authorization" not in engines[0].seen["last"]["headers"]
        until(lambda: "client=ci" in door.text(), "the log names the client")
        for text in (door.text(), door.path.read_text()):
            assert not any(key in text for key in KEYS.values())


def test_without_keys_addresses_are_limited(engines, tmp_path) -> None:
    with gateway(tmp_path, [endpoint(engines[0])], rate_limit_requests=2, rate_limit_seconds=1) as door:
        assert [ask(door.port, content=chat()).status for _request in range(3)] == [200, 200, 429]
        until(lambda: ask(door.port, content=chat()).status == 200, "the limit is for a time")


def test_tls(engines, tmp_path) -> None:
    pem = tmp_path / "gateway.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", pem, "-out", tmp_path / "crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    with gateway(tmp_path, [endpoint(engines[0])], tls_certificate=str(pem), hsts_seconds=600) as door:
        curl = ["curl", "-s", "-D-", "--cacert", str(tmp_path / "crt"), f"https://localhost:{door.port}/v1/models"]
        found = subprocess.run([*curl, "--ipv4"], capture_output=True, text=True, check=True).stdout
        assert "strict-transport-security: max-age=600" in found.lower()
        assert found.startswith("HTTP/2 200")
        old = subprocess.run([*curl, "--tls-max", "1.1"], capture_output=True, check=False)
        assert old.returncode == 35
        assert ask(door.port, "/v1/models").status != 200


# --- engines that fail -----------------------------------------------------------------------------


def test_no_engine_is_said_at_once_with_a_time_to_come_again(tmp_path) -> None:
    with running(Engine("a")) as (a,), gateway(tmp_path, [endpoint(a)]) as door:
        a.kill()
        until(lambda: not door.states()["pool.a", "a"].startswith("UP"), "a is down")
        found = ask(door.port, content=chat())
        assert (found.status, found.json["error"]["code"], found.headers["retry-after"]) == (503, "no_engine", "2")
        a.start()
        until(lambda: ask(door.port, content=chat()).status == 200, "a is back by itself")


@pytest.mark.parametrize("stream", [False, True])
def test_engines_are_killed_under_load_and_no_request_that_had_not_begun_fails(tmp_path, stream: bool) -> None:
    """Each of three engines in turn is killed in the middle of its work and comes back."""
    with running(*(Engine(name) for name in "abc")) as engines:
        for engine in engines:
            engine.told(wait_s=0.05, tokens=5, token_s=0.01)
        with gateway(tmp_path, [endpoint(engine) for engine in engines], check_interval_ms=500) as door:
            load = Load(door.port, stream=stream)
            load.until_more(100)
            for engine in engines:
                key = ("pool.a.b.c", engine.name)
                engine.kill()
                until(lambda key=key: not door.states()[key].startswith("UP"), "the gateway has seen it")
                load.until_more(100)
                engine.start()
                engine.told(wait_s=0.05, tokens=5, token_s=0.01)
                until(lambda key=key: door.states()[key] == "UP", "it is back by itself")
                until(lambda engine=engine: engine.seen["requests"] > 0, "it gets work again")
            replies = load.end()
    # An answer begins with its head: from then on no proxy can ask another engine.
    assert [reply for reply in replies if reply.status != 200] == []
    assert len(replies) > 400
    # What had begun is lost with its engine, at most one answer for each client and kill.
    assert sum(not reply.whole for reply in replies) <= 3 * CLIENTS


def test_an_engine_that_fails_fast_is_taken_out(tmp_path) -> None:
    """It says that it is well and answers every request with an error at once, so it always has the fewest."""
    with running(Engine("a"), Engine("b")) as (a, b):
        a.told(status=500)
        b.told(wait_s=0.02)
        with gateway(tmp_path, [endpoint(a), endpoint(b)], check_interval_ms=500) as door:
            load = Load(door.port)
            load.until_more(400)
            a.told(status=200)
            load.until_more(100)
            until(lambda: a.seen["requests"] > 100, "a works again")
            replies = load.end()
    failed = [reply for reply in replies if reply.status != 200]
    assert failed
    assert len(failed) < 100


def test_an_engine_that_hangs_up_is_asked_no_more_and_nobody_notices(tmp_path) -> None:
    with running(Engine("a"), Engine("b")) as (a, b), gateway(tmp_path, [endpoint(a), endpoint(b)]) as door:
        a.told(hang_up=True)
        assert {ask(door.port, content=chat()).json["engine"] for _request in range(20)} == {"b"}


def test_an_engine_that_is_alone_keeps_its_errors(tmp_path) -> None:
    with running(Engine("a")) as (a,), gateway(tmp_path, [endpoint(a)]) as door:
        a.told(status=500)
        assert {ask(door.port, content=chat()).status for _request in range(5)} == {500}
        a.told(status=200)
        assert ask(door.port, content=chat()).status == 200


def test_a_backup_works_only_where_no_other_engine_does(tmp_path) -> None:
    with (
        running(Engine("gpu"), Engine("cpu")) as (gpu, cpu),
        gateway(tmp_path, [endpoint(gpu), endpoint(cpu, backup=True)]) as door,
    ):
        assert {ask(door.port, content=chat()).json["engine"] for _request in range(10)} == {"gpu"}
        gpu.kill()
        assert {ask(door.port, content=chat()).json["engine"] for _request in range(10)} == {"cpu"}


def test_max_requests_holds_the_rest_back(tmp_path) -> None:
    with running(Engine("a")) as (a,), gateway(tmp_path, [endpoint(a, max_requests=2)]) as door:
        a.told(wait_s=1)
        load = Load(door.port, 4)
        until(lambda: a.seen["requests"] == 2, "two are at work")
        time.sleep(0.2)
        assert a.seen["requests"] == 2
        assert {reply.status for reply in load.end()} == {200}


def test_the_configuration_is_valid_without_a_warning(door, tmp_path: Path) -> None:
    done = subprocess.run(["haproxy", "-c", "-f", str(door.path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
