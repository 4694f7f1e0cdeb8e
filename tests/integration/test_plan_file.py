# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan is written, applied to the letter, and refused when anything has moved: whole playbooks, sealed machine."""

from __future__ import annotations

import json
from pathlib import Path

import fake_nvml
import pytest
import sealed
from nvml_client import Client

pytestmark = pytest.mark.skipif(bool(sealed.why_not()), reason=sealed.why_not() or "possible")

OURS = "systemd/journald.conf.d/50-ai-workstation.conf"
VARIABLES = {
    "os_tuning_files": [{"path": f"/etc/{OURS}", "content": "[Journal]\nSystemMaxUse=1G\n"}],
    "gpu_tuning_gpu_clocks": {"max_mhz": 1500},
    "gpu_tuning_power_limit": "80%",
}


class Bed:
    """One workstation with two cards."""

    def __init__(self, folder: Path, machine: fake_nvml.Machine) -> None:
        self.host, self.machine, self.plans = sealed.Host(folder / "host"), machine, folder / "plans"
        self.variables = dict(VARIABLES)
        self.name = "box"

    def play(self, book: str, *arguments: str):
        local = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_become": False,
        }
        inventory = {"workstations": {"hosts": {self.name: {**local, **self.variables}}}}
        self.machine.trace(clear=True)
        return self.host.play(book, inventory, self.machine.environment(), *arguments)

    def plan(self) -> dict:
        done, _report = self.play("playbooks/plan.yml", "-e", f"workstation_plan_dir={self.plans}")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads((self.plans / f"{self.name}.json").read_text())

    def apply(self, plan: Path | None = None):
        return self.play("site.yml", "-e", f"plan={plan or self.plans}")

    def untouched(self) -> bool:
        return (
            not self.file().exists()
            and not self.setters()
            and not (self.host.folder / "var_lib/ai-workstation").exists()
        )

    def file(self) -> Path:
        return self.host.folder / "etc" / OURS

    def setters(self) -> list[str]:
        return [
            call.function
            for call in self.machine.trace()
            if call.function.startswith(("nvmlDeviceSet", "nvmlDeviceRes"))
        ]


@pytest.fixture
def bed(tmp_path: Path):
    fake_nvml.build()
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090", "rtx3090"]) as machine:
        yield Bed(tmp_path, machine)


def refused(done, report, words: str) -> None:
    assert done.returncode != 0
    (error,) = report["box"]["errors"]
    assert words in error
    assert "managed_files: managed_files" not in error
    assert "\n" not in error
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_applied_is_what_was_planned_to_the_byte(bed: Bed) -> None:
    plan = bed.plan()
    assert bed.untouched()
    assert {path.name: path.stat().st_mode & 0o777 for path in bed.plans.iterdir()} == {
        "box.json": 0o600,
        "box.txt": 0o600,
    }
    first = (bed.plans / "box.json").read_bytes()
    bed.plan()
    assert (bed.plans / "box.json").read_bytes() == first
    planned = [
        [call["role"], {**change, "part": call["module"]}] for call in plan["calls"] for change in call["changes"]
    ]
    assert {change["key"].rpartition("/")[2] for _role, change in planned} >= {
        "50-ai-workstation.conf",
        "persistence",
        "power_limit_mw",
        "gpu_locked_clocks",
    }

    # The inventory moves on; what is applied is the plan.
    bed.variables["gpu_tuning_power_limit"] = "100%"
    bed.variables["os_tuning_files"] = []
    done, report = bed.apply()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.dumps(report["box"]["changes"]) == json.dumps(planned)
    assert "SystemMaxUse=1G" in bed.file().read_text()
    assert "nvmlDeviceSetPowerManagementLimit" in bed.setters()
    assert "[WARNING]" not in done.stdout + done.stderr

    # A plan is applied once.
    ours = bed.file().read_bytes()
    done, report = bed.apply()
    refused(done, report, "this is not what was planned: nothing is left to change")
    assert bed.setters() == []
    assert bed.file().read_bytes() == ours


def test_a_value_that_moved_is_refused_before_the_first_change(bed: Bed) -> None:
    bed.plan()
    with Client(bed.machine) as nvml:
        nvml("nvmlDeviceSetPersistenceMode", 0, 1)
        nvml("nvmlDeviceSetPowerManagementLimit", 0, 500000)
    done, report = bed.apply()
    refused(done, report, "nvidia_gpu_state: this is not what was planned: ")
    assert "power_limit_mw is 500000 and would become 460000" in report["box"]["errors"][0]
    assert "box  profile balanced  FAILED" in done.stdout
    assert bed.untouched()


def test_what_the_plan_does_not_have_is_refused(bed: Bed) -> None:
    """A plan of one role holds for that role alone, and a variable that did not exist then counts."""
    done, _report = bed.play("playbooks/plan.yml", "-e", f"workstation_plan_dir={bed.plans}", "-t", "gpu_tuning")
    assert done.returncode == 0, done.stdout[-3000:]
    done, report = bed.apply()
    refused(done, report, f"managed_files: this is not what was planned: dir:/etc/{Path(OURS).parent} is (none)")
    assert bed.untouched()


def test_a_plan_of_another_machine_or_changed_by_hand_is_refused(bed: Bed) -> None:
    bed.plan()
    file = bed.plans / "box.json"
    text = file.read_text()
    file.write_text(text.replace("460000", "600000"))
    refused(*bed.apply(file), "was changed after it was made")
    assert bed.untouched()
    file.write_text(text)
    bed.name = "other"
    done, report = bed.apply(file)
    refused(done, {"box": report["other"]}, "is for box, this is other")
    done, report = bed.apply()
    refused(done, {"box": report["other"]}, "other.json: No such file or directory; playbooks/plan.yml makes plans")
    assert bed.untouched()


def test_a_plan_holds_no_secrets_of_other_roles(bed: Bed) -> None:
    bed.variables["service_stack_secrets"] = [{"name": "key", "value": "sesame-open-1"}]
    plan = bed.plan()
    assert "gpu_tuning_power_limit" in plan["variables"]
    for file in bed.plans.iterdir():
        assert "sesame" not in file.read_text()
