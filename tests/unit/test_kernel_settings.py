# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kernel_settings and, through it, the path of one setting: plan, journal, write, read back, undo."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_settings
from fake_kernel import FakeKernel, choose, clamp, killed, refuse, run_module

CONF = "/etc/sysctl.d/99-zz-ai-workstation.conf"
SWAP = "/proc/sys/vm/swappiness"


def _exclusive(other: str):
    def rule(kernel: FakeKernel, text: str) -> str:
        if text == "0" and other.endswith("ratio"):
            raise OSError(errno.EINVAL, "Invalid argument")
        kernel.put(other, "0")
        return text

    return rule


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put(SWAP, "60", clamp(0, 200))
    kernel.put("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456")
    kernel.put("/proc/sys/vm/dirty_ratio", "20", _exclusive("/proc/sys/vm/dirty_bytes"))
    kernel.put("/proc/sys/vm/dirty_bytes", "0", _exclusive("/proc/sys/vm/dirty_ratio"))
    kernel.put("/sys/kernel/mm/ksm/run", "0")
    kernel.put("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force")
    return kernel


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(kernel_settings, kernel, check, **params)


def test_sets_reads_back_persists_and_is_idempotent(kernel: FakeKernel) -> None:
    wanted = {
        "sysctl": {"vm.swappiness": 10, "net.ipv4.tcp_rmem": "4096 131072  6291456"},
        "sysfs": {"/sys/kernel/mm/ksm/run": 1},
    }
    first = call(kernel, **wanted)
    assert kernel.text(SWAP) == "10"
    assert "vm.swappiness = 10\n" in Path(kernel.at(CONF)).read_text()
    assert (
        "w /sys/kernel/mm/ksm/run - - - - 1\n"
        in Path(kernel.at("/etc/tmpfiles.d/99-zz-ai-workstation.conf")).read_text()
    )
    assert {change["key"] for change in first["changes"]} == {
        "sysctl:vm.swappiness",
        "sysfs:/sys/kernel/mm/ksm/run",
        f"file:{CONF}",
        "file:/etc/tmpfiles.d/99-zz-ai-workstation.conf",
    }
    writes = len(kernel.writes)
    second = call(kernel, **wanted)
    assert (second["changed"], second["changes"], len(kernel.writes)) == (False, [], writes)


def test_check_mode_writes_nothing_and_predicts_the_diff(kernel: FakeKernel) -> None:
    wanted = {"sysctl": {"vm.swappiness": 10}, "sysfs": {"/sys/kernel/mm/transparent_hugepage/shmem_enabled": "advise"}}
    predicted = call(kernel, check=True, **wanted)
    assert kernel.writes == []
    real = call(kernel, **wanted)
    assert predicted == real


def test_the_journal_is_on_disk_before_the_first_write(kernel: FakeKernel) -> None:
    assert killed(kernel, lambda: call(kernel, sysctl={"vm.swappiness": 10}), point=SWAP)
    entry = json.loads(kernel.text(LEDGER))["entries"]["sysctl:vm.swappiness"]
    assert (entry["original"], entry["intent"]) == ("60", ["10"])
    assert call(kernel, sysctl={"vm.swappiness": 10})["changed"]
    assert json.loads(kernel.text(LEDGER))["entries"]["sysctl:vm.swappiness"]["original"] == "60"


def test_a_refused_write_takes_the_whole_call_back(kernel: FakeKernel) -> None:
    kernel.rules["/proc/sys/net/ipv4/tcp_rmem"] = refuse(errno.EINVAL)
    with pytest.raises(
        ApplyError, match=r"sysctl:net.ipv4.tcp_rmem: writing '1 2 3' failed.*nothing of this call remains"
    ):
        call(kernel, sysctl={"vm.swappiness": 10, "net.ipv4.tcp_rmem": "1 2 3"})
    assert kernel.text(SWAP) == "60"
    assert not kernel.exists(CONF)
    assert json.loads(kernel.text(LEDGER))["entries"] == {}


def test_a_clamped_value_is_not_called_applied(kernel: FakeKernel) -> None:
    with pytest.raises(ApplyError, match="asked for '500', read back '200'"):
        call(kernel, sysctl={"vm.swappiness": 500})
    assert kernel.text(SWAP) == "60"


def test_a_key_no_longer_wanted_goes_back(kernel: FakeKernel) -> None:
    call(kernel, sysctl={"vm.swappiness": 10, "net.ipv4.tcp_rmem": "1 2 3"})
    second = call(kernel, sysctl={"net.ipv4.tcp_rmem": "1 2 3"})
    assert kernel.text(SWAP) == "60"
    assert "no longer wanted" in next(c["reason"] for c in second["changes"] if c["key"] == "sysctl:vm.swappiness")
    call(kernel, sysctl={})
    assert not kernel.exists(CONF)
    assert kernel.text("/proc/sys/net/ipv4/tcp_rmem").split() == ["4096", "131072", "6291456"]
    assert json.loads(kernel.text(LEDGER))["entries"] == {}


def test_the_original_is_the_first_value_ever_seen(kernel: FakeKernel) -> None:
    for value in (10, 20, 30):
        call(kernel, sysctl={"vm.swappiness": value})
    call(kernel, sysctl={})
    assert kernel.text(SWAP) == "60"


def test_without_root_a_prediction_says_what_it_cannot_know(kernel: FakeKernel, monkeypatch) -> None:
    call(kernel, sysctl={"vm.swappiness": 10})
    read = kernel.text
    monkeypatch.setattr(kernel, "text", lambda path: None if path == LEDGER else read(path))
    kernel.root_user = False
    assert "can be read by root only" in call(kernel, check=True, sysctl={})["warnings"][0]


def test_release_leaves_alone_what_someone_else_changed(kernel: FakeKernel) -> None:
    call(kernel, sysctl={"vm.swappiness": 10})
    kernel.put(SWAP, "33")
    outcome = call(kernel, sysctl={})
    assert kernel.text(SWAP) == "33"
    assert "changed by someone else to 33" in outcome["warnings"][0]


def test_exclusive_pair_goes_back_through_the_other(kernel: FakeKernel) -> None:
    call(kernel, sysctl={"vm.dirty_bytes": 1073741824})
    assert kernel.text("/proc/sys/vm/dirty_ratio") == "0"
    assert json.loads(kernel.text(LEDGER))["entries"]["sysctl:vm.dirty_ratio"]["original"] == "20"
    call(kernel, sysctl={})
    assert (kernel.text("/proc/sys/vm/dirty_ratio"), kernel.text("/proc/sys/vm/dirty_bytes")) == ("20", "0")


def test_exclusive_pair_survives_a_failed_call(kernel: FakeKernel) -> None:
    kernel.rules[SWAP] = refuse(errno.EPERM)
    with pytest.raises(ApplyError):
        call(kernel, sysctl={"vm.dirty_bytes": 1073741824, "vm.swappiness": 1})
    assert (kernel.text("/proc/sys/vm/dirty_ratio"), kernel.text("/proc/sys/vm/dirty_bytes")) == ("20", "0")


def test_original_after_a_reboot_is_what_that_boot_gave(kernel: FakeKernel) -> None:
    call(kernel, sysctl={"vm.swappiness": 10}, persist=False)
    kernel.reboot()
    kernel.put(SWAP, "45")
    call(kernel, sysctl={"vm.swappiness": 10}, persist=False)
    call(kernel, sysctl={}, persist=False)
    assert kernel.text(SWAP) == "45"


def test_expect_refuses_a_moved_state(kernel: FakeKernel) -> None:
    plan = call(kernel, check=True, sysctl={"vm.swappiness": 10})
    kernel.put(SWAP, "55")
    with pytest.raises(RefusedError, match="make a new plan"):
        call(kernel, sysctl={"vm.swappiness": 10}, expect=plan["expect"])
    kernel.put(SWAP, "60")
    assert call(kernel, sysctl={"vm.swappiness": 10}, expect=plan["expect"])["changed"]


def test_expect_refuses_other_parameters_than_those_of_the_plan(kernel: FakeKernel) -> None:
    plan = call(kernel, check=True, sysctl={"vm.swappiness": 10}, persist=False)
    with pytest.raises(RefusedError, match="sysctl:vm.swappiness is 60 and would become 11"):
        call(kernel, sysctl={"vm.swappiness": 11}, persist=False, expect=plan["expect"])
    assert kernel.text(SWAP) == "60"


def test_a_plan_is_applied_once(kernel: FakeKernel) -> None:
    plan = call(kernel, check=True, sysctl={"vm.swappiness": 10})
    call(kernel, sysctl={"vm.swappiness": 10}, expect=plan["expect"])
    with pytest.raises(RefusedError, match="nothing is left to change"):
        call(kernel, sysctl={"vm.swappiness": 10}, expect=plan["expect"])


def test_expect_of_a_plan_without_changes_allows_none(kernel: FakeKernel) -> None:
    plan = call(kernel, check=True, sysctl={"vm.swappiness": 60}, persist=False)
    assert plan["changes"] == []
    with pytest.raises(RefusedError, match="not what was planned"):
        call(kernel, sysctl={"vm.swappiness": 10}, persist=False, expect=plan["expect"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sysctl": {"vm.swapiness": 10}}, "vm.swapiness.*no /proc/sys/vm/swapiness; nearest name: swappiness"),
        (
            {"sysfs": {"/sys/kernel/mm/transparent_hugepage/shmem_enabled": "sometimes"}},
            "'sometimes' is not one of always, within_size",
        ),
    ],
)
def test_what_the_machine_lacks_is_refused(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        call(kernel, **params)
    assert kernel.writes == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sysctl": {"vm.swappiness": True}}, "YAML reads this as True"),
        ({"sysctl": {"/proc/sys/vm/swappiness": 1}}, "not a sysctl name"),
        ({"sysctl": {"vm/../swappiness": 1}}, "not a sysctl name"),
        ({"sysctl": {"vm//swappiness": 1}}, "not a sysctl name"),
        ({"sysctl": {"vm/./swappiness": 1}}, "not a sysctl name"),
        ({"sysctl": {"vm.dirty_bytes": 1, "vm.dirty_ratio": 2}}, "the kernel keeps only one"),
        ({"sysctl": {"vm/dirty_bytes": 1, "vm.dirty_ratio": 2}}, "the kernel keeps only one"),
        ({"sysctl": {"vm.swappiness": 10, "vm/swappiness": 20}}, "sysctl vm.swappiness: given in two spellings"),
        ({"modules": ["zram\n"]}, "not the name of a kernel module"),
        ({"sysfs": {"/sys/../etc/passwd": 1}}, "not a plain path below /sys"),
        ({"sysctl": {"vm.swappiness": None}}, "is not a value"),
        ({"name": "../x"}, "becomes part of a file name"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)


def test_optional_keys_are_skipped_with_the_reason(kernel: FakeKernel) -> None:
    kernel.read_only.add(SWAP)
    outcome = call(
        kernel,
        sysctl={"vm.swappiness": 10, "kernel.numa_balancing": 0},
        optional=["vm.swappiness", "kernel.numa_balancing"],
    )
    assert not outcome["changed"]
    assert {skip["key"]: skip["reason"] for skip in outcome["skipped_keys"]}.keys() == {
        "sysctl:vm.swappiness",
        "sysctl:kernel.numa_balancing",
    }


def test_a_later_file_that_wins_is_named_with_its_line(kernel: FakeKernel) -> None:
    kernel.put("/etc/sysctl.d/99-zzz-vendor.conf", "# vendor\nvm.swappiness=1")
    outcome = call(kernel, sysctl={"vm.swappiness": 10})
    assert "/etc/sysctl.d/99-zzz-vendor.conf:2 sets it to 1" in outcome["warnings"][0]


def test_every_spelling_of_a_sysctl_is_one_key(kernel: FakeKernel) -> None:
    kernel.put("/proc/sys/net/ipv4/conf/eth0.5/forwarding", "0")
    kernel.put("/etc/sysctl.d/99-zzz-vendor.conf", "vm/swappiness = 1")
    first = call(kernel, sysctl={"vm/swappiness": 10, "net.ipv4.conf.eth0/5.forwarding": 1, "a/b": 1}, optional=["a.b"])
    assert {change["key"] for change in first["changes"]} >= {
        "sysctl:vm.swappiness",
        "sysctl:net.ipv4.conf.eth0/5.forwarding",
    }
    assert kernel.text("/proc/sys/net/ipv4/conf/eth0.5/forwarding") == "1"
    assert "99-zzz-vendor.conf:1 sets it to 1" in first["warnings"][0]
    same = {"vm.swappiness": 10, "net/ipv4/conf/eth0.5/forwarding": 1}
    assert not call(kernel, sysctl=same)["changed"]
    assert call(kernel, sysctl=same, at_least=["vm/swappiness"], check=True)["changed"]


@pytest.mark.parametrize("name", ["enabled", "shmem_enabled", "hugepages-64kB/enabled"])
def test_what_huge_pages_move_along_goes_back_with_them(kernel: FakeKernel, name: str) -> None:
    path = f"/sys/kernel/mm/transparent_hugepage/{name}"
    kernel.put("/proc/sys/vm/min_free_kbytes", "67584")

    def khugepaged(kernel: FakeKernel, text: str) -> str:
        kernel.put("/proc/sys/vm/min_free_kbytes", "67584" if text == "never" else "90112")
        return choose("always madvise advise [never]", text)

    kernel.put(path, "always madvise advise [never]", khugepaged)
    call(kernel, sysfs={path: "always"})
    kernel.rules[path] = lambda _kernel, text: choose("always madvise advise [never]", text)
    call(kernel)
    assert kernel.text("/proc/sys/vm/min_free_kbytes") == "67584"


def test_without_root_there_is_one_line(kernel: FakeKernel) -> None:
    kernel.root_user = False
    with pytest.raises(RefusedError, match="sysctl:vm.swappiness.*needs root; run the task with become: true"):
        call(kernel, sysctl={"vm.swappiness": 10})
    assert call(kernel, check=True, sysctl={"vm.swappiness": 10})["changed"]


# -- lower bounds ------------------------------------------------------------------------------------


MAPS = "/proc/sys/vm/max_map_count"


@pytest.mark.parametrize(("live", "after", "changed"), [("65530", "262144", True), ("1048576", "1048576", False)])
def test_a_lower_bound_raises_and_never_lowers(kernel: FakeKernel, live: str, after: str, changed: bool) -> None:
    kernel.put(MAPS, live)
    params = {"sysctl": {"vm.max_map_count": 262144}, "at_least": ["vm.max_map_count"]}
    assert call(kernel, check=True, **params)["changed"] == changed
    assert call(kernel, **params)["changed"] == changed
    assert (kernel.text(MAPS), kernel.exists(CONF)) == (after, changed)
    assert not call(kernel, **params)["changed"]
    assert kernel.exists(CONF) == changed
    call(kernel)
    assert (kernel.text(MAPS), kernel.exists(CONF)) == (live, False)


def test_a_lower_bound_follows_the_wish_down_as_far_as_the_original(kernel: FakeKernel) -> None:
    kernel.put(MAPS, "65530")
    for asked, after in ((500000, "500000"), (262144, "262144"), (1000, "65530")):
        call(kernel, sysctl={"vm.max_map_count": asked}, at_least=["vm.max_map_count"])
        assert kernel.text(MAPS) == after


def test_a_lower_bound_that_an_admin_has_passed_is_his(kernel: FakeKernel) -> None:
    kernel.put(MAPS, "65530")
    params = {"sysctl": {"vm.max_map_count": 262144}, "at_least": ["vm.max_map_count"]}
    call(kernel, **params)
    kernel.put(MAPS, "900000")
    call(kernel, **params)
    assert kernel.text(MAPS) == "900000"


def test_each_field_is_a_bound_of_its_own(kernel: FakeKernel) -> None:
    params = {"sysctl": {"net.ipv4.tcp_rmem": "8192 87380 16777216"}, "at_least": ["net.ipv4.tcp_rmem"]}
    call(kernel, **params)
    assert kernel.text("/proc/sys/net/ipv4/tcp_rmem") == "8192 131072 16777216"
    assert not call(kernel, **params)["changed"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"at_least": ["vm.swappiness"]}, "neither in sysctl nor in sysfs"),
        ({"sysctl": {"vm.swappiness": "many"}, "at_least": ["vm.swappiness"]}, "only whole numbers"),
        ({"modules": ["zram; reboot"]}, "not the name of a kernel module"),
    ],
)
def test_bad_bounds_and_module_names(kernel: FakeKernel, params, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, **params)


# -- kernel modules ----------------------------------------------------------------------------------


LOADED = "/etc/modules-load.d/ai-workstation.conf"


@pytest.fixture
def modular(kernel: FakeKernel) -> FakeKernel:
    def modprobe(kernel: FakeKernel, words: list[str]) -> Completed:
        folder = Path(kernel.at(f"/sys/module/{words[-1]}"))
        if words[-1] not in ("tcp_bbr", "zram"):
            return Completed(1, "", "not found in directory")
        if "--dry-run" in words:
            return Completed(0, "", "")
        if "-r" in words and words[-1] in kernel.used:
            return Completed(1, "", f"modprobe: FATAL: Module {words[-1]} is in use.")
        folder.rmdir() if "-r" in words else folder.mkdir()
        return Completed(0, "", "")

    kernel.programs["modprobe"] = modprobe
    kernel.used = set()
    Path(kernel.at("/sys/module")).mkdir(parents=True)
    kernel.put("/proc/sys/kernel/osrelease", "6.12.1")
    kernel.put("/lib/modules/6.12.1/modules.builtin", "kernel/net/sched/sch-fq.ko")
    return kernel


def test_modules_are_loaded_first_and_at_boot_and_go_again(modular: FakeKernel) -> None:
    params = {"modules": ["tcp_bbr", "sch_fq"], "sysctl": {"vm.swappiness": 10}}
    predicted = call(modular, check=True, **params)
    assert modular.acted == []
    assert call(modular, **params) == predicted
    assert predicted["changes"][0]["key"] == "module:tcp_bbr"
    assert modular.text(LOADED).endswith("\ntcp_bbr\nsch_fq")
    assert not call(modular, **params)["changed"]
    call(modular)
    assert (modular.is_dir("/sys/module/tcp_bbr"), modular.exists(LOADED)) == (False, False)


def test_a_module_in_use_stays_when_it_is_no_longer_wanted(modular: FakeKernel) -> None:
    call(modular, modules=["tcp_bbr"])
    modular.used.add("tcp_bbr")
    outcome = call(modular)
    assert "in use and stays" in outcome["skipped_keys"][0]["reason"]
    assert not modular.exists(LOADED)
    assert not call(modular)["changed"]


def test_a_module_that_the_kernel_lacks(modular: FakeKernel) -> None:
    with pytest.raises(RefusedError, match=r"module:zfoo: the kernel 6.12.1 has no such module"):
        call(modular, modules=["zfoo"])
    assert call(modular, modules=["zfoo"], optional=["zfoo"])["skipped_keys"][0]["key"] == "module:zfoo"
    modular.read_only.add("/sys/module")
    with pytest.raises(RefusedError, match="a container loads no kernel modules"):
        call(modular, modules=["zram"])
