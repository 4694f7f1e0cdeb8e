# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the operating system, on a real file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import FileState, Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import RefusedError


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "etc").mkdir()
    return Host(str(tmp_path))


def own(content: str, mode: int = 0o640) -> FileState:
    return FileState(content, mode, os.geteuid(), os.getegid())


def test_a_file_is_on_disk_before_it_is_in_place(host: Host, monkeypatch) -> None:
    events = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        events.append("fsync folder" if Path(f"/proc/self/fd/{handle}").resolve().is_dir() else "fsync file")
        real_fsync(handle)

    def rename(old: str, new: str) -> None:
        events.append("rename")
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    host.write_file("/etc/x.conf", own("text\n"))
    assert events == ["fsync file", "rename", "fsync folder"]


def test_bytes_and_mode_come_back_as_they_were(host: Host) -> None:
    data = b"\xff\x00 caf\xc3\xa9 \r\n"
    Path(host.at("/etc/x")).write_bytes(data)
    Path(host.at("/etc/x")).chmod(0o4711)
    state = host.file("/etc/x")
    host.write_file("/etc/x", own("other\n"))
    host.write_file("/etc/x", FileState.from_json(state.to_json()))
    assert Path(host.at("/etc/x")).read_bytes() == data
    assert Path(host.at("/etc/x")).stat().st_mode & 0o7777 == 0o4711


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(host: Host, monkeypatch) -> None:
    host.write_file("/etc/x", own("old\n"))

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        host.write_file("/etc/x", own("new\n"))
    assert (host.text("/etc/x"), host.names("/etc")) == ("old", ["x"])


def test_a_planted_link_is_not_followed(host: Host, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    (tmp_path / "etc" / ".x.ai-workstation").symlink_to(victim)
    host.write_file("/etc/x", own("new\n"))
    assert (victim.read_text(), host.text("/etc/x")) == ("safe", "new")


def test_every_write_passes_the_hook_first(host: Host) -> None:
    seen = []
    host.before_write = seen.append
    Path(host.at("/etc/value")).write_text("1")
    host.write_value("/etc/value", "2")
    host.write_file("/etc/x", own("x"))
    host.make_dir("/etc/d", 0o755)
    host.remove_dir("/etc/d")
    host.remove_file("/etc/x")
    host.save_json("/etc/l/ledger.json", {})
    host.act(("true",))
    assert seen == ["/etc/value", "/etc/x", "/etc/d", "/etc/d", "/etc/x", "/etc/l/ledger.json", "true"]


def test_what_is_not_there_is_none(host: Host) -> None:
    assert (host.text("/no"), host.number("/no"), host.names("/no"), host.file("/no"), host.link("/no")) == (
        None,
        None,
        [],
        None,
        None,
    )
    assert host.run(("no-such-program",)).code == 127


def test_commands_end_and_speak_english(host: Host) -> None:
    assert host.run(("sleep", "5"), timeout=0.05).code == 124
    assert host.run(("sh", "-c", "echo $LC_ALL")).out == "C\n"


def test_a_read_only_file_system_is_seen_without_a_write(host: Host, monkeypatch) -> None:
    Path(host.at("/etc/value")).write_text("1")
    assert host.writable("/etc/value")
    Path(host.at("/etc/value")).chmod(0o444)
    assert not host.writable("/etc/value")
    Path(host.at("/etc/value")).chmod(0o644)

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _path: ReadOnly)
    assert not host.writable("/etc/value")


def test_the_lock_is_for_root_alone_and_is_not_waited_for_without_end(host: Host, monkeypatch) -> None:
    lock, waits = "/etc/l/lock", []
    monkeypatch.setattr(host, "pause", waits.append)
    with host.lock(lock):
        assert Path(host.at(lock)).stat().st_mode & 0o777 == 0o600
        with pytest.raises(RefusedError, match="another run has held it for 600 s"), host.lock(lock):
            pass
    assert sum(waits) == 600
    Path(host.at(lock)).chmod(0o644)
    with host.lock(lock):
        assert Path(host.at(lock)).stat().st_mode & 0o777 == 0o600
