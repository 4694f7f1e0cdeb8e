# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""hugepages: pools that the kernel grants in part, NUMA nodes, mounts, transparent huge pages."""

from __future__ import annotations

import errno
import json
import subprocess
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import hugepages
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.hugepage_pools import Pool, spread
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.hugetlb_mounts import unit_name
from fake_kernel import FakeKernel, choose, killed, refuse, run_module
from hypothesis import given
from hypothesis import strategies as st

CONF = "/etc/sysctl.d/99-zz-ai-workstation-hugepages.conf"
TMPFILES = "/etc/tmpfiles.d/99-zz-ai-workstation-hugepages.conf"
THP = "/sys/kernel/mm/transparent_hugepage"
MIN_FREE = "/proc/sys/vm/min_free_kbytes"
NR_2M = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NR_1G = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"


def node_file(node: int, size_kb: int = 2048, name: str = "nr_hugepages") -> str:
    return f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size_kb}kB/{name}"


class Pages:
    """The kernel's side of the pools: per node what is there, in use and at most to be found."""

    def __init__(self, kernel: FakeKernel, nodes: int, size_kb: int = 2048, most: int = 10**6) -> None:
        self.kernel, self.size_kb = kernel, size_kb
        self.pages = [0] * nodes
        self.used = [0] * nodes
        self.most = [most] * nodes
        self.root = f"/sys/kernel/mm/hugepages/hugepages-{size_kb}kB"
        kernel.put(f"{self.root}/resv_hugepages", "0")
        self.show()
        kernel.rules[f"{self.root}/nr_hugepages"] = self.write_total
        for node in range(nodes):
            kernel.rules[node_file(node, size_kb)] = self.writer(node)

    def show(self) -> None:
        self.kernel.put(f"{self.root}/nr_hugepages", str(sum(self.pages)))
        self.kernel.put(f"{self.root}/free_hugepages", str(sum(self.pages) - sum(self.used)))
        for node, pages in enumerate(self.pages):
            self.kernel.put(node_file(node, self.size_kb), str(pages))
            self.kernel.put(node_file(node, self.size_kb, "free_hugepages"), str(pages - self.used[node]))

    def resize(self, node: int, count: int) -> None:
        self.pages[node] = max(self.used[node], min(count, self.most[node]))

    def writer(self, node: int):
        def rule(_kernel: FakeKernel, text: str) -> str:
            self.resize(node, int(text))
            self.show()
            return str(self.pages[node])

        return rule

    def write_total(self, _kernel: FakeKernel, text: str) -> str:
        share, rest = divmod(int(text), len(self.pages))
        for node in range(len(self.pages)):
            self.resize(node, share + (node < rest))
        self.show()
        return str(sum(self.pages))


def _thp_enabled(kernel: FakeKernel, text: str) -> str:
    """khugepaged starts with any mode but never and raises min_free_kbytes; kernels before 5.17 never lower it."""
    if text != "never":
        kernel.put(MIN_FREE, str(max(67584, int(kernel.text(MIN_FREE) or "0"))))
    return choose(kernel.text(f"{THP}/enabled") or "", text)


def _mount(kernel: FakeKernel, argv: list[str]) -> Completed:
    kind, options, path = argv[1], argv[3], argv[5]
    if not Path(kernel.at(path)).is_dir():
        return Completed(32, "", f"mount: {path}: mount point does not exist.")
    options = ",".join(option for option in options.split(",") if option not in ("mode=755", "uid=0", "gid=0"))
    line = f"63 43 0:39 / {path} rw,relatime - {kind} {kind} rw,{options}"
    kernel.put("/proc/self/mountinfo", f"{kernel.text('/proc/self/mountinfo')}\n{line}")
    return Completed(0, "", "")


def _umount(kernel: FakeKernel, argv: list[str]) -> Completed:
    lines = (kernel.text("/proc/self/mountinfo") or "").splitlines()
    kernel.put("/proc/self/mountinfo", "\n".join(line for line in lines if line.split()[4] != argv[0]))
    return Completed(0, "", "")


def _systemctl(kernel: FakeKernel, argv: list[str]) -> Completed:
    unit = kernel.at(f"/etc/systemd/system/{argv[-1]}")
    wants = Path(kernel.at("/run/fake-wants"), argv[-1])
    if argv[0] == "is-enabled":
        missing = not Path(unit).exists()
        return Completed(4 if missing else 0, "" if missing else "enabled" if wants.exists() else "disabled", "")
    wants.parent.mkdir(exist_ok=True)
    if "enable" in argv:
        wants.touch()
    elif "disable" in argv:
        wants.unlink(missing_ok=True)
    return Completed(0, "", "")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put("/proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\nHugepagesize:    2048 kB")
    kernel.put(f"{THP}/enabled", "always [madvise] never", _thp_enabled)
    kernel.put(f"{THP}/defrag", "always defer defer+madvise [madvise] never")
    kernel.put(f"{THP}/shmem_enabled", "always within_size advise [never] deny force")
    kernel.put(MIN_FREE, "67584")
    kernel.put("/proc/sys/vm/hugetlb_shm_group", "0")
    kernel.put("/etc/group", "root:x:0:\nrender:x:106:\n")
    kernel.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nai:x:1000:1000::/home/ai:/bin/sh\n")
    kernel.put("/proc/self/mountinfo", "22 1 0:20 / / rw - ext4 /dev/vda rw")
    kernel.put("/etc/fstab", "")
    kernel.programs = {"mount": _mount, "umount": _umount, "systemctl": _systemctl}
    return kernel


@pytest.fixture
def pages(kernel: FakeKernel) -> Pages:
    """One node, 2 MiB and 1 GiB pages."""
    Pages(kernel, 1, 1048576)
    return Pages(kernel, 1)


@pytest.fixture
def two(kernel: FakeKernel) -> Pages:
    """Two nodes."""
    for node in (0, 1):
        kernel.put(f"/sys/devices/system/node/node{node}/meminfo", f"Node {node} MemFree:  30000000 kB")
    return Pages(kernel, 2)


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(hugepages, kernel, check, **params)


def content(kernel: FakeKernel, path: str) -> str:
    return Path(kernel.at(path)).read_text(encoding="utf-8")


def entries(kernel: FakeKernel) -> dict:
    return json.loads(kernel.text(LEDGER))["entries"]


MOUNT = {"path": "/mnt/huge-ai", "page_size": "2M", "owner": "ai", "group": "render", "mode": "0770", "size": "1G"}
ALL = {
    "pools": [{"size": "2M", "count": 512}, {"size": "1048576kB", "count": 2}],
    "mounts": [MOUNT],
    "thp_enabled": "always",
    "thp_defrag": "defer+madvise",
    "thp_shmem": "advise",
    "shm_group": "render",
}


def test_sets_everything_and_is_idempotent(kernel: FakeKernel, pages: Pages) -> None:
    first = call(kernel, **ALL)
    assert (kernel.text(NR_2M), kernel.text(NR_1G)) == ("512", "2")
    assert kernel.text(f"{THP}/enabled") == "[always] madvise never"
    assert kernel.text(f"{THP}/defrag") == "always defer [defer+madvise] madvise never"
    assert kernel.text("/proc/sys/vm/hugetlb_shm_group") == "106"
    assert content(kernel, CONF).endswith("vm.nr_hugepages = 512\nvm.hugetlb_shm_group = 106\n")
    assert content(kernel, TMPFILES).splitlines()[1:] == [
        f"w {NR_1G} - - - - 2",
        f"w {THP}/enabled - - - - always",
        f"w {THP}/defrag - - - - defer+madvise",
        f"w {THP}/shmem_enabled - - - - advise",
    ]
    assert "gid=106,mode=770,pagesize=2M,size=1073741824,uid=1000" in kernel.text("/proc/self/mountinfo")
    assert "Where=/mnt/huge-ai\n" in content(kernel, "/etc/systemd/system/mnt-huge\\x2dai.mount")
    assert first["pools"] == [
        {"size": "2M", "node": None, "asked": 512, "pages": 512, "free": 512, "in_use": 0},
        {"size": "1G", "node": None, "asked": 2, "pages": 2, "free": 2, "in_use": 0},
    ]
    assert first["actions"] == ["daemon-reload"]
    writes = len(kernel.writes)
    second = call(kernel, **ALL)
    assert (second["changed"], second["changes"], len(kernel.writes)) == (False, [], writes)


def test_check_mode_writes_nothing_and_predicts_the_result(kernel: FakeKernel, pages: Pages) -> None:
    predicted = call(kernel, check=True, **ALL)
    assert kernel.writes == []
    assert predicted == call(kernel, **ALL)


def test_change_and_back_to_the_byte(kernel: FakeKernel, pages: Pages) -> None:
    call(kernel, **ALL)
    call(kernel, pools=[{"size": "2M", "count": 64}], thp_enabled="never", mounts=[{**MOUNT, "mode": "0750"}])
    assert (kernel.text(NR_2M), kernel.text(NR_1G)) == ("64", "0")
    assert "mode=750" in kernel.text("/proc/self/mountinfo")
    assert content(kernel, CONF).endswith("vm.nr_hugepages = 64\n")
    call(kernel)
    assert (kernel.text(NR_2M), kernel.text("/proc/sys/vm/hugetlb_shm_group")) == ("0", "0")
    assert (kernel.text(f"{THP}/enabled"), kernel.text(MIN_FREE)) == ("always [madvise] never", "67584")
    assert not any(map(kernel.exists, (CONF, TMPFILES, "/mnt", "/etc/systemd/system/mnt-huge\\x2dai.mount")))
    assert "huge" not in kernel.text("/proc/self/mountinfo")
    assert entries(kernel) == {}


def test_a_shortfall_names_asked_and_got_and_restores_the_old_pool(kernel: FakeKernel, pages: Pages) -> None:
    pages.pages[0] = 10
    pages.show()
    pages.most[0] = 37
    with pytest.raises(ApplyError) as caught:
        call(kernel, pools=[{"size": "2M", "count": 512}], thp_enabled="always")
    message = str(caught.value)
    assert "hugepages:2M: asked for 512 pages of 2M, the kernel could reserve 37 (memory is fragmented" in message
    assert "partial: allow" in message
    assert message.endswith("nothing of this call remains")
    assert kernel.text(NR_2M) == "10"
    assert entries(kernel) == {}


def test_partial_keeps_what_was_granted_and_is_idempotent(kernel: FakeKernel, pages: Pages) -> None:
    pages.most[0] = 37
    wanted = {"pools": [{"size": "2M", "count": 512}], "partial": "allow"}
    first = call(kernel, **wanted)
    assert (kernel.text(NR_2M), first["pools"][0]["pages"], first["pools"][0]["asked"]) == ("37", 37, 512)
    assert {change["key"]: change["after"] for change in first["changes"]}["hugepages:2M"] == "37"
    assert not call(kernel, check=True, **wanted)["changed"]
    second = call(kernel, **wanted)
    assert not second["changed"]
    assert "granted 37 earlier in this boot" in second["skipped_keys"][0]["reason"]
    pages.most[0] = 1000
    kernel.reboot()
    assert call(kernel, **wanted)["pools"][0]["pages"] == 512


def test_the_pool_that_shrinks_is_written_first(kernel: FakeKernel, pages: Pages) -> None:
    call(kernel, pools=[{"size": "2M", "count": 1000}])
    kernel.writes.clear()
    call(kernel, pools=[{"size": "1G", "count": 3}, {"size": "2M", "count": 10}])
    assert kernel.writes.index(NR_2M) < kernel.writes.index(NR_1G)


def test_a_pool_no_longer_wanted_makes_room_first(kernel: FakeKernel, pages: Pages) -> None:
    call(kernel, pools=[{"size": "2M", "count": 20000}])
    kernel.put("/proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 20000000 kB\nHugepagesize: 2048 kB")
    kernel.writes.clear()
    call(kernel, pools=[{"size": "1G", "count": 30}])
    assert kernel.writes.index(NR_2M) < kernel.writes.index(NR_1G)


@pytest.mark.parametrize(
    ("count", "reserve", "refused"),
    [(27000, "10%", True), (27000, "4G", False), (10, "60000000K", True), (0, "60G", False)],
)
def test_the_reserve_is_kept(kernel: FakeKernel, pages: Pages, count: int, reserve: str, refused: bool) -> None:
    wanted = {"pools": [{"size": "2M", "count": count}], "reserve": reserve}
    if not refused:
        call(kernel, check=True, **wanted)
        return
    with pytest.raises(RefusedError, match=r"would leave \d+ MiB of 58593 MiB available memory, the reserve is"):
        call(kernel, **wanted)
    assert kernel.writes == []


def test_pages_in_use_are_not_taken_away(kernel: FakeKernel, pages: Pages) -> None:
    call(kernel, pools=[{"size": "2M", "count": 100}])
    pages.used[0] = 7
    pages.show()
    kernel.put("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "3")
    with pytest.raises(RefusedError, match="asked for 9 pages, but 10 are in use or promised"):
        call(kernel, pools=[{"size": "2M", "count": 9}])
    assert call(kernel, pools=[{"size": "2M", "count": 10}])["pools"][0]["free"] == 3
    with pytest.raises(RefusedError, match="no longer asked for, but 7 of its pages are in use"):
        call(kernel)


def test_a_count_is_spread_over_the_nodes_and_switches_to_one_node_and_back(kernel: FakeKernel, two: Pages) -> None:
    call(kernel, pools=[{"size": "2M", "count": 101}])
    assert two.pages == [51, 50]
    assert "vm.nr_hugepages = 101\n" in content(kernel, CONF)
    call(kernel, pools=[{"size": "2M", "count": 40, "node": 1}])
    assert two.pages == [0, 40]
    assert not kernel.exists(CONF)
    assert f"w {node_file(1)} - - - - 40\n" in content(kernel, TMPFILES)
    assert call(kernel, pools=[{"size": "2M", "count": 40}])["pools"][0]["pages"] == 40
    assert two.pages == [0, 40]
    call(kernel)
    assert two.pages == [0, 0]
    assert entries(kernel) == {}


def test_a_shortfall_on_one_node_restores_both(kernel: FakeKernel, two: Pages) -> None:
    two.pages = [5, 0]
    two.show()
    two.most = [100, 20]
    with pytest.raises(
        ApplyError, match=r"node1: asked for 50 pages of 2M \(a part of 100 for all nodes\).*reserve 20"
    ):
        call(kernel, pools=[{"size": "2M", "count": 100}])
    assert two.pages == [5, 0]


def test_node_zero_of_a_machine_with_one_node_is_the_machine(kernel: FakeKernel, pages: Pages) -> None:
    kernel.put("/sys/devices/system/node/node0/meminfo", "Node 0 MemFree:  30000000 kB")
    call(kernel, pools=[{"size": "2M", "count": 8, "node": 0}])
    assert not [
        change
        for change in call(kernel, pools=[{"size": "2M", "count": 8}])["changes"]
        if "hugepages:" in change["key"]
    ]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100)), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_spread_adds_up_within_bounds(nodes: list[tuple[int, int, int]], count: int) -> None:
    pools = [
        Pool(f"n{i}", "", max(total, used), max(total, used) - used, room, True)
        for i, (total, used, room) in enumerate(nodes)
    ]
    count = max(count, sum(pool.in_use for pool in pools))
    found = spread(count, pools)
    assert sum(found.values()) == count
    room = sum(pool.pages + pool.room for pool in pools)
    for pool in pools:
        assert found[pool.key] >= pool.in_use
        if count >= sum(item.pages for item in pools):
            assert found[pool.key] >= pool.pages
            assert found[pool.key] <= pool.pages + pool.room or count > room
        else:
            assert found[pool.key] <= pool.pages


def test_min_free_kbytes_goes_back_with_thp(kernel: FakeKernel, pages: Pages) -> None:
    kernel.put(f"{THP}/enabled", "always madvise [never]")
    kernel.put(MIN_FREE, "11000")
    call(kernel, thp_enabled="always")
    assert (kernel.text(MIN_FREE), entries(kernel)["sysctl:vm.min_free_kbytes"]["original"]) == ("67584", "11000")
    call(kernel)
    assert (kernel.text(MIN_FREE), kernel.text(f"{THP}/enabled")) == ("11000", "always madvise [never]")


def test_a_neighbour_that_another_owner_manages_stays_his(kernel: FakeKernel, pages: Pages) -> None:
    from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_settings  # noqa: PLC0415

    run_module(kernel_settings, kernel, sysctl={"vm.min_free_kbytes": 131072}, persist=False)
    call(kernel, thp_enabled="always")
    entry = entries(kernel)["sysctl:vm.min_free_kbytes"]
    assert (entry["owner"], entry["original"]) == ("default/kernel_settings", "67584")
    run_module(kernel_settings, kernel, persist=False)
    assert kernel.text(MIN_FREE) == "67584"


@pytest.mark.parametrize("path", ["/dev/hugepages-ai", "/mnt/.x", "/a/b_c:d.e", "/a+b=@x", "/.hid/den"])
def test_unit_names_are_escaped_as_systemd_does(path: str) -> None:
    try:
        argv = ["systemd-escape", "--path", "--suffix=mount", path]
        expected = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        pytest.skip("no systemd-escape on this machine")
    assert unit_name(path) == expected


def test_a_mount_is_enabled_for_boot_and_released(kernel: FakeKernel, pages: Pages) -> None:
    wants = Path(kernel.at("/run/fake-wants/mnt-huge\\x2dai.mount"))
    plain = {"path": "/mnt/huge-ai", "mode": "0755", "owner": "0", "group": "root"}
    keys = [change["key"] for change in call(kernel, mounts=[plain])["changes"]]
    assert "unit_file:mnt-huge\\x2dai.mount" in keys
    assert wants.exists()
    assert kernel.text("/proc/self/mountinfo").endswith("rw,pagesize=2M")
    assert not call(kernel, mounts=[plain])["changed"]
    call(kernel)
    assert not wants.exists()
    assert entries(kernel) == {}


def test_a_foreign_mount_is_not_touched(kernel: FakeKernel, pages: Pages) -> None:
    kernel.put("/dev/hugepages/.keep", "")
    kernel.put("/proc/self/mountinfo", "30 1 0:30 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M")
    with pytest.raises(RefusedError, match="hugetlbfs is mounted there, and not by us; choose another path"):
        call(kernel, mounts=[{"path": "/dev/hugepages", "mode": "0770"}])


def test_a_busy_mount_point_takes_the_call_back(kernel: FakeKernel, pages: Pages) -> None:
    call(kernel, mounts=[MOUNT])
    unit = content(kernel, "/etc/systemd/system/mnt-huge\\x2dai.mount")
    kernel.commands["umount /mnt/huge-ai"] = Completed(32, "", "umount: /mnt/huge-ai: target is busy.\n")
    with pytest.raises(ApplyError, match=r"target is busy\.; nothing of this call remains"):
        call(kernel, mounts=[{**MOUNT, "mode": "0700"}], thp_enabled="never")
    assert content(kernel, "/etc/systemd/system/mnt-huge\\x2dai.mount") == unit
    assert "mode=770" in kernel.text("/proc/self/mountinfo")
    assert kernel.text(f"{THP}/enabled") == "always [madvise] never"


def test_without_systemd_a_mount_is_a_skip_or_an_error(kernel: FakeKernel, pages: Pages) -> None:
    Path(kernel.at("/run/systemd/system")).rmdir()
    with pytest.raises(RefusedError, match="systemd does not run here"):
        call(kernel, mounts=[MOUNT])
    outcome = call(kernel, mounts=[MOUNT], optional=["/mnt/huge-ai"])
    assert [skip["key"] for skip in outcome["skipped_keys"]] == ["mount:/mnt/huge-ai"]
    assert call(kernel, mounts=[MOUNT], persist=False)["changed"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pools": [{"size": "3M", "count": 1}]}, "no huge pages of 3M; it offers 2M, 1G"),
        ({"pools": [{"size": "2M", "count": 1, "node": 4}]}, "no NUMA node 4 with memory; the nodes are 0"),
        ({"shm_group": "rendr"}, "/etc/group has no group rendr; nearest name: render"),
        ({"mounts": [{**MOUNT, "owner": "nobody2"}]}, "/etc/passwd has no user nobody2"),
        ({"mounts": [{**MOUNT, "size": "3M"}]}, "3M is not a whole number of 2M pages"),
        ({"mounts": [{**MOUNT, "page_size": "16M"}]}, "no huge pages of 16M"),
        ({"thp_enabled": "sometimes"}, "thp_enabled 'sometimes' is not one of always, madvise, never"),
    ],
)
def test_what_the_machine_lacks_is_refused(kernel: FakeKernel, pages: Pages, params: dict, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)
    assert kernel.writes == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pools": [{"size": "huge", "count": 1}]}, "pools: size: 'huge' is not a size"),
        ({"pools": [{"size": "2M", "count": -1}]}, "pools 2M: count: -1 is not a whole number from 0"),
        ({"pools": [{"size": "2M", "count": 1, "node": "x"}]}, "pools 2M: node: 'x' is not a whole number"),
        ({"pools": [{"size": "2M", "count": 1}, {"size": "2048K", "count": 2}]}, "pools: 2M is named twice"),
        ({"pools": [{"size": "2M", "count": 1}, {"size": "2M", "count": 2, "node": 0}]}, "with a node and without"),
        ({"reserve": "101%"}, "reserve: '101' is not a whole number from 0 to 100"),
        ({"reserve": "lots"}, "reserve: 'lots' is not a size"),
        ({"mounts": [{"path": "mnt/x"}]}, "not a plain absolute path"),
        ({"mounts": [{"path": "/mnt/a b"}]}, "not a plain absolute path"),
        ({"mounts": [{"path": "/mnt/a\n"}]}, "not a plain absolute path"),
        ({"mounts": [{"path": "/sys/x"}]}, "not a plain absolute path"),
        ({"mounts": [{"path": "/x", "mode": "9"}]}, "mode '9' is not like '0770'"),
        ({"mounts": [MOUNT, MOUNT]}, "/mnt/huge-ai is named twice"),
        ({"shm_group": "a b"}, "'a b' is not the name or number of a group"),
        ({"partial": "maybe"}, "partial: 'maybe' is not one of refuse, allow"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)


def test_a_read_only_sys_is_a_reason(kernel: FakeKernel, pages: Pages) -> None:
    kernel.read_only |= {NR_2M, f"{THP}/enabled", "/proc/sys/vm/hugetlb_shm_group"}
    wanted = {"pools": [{"size": "2M", "count": 4}], "thp_enabled": "never", "shm_group": "render"}
    with pytest.raises(RefusedError, match="read-only here"):
        call(kernel, **wanted)
    outcome = call(kernel, **wanted, optional=["2M", "thp_enabled", "shm_group"])
    assert not outcome["changed"]
    assert len(outcome["skipped_keys"]) == 3


def test_a_kernel_without_huge_pages_is_a_reason(kernel: FakeKernel) -> None:
    outcome = call(kernel, pools=[{"size": "2M", "count": 4}], optional=["2M"])
    assert "it offers no huge pages at all" in outcome["skipped_keys"][0]["reason"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM, errno.EBUSY, errno.EROFS])
def test_a_refused_write_takes_the_whole_call_back(kernel: FakeKernel, pages: Pages, code: int) -> None:
    kernel.rules[f"{THP}/defrag"] = refuse(code)
    kernel.put(f"{THP}/enabled", "always madvise [never]")
    kernel.put(MIN_FREE, "11000")
    with pytest.raises(ApplyError, match="defrag: writing 'never' failed.*nothing of this call remains"):
        call(kernel, pools=[{"size": "2M", "count": 9}], thp_enabled="always", thp_defrag="never", mounts=[MOUNT])
    assert (kernel.text(NR_2M), kernel.text(MIN_FREE)) == ("0", "11000")
    assert not kernel.exists("/mnt")
    assert entries(kernel) == {}


def test_without_root_there_is_one_line(kernel: FakeKernel, pages: Pages) -> None:
    kernel.root_user = False
    with pytest.raises(RefusedError, match="hugepages:2M.*needs root; run the task with become: true"):
        call(kernel, pools=[{"size": "2M", "count": 9}])
    assert call(kernel, check=True, pools=[{"size": "2M", "count": 9}])["changed"]


def test_a_later_sysctl_file_that_wins_is_named(kernel: FakeKernel, pages: Pages) -> None:
    kernel.put("/etc/sysctl.d/99-zzz-vendor.conf", "vm.nr_hugepages=0")
    assert "99-zzz-vendor.conf:1 sets it to 0" in call(kernel, pools=[{"size": "2M", "count": 4}])["warnings"][0]


def test_killed_at_every_write_the_next_runs_end_where_all_began(kernel: FakeKernel, two: Pages) -> None:
    """On kernels from 6.1 on a halted khugepaged lowers min_free_kbytes again: THP takes it along both ways."""

    def both_ways(kernel: FakeKernel, text: str) -> str:
        kernel.put(MIN_FREE, "11000" if text == "never" else "67584")
        return choose(kernel.text(f"{THP}/enabled") or "", text)

    kernel.put(f"{THP}/enabled", "always [madvise] never", both_ways)
    wanted = {"pools": [{"size": "2M", "count": 8, "node": 0}], "thp_enabled": "never", "thp_defrag": "defer"}
    live = [MIN_FREE, f"{THP}/enabled", f"{THP}/defrag"]
    before = [kernel.text(path) for path in live]
    for first, second in ((wanted, {}), ({}, {})):
        number = 0
        while True:
            number += 1
            if not first:
                call(kernel, **wanted)
            if not killed(kernel, partial(call, kernel, **first), number):
                break
            if first:
                call(kernel, **first)
                assert not call(kernel, **first)["changed"], number
            call(kernel, **second)
            assert [kernel.text(path) for path in live] == before, number
            assert json.loads(kernel.text(LEDGER) or "{}")["entries"] == {}, (number, first)
        assert number > 6
        call(kernel)
