# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""site.yml as a user runs it, in check mode on this very machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def site(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Run the main job in check mode; the process and its report."""
    report = tmp_path / "report.json"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AI_INFRA_WORKSTATION_REPORT": str(report),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    command = ["ansible-playbook", "site.yml", "--check", "--diff", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, json.loads(report.read_text()) if report.exists() else {}


def kernel_values() -> dict[str, str]:
    paths = [Path(f"/proc/sys/vm/{name}") for name in ("swappiness", "dirty_bytes", "dirty_ratio", "nr_hugepages")]
    paths += Path("/sys/kernel/mm/transparent_hugepage").glob("*[a-z]")
    return {str(path): path.read_text() for path in paths if path.is_file()}


@pytest.mark.parametrize("profile", ["conservative", "balanced", "aggressive"])
def test_every_profile_is_previewed_without_a_write(tmp_path: Path, profile: str) -> None:
    before = kernel_values()
    done, reports = site(tmp_path, "-l", "localhost", "-e", f"workstation_profile={profile}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"localhost  profile {profile}  dry run:" in done.stdout
    assert reports["localhost"]["errors"] == []
    assert reports["localhost"]["findings"]
    assert all(skip["reason"] for _role, skip in reports["localhost"]["skipped"])
    assert kernel_values() == before


def test_a_setting_of_the_inventory_is_in_the_preview(tmp_path: Path) -> None:
    wanted = 61 if Path("/proc/sys/vm/swappiness").read_text().strip() != "61" else 62
    extra = json.dumps({"os_tuning_sysctl": {"vm.swappiness": wanted}, "workstation_profile": "conservative"})
    _done, reports = site(tmp_path, "-l", "localhost", "-t", "os_tuning", "-e", extra)
    changes = {change["key"]: change["after"] for _role, change in reports["localhost"]["changes"]}
    writable = not os.statvfs("/proc/sys").f_flag & os.ST_RDONLY
    assert changes.get("sysctl:vm.swappiness") == (str(wanted) if writable else None)


@pytest.mark.parametrize(("extra", "message"), [
    ({"os_tuning_governer": "x"}, "os_tuning_governer is not one of ours; did you mean os_tuning_governor?"),
    ({"os_tuning_sysctl": {"vm.swapiness": 1}}, "this kernel has no /proc/sys/vm/swapiness; nearest name: swappiness"),
    ({"os_tuning_interrupts": [{"name": "eth*", "cpus": "0-3,,9"}]}, "'0-3,,9' is not a CPU list"),
])  # fmt: skip
def test_bad_input_is_one_line_and_fails(tmp_path: Path, extra: dict, message: str) -> None:
    done, reports = site(tmp_path, "-l", "localhost", "-e", json.dumps(extra))
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    error = reports["localhost"]["errors"][0]
    assert message in error
    assert "\n" not in error


def test_a_fleet_goes_in_batches_and_stops_at_a_bad_one(tmp_path: Path) -> None:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    hosts = {f"ws{number}": dict(local) for number in range(1, 7)}
    hosts["ws3"]["workstation_profile"] = "fast"
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"workstations": {"hosts": hosts}}))
    done, _reports = site(
        tmp_path,
        "-i",
        str(inventory),
        "-t",
        "always",
        "-e",
        "workstation_serial=2",
        "-e",
        "workstation_max_fail_percentage=0",
    )
    assert done.returncode != 0
    assert done.stdout.count("PLAY [Turn machines") == 2
    recap = done.stdout[done.stdout.index("PLAY RECAP") :]
    assert "ws4" in recap
    assert "ws5 " not in recap
