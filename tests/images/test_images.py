# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The images that need no GPU, built by the playbook and run for real: llama.cpp with a small model behind HAProxy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway import haproxy_config
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.gateway.keys import keys_file
from rig import Engine, Load, ask, chat, free_port, running, until

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
OURS = "ai-infra-workstation-test"
LLAMA, GATEWAY = f"{OURS}/llama-cpu:0.7.0", f"{OURS}/gateway:3.0"
KEY = "sk-images-0123456789abcdef"
BEARER = {"Authorization": f"Bearer {KEY}"}
CLOSED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777",  # noqa: S108 inside its container
    "--pids-limit", "256",
)  # fmt: skip
SERVE = (
    "--host", "0.0.0.0", "--port", "8080", "--model", "/models/tiny.gguf",  # noqa: S104 inside its container
    "--ctx-size", "2048", "--parallel", "4", "--threads", "1", "--slots",
)  # fmt: skip


def docker(*words: object, check: bool = True) -> str:
    done = subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout.strip() if done.returncode == 0 else ""


def play(folder: Path, *flags: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    inventory = folder / "hosts"
    inventory.write_text(f"[workstations]\nbox ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    known = {"ansible_become": False, "image_prefix": OURS, **variables}
    command = ["ansible-playbook", "-i", str(inventory), "playbooks/images.yml", "-e", json.dumps(known), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def arguments() -> dict[str, dict[str, str]]:
    def base(suite: str) -> str:
        done = subprocess.run([HERE / "local-base", suite], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    sid = base("sid")
    sources = docker("run", "--rm", sid, "cat", "/etc/apt/sources.list")
    mirror = re.search(r"\] (\S+) sid", sources)[1].rstrip("/")
    return {"llama-cpu": {"BASE": sid, "MIRROR": mirror}, "gateway": {"BASE": base("trixie")}}


@pytest.fixture(scope="module")
def images(arguments, tmp_path_factory) -> dict[str, str]:
    """Both images, built by the playbook; what its runs said. Layers of an earlier run are used again."""
    docker("rmi", "--force", "--no-prune", LLAMA, GATEWAY, check=False)
    folder = tmp_path_factory.mktemp("images")
    asked = {"images": "llama-cpu, gateway", "image_args": arguments}
    checked = play(folder, "--check", "--diff", **asked)
    assert docker("images", "--quiet", LLAMA) == docker("images", "--quiet", GATEWAY) == ""
    built = play(folder, **asked)
    assert built.returncode == 0, built.stdout + built.stderr
    return {"checked": checked.stdout, "built": built.stdout, "again": play(folder, **asked).stdout}


def test_images_are_built_once_and_check_mode_builds_none(images, arguments, tmp_path) -> None:
    assert [re.search(r"changed=(\d)", images[run])[1] for run in ("checked", "built", "again")] == ["1", "1", "0"]
    assert f'"{LLAMA}"' in images["checked"]
    other = {**arguments, "gateway": {**arguments["gateway"], "HTTP_PROXY": "http://other"}}
    assert "changed=1" in play(tmp_path, "--check", images="gateway", image_args=other).stdout


@pytest.mark.parametrize("tag", [LLAMA, GATEWAY])
def test_an_image_says_what_it_is(images, tag: str) -> None:
    config = json.loads(docker("image", "inspect", tag))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert re.fullmatch(r"[0-9a-f]{64}", config["Labels"]["ai-workstation.context"])
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/healthy"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "images: none; name what to build: gateway, llama-cpu"),
        ({"images": "llama"}, "images: 'llama' is not one of"),
        (
            {"images": "gateway", "image_args": {"gateway": {"HAPROXY_BRANCH": "9.9"}}},
            "gateway:3.0: the build failed: ",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arguments, tmp_path, variables, message: str) -> None:
    given = {**arguments, **variables.get("image_args", {})}
    given["gateway"] = {**arguments["gateway"], **given["gateway"]}
    done = play(tmp_path, **{**variables, "image_args": given, "image_prefix": f"{OURS}/wrong"})
    assert done.returncode == 2
    assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


# --- run them --------------------------------------------------------------------------------------


class Stack:
    """Two engines and the gateway on a network of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.name = f"{OURS}-{os.getpid()}"
        self.model = folder / "tiny.gguf"
        subprocess.run([sys.executable, ROOT / "tests" / "models" / "make_gguf.py", self.model], check=True)
        self.model.chmod(0o644)
        docker("network", "create", self.name)

    def engine(self, name: str) -> None:
        docker(
            "run", "--detach", "--name", f"{self.name}-{name}", "--network", self.name, "--network-alias", name,
            *CLOSED, "--memory", "512m", "--volume", f"{self.model}:/models/tiny.gguf:ro", LLAMA, *SERVE,
        )  # fmt: skip

    def gateway(self) -> None:
        endpoints = [
            {"name": name, "address": f"{name}:8080", "kind": "llama.cpp", "models": ["tiny"], "max_requests": 4}
            for name in ("one", "two")
        ]
        options = {
            "bind": "0.0.0.0:8080",
            "published_address": "127.0.0.1",
            "metrics_bind": "0.0.0.0:8405",
            "docker_dns": True,
            "keys_file": "/etc/haproxy/keys",
        }
        run = self.folder / "run"
        run.mkdir()
        os.chown(run, 10001, 10001)
        etc = self.folder / "etc"
        etc.mkdir()
        (etc / "haproxy.cfg").write_text(haproxy_config(endpoints, options))
        (etc / "keys").write_text(keys_file({"test": KEY}))
        for path in (self.folder, etc):
            path.chmod(0o755)
        docker(
            "run", "--detach", "--name", f"{self.name}-gateway", "--network", self.name, *CLOSED,
            "--volume", f"{etc}:/etc/haproxy:ro", "--volume", f"{run}:/run/gateway",
            "--publish", f"127.0.0.1:{self.port}:8080", GATEWAY,
        )  # fmt: skip

    def remove(self, *names: str) -> None:
        docker("rm", "--force", "--volumes", *(f"{self.name}-{name}" for name in names), check=False)

    def inside(self, name: str, *command: str) -> str:
        return docker("exec", f"{self.name}-{name}", *command)

    def answers(self) -> bool:
        return ask(self.port, content=chat("tiny", max_tokens=1), **BEARER).status == 200


@pytest.fixture(scope="module")
def stack(images, tmp_path_factory):
    # Where a container's user may go: the folders of pytest are its owner's alone.
    folder = tmp_path_factory.mktemp("stack")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    found = Stack(folder)
    try:
        for name in ("one", "two"):
            found.engine(name)
        found.gateway()
        until(found.answers, "a token came through the gateway", 60)
        yield found
    finally:
        found.remove("one", "two", "gateway")
        docker("network", "rm", found.name, check=False)


@pytest.mark.parametrize("name", ["one", "gateway"])
def test_containers_are_closed(stack, name: str) -> None:
    status = stack.inside(name, "cat", "/proc/self/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t10001\t10001\t10001\t10001"):
        assert line in status
    assert docker("exec", f"{stack.name}-{name}", "touch", "/etc/x", check=False) == ""
    assert docker("exec", f"{stack.name}-{name}", "sh", "-c", "touch /etc/x || echo no", check=False) == "no"


def test_an_engine_is_healthy_when_it_makes_a_token(stack) -> None:
    stack.inside("one", "/usr/local/bin/healthy")
    stack.inside("gateway", "/usr/local/bin/healthy")
    with running(Engine("liar")) as (liar,):
        # It says that it is well, and makes nothing.
        command = ["run", "--rm", "--network", "host", "--entrypoint", "/usr/local/bin/healthy", "--env"]
        command = [*command, f"PORT={liar.port}", LLAMA]
        docker(*command)
        assert liar.seen["requests"] == 1
        liar.told(status=500)
        done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
        assert (done.returncode, "500" in done.stderr) == (22, True)


def test_a_question_is_answered_and_streamed_through_the_gateway(stack) -> None:
    assert ask(stack.port, content=chat("tiny")).status == 401
    assert ask(stack.port, "/v1/models", **BEARER).json["data"][0]["id"] == "tiny"
    found = ask(stack.port, content=chat("tiny", max_tokens=8, ignore_eos=True), **BEARER).json
    assert found["usage"]["completion_tokens"] == 8
    streamed = ask(stack.port, content=chat("tiny", max_tokens=8, ignore_eos=True, stream=True), **BEARER)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    # Bytes of a character that is not whole yet wait for the rest of it, so there can be fewer parts than tokens.
    assert streamed.body.count(b"data: {") >= 2
    assert streamed.body.rstrip().endswith(b"data: [DONE]")


def test_an_engine_is_killed_under_load_and_made_anew(stack) -> None:
    load = Load(stack.port, model="tiny", max_tokens=4, headers=BEARER)
    load.until_more(60)
    docker("kill", f"{stack.name}-one")
    load.until_more(60)
    # Another container takes the first free address, so that the new engine has another one than before.
    stack.remove("one")
    docker(
        "run",
        "--detach",
        "--name",
        f"{stack.name}-guest",
        "--network",
        stack.name,
        "--entrypoint",
        "sleep",
        LLAMA,
        "60",
    )
    try:
        stack.engine("one")

        def back() -> bool:
            return {ask(stack.port, content=chat("tiny", max_tokens=1), **BEARER).headers.get("x-gateway-server")
                    for _request in range(4)} == {"one", "two"}  # fmt: skip

        until(back, "the engine is back by itself, at its new address", 60)
        load.until_more(60)
    finally:
        stack.remove("guest")
        replies = load.end()
    assert [reply.status for reply in replies if reply.status != 200] == []
    assert all(reply.whole for reply in replies)


def test_the_host_takes_an_engine_out(stack) -> None:
    command = ["ansible-playbook", "-i", str(stack.folder / "hosts"), "playbooks/gateway.yml"]
    (stack.folder / "hosts").write_text(
        f"[workstations]\nbox ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    )
    known = {
        "ansible_become": False,
        "socket": str(stack.folder / "run" / "admin.sock"),
        "backend": "one",
        "state": "drain",
    }
    done = subprocess.run([*command, "-e", json.dumps(known)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "one: drain, up, 0 requests at work" in done.stdout, done.stdout + done.stderr
    served = {
        ask(stack.port, content=chat("tiny", max_tokens=1), **BEARER).headers["x-gateway-server"] for _r in range(6)
    }
    assert served == {"two"}
    subprocess.run([*command, "-e", json.dumps({**known, "state": "ready"})], cwd=ROOT, capture_output=True, check=True)


def test_every_option_is_valid_for_this_haproxy(images, tmp_path) -> None:
    """The configuration with all options, on HAProxy 3.0; tests/gateway has the machine's own, 2.6 on Debian 12."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", tmp_path / "key", "-out", tmp_path / "crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "pem").write_text((tmp_path / "key").read_text() + (tmp_path / "crt").read_text())
    (tmp_path / "keys").write_text(keys_file({"test": KEY}))
    endpoints = [
        {"name": "a", "address": "a:80", "kind": "llama.cpp", "models": ["m"], "max_requests": 2},
        {"name": "b", "address": "[::1]:80", "kind": "vllm", "models": ["m", "n/x:1"], "backup": True},
    ]
    options = {
        "bind": "[::]:8443", "docker_dns": True,
        "keys_file": "/etc/haproxy/keys", "tls_certificate": "/etc/haproxy/pem",
        "rate_limit_requests": 5, "client_rate_limits": {"test": 9}, "default_model": "m", "paths": ["/v1/x"],
    }  # fmt: skip
    (tmp_path / "haproxy.cfg").write_text(haproxy_config(endpoints, options))
    command = [
        "run",
        "--rm",
        "--volume",
        f"{tmp_path}:/etc/haproxy:ro",
        "--tmpfs",
        "/run/gateway:mode=1777",
        "--user",
        "0",
    ]
    done = subprocess.run(
        ["docker", *command, "--entrypoint", "haproxy", GATEWAY, "-c", "-f", "/etc/haproxy/haproxy.cfg"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "3.0." in docker("run", "--rm", "--entrypoint", "haproxy", GATEWAY, "-v")
