# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the code on purpose: every promise must have a test that notices."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = yaml.safe_load((Path(__file__).parent / "mutations.yml").read_text())
LIMIT = 400  # seconds for one run of pytest; the longest takes 25, on a busy machine minutes


def run(collection: Path, *tests: str) -> int:
    paths = f"pythonpath={collection.parents[2]} tests/unit tests/fake_nvml"
    (collection / "pytest.ini").write_text(f"[pytest]\n{paths}\naddopts = --import-mode=importlib\n")
    # Plain assertions: pytest explains for minutes how files of megabytes differ, where CI is set without a limit.
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--assert=plain", *tests]
    command += ["-o", "faulthandler_timeout=120"]  # where it hangs, if it does
    environment = {**os.environ, "PYTHONPATH": ""}
    log = collection / "pytest.log"
    # A file, not a pipe: what a broken run left running would hold a pipe open for ever.
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=collection, env=environment, stdout=output, stderr=output, start_new_session=True
        ) as running,
    ):
        try:
            return running.wait(LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            print(log.read_text(errors="replace")[-2000:])  # noqa: T201 - shown when the test fails


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the collection that may be broken, one for each worker; who breaks it mends it."""
    copy = tmp_path_factory.mktemp("broken") / "ansible_collections" / "ai_infra" / "workstation"
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
    try:
        assert run(collection, mutation["test"]) == 1, "the test does not notice"
    finally:
        target.write_text(text)
