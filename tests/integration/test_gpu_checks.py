# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The checks for a machine with a real card (tests/gpu), run on the stand-in: they work, and they set nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import fake_nvml
import nvidia_smi
import private
import pytest

RECORDER = private.ROOT / "tests" / "gpu" / "record_card.py"


def smi() -> str:
    try:
        return str(nvidia_smi.program())
    except RuntimeError:
        return ""


def test_the_checks_pass_on_the_stand_in_and_set_nothing(tmp_path):
    program = smi()
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090", "h200"]) as machine:
        environment = {**os.environ, **machine.environment(smi=bool(program)), "NVIDIA_SMI": program}
        # It asks for this one by a private function (tests/fake_nvml/README.md).
        environment["NVIDIA_SMI_LACKS"] = "enforced.power.limit"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/gpu"],
            cwd=private.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        setters = [
            call.function for call in machine.trace() if call.function.startswith(("nvmlDeviceSet", "nvmlDeviceRe"))
        ]
    assert done.returncode == 0, done.stdout
    assert setters == []
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20
    assert ("skipped" in done.stdout) == (not program)


def test_without_a_card_they_are_skipped_with_one_reason():
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a card")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/gpu"],
        cwd=private.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" not in done.stdout
    assert len(re.findall(r"^SKIPPED", done.stdout, re.MULTILINE)) == 1


@pytest.mark.parametrize("card", fake_nvml.cards())
def test_a_recorded_card_is_the_card_it_was_recorded_from(tmp_path, card):
    with fake_nvml.Machine(tmp_path / "gpu", [card]) as machine:
        done = subprocess.run(
            [sys.executable, str(RECORDER)],
            env={**os.environ, **machine.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not [call for call in machine.trace() if call.function.startswith(("nvmlDeviceSet", "nvmlDeviceRe"))]
    recorded = dict(line.split("=", 1) for line in done.stdout.splitlines() if not line.startswith("#"))
    text = (fake_nvml.HERE / "cards" / f"{card}.card").read_text()
    original = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    different = {key: (value, original[key]) for key, value in recorded.items() if original.get(key, value) != value}
    assert different == {}
    assert len(set(recorded) & set(original)) > 30
