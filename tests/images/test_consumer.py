# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Another repository has this one as its submodule and uses the deployed services through make."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.discovery import discovery

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
PROJECT = f"ai-infra-consumer-{os.getpid()}"
SERVICES = [
    {"name": "llama_cpu", "engine": "llama_cpp", "port": 8001, "openai": True, "models": ["tiny"]},
    {"name": "llama_gpu", "engine": "llama_cpp", "port": 8004, "openai": True, "models": ["tiny"], "gpu": True},
    {"name": "gateway", "port": 8080, "openai": True},
]
GIT = ("git", "-c", "protocol.file.allow=always", "-c", "user.name=t", "-c", "user.email=t@example.org")


def run(*command: object, cwd: Path | None = None, check: bool = True) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def consumer(tmp_path_factory) -> Path:
    """A repository with this checkout, as it is, as its submodule ai-infra."""
    folder = tmp_path_factory.mktemp("consumer")
    upstream, ours = folder / "upstream", folder / "app"
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (upstream / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, upstream / name)
    for repository in (upstream, ours):
        repository.mkdir(exist_ok=True)
        run(*GIT, "init", "--quiet", cwd=repository)
    run(*GIT, "add", "--all", cwd=upstream)
    run(*GIT, "commit", "--quiet", "--message", "as it is", cwd=upstream)
    run(*GIT, "submodule", "--quiet", "add", upstream, "ai-infra", cwd=ours)
    return ours


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """What service_stack leaves on a machine: labelled containers, and the file that names them."""
    image = run(HERE / "local-base", "trixie").splitlines()[-1]
    for one in SERVICES:
        run(
            "docker", "create", "--name", f"{PROJECT}-{one['name']}",
            "--label", f"com.docker.compose.project={PROJECT}",
            "--label", f"com.docker.compose.service={one['name']}",
            "--health-cmd", "test -e /well", "--health-interval", "500ms", "--health-retries", "20",
            "--env", f"NAME={one['name']}", "--init", image,
            "sh", "-c", 'echo "$NAME starts"; touch /well; sleep 600',
        )  # fmt: skip
    path = tmp_path_factory.mktemp("etc") / "services.env"
    path.write_text(discovery(SERVICES, PROJECT, "gateway")["shell"])
    yield path
    run("docker", "rm", "--force", *(f"{PROJECT}-{one['name']}" for one in SERVICES))


@pytest.fixture
def make(consumer, services):
    def call(*words: str, discovery: Path = services) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "AI_DISCOVERY": str(discovery), "WAIT": "30", "SHELL": "/bin/sh"}
        command = ["make", "--no-print-directory", "-C", "ai-infra", *words]
        return subprocess.run(command, cwd=consumer, env=environment, capture_output=True, text=True, check=False)

    return call


def running() -> set[str]:
    said = run("docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", "{{.Names}}")
    return {name.removeprefix(f"{PROJECT}-") for name in said.splitlines()}


def test_groups_are_started_and_stopped(make) -> None:
    assert "llama_cpu        created" in make("status").stdout
    done = make("gpu-up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert running() == {"llama_gpu"}
    assert "llama_gpu        running healthy      http://127.0.0.1:8004/v1" in done.stdout
    assert make("cpu-up").returncode == 0
    assert running() == {"llama_cpu", "llama_gpu", "gateway"}
    assert "llama_gpu starts" in make("logs-gpu").stdout
    logs = make("logs").stdout
    assert "==> llama_cpu <==\nllama_cpu starts\n" in logs
    assert make("shell-gpu", 'CMD=echo "I am $$NAME"').stdout == "I am llama_gpu\n"
    assert make("down").returncode == 0
    assert running() == set()
    assert make("up").returncode == 0
    assert len(running()) == 3


def test_a_shell_knows_the_addresses(make) -> None:
    found = make("shell", 'CMD=echo "$$AI_GATEWAY_URL $$AI_LLAMA_CPU_MODELS"')
    assert found.stdout == "http://127.0.0.1:8080/v1 tiny\n"


def test_what_is_missing_is_said_in_one_line(make, tmp_path) -> None:
    done = make("status", discovery=tmp_path / "none")
    assert done.returncode == 2
    assert "not there or not readable; 'make install' deploys the services" in done.stderr
    other = tmp_path / "services.env"
    other.write_text(discovery([{"name": "ghost", "port": 1}], PROJECT)["shell"])
    assert "ghost            not deployed" in make("status", discovery=other).stdout
    assert "stack: ghost: it has no container; 'make install' deploys it" in make("up", discovery=other).stderr
    assert "stack: there is no gpu service" in make("gpu-up", discovery=other).stderr


def test_a_service_that_is_not_well_is_named(make) -> None:
    name = f"{PROJECT}-llama_gpu"
    # In its place one that ends at once.
    run("docker", "rm", "--force", name)
    image = run(HERE / "local-base", "trixie").splitlines()[-1]
    run(
        "docker", "create", "--name", name, "--label", f"com.docker.compose.project={PROJECT}",
        "--label", "com.docker.compose.service=llama_gpu", image, "false",
    )  # fmt: skip
    done = make("gpu-up")
    assert done.returncode == 2
    assert "stack: llama_gpu: exited; see 'make logs'" in done.stderr


def test_install_and_models_are_playbooks_for_the_host_and_inventory_of_the_consumer(make) -> None:
    for target, play in (("install", "site.yml"), ("update-models", "playbooks/models.yml")):
        said = make("--dry-run", target, "HOST=ws5090", "INVENTORY=../inventory").stdout
        assert f"ansible-playbook -i ../inventory {play} -l ws5090" in said
        assert (ROOT / play).is_file()
