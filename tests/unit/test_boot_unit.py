# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program and the units that bring values back: installed, shared, upgraded, taken back; and run as a program."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine import program
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import boot_unit
from fake_kernel import run_module
from fake_systemd import FakeSystemd

PROGRAM = program.PATH
SERVICE = "/etc/systemd/system/ai-workstation.service"
LATER = "/etc/systemd/system/ai-workstation-later.service"
WATCH = "/etc/systemd/system/ai-workstation.path"
RULES = "/etc/udev/rules.d/90-ai-workstation-events.rules"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeSystemd:
    kernel = FakeSystemd(tmp_path)
    kernel.put_all({"/usr/bin/python3": "", "/run/udev/control": ""})
    os.makedirs(kernel.at("/usr/local/sbin"))
    return kernel


def run(kernel: FakeSystemd, check: bool = False, **params):
    return run_module(boot_unit, kernel, check, **{"owner": "os_tuning", "enabled": True, **params})


def ledger(kernel: FakeSystemd) -> dict:
    return json.loads(kernel.text(LEDGER) or "{}")["entries"]


def test_it_is_foretold_installed_and_a_second_run_changes_nothing(kernel: FakeSystemd) -> None:
    foretold = run(kernel, check=True)
    assert kernel.writes == []
    outcome = run(kernel)
    assert outcome["changes"] == foretold["changes"]
    assert os.stat(kernel.at(PROGRAM)).st_mode & 0o7777 == 0o755
    assert kernel.units["ai-workstation.service"] == ["enabled", "inactive"]
    assert kernel.units["ai-workstation.path"] == ["enabled", "active"]
    # The watch may only start when systemd and udev know the files.
    assert kernel.acted.index("systemctl daemon-reload") < kernel.acted.index("systemctl start ai-workstation.path")
    assert "udevadm control --reload-rules" in kernel.acted
    writes = len(kernel.writes)
    assert (run(kernel)["changed"], len(kernel.writes)) == (False, writes)


def test_the_ledger_holds_a_line_of_the_program_and_not_the_program(kernel: FakeSystemd) -> None:
    run(kernel)
    entry = ledger(kernel)[f"program:{PROGRAM}"]
    assert (entry["original"], len(entry["ours"]) < 50) == (None, True)
    assert len(kernel.text(LEDGER) or "") < 20_000 < len(kernel.raw(PROGRAM) or b"")


def test_it_goes_with_the_last_owner_to_the_byte(kernel: FakeSystemd) -> None:
    run(kernel)
    assert run(kernel, owner="gpu_tuning")["changed"] is False
    assert run(kernel, enabled=False)["changed"] is False
    assert kernel.exists(PROGRAM)
    run(kernel, owner="gpu_tuning", enabled=False)
    assert [kernel.exists(path) for path in (PROGRAM, SERVICE, LATER, WATCH, RULES)] == [False] * 5
    assert ledger(kernel) == {}
    assert "ai-workstation.path" not in kernel.units or kernel.units["ai-workstation.path"][1] == "inactive"


def test_who_only_joins_changes_nothing_and_keeps_it(kernel: FakeSystemd) -> None:
    assert run(kernel, owner="gpu_tuning", only_join=True, check=True)["changes"] == []
    run(kernel)
    run(kernel, owner="gpu_tuning", only_join=True)
    run(kernel, enabled=False)
    assert kernel.exists(SERVICE)
    run(kernel, owner="gpu_tuning", enabled=False)
    assert not kernel.exists(SERVICE)


def test_any_owner_brings_it_up_to_date_for_all(kernel: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    run(kernel, owner="gpu_tuning")
    before = kernel.raw(PROGRAM)
    contents = program.contents
    monkeypatch.setattr(program, "contents", lambda machine: {**contents(machine), "new.py": b"1\n"})
    service, *rest = boot_unit._FILES.files
    files = (dataclasses.replace(service, content="[Unit]\nDescription=newer\n"), *rest)
    monkeypatch.setattr(boot_unit, "_FILES", dataclasses.replace(boot_unit._FILES, files=files))
    assert {change["key"] for change in run(kernel)["changes"]} >= {f"program:{PROGRAM}", f"file:{SERVICE}"}
    assert kernel.raw(PROGRAM) != before
    assert run(kernel, owner="gpu_tuning")["changed"] is False
    run(kernel, enabled=False)
    assert kernel.exists(PROGRAM), "the other owner still wants it"


def test_a_failure_after_the_program_was_replaced_brings_the_old_one_back(kernel: FakeSystemd, monkeypatch) -> None:
    run(kernel)
    before = kernel.raw(PROGRAM)
    contents = program.contents
    monkeypatch.setattr(program, "contents", lambda machine: {**contents(machine), "new.py": b"1\n"})
    os.unlink(kernel.at(SERVICE))

    def fail(path: str) -> None:
        if path == SERVICE:
            raise OSError(errno.ENOSPC, "No space left on device")

    kernel.before_write = fail
    with pytest.raises(ApplyError, match="nothing of this call remains"):
        run(kernel)
    assert kernel.raw(PROGRAM) == before


@pytest.mark.parametrize("damage", [b"", b"PK", b"#!/bin/sh\n"])
def test_a_program_that_was_damaged_is_drift_and_is_written_anew(kernel: FakeSystemd, damage: bytes) -> None:
    run(kernel)
    right = kernel.raw(PROGRAM)
    Path(kernel.at(PROGRAM)).write_bytes(damage)
    (change,) = run(kernel)["changes"]
    assert "not as we wrote it" in change["before"]
    assert kernel.raw(PROGRAM) == right


def test_what_is_not_ours_is_refused(kernel: FakeSystemd) -> None:
    kernel.put(PROGRAM, "#!/bin/sh")
    with pytest.raises(RefusedError, match="exists and is not ours"):
        run(kernel)


def test_without_systemd_or_python_it_is_skipped_with_the_reason(kernel: FakeSystemd) -> None:
    os.unlink(kernel.at("/usr/bin/python3"))
    assert "python3" in run(kernel)["skipped_keys"][0]["reason"]
    os.rmdir(kernel.at("/run/systemd/system"))
    outcome = run(kernel)
    assert (outcome["changed"], outcome["skipped_keys"]) == (
        False,
        [{"key": "boot_unit", "reason": "systemd does not run here"}],
    )


def test_the_content_does_not_depend_on_where_the_code_comes_from(kernel: FakeSystemd, tmp_path: Path) -> None:
    """The program that writes itself anew is the same; so is what comes from Ansible's archive (integration test)."""
    run(kernel)
    inside = zipfile.ZipFile(io.BytesIO(kernel.raw(PROGRAM) or b""))
    tree = tmp_path / "tree"
    inside.extractall(tree)
    code = (
        "from ai_workstation.engine import program; from ai_workstation.engine.machine import Machine; "
        "from ai_workstation.doors.host import Host; print(program.wanted(Machine(Host())))"
    )
    for place in (kernel.at(PROGRAM), str(tree)):
        done = subprocess.run(
            ["/usr/bin/python3", "-ISc", f"import sys; sys.path.insert(0, {place!r}); {code}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == program.wanted(Machine(kernel)), done.stderr


def test_nothing_that_the_program_imports_is_missing_in_it(kernel: FakeSystemd) -> None:
    run(kernel)
    names = zipfile.ZipFile(io.BytesIO(kernel.raw(PROGRAM) or b"")).namelist()
    modules = [name[: -len(".py")].replace("/", ".") for name in names if name.startswith("ai_workstation/")]
    assert len(modules) > 50
    code = f"import sys; sys.path.insert(0, {kernel.at(PROGRAM)!r}); import importlib; "
    code += f"[importlib.import_module(name.replace('.__init__', '')) for name in {modules!r}]"
    done = subprocess.run(["/usr/bin/python3", "-ISc", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_program_runs_with_the_standard_library_alone_and_names_what_is_missing(kernel: FakeSystemd) -> None:
    run(kernel)
    done = subprocess.run([kernel.at(PROGRAM), "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, "invalid choice: 'nonsense'" in done.stderr) == (2, True)
    helped = subprocess.run([kernel.at(PROGRAM), "--help"], capture_output=True, text=True, check=False)
    assert {"boot", "verify"} <= set(helped.stdout.split())
