# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of mounts, through block_device_settings, on a kernel that remounts as mount(8) says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.knobs import MOUNT_DEFAULTS
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import block_device_settings as subject
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.mount_options import GROUPS, live_options
from fake_kernel import FakeKernel, run_module
from hypothesis import given
from hypothesis import strategies as st

PATH = "/mnt/ai-data"
UNIT = r"mnt-ai\x2ddata.mount"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/50-ai-workstation.conf"
INFO = "/proc/self/mountinfo"


def remount(kernel: FakeKernel, words: list[str]) -> Completed:
    """A bind remount. What is not named stays as it was: releases of mount differ there, so each option is named."""
    if kernel.container:
        return Completed(32, "", "mount: /mnt/ai-data: permission denied.")
    named = words[1].split(",")
    assert named[:2] == ["remount", "bind"]
    lines = [line.split() for line in kernel.text(INFO).splitlines()]
    for fields in lines:
        if fields[4] == words[-1]:
            kept = fields[5].split(",")
            for group in GROUPS:
                chosen = [option for option in named if option in group]
                if chosen:
                    kept = [option for option in kept if option not in group] + chosen
            fields[5] = ",".join(option for option in kept if option not in MOUNT_DEFAULTS)
    kernel.put(INFO, "\n".join(" ".join(fields) for fields in lines))
    return Completed(0, "", "")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.container = False
    kernel.programs["mount"] = remount
    kernel.put(
        INFO, f"1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n2 1 259:2 / {PATH} rw,nosuid,relatime - ext4 /dev/x rw"
    )
    kernel.put(f"/run/systemd/generator/{UNIT}", f"[Mount]\nWhat=/dev/x\nWhere={PATH}\nOptions=nosuid,nofail")
    return kernel


def test_a_mount_point_with_a_space(kernel: FakeKernel) -> None:
    kernel.put(INFO, r"2 1 259:2 / /mnt/ai\040data rw,relatime - ext4 /dev/x rw")
    outcome = run_module(subject, kernel, True, mounts=[{"path": "/mnt/ai data", "options": ["noatime"]}])
    assert outcome["changes"][0]["after"] == "noatime,rw"


def options(kernel: FakeKernel) -> str:
    return kernel.text(INFO).splitlines()[1].split()[5]


def call(kernel: FakeKernel, *wanted: str, path: str = PATH, check: bool = False, **params):
    mounts = [{"path": path, "options": list(wanted)}] if wanted else []
    return run_module(subject, kernel, check, mounts=mounts, **params)


def test_now_and_at_boot_and_back(kernel: FakeKernel) -> None:
    predicted = call(kernel, "noatime", check=True)
    assert kernel.acted == []
    assert call(kernel, "noatime") == predicted
    assert set(options(kernel).split(",")) == {"rw", "nosuid", "noatime"}
    assert kernel.text(DROP_IN).endswith("[Mount]\nOptions=nosuid,nofail,noatime")
    assert not call(kernel, "noatime")["changed"]
    call(kernel)
    assert set(options(kernel).split(",")) == {"rw", "nosuid", "relatime"}
    assert not kernel.exists(DROP_IN)


def test_a_default_is_said_at_boot_though_the_kernel_does_not_print_it(kernel: FakeKernel) -> None:
    call(kernel, "suid", "strictatime")
    assert options(kernel) == "rw"
    assert kernel.text(DROP_IN).endswith("Options=nofail,suid,strictatime")
    assert not call(kernel, "suid", "strictatime")["changed"]


def test_what_nothing_mounts_at_boot_gets_a_warning(kernel: FakeKernel) -> None:
    Path(kernel.at(f"/run/systemd/generator/{UNIT}")).unlink()
    outcome = call(kernel, "noatime")
    assert "no line of fstab and no unit mounts it" in outcome["warnings"][0]
    assert not kernel.exists(DROP_IN)


def test_no_mount_there(kernel: FakeKernel) -> None:
    with pytest.raises(RefusedError, match="mount_options:/srv/x: nothing is mounted there"):
        call(kernel, "noatime", path="/srv/x")
    assert call(kernel, "noatime", path="/srv/x", optional=["/srv/x"])["skipped_keys"]


def test_a_container_skips_and_remembers(kernel: FakeKernel) -> None:
    kernel.container = True
    outcome = call(kernel, "noatime", persist=False)
    assert outcome["skipped_keys"][0]["reason"] == "a container may not change the options of a mount"
    assert "noatime" not in options(kernel)


def test_a_mount_that_fails_leaves_nothing(kernel: FakeKernel) -> None:
    kernel.programs["mount"] = lambda _kernel, _words: Completed(32, "", "mount: bad superblock.")
    with pytest.raises(ApplyError, match=r"bad superblock.*nothing of this call remains"):
        call(kernel, "noatime")
    assert not kernel.exists(DROP_IN)


@pytest.mark.parametrize(
    ("path", "wanted", "message"),
    [
        ("/", ["noatime"], "belongs to the system"),
        ("mnt", ["noatime"], "not a plain absolute path"),
        (PATH, ["noatime", "relatime"], "exclude each other"),
        (PATH, ["discard"], "'discard' is not one of noatime"),
    ],
)
def test_bad_input(kernel: FakeKernel, path: str, wanted, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, *wanted, path=path)


@given(st.sets(st.sampled_from(["noatime", "nodiratime", "nodev", "nosuid", "noexec"])))
def test_what_is_set_stays_set(wanted: set[str]) -> None:
    once = live_options("relatime,rw", sorted(wanted))
    assert live_options(once, sorted(wanted)) == once
    assert wanted <= set(once.split(","))
