# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the code on purpose: every promise must have a test that notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = yaml.safe_load((Path(__file__).parent / "mutations.yml").read_text())


def run(collection: Path, *tests: str) -> int:
    paths = f"pythonpath={collection.parents[2]} tests/unit tests/fake_nvml"
    (collection / "pytest.ini").write_text(f"[pytest]\n{paths}\naddopts = --import-mode=importlib\n")
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=collection, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-2000:])  # noqa: T201 - shown when the test fails
    return done.returncode


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A copy of the collection that may be broken."""
    copy = tmp_path / "ansible_collections" / "ai_infra" / "workstation"
    for folder in ("plugins", "roles", "tests", "build/fake_nvml"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_unbroken_all_of_them_are_green(collection: Path) -> None:
    assert run(collection, *sorted({mutation["test"] for mutation in MUTATIONS})) == 0


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation["name"].replace(" ", "-"))
def test_a_broken_promise_turns_its_test_red(mutation: dict, collection: Path) -> None:
    target = collection / mutation["file"]
    text = target.read_text()
    assert text.count(mutation["old"]) == 1, f"{mutation['file']} changed: renew the mutation {mutation['name']!r}"
    target.write_text(text.replace(mutation["old"], mutation["new"]))
    assert run(collection, mutation["test"]) == 1, "the test does not notice"
