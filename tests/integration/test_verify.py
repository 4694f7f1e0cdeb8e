# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""playbooks/verify.yml on a sealed machine with two cards: beside the inventory and beside the record."""

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
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3", "ansible_become": False}
RECORDED = ("-e", "recorded=true")


class Bed:
    """One workstation with two cards, and perhaps one that nobody can reach."""

    def __init__(self, folder: Path, machine: fake_nvml.Machine) -> None:
        self.host, self.machine, self.report = sealed.Host(folder / "host"), machine, folder / "verify.json"
        self.variables = {**LOCAL, **VARIABLES}
        self.group = "workstations"
        self.others: dict[str, dict] = {}

    def play(self, book: str, *arguments: str):
        inventory = {self.group: {"hosts": {"box": self.variables, **self.others}}}
        return self.host.play(book, inventory, self.machine.environment(), *arguments)

    def verify(self, *arguments: str):
        self.report.unlink(missing_ok=True)
        self.machine.trace(clear=True)
        done, _summary = self.play("playbooks/verify.yml", "-e", f"report={self.report}", *arguments)
        assert "Traceback" not in done.stdout + done.stderr
        setters = ("nvmlDeviceSet", "nvmlDeviceRes")
        assert not [call for call in self.machine.trace() if call.function.startswith(setters)]
        return done, {row["host"]: row for row in json.loads(self.report.read_text())}


@pytest.fixture
def bed(tmp_path: Path):
    fake_nvml.build()
    with fake_nvml.Machine(tmp_path / "gpu", ["rtx5090", "rtx3090"]) as machine:
        yield Bed(tmp_path, machine)


def test_drift_is_named_with_who_and_fails_at_the_end_in_both_modes(bed: Bed) -> None:
    done, _summary = bed.play("site.yml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    locks = [f"gpu:{bed.machine.uuid(card)}/gpu_locked_clocks" for card in (0, 1)]
    for mode in ((), RECORDED):
        done, rows = bed.verify(*mode)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert (rows["box"]["status"], rows["box"]["drift"]) == ("as_wanted", [])
        assert [row["key"] for row in rows["box"]["not_verifiable"]] == locks
        assert f"box: {locks[0]}: not verifiable, " in done.stdout

    file = bed.host.folder / "etc" / OURS
    file.write_text(file.read_text() + "Storage=none\n")
    unit = bed.host.folder / "etc/systemd/system/limit.service"
    unit.write_text("[Service]\nExecStart=/usr/bin/nvidia-smi -i 0 -pl 500\n")
    with Client(bed.machine) as nvml:
        nvml("nvmlDeviceSetPowerManagementLimit", 0, 500000)
    limit = f"gpu:{bed.machine.uuid(0)}/power_limit_mw"
    for mode in ((), RECORDED):
        done, rows = bed.verify(*mode)
        assert done.returncode == 2, done.stdout[-3000:]
        assert {row["key"] for row in rows["box"]["drift"]} == {f"file:/etc/{OURS}", limit}
        line = f"box: {limit}: wanted 460000, live 500000; /etc/systemd/system/limit.service:2 sets it"
        assert line in done.stdout.splitlines()
        assert "drift on box; not checked none; 1 machines in all" in " ".join(done.stdout.split())
    assert "Storage=none" in file.read_text()


def test_a_machine_that_cannot_be_compared_does_not_hide_the_others(bed: Bed) -> None:
    done, _summary = bed.play("site.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    bed.others = {
        "wrong": {**LOCAL, "os_tuning_governer": "x"},
        "away": {"ansible_host": "127.0.0.1", "ansible_port": 1},
    }
    done, rows = bed.verify()
    assert done.returncode != 0
    assert {host: row["status"] for host, row in rows.items()} == {
        "box": "as_wanted", "wrong": "not_checked", "away": "not_checked"}  # fmt: skip
    assert "os_tuning_governor" in rows["wrong"]["reason"]
    assert rows["away"]["reason"] == "cannot be reached"


def test_without_inventory_and_without_a_record_there_is_a_reason(bed: Bed) -> None:
    bed.group = "some"
    bed.variables = dict(LOCAL)
    done, rows = bed.verify(*RECORDED)
    assert done.returncode == 2
    assert (rows["box"]["status"], "there is no /var/lib/ai-workstation/record.json" in rows["box"]["reason"]) == (
        "not_checked", True)  # fmt: skip
