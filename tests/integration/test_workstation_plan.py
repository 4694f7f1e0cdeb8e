# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan through Ansible: conflicts end the play of their machine alone, before anything is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAY = [
    {
        "name": "Plan",
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        "roles": [{"role": "ai_infra.workstation.workstation_plan"}],
        "tasks": [
            {
                "name": "What comes after the plan",
                "ansible.builtin.copy": {
                    "dest": "{{ folder }}/{{ inventory_hostname }}",
                    "content": "x",
                    "mode": "0600",
                },
            }
        ],
    }
]
WRONG = {
    "os_tuning_governer": "performance",
    "gpu_tuning_power_limit": "much",
    "os_tuning_sysctl": {"vm.drop_caches": 3},
}


@pytest.fixture
def play(tmp_path: Path):
    """A runner of the role on machines that are this one, by their variables: exit code, output, report."""

    def run(**hosts: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        book, inventory, report = tmp_path / "play.json", tmp_path / "hosts.json", tmp_path / "report.json"
        book.write_text(json.dumps(PLAY))
        common = {"ansible_python_interpreter": sys.executable, "folder": str(tmp_path)}
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
        environment = {**os.environ, "AI_INFRA_WORKSTATION_REPORT": str(report), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), str(book)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, json.loads(report.read_text())

    return run


def test_conflicts_end_the_play_of_their_machine_alone_and_are_all_reported(play, tmp_path: Path) -> None:
    code, output, reports = play(good={}, bad=WRONG)
    assert code == 2
    assert (tmp_path / "good").exists()
    assert not (tmp_path / "bad").exists()
    assert [one["rule"] for one in reports["bad"]["conflicts"]] == [
        "unknown_variable",
        "gpu_setting_invalid",
        "dropped_caches",
    ]
    assert reports["good"]["errors"] == []
    (error,) = reports["bad"]["errors"]
    assert ": 3 conflicts: unknown_variable: variable os_tuning_governer is not one of ours; did you mean" in error
    assert "Plan what it needs: 3 conflicts, see CONFLICTS above\n" in output
    assert "  CONFLICTS  3 errors" in output
    assert "did you mean os_tuning_governor?" in output
    assert "Traceback" not in output


def test_an_accepted_conflict_lets_the_machine_go_on_and_stays_in_the_report(play, tmp_path: Path) -> None:
    code, output, reports = play(
        one={"os_tuning_sysctl": {"vm.drop_caches": 3}, "workstation_plan_accept": ["dropped_caches"]}
    )
    assert code == 0, output
    assert (tmp_path / "one").exists()
    assert [(one["rule"], one["accepted"]) for one in reports["one"]["conflicts"]] == [("dropped_caches", True)]
    assert "    accepted  dropped_caches: " in output
