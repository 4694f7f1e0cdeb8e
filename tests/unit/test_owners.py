# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys that more than one owner wants, keys that move between owners, and what goes back with the last of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import _conflicts as conflicts
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    block_device_settings,
    hugepages,
    kernel_settings,
    managed_files,
)
from fake_kernel import FakeKernel, run_module

SWAP = "/proc/sys/vm/swappiness"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
FOLDER = "/etc/systemd/system/docker.service.d"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put(SWAP, "60")
    kernel.put(THP, "always madvise [never]")
    kernel.put("/proc/sys/vm/min_free_kbytes", "67584")
    return kernel


def swappiness(kernel: FakeKernel, owner: str, value: int | None = None, check: bool = False):
    sysctl = {} if value is None else {"vm.swappiness": value}
    return run_module(kernel_settings, kernel, check, owner=owner, sysctl=sysctl, persist=False)


def entries(kernel: FakeKernel) -> dict:
    return json.loads(kernel.text(LEDGER))["entries"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_value_goes_back_with_the_last_who_wants_it(kernel: FakeKernel, order: str) -> None:
    for owner in "ab":
        swappiness(kernel, owner, 10)
    writes = len(kernel.writes)
    for owner in "ab":
        assert not swappiness(kernel, owner, 10)["changed"]
    assert len(kernel.writes) == writes
    first, last = order
    assert not swappiness(kernel, first)["changed"]
    assert kernel.text(SWAP) == "10"
    assert swappiness(kernel, last, check=True)["changed"]
    swappiness(kernel, last)
    assert (kernel.text(SWAP), entries(kernel)) == ("60", {})


def test_a_prediction_notes_no_owner(kernel: FakeKernel) -> None:
    swappiness(kernel, "a", 10)
    swappiness(kernel, "b", 10, check=True)
    swappiness(kernel, "a")
    assert kernel.text(SWAP) == "60"


def parts(kernel: FakeKernel, sysfs: dict[str, str], *others, check: bool = False):
    setting = (kernel_settings, {"owner": "role", "sysfs": sysfs})
    before = [part for part in others if part[0] is hugepages]
    after = [part for part in others if part[0] is not hugepages]
    return converge_parts([*before, setting, *after], check, Machine(kernel))


def test_a_key_that_moves_to_an_earlier_part_keeps_its_value(kernel: FakeKernel) -> None:
    pages = (hugepages, {"owner": "role", "thp_enabled": "madvise", "persist": False})
    none = (hugepages, {"owner": "role", "persist": False})
    parts(kernel, {THP: "madvise"}, none)
    predicted = parts(kernel, {}, pages, check=True)
    assert parts(kernel, {}, pages)["changes"] == predicted["changes"]
    assert "[madvise]" in kernel.text(THP)
    assert not parts(kernel, {}, pages)["changed"]
    parts(kernel, {}, none)
    assert "[never]" in kernel.text(THP)


def test_a_key_that_moves_to_a_later_part_of_another_family_keeps_its_value(kernel: FakeKernel) -> None:
    queue = "/sys/block/sda/queue"
    kernel.put_all({f"{queue}/scheduler": "[none] mq-deadline", f"{queue}/rotational": "0", "/sys/block/sda/size": "9"})
    wanted = {"device": "sda", "scheduler": "mq-deadline"}
    disks = (block_device_settings, {"owner": "role", "devices": [wanted], "persist": False})
    none = (block_device_settings, {"owner": "role", "persist": False})
    parts(kernel, {f"{queue}/scheduler": "mq-deadline"}, none)
    kernel.writes.clear()
    parts(kernel, {}, disks)
    assert f"{queue}/scheduler" not in kernel.writes
    assert not parts(kernel, {}, disks)["changed"]
    parts(kernel, {}, none)
    assert "[none]" in kernel.text(f"{queue}/scheduler")


def files(kernel: FakeKernel, owner: str, *names: str):
    wanted = [{"path": f"{FOLDER}/{name}", "content": "[Unit]\n"} for name in names]
    return run_module(managed_files, kernel, owner=owner, files=wanted)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_folder_of_two_owners_goes_with_the_last_file(kernel: FakeKernel, order: str) -> None:
    files(kernel, "a", "50-a.conf")
    files(kernel, "b", "60-b.conf")
    first, last = order
    files(kernel, first)
    assert len(kernel.names(FOLDER)) == 1
    files(kernel, last)
    assert (kernel.is_dir(FOLDER), entries(kernel)) == (False, {})


def test_a_folder_with_foreign_files_stays_until_they_are_gone(kernel: FakeKernel) -> None:
    files(kernel, "a", "50-a.conf")
    kernel.put(f"{FOLDER}/99-theirs.conf", "x")
    assert "holds files of others" in files(kernel, "a")["skipped_keys"][0]["reason"]
    assert not files(kernel, "a")["changed"]
    Path(kernel.at(f"{FOLDER}/99-theirs.conf")).unlink()
    files(kernel, "a")
    assert (kernel.is_dir(FOLDER), entries(kernel)) == (False, {})


def test_two_parts_that_disagree_are_refused_and_both_named(kernel: FakeKernel) -> None:
    pages = (hugepages, {"owner": "role", "thp_enabled": "madvise", "persist": False})
    with pytest.raises(RefusedError, match=f"{THP}: hugepages wants 'madvise' and kernel_settings 'always'"):
        parts(kernel, {THP: "always"}, pages)
    assert kernel.writes == []
    parts(kernel, {THP: "madvise"}, pages)
    assert not parts(kernel, {THP: "madvise"}, pages)["changed"]


def test_the_sum_of_the_pools_and_a_pool_are_refused(kernel: FakeKernel) -> None:
    total, pool = "/proc/sys/vm/nr_hugepages", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    spoken = {"hugepages": {("text", pool): "64"}, "kernel_settings": {("text", total): "64"}}
    (problem,) = conflicts(spoken)
    assert problem.startswith(f"{total}: kernel_settings sets it, and hugepages sets the pool {pool}")
    assert conflicts({"hugepages": {("text", pool): "64"}, "kernel_settings": {}}) == []
