# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page cache, asked of the kernel: residency, reading in, locking, and the program of the boot units."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors import page_cache

PROGRAM = page_cache.__file__
SIZE = (5 << 20) + 123


def on_disk(path: Path) -> bool:
    """Whether the kernel can forget pages of this file: a tmpfs has no other place for them."""
    page_cache.drop(str(path))
    return page_cache.resident(str(path))[0] == 0


@pytest.fixture
def root(tmp_path):
    """A store with one model that is preloaded and locked, written to disk."""
    (tmp_path / "m").mkdir()
    for name in ("m/a", "m/b"):
        with open(tmp_path / name, "wb") as stream:
            stream.write(os.urandom(SIZE))
            os.fsync(stream.fileno())
    entry = {"files": {"m/a": {}, "m/b": {}}, "preload": True, "lock": True, "hugepages": True}
    other = {"files": {"gone": {}}, "preload": False, "lock": False, "hugepages": False}
    (tmp_path / ".ai-workstation").mkdir()
    (tmp_path / ".ai-workstation/manifest.json").write_text(json.dumps({"models": {"m": entry, "other": other}}))
    return tmp_path


def test_residency_is_what_the_kernel_says(root):
    path = root / "m/a"
    if not on_disk(path):
        pytest.skip("the file system of the tests keeps all pages in memory")
    with open(path, "rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        stream.seek(1 << 20)
        stream.read(1)
    some, size = page_cache.resident(str(path))
    assert 0 < some < size == SIZE
    assert page_cache.read_in(str(path)) > 0
    assert page_cache.resident(str(path)) == (SIZE, SIZE)


def test_an_empty_file_is_no_trouble(tmp_path):
    (tmp_path / "empty").touch()
    assert page_cache.resident(str(tmp_path / "empty")) == (0, 0)
    assert page_cache.hold(str(tmp_path / "empty")) == 0


def test_the_program_preloads_what_the_manifest_says_and_reports_it(root):
    page_cache.drop(str(root / "m/a"))
    done = subprocess.run([sys.executable, PROGRAM, "preload", str(root)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"m: 10 of 10 MiB resident \(100 %\); read in \d+\.\d s, \d+ MiB/s\n", done.stdout)
    assert page_cache.resident(str(root / "m/a")) == (SIZE, SIZE)


def test_a_missing_file_is_named_and_the_others_are_still_read(root):
    (root / "m/a").unlink()
    done = subprocess.run([sys.executable, PROGRAM, "preload", str(root)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"m: {root}/m/a: No such file or directory\n")


def test_the_program_locks_tells_systemd_and_ends_when_it_is_told(root, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        door.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen([sys.executable, PROGRAM, "lock", str(root)], env=environment) as process:
            try:
                assert door.recv(64) == b"READY=1"
                status = Path(f"/proc/{process.pid}/status").read_text()
                assert int(re.search(r"VmLck:\s+(\d+) kB", status)[1]) >= 2 * SIZE >> 10
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_a_mapping_makes_the_copy_whole_and_the_second_time_it_is_there(root, tmp_path):
    source, target = str(root / "m/a"), str(tmp_path / "copy")
    assert page_cache.copy_to_huge_pages(source, target)
    copied = (tmp_path / "copy").read_bytes()
    assert copied[:SIZE] == (root / "m/a").read_bytes()
    assert copied[SIZE:].strip(b"\0") == b""
    assert not page_cache.copy_to_huge_pages(source, target)
    os.utime(source, (1, 1))
    assert page_cache.copy_to_huge_pages(source, target)


def test_a_place_that_is_not_on_huge_pages_is_refused(root, tmp_path):
    command = [sys.executable, PROGRAM, "hugepages", str(root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "not a hugetlbfs mount" in done.stdout) == (1, True)


@pytest.mark.parametrize("arguments", [[], ["evict", "/"], ["preload"], ["preload", "/", "/"]])
def test_wrong_arguments_are_told(arguments):
    done = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)


def test_a_store_without_a_manifest_is_one_line(tmp_path):
    command = [sys.executable, PROGRAM, "preload", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n"), "Traceback" in done.stderr) == (1, 1, False)
