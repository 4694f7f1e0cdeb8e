# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a container cannot show of the model store: a real hugetlbfs, and memory after a reboot."""

from __future__ import annotations

import json
from typing import Any

from plays import Controller
from vm import Vm

MOUNT = "/mnt/huge"
MODEL = "/mnt/ai-data/models/big/big.gguf"
BYTES = 5 << 20  # not a whole number of pages
WANTED: dict[str, Any] = {
    # What this machine of 3 GiB cannot carry, and nobody uses.
    "workstation_plan_accept": ["memory_overcommitted", "huge_pages_without_user"],
    "os_tuning_hugepages": [{"size": "2M", "count": 4, "node": 0}],
    "os_tuning_hugepage_mounts": [{"path": MOUNT, "page_size": "2M"}],
    "model_store_models": [{"name": "big", "source": "/root/big.gguf", "hugepages": True, "preload": True}],
    "model_store_hugepage_mount": MOUNT,
}


def free_pages(vm: Vm) -> int:
    return int(vm.ssh("awk '/HugePages_Free/ {print $2}' /proc/meminfo"))


def test_a_model_lies_on_huge_pages_also_after_a_reboot(vm: Vm, controller: Controller) -> None:
    vm.ssh(f"head -c {BYTES} /dev/urandom > /root/big.gguf")
    controller.play("site.yml", WANTED).ok()
    copy = f"{MOUNT}/big/big.gguf"
    same = f"head -c {BYTES} {copy} | cmp - /root/big.gguf && cmp {MODEL} /root/big.gguf"
    vm.ssh(same)
    assert free_pages(vm) == 1
    assert vm.ssh(f"stat -c '%s %F' {copy}") == f"{6 << 20} regular file\n"
    assert controller.play("site.yml", WANTED).ok().changed == []

    vm.reboot()
    vm.await_true(f"test -e {copy}", limit=300)
    vm.ssh(same)
    assert free_pages(vm) == 1
    listed = vm.ssh(f"fincore --json --bytes {MODEL}")
    assert int(json.loads(listed)["fincore"][0]["res"]) >= BYTES

    # A model that does not fit is said by the unit, and the copy that is there stays.
    vm.ssh(f"head -c {9 << 20} /dev/urandom > /root/more.gguf")
    more = {"name": "more", "source": "/root/more.gguf", "hugepages": True}
    wanted = {**WANTED, "model_store_models": [*WANTED["model_store_models"], more]}
    assert controller.play("site.yml", wanted).code != 0
    journal = vm.ssh("journalctl --boot --output cat --unit ai-models-hugepages.service")
    assert "Cannot allocate memory" in journal
    assert vm.ssh(f"find {MOUNT} -type f") == f"{copy}\n"
