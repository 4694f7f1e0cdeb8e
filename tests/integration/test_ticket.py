# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The firmware ticket through real Ansible: written on the controller, compared by the next run, no change."""

from __future__ import annotations

import json
from pathlib import Path

import private


def test_a_ticket_is_written_on_the_controller_and_compared_by_the_next_run(tmp_path: Path) -> None:
    folder = tmp_path / "tickets"
    arguments = {"ticket_dir": str(folder)}
    first = private.call([], "firmware_report", arguments, tmp_path, {}, "--check")
    assert first["changed"] is False
    assert first["ticket"] == str(folder / "localhost.txt")
    assert sorted(path.name for path in folder.iterdir()) == ["localhost.json", "localhost.txt"]
    ticket = json.loads((folder / "localhost.json").read_text())
    assert ticket["findings"] == first["findings"]
    assert ticket["since"] is None
    # What runs on the machine hears nothing of the folder.
    assert not first["invocation"]["module_args"]["ticket_dir"]

    ticket["machine"]["boot_id"] = "an earlier boot"
    ticket["findings"][-1]["result"] = "fail"
    (folder / "localhost.json").write_text(json.dumps(ticket))
    second = private.call([], "firmware_report", arguments, tmp_path, {})
    assert second["changed"] is False
    since = json.loads((folder / "localhost.json").read_text())["since"]
    assert since["rebooted"] is True
    assert any(ticket["findings"][-1]["item"] in items for items in since["items"].values())
    assert "SINCE THE TICKET BEFORE" in (folder / "localhost.txt").read_text()


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = private.call([], "firmware_report", {"ticket_dir": str(tmp_path / "file")}, tmp_path, {})
    assert result["failed"] is True
    assert "give a folder of the controller" in result["msg"]
    assert "\n" not in result["msg"]


def test_no_folder_is_no_ticket(tmp_path: Path) -> None:
    result = private.call([], "firmware_report", {"ticket_dir": ""}, tmp_path, {})
    assert "ticket" not in result
