# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""block_device_settings on a tree with an NVMe disk, a rotating disk and a loop device."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import block_device_settings as subject
from fake_kernel import FakeKernel, refuse, run_module

NVME, SDA = "/sys/block/nvme0n1/queue", "/sys/block/sda/queue"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    for name, number, rotational, scheduler in (
        ("nvme0n1", "259:0", 0, "[none] mq-deadline"),
        ("sda", "8:0", 1, "none [mq-deadline] bfq"),
        ("loop0", "7:0", 0, "[none]"),
    ):
        folder = f"/sys/devices/{name}"
        kernel.put_all(
            {
                f"{folder}/queue/scheduler": scheduler,
                f"{folder}/queue/read_ahead_kb": 128,
                f"{folder}/queue/rotational": rotational,
                f"{folder}/dev": number,
            }
        )
        for link in (f"/sys/block/{name}", f"/sys/dev/block/{number}"):
            Path(kernel.at(link)).parent.mkdir(parents=True, exist_ok=True)
            Path(kernel.at(link)).symlink_to(kernel.at(folder))
    kernel.put("/sys/devices/nvme0n1/nvme0n1p2/partition", "2")
    Path(kernel.at("/sys/dev/block/259:2")).symlink_to(kernel.at("/sys/devices/nvme0n1/nvme0n1p2"))
    kernel.put("/run/udev/data/b259:0", "E:ID_SERIAL=LAB_NVME_1")
    kernel.put(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:2 / /mnt/ai-data rw - ext4 /dev/nvme0n1p2 rw",
    )
    Path(kernel.at("/mnt/ai-data/models")).mkdir(parents=True)
    return kernel


def call(kernel: FakeKernel, *devices, check: bool = False, **params):
    return run_module(subject, kernel, check, devices=list(devices), **params)


def test_disk_under_a_folder_is_set_and_ruled_by_serial(kernel: FakeKernel) -> None:
    device = {"path": "/mnt/ai-data/models", "scheduler": "mq-deadline", "read_ahead_kb": 4096}
    predicted = call(kernel, device, check=True)
    assert kernel.writes == []
    assert call(kernel, device) == predicted
    assert (kernel.text(f"{NVME}/scheduler"), kernel.text(f"{NVME}/read_ahead_kb")) == ("none [mq-deadline]", "4096")
    assert kernel.text(f"{SDA}/read_ahead_kb") == "128"
    assert (
        'ENV{ID_SERIAL}=="LAB_NVME_1", ATTR{queue/scheduler}="mq-deadline", ATTR{queue/read_ahead_kb}="4096"'
        in kernel.text(subject.RULES)
    )
    assert not call(kernel, device)["changed"]
    call(kernel)
    assert (kernel.text(f"{NVME}/scheduler"), kernel.exists(subject.RULES)) == ("[none] mq-deadline", False)


def test_pattern_and_kind_of_disk(kernel: FakeKernel) -> None:
    call(kernel, {"device": "*", "rotational": True, "scheduler": "bfq"})
    assert kernel.text(f"{SDA}/scheduler") == "none mq-deadline [bfq]"
    assert kernel.text(f"{NVME}/scheduler") == "[none] mq-deadline"
    assert 'KERNEL=="*", ATTR{queue/rotational}=="1", ATTR{queue/scheduler}="bfq"' in kernel.text(subject.RULES)


def test_a_refused_write_leaves_nothing(kernel: FakeKernel) -> None:
    kernel.rules[f"{NVME}/read_ahead_kb"] = refuse(errno.EINVAL)
    with pytest.raises(ApplyError, match="nothing of this call remains"):
        call(kernel, {"device": "nvme*", "scheduler": "mq-deadline", "read_ahead_kb": 512})
    assert (kernel.text(f"{NVME}/scheduler"), kernel.exists(subject.RULES)) == ("[none] mq-deadline", False)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([{"device": "nvme*", "scheduler": "bfq"}], "'bfq' is not one of none, mq-deadline"),
        ([{"device": "vd*", "scheduler": "none"}], "no disk matches; there is nvme0n1, sda"),
        (
            [{"device": "nvme*", "read_ahead_kb": 1}, {"device": "*", "read_ahead_kb": 2}],
            "two entries of devices match nvme0n1",
        ),
    ],
)
def test_what_this_machine_lacks(kernel: FakeKernel, devices, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        call(kernel, *devices)
    assert kernel.writes == []


def test_a_folder_that_is_not_there_is_on_no_disk(kernel: FakeKernel) -> None:
    with pytest.raises(RefusedError, match="block:/srv/none: no such folder"):
        call(kernel, {"path": "/srv/none", "read_ahead_kb": 512})


def mount(kernel: FakeKernel, number: str, kind: str, source: str, path: str = "/mnt/ai-data") -> None:
    Path(kernel.at(path.replace(r"\040", " "))).mkdir(parents=True, exist_ok=True)
    root = "1 0 8:1 / / rw - ext4 /dev/sda1 rw"
    kernel.put("/proc/self/mountinfo", f"{root}\n2 1 {number} / {path} rw - {kind} {source} rw")


def link(kernel: FakeKernel, path: str, target: str) -> None:
    Path(kernel.at(path)).parent.mkdir(parents=True, exist_ok=True)
    Path(kernel.at(path)).symlink_to(kernel.at(target))


@pytest.fixture
def mapped(kernel: FakeKernel) -> FakeKernel:
    """A volume of LVM, on an encrypted partition of the one disk and on the whole other disk."""
    part = "/sys/devices/nvme0n1/nvme0n1p2"
    for name, number, slaves in (
        ("dm-1", "252:1", {"nvme0n1p2": part}),
        ("dm-0", "252:0", {"dm-1": "/sys/devices/dm-1", "sda": "/sys/devices/sda"}),
    ):
        kernel.put(f"/sys/devices/{name}/dev", number)
        for slave, target in slaves.items():
            link(kernel, f"/sys/devices/{name}/slaves/{slave}", target)
        for place in (f"/sys/block/{name}", f"/sys/class/block/{name}", f"/sys/dev/block/{number}"):
            link(kernel, place, f"/sys/devices/{name}")
    link(kernel, "/sys/class/block/nvme0n1p2", part)
    link(kernel, "/sys/class/block/sda", "/sys/devices/sda")
    mount(kernel, "252:0", "ext4", "/dev/mapper/vg-models")
    return kernel


def test_the_disks_below_a_mapping_are_found(mapped: FakeKernel) -> None:
    device = {"path": "/mnt/ai-data", "scheduler": "none"}
    mapped.put(f"{NVME}/scheduler", "none [mq-deadline]")
    call(mapped, device)
    assert mapped.text(f"{NVME}/scheduler") == "[none] mq-deadline"
    assert mapped.text(f"{SDA}/scheduler") == "[none] mq-deadline bfq"
    rules = mapped.text(subject.RULES)
    assert 'ENV{ID_SERIAL}=="LAB_NVME_1", ATTR{queue/scheduler}="none"' in rules
    assert 'KERNEL=="sda", ATTR{queue/scheduler}="none"' in rules
    assert not call(mapped, device)["changed"]


def test_the_disks_of_btrfs_are_found_by_their_file_system(mapped: FakeKernel) -> None:
    mount(mapped, "0:45", "btrfs", "/dev/nvme0n1p2")
    link(mapped, "/sys/fs/btrfs/uuid-1/devices/nvme0n1p2", "/sys/devices/nvme0n1/nvme0n1p2")
    link(mapped, "/sys/fs/btrfs/uuid-1/devices/sda", "/sys/devices/sda")
    call(mapped, {"path": "/mnt/ai-data", "scheduler": "mq-deadline"})
    assert mapped.text(f"{NVME}/scheduler") == "none [mq-deadline]"
    rules = mapped.text(subject.RULES)
    assert "LAB_NVME_1" in rules
    assert 'KERNEL=="sda"' in rules


def test_files_are_read_ahead_as_the_layer_above_the_disks_says(mapped: FakeKernel) -> None:
    device = {"path": "/mnt/ai-data", "scheduler": "mq-deadline", "read_ahead_kb": 4096}
    with pytest.raises(RefusedError, match="files there are read ahead as dm-0 says and not as its disks say"):
        call(mapped, device)
    outcome = call(mapped, device, optional=["/mnt/ai-data"])
    assert outcome["skipped_keys"][0]["key"] == "block:/mnt/ai-data"
    assert (mapped.text(f"{NVME}/scheduler"), mapped.text(f"{NVME}/read_ahead_kb")) == ("none [mq-deadline]", "128")
    del device["scheduler"]
    assert call(mapped, device, optional=["/mnt/ai-data"])["skipped_keys"]
    assert not mapped.exists(subject.RULES)


def test_what_is_on_no_disk_is_said(kernel: FakeKernel) -> None:
    mount(kernel, "0:50", "zfs", "tank/models")
    with pytest.raises(RefusedError, match="no disk is known below it \\(zfs is mounted there from tank/models\\)"):
        call(kernel, {"path": "/mnt/ai-data", "scheduler": "none"})


def test_a_mount_point_with_a_space(kernel: FakeKernel) -> None:
    mount(kernel, "259:2", "ext4", "/dev/nvme0n1p2", r"/mnt/ai\040data")
    call(kernel, {"path": "/mnt/ai data", "scheduler": "mq-deadline"})
    assert (kernel.text(f"{NVME}/scheduler"), kernel.text(f"{SDA}/scheduler")) == (
        "none [mq-deadline]",
        "none [mq-deadline] bfq",
    )


def test_optional_entries_are_skipped(kernel: FakeKernel) -> None:
    kernel.read_only.add(f"{NVME}/scheduler")
    outcome = call(
        kernel,
        {"device": "nvme*", "scheduler": "mq-deadline"},
        {"device": "vd*", "scheduler": "none"},
        optional=["nvme*", "vd*"],
    )
    assert {skip["key"] for skip in outcome["skipped_keys"]} == {"block:nvme0n1/scheduler", "block:vd*"}
    assert not outcome["changed"]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"scheduler": "none"}, "either device"),
        ({"device": "sda", "path": "/", "scheduler": "none"}, "either device"),
        ({"device": "sda; reboot", "scheduler": "none"}, "not a kernel name"),
        ({"device": "sda\n", "scheduler": "none"}, "not a kernel name"),
        ({"device": "sda", "scheduler": "none\n"}, "not a name like"),
        ({"device": "sda", "scheduler": "No ne"}, "not a name like"),
        ({"device": "sda", "read_ahead_kb": -1}, "whole number from 0"),
        ({"device": "sda"}, "says nothing"),
        ({"path": "mnt", "scheduler": "none"}, "is not absolute"),
    ],
)
def test_bad_input(kernel: FakeKernel, device, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, device)


def test_a_lower_bound_never_lowers_a_disk(kernel: FakeKernel) -> None:
    kernel.put(f"{NVME}/read_ahead_kb", "8192")
    device = {"device": "*", "read_ahead_kb": 4096, "at_least": True}
    call(kernel, device)
    assert (kernel.text(f"{NVME}/read_ahead_kb"), kernel.text(f"{SDA}/read_ahead_kb")) == ("8192", "4096")
    rules = kernel.text(subject.RULES)
    assert 'KERNEL=="sda", ATTR{queue/read_ahead_kb}="4096"' in rules
    assert 'KERNEL=="*"' not in rules
    assert not call(kernel, device)["changed"]
    call(kernel)
    assert (kernel.text(f"{NVME}/read_ahead_kb"), kernel.text(f"{SDA}/read_ahead_kb")) == ("8192", "128")
    assert not kernel.exists(subject.RULES)


def test_a_lower_bound_that_every_disk_needs_is_one_rule(kernel: FakeKernel) -> None:
    device = {"device": "*", "scheduler": "none", "read_ahead_kb": 4096, "at_least": True}
    call(kernel, device)
    assert 'KERNEL=="*", ATTR{queue/scheduler}="none", ATTR{queue/read_ahead_kb}="4096"' in kernel.text(subject.RULES)
    assert not call(kernel, device)["changed"]


def test_a_lower_bound_keeps_the_other_settings_of_its_rule(kernel: FakeKernel) -> None:
    kernel.put(f"{NVME}/read_ahead_kb", "8192")
    call(kernel, {"path": "/mnt/ai-data", "scheduler": "mq-deadline", "read_ahead_kb": 512, "at_least": True})
    assert kernel.text(subject.RULES).endswith('ENV{ID_SERIAL}=="LAB_NVME_1", ATTR{queue/scheduler}="mq-deadline"')
