# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""playbooks/lint_settings.yml through real ansible-playbook."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def play(*variables: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    extra = [word for variable in variables for word in ("-e", variable)]
    command = ["ansible-playbook", "playbooks/lint_settings.yml", *extra, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_recipes_are_refused_line_by_line_and_reported(tmp_path) -> None:
    report = tmp_path / "report.json"
    done = play(f"path={ROOT}/tests/unit/recipes", f"report={report}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "\nDockerfile:6: error: dockerfile-env-comment: CUDA_CACHE_MAXSIZE: " in done.stdout
    assert "\nscripts/setup-gpu.sh:8: error: flag-harmful: nvidia-smi --lock-memory-clocks 3002: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    content = json.loads(report.read_text())
    assert content.keys() == {"files", "counts", "findings"}
    assert content["files"] == {"Dockerfile": 1, "compose": 1, "environment": 1, "script": 1, "sysctl": 1}
    assert sum(content["counts"].values()) == len(content["findings"])
    fields = {"file", "line", "rule", "severity", "setting", "message", "replacement"}
    assert all(finding.keys() == fields for finding in content["findings"])
    assert done.stdout.count(": error: ") == content["counts"]["error"]


@pytest.mark.parametrize(
    ("text", "fail_on", "status"),
    [
        ("VLLM_CUDA_GRAPHS=1", "error", 2),
        ("VLLM_CUDA_GRAPHS=1", "never", 0),
        ("HF_HOME=/c # x", "error", 0),
        ("HF_HOME=/c # x", "warning", 2),
        ("HF_HOME=/c", "warning", 0),
    ],
)
def test_fail_on_decides(text: str, fail_on: str, status: int, tmp_path) -> None:
    (tmp_path / "a.env").write_text(text + "\n")
    done = play(f"path={tmp_path}", f"fail_on={fail_on}")
    assert done.returncode == status, done.stdout + done.stderr


def test_show_hides_and_check_mode_writes_nothing(tmp_path) -> None:
    (tmp_path / "a.env").write_text("NCCL_P2P_DISABLE=0\nHF_HOME=/c # x\n")
    report = tmp_path / "r.json"
    done = play(f"path={tmp_path}", "show=warning", f"report={report}", flags=("--check",))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "env-comment" in done.stdout
    assert "env-no-op" not in done.stdout
    assert "1 warning, 1 info" in done.stdout
    assert "changed=1" in done.stdout
    assert not report.exists()


def test_a_second_report_is_unchanged(tmp_path) -> None:
    (tmp_path / "a.env").write_text("HF_HOME=/c\n")
    runs = [play(f"path={tmp_path}", f"report={tmp_path}/r.json").stdout for _run in range(2)]
    assert ["changed=1" in text for text in runs] == [True, False]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ((), "path: missing; name a repository or a file to check"),
        (("path=/no/such",), "lint_settings: path: /no/such does not exist"),
        (("path=.", "show=all"), "show: 'all' is not one of info, warning, error"),
        (("path=LICENSE", "report=/no/such/folder/x"), "lint_settings: [Errno 2]"),
    ],
)
def test_bad_input_is_one_line(variables: tuple[str, ...], message: str) -> None:
    done = play(*variables)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
