# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""managed_files: our own drop-ins, their folders and the commands they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import managed_files
from fake_kernel import FakeKernel, killed, run_module
from fake_systemd import FakeSystemd

UNIT = "/etc/systemd/system/docker.service.d/50-ai.conf"
OTHER = "/etc/systemd/system/docker.service.d/60-ai.conf"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def entry(path: str = UNIT, content: str = "[Unit]\n", **more):
    return {"path": path, "content": content, **more}


def call(kernel: FakeKernel, *files, check: bool = False, **params):
    return run_module(managed_files, kernel, check, files=list(files), **params)


def test_writes_the_set_once_and_reloads_once(kernel: FakeKernel) -> None:
    files = [entry(actions=["daemon-reload"]), entry(OTHER, actions=["daemon-reload"], mode="0600")]
    predicted = call(kernel, *files, check=True)
    assert kernel.writes == []
    assert call(kernel, *files) == predicted
    assert kernel.acted == ["systemctl daemon-reload"]
    assert kernel.file(UNIT).content.endswith("rollback.yml\n[Unit]\n")
    assert (kernel.file(UNIT).mode, kernel.file(OTHER).mode) == (0o644, 0o600)
    again = call(kernel, *files)
    assert (again["changed"], again["actions"], kernel.acted) == (False, [], ["systemctl daemon-reload"])


def test_a_file_no_longer_named_goes_and_so_does_its_folder(kernel: FakeKernel) -> None:
    call(kernel, entry(), entry(OTHER))
    call(kernel, entry())
    assert kernel.names("/etc/systemd/system/docker.service.d") == ["50-ai.conf"]
    call(kernel)
    assert kernel.names("/etc/systemd/system") == []
    assert json.loads(kernel.text(LEDGER))["entries"] == {}


def test_a_folder_that_others_use_stays(kernel: FakeKernel) -> None:
    call(kernel, entry())
    kernel.put(OTHER, "theirs")
    outcome = call(kernel)
    assert kernel.names("/etc/systemd/system/docker.service.d") == ["60-ai.conf"]
    assert "holds files of others" in outcome["skipped_keys"][0]["reason"]
    assert not call(kernel)["changed"]


def test_a_foreign_file_is_never_touched(kernel: FakeKernel) -> None:
    kernel.put(UNIT, "theirs")
    with pytest.raises(RefusedError, match="exists and is not ours"):
        call(kernel, entry())
    assert kernel.text(UNIT) == "theirs"


def test_a_file_of_another_owner_is_refused_by_name(kernel: FakeKernel) -> None:
    call(kernel, entry(), owner="os_tuning")
    assert not call(kernel, entry())["changed"]
    for check in (True, False):
        with pytest.raises(RefusedError, match=r"50-ai.conf: written for owner os_tuning \(os_tuning/managed_files\)"):
            call(kernel, entry(content="[Service]\n"), check=check)
    assert kernel.file(UNIT).content.endswith("[Unit]\n")
    call(kernel, owner="os_tuning")
    assert call(kernel, entry(content="[Service]\n"))["changed"]


def test_a_file_that_another_owner_lost_may_be_taken(kernel: FakeKernel) -> None:
    call(kernel, entry(), owner="os_tuning")
    kernel.remove_file(UNIT)
    assert call(kernel, entry(content="[Service]\n"))["changed"]


def test_a_lost_ledger_does_not_lose_our_files(kernel: FakeKernel) -> None:
    call(kernel, entry())
    kernel.remove_file(LEDGER)
    assert call(kernel, entry(content="[Service]\n"))["changed"]


def test_a_failed_command_takes_the_files_back(kernel: FakeKernel) -> None:
    kernel.commands["systemctl daemon-reload"] = Completed(1, "", "Failed to reload\nno bus")
    with pytest.raises(ApplyError, match="systemctl daemon-reload failed with code 1: no bus"):
        call(kernel, entry(actions=["daemon-reload"]))
    assert kernel.names("/etc/systemd/system") == []


def test_a_run_killed_before_the_command_is_finished_by_the_next(kernel: FakeKernel) -> None:
    reload = entry(actions=["daemon-reload"])
    assert killed(kernel, lambda: call(kernel, reload), point="systemctl daemon-reload")
    kernel.acted.clear()
    outcome = call(kernel, reload)
    assert (outcome["changed"], outcome["actions"], kernel.acted) == (
        True,
        ["daemon-reload"],
        ["systemctl daemon-reload"],
    )
    assert not call(kernel, reload)["changed"]


def test_what_a_killed_write_left_beside_the_file_is_removed(kernel: FakeKernel) -> None:
    call(kernel, entry())
    kernel.put("/etc/systemd/system/docker.service.d/.50-ai.conf.ai-workstation", "half")
    call(kernel, entry(content="[Service]\n"))
    assert kernel.names("/etc/systemd/system/docker.service.d") == ["50-ai.conf"]


def test_a_link_in_the_way_is_named(kernel: FakeKernel) -> None:
    Path(kernel.at("/etc/systemd/ai.conf")).symlink_to("/dev/null")
    with pytest.raises(OSError, match=r"/etc/systemd/ai.conf is not a regular file"):
        call(kernel, entry("/etc/systemd/ai.conf"))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (entry("/etc/systemd/../boot/x"), "not a plain path below one of /etc/apt"),
        (entry("/root/.bashrc"), "not a plain path below one of"),
        (entry("/etc/shadow"), "not a plain path below one of"),
        (entry("/etc/sudoers.d/ai"), "not a plain path below one of"),
        (entry("/etc/cron.d/ai"), "not a plain path below one of"),
        (entry("/etc/systemd-x/ai"), "not a plain path below one of"),
        (entry(f"{UNIT}\n"), "not a plain path below one of"),
        (entry("/etc/default/grub.d/99-x.cfg"), "set parameters with the module kernel_command_line"),
        (entry("/etc/default/grub"), "builds the kernel's command line"),
        (entry(mode="0644\n"), "is not like '0644'"),
        (entry(mode="4755"), "no set-uid"),
        (entry(mode="rw"), "is not like '0644'"),
        (entry(actions=["reboot"]), "'reboot' is not one of daemon-reload"),
        ({"path": UNIT}, "content is missing"),
    ],
)
def test_bad_input(kernel: FakeKernel, item, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, item)


def test_twice_the_same_file_is_refused(kernel: FakeKernel) -> None:
    with pytest.raises(InputError, match="named twice"):
        call(kernel, entry(), entry())


def test_a_disk_that_is_full_changes_nothing(kernel: FakeKernel, monkeypatch) -> None:
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel, "save_json", full)
    with pytest.raises(ApplyError, match="No space left on device.*nothing was changed"):
        call(kernel, entry())
    assert kernel.names("/etc/systemd/system") == []


SLICE = "/etc/systemd/system/ai.slice"


def with_unit(kernel: FakeSystemd, content: str = "[Slice]\n", check: bool = False):
    unit = {"name": "ai.slice", "unit_file": "enabled", "active": True}
    files = [entry(), entry(SLICE, content, actions=["daemon-reload"], restart=["ai.slice"])]
    return call(kernel, *files, units=[unit], check=check)


def test_a_unit_of_ours_starts_after_its_file_and_stops_before_it_goes(tmp_path: Path) -> None:
    kernel = FakeSystemd(tmp_path)
    predicted = with_unit(kernel, check=True)
    assert (kernel.writes, "ai.slice" in kernel.units) == ([], False)
    assert with_unit(kernel)["changes"] == predicted["changes"]
    assert kernel.units["ai.slice"] == ["enabled", "active"]
    assert kernel.acted.index("systemctl daemon-reload") < kernel.acted.index("systemctl start ai.slice")
    assert not with_unit(kernel)["changed"]
    assert kernel.restarted == []
    kernel.acted.clear()
    assert call(kernel)["changed"]
    assert "ai.slice" not in kernel.units
    assert not kernel.exists(SLICE)
    assert kernel.acted.index("systemctl stop ai.slice") < kernel.acted.index("systemctl daemon-reload")


def test_a_unit_of_ours_whose_file_changes_is_restarted(tmp_path: Path) -> None:
    kernel = FakeSystemd(tmp_path)
    with_unit(kernel)
    with_unit(kernel, "[Slice]\nCPUWeight=200\n")
    assert kernel.restarted == ["ai.slice"]


def test_a_unit_of_ours_that_does_not_start_takes_its_file_back(tmp_path: Path) -> None:
    kernel = FakeSystemd(tmp_path)
    kernel.broken.add("ai.slice")
    with pytest.raises(ApplyError, match=r"systemctl --no-reload enable ai.slice: Job failed"):
        with_unit(kernel)
    assert not kernel.exists(SLICE)


def test_a_restart_names_a_unit(kernel: FakeKernel) -> None:
    with pytest.raises(InputError, match="restart: 'x; reboot' is not a unit name"):
        call(kernel, entry(restart=["x; reboot"]))
    with pytest.raises(InputError, match="is not a unit name"):
        call(kernel, entry(restart=["x.service\n"]))


def test_a_file_for_the_next_boot_asks_for_one(kernel: FakeKernel) -> None:
    assert call(kernel, entry(reboot=True))["reboot_required"]
    assert call(kernel, entry(reboot=True))["reboot_required"]
