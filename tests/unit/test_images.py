# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contexts in docker/, and what travels to the machine that builds them."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils import image_build
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.images import FOLDER, architectures, contexts
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.lint import lint_path

IMAGES = sorted(path.parent.name for path in FOLDER.glob("*/Dockerfile"))
OURS = "ai-workstation"


def dockerfile(name: str) -> str:
    return (FOLDER / name / "Dockerfile").read_text()


def test_the_table_has_every_context() -> None:
    assert sorted(yaml.safe_load((FOLDER / "images.yml").read_text())) == IMAGES
    assert IMAGES == ["gateway", "llama-cpu", "llama-gpu", "open-webui", "sd-forge", "vllm-gpu"]


def test_our_own_linter_has_nothing_to_say() -> None:
    report = lint_path(FOLDER)
    assert report.files["Dockerfile"] == len(IMAGES)
    assert [str(finding) for finding in report.findings] == []


@pytest.mark.parametrize("name", IMAGES)
def test_a_context_is_pinned_and_closed(name: str) -> None:
    text = dockerfile(name)
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    bases = dict(re.findall(r"^ARG (\w*BASE)=(.*)$", text, re.MULTILINE))
    assert {f"${{{base}}}" for base in bases} == set(stages)
    for base in bases.values():
        assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base), base
    last = text[text.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\S+)", last, re.MULTILINE)
    assert users == ["10001:10001"]
    # Nothing is installed or copied as root after the user is set.
    assert not re.search(r"^(RUN|COPY)", last[last.index("\nUSER ") :], re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*CMD \[.*/usr/local/bin/healthy", last, re.MULTILINE)
    assert (FOLDER / name / "healthy").stat().st_mode & 0o111
    assert not re.search(r"(?i)(password|token|secret|api_key)=", text)


def test_engines_are_healthy_when_they_make_something() -> None:
    asked = {name: (FOLDER / name / "healthy").read_text() for name in IMAGES}
    assert asked["llama-cpu"] == asked["llama-gpu"]
    for name in ("llama-cpu", "vllm-gpu"):
        assert "/v1/completions" in asked[name]
    assert "/txt2img" in asked["sd-forge"]


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        (["NVIDIA GeForce RTX 5090"], ["120a-real"]),
        (["NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 4090"], ["86-real", "89-real"]),
        (["NVIDIA H100 80GB HBM3", "NVIDIA H200"], ["90-real"]),
        (["NVIDIA A100-SXM4-80GB", "NVIDIA A10", "NVIDIA L40S"], ["80-real", "86-real", "89-real"]),
        (["NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX A6000"], ["86-real", "89-real"]),
        (["NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "NVIDIA B200"], ["100a-real", "120a-real"]),
        ([], []),
    ],
)
def test_code_is_made_for_the_generations_that_are_there(gpus: list[str], found: list[str]) -> None:
    assert architectures(gpus) == found
    (image,) = contexts(["llama-gpu"], None, gpus, OURS)
    assert image["args"] == ({"CUDA_ARCHITECTURES": ";".join(found)} if found else {})


def test_all_generations_of_the_example_inventory_are_the_default() -> None:
    assert "ARG CUDA_ARCHITECTURES=86-real;89-real;90-real;120a-real\n" in dockerfile("llama-gpu")


def test_what_is_asked_for_wins_over_the_gpus() -> None:
    (image,) = contexts(["llama-gpu"], {"llama-gpu": {"CUDA_ARCHITECTURES": 75}}, ["NVIDIA H200"], OURS)
    assert image["args"] == {"CUDA_ARCHITECTURES": "75"}


def test_the_hash_is_that_of_files_and_arguments(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)

    def made(args: Any = None) -> str:
        return contexts(["gateway"], args, [], OURS, tmp_path)[0]["context"]

    first = made()
    assert made() == first
    assert made({"gateway": {"BASE": "x"}}) != first
    (tmp_path / "gateway" / "healthy").chmod(0o644)
    second = made()
    assert second != first
    (tmp_path / "gateway" / "more").write_text("x")
    assert made() not in (first, second)


def test_the_archive_has_the_files_with_their_modes() -> None:
    (image,) = contexts(["gateway", "gateway"], None, [], "registry.example:5000/us")
    assert image["tag"] == "registry.example:5000/us/gateway:3.0"
    with tarfile.open(fileobj=io.BytesIO(image_build.archive(image["files"]))) as tar:
        assert {entry.name: entry.mode for entry in tar} == {"Dockerfile": 0o644, "healthy": 0o755}
        assert tar.extractfile("Dockerfile").read().decode() == dockerfile("gateway")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (([], None, [], OURS), "images: none; name what to build: gateway, "),
        ((None, None, [], OURS), "images: None is not a list of texts"),
        ((["llama"], None, [], OURS), "images: 'llama' is not one of gateway, llama-cpu"),
        ((["gateway"], {"gatewy": {}}, [], OURS), "args: 'gatewy' is not a field of it; did you mean gateway?"),
        ((["gateway"], {"gateway": {"BAS": "x"}}, [], OURS), "args: gateway: 'BAS' is not a field of it; did you mean"),
        ((["gateway"], {"gateway": "x"}, [], OURS), "args: gateway: 'x' is not a dictionary"),
        ((["gateway"], {"gateway": {"BASE": ["x"]}}, [], OURS), "args: gateway: BASE: ['x'] is not one line of text"),
        ((["gateway"], None, [], "Not Good"), "prefix: 'Not Good' is not the beginning of an image's name"),
        ((["llama-gpu"], None, ["NVIDIA NV1"], OURS), "gpus: 'NVIDIA NV1' is of no generation that is known"),
    ],
)
def test_bad_input_is_one_line(call: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as error:
        contexts(*call)
    assert str(error.value).startswith(message)


class Answers:
    """A machine whose docker answers what is given."""

    def __init__(self, *answers: Completed) -> None:
        self.answers = list(answers)

    def run(self, *_words: Any, **_more: Any) -> Completed:
        return self.answers.pop(0)


def test_what_docker_says_is_understood() -> None:
    assert image_build.found_context(Answers(Completed(0, "abc\n", "")), "t") == "abc"
    assert image_build.found_context(Answers(Completed(0, "<no value>\n", "")), "t") == ""
    assert image_build.found_context(Answers(Completed(1, "", "Error: No such image: t")), "t") is None
    with pytest.raises(RefusedError, match="the Docker engine does not answer: Cannot connect"):
        image_build.found_context(Answers(Completed(1, "", "Cannot connect to the Docker daemon")), "t")
    assert "container_runtime" in image_build.missing_engine(Answers(Completed(127, "", "docker: not found")))


def test_a_build_that_fails_ends_with_its_last_words() -> None:
    image = {"tag": "t", "context": "c", "args": {}, "files": []}
    with pytest.raises(ApplyError) as error:
        image_build.build(Answers(Completed(1, "Step 1\n\nStep 2", "E: no such package")), image, 1)
    assert str(error.value) == "t: the build failed: Step 1 | Step 2 | E: no such package"
