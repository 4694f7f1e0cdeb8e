# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rollback from the ledger: everything, by owner, by key; what others changed; what cannot go; killed anywhere."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.record import PATH as RECORD
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.rollback import ARCHIVE, roll_back
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.selection import Wish
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import (
    block_device_settings,
    irq_affinity,
    kernel_settings,
    managed_files,
    unit_state,
)
from fake_kernel import FakeKernel, killed, refuse
from linked_systemd import ETC, LinkedSystemd

VM = "/proc/sys/vm/"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
SYSCTL_D = "/etc/sysctl.d/99-zz-ai-workstation.conf"
TMPFILES_D = "/etc/tmpfiles.d/99-zz-ai-workstation.conf"
RULES = "/etc/udev/rules.d/99-zz-ai-workstation.rules"
UNIT = "/etc/systemd/system/ai.service"
DROP_IN = "/etc/systemd/journald.conf.d/50-ai.conf"
IRQ = "/proc/irq/30/smp_affinity_list"
WANTS = f"{ETC}/timers.target.wants/"


def zeroes(other: str):
    """What vm.dirty_bytes and vm.dirty_ratio do to each other; the bytes do not take 0 (mm/page-writeback.c)."""

    def rule(kernel: FakeKernel, text: str) -> str:
        if text == "0" and other.endswith("ratio"):
            raise OSError(errno.EINVAL, "Invalid argument")
        kernel.put(other, "0")
        return text

    return rule


def pulls_min_free(kernel: FakeKernel, text: str) -> str:
    kernel.put(f"{VM}min_free_kbytes", "100000" if text == "always" else "50000")
    return {"always": "[always] madvise never", "madvise": "always [madvise] never"}[text]


@pytest.fixture
def kernel(tmp_path: Path) -> LinkedSystemd:
    kernel = LinkedSystemd(tmp_path)
    kernel.put_all({f"{VM}swappiness": 60, f"{VM}min_free_kbytes": 50000, "/proc/irq/default_smp_affinity": "ff"})
    kernel.put(f"{VM}dirty_ratio", "20", zeroes(f"{VM}dirty_bytes"))
    kernel.put(f"{VM}dirty_bytes", "0", zeroes(f"{VM}dirty_ratio"))
    kernel.put(THP, "always [madvise] never", pulls_min_free)
    kernel.put_all({"/sys/devices/system/cpu/online": "0-7", "/sys/kernel/irq/30/actions": "eth0", IRQ: "0-7"})
    for disk in ("sda", "sdb"):
        kernel.put(f"/sys/block/{disk}/queue/scheduler", "none [mq-deadline]")
        kernel.put(f"/sys/block/{disk}/queue/rotational", "0")
    kernel.put("/run/udev/control", "")
    kernel.unit("fstrim.timer", "timers.target", enabled=False, running=False)
    kernel.unit("apt-daily.timer", "timers.target")
    kernel.unit("ppd.service", "multi-user.target", also="ppd.socket")
    os.symlink("/usr/lib/systemd/system/ppd.service", kernel.at(f"{ETC}/dbus-ppd.service"))  # an alias
    kernel.unit("ppd.socket", "sockets.target")
    return kernel


def tune(kernel: FakeKernel, check: bool = False):
    own = {"path": UNIT, "content": "[Install]\nWantedBy=multi-user.target\n", "actions": ["daemon-reload"]}
    calls = {
        "os_tuning": [
            (kernel_settings, {"sysctl": {"vm.swappiness": 10, "vm.dirty_bytes": 1 << 28}, "sysfs": {THP: "always"}}),
            (block_device_settings, {"devices": [{"device": "sd*", "scheduler": "none"}]}),
            (irq_affinity, {"rules": [{"name": "eth*", "cpus": "0-3"}], "default_cpus": "0-3"}),
            (
                managed_files,
                {"files": [own], "units": [{"name": "ai.service", "unit_file": "enabled", "active": True}]},
            ),
            (
                unit_state,
                {
                    "units": [
                        {"name": "fstrim.timer", "unit_file": "enabled", "active": True},
                        {"name": "apt-daily.timer", "unit_file": "masked", "active": False},
                        {"name": "ppd.service", "unit_file": "disabled", "active": False},
                    ]
                },
            ),
        ],
        "gpu_tuning": [(managed_files, {"files": [{"path": DROP_IN, "content": "[Journal]\n"}]})],
    }
    for owner, parts in calls.items():
        asked = [(subject, {**params, "owner": owner, "persist": True}) for subject, params in parts]
        converge_parts(asked, check, Machine(kernel))


def back(kernel: FakeKernel, check: bool = False, force: bool = False, owners=(), keys=()):
    return roll_back(Wish(tuple(owners), tuple(keys), force), check, Machine(kernel))


def picture(kernel: LinkedSystemd) -> dict[str, object]:
    """Every file, link and folder with its mode, and what systemd has in mind; not our own ledger and its folder."""
    found: dict[str, object] = {"running": sorted(kernel.running), "known": dict(kernel.known)}
    for folder, folders, names in os.walk(kernel.root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            where = str(path)[len(kernel.root) :]
            if where.startswith("/var/lib/ai-workstation"):
                continue
            what = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "folder"
            found[where] = (what, path.lstat().st_mode)
    return found


def entries(kernel: FakeKernel) -> set[str]:
    return set(json.loads(kernel.text(LEDGER) or '{"entries": {}}')["entries"])


def test_everything_goes_back_and_is_archived(kernel: LinkedSystemd) -> None:
    before = picture(kernel)
    tune(kernel)
    assert kernel.text(f"{VM}min_free_kbytes") == "100000"
    writes = len(kernel.writes)
    predicted = back(kernel, check=True)
    assert len(kernel.writes) == writes
    kernel.acted.clear()
    outcome = back(kernel)
    assert outcome == predicted
    assert (outcome["archived"], outcome["skipped_keys"], outcome["left_alone"]) == (True, [], [])
    assert picture(kernel) == before
    assert kernel.acted.count("systemctl daemon-reload") == 2  # for the links, and after the last file
    (name,) = kernel.names(ARCHIVE)
    kept = json.loads(kernel.text(f"{ARCHIVE}/{name}"))["entries"]
    assert kept["sysctl:vm.swappiness"]["original"] == "60"
    assert os.stat(kernel.at(f"{ARCHIVE}/{name}")).st_mode & 0o777 == 0o600
    assert not kernel.exists(LEDGER)
    assert json.loads(kernel.text(RECORD))["wanted"] == {}
    writes = len(kernel.writes)
    again = back(kernel)
    assert (again["changed"], len(kernel.writes)) == (False, writes)
    tune(kernel)
    assert kernel.text(f"{VM}swappiness") == "10"
    back(kernel)
    assert picture(kernel) == before


def test_one_role_goes_back_and_the_other_stays(kernel: LinkedSystemd) -> None:
    before = picture(kernel)
    tune(kernel)
    outcome = back(kernel, owners=["os_tuning"])
    assert (kernel.exists(DROP_IN), kernel.text(f"{VM}swappiness"), outcome["archived"]) == (True, "60", False)
    assert list(json.loads(kernel.text(RECORD))["wanted"]) == ["gpu_tuning"]
    assert back(kernel, owners=["gpu_tuning"])["archived"]
    assert picture(kernel) == before


def test_one_key_goes_back_with_its_line_and_is_left_alone_at_boot(kernel: LinkedSystemd) -> None:
    tune(kernel)
    predicted = back(kernel, check=True, keys=["sysctl:vm.swappiness"])
    assert back(kernel, keys=["sysctl:vm.swappiness"]) == predicted
    assert kernel.text(f"{VM}swappiness") == "60"
    assert "vm.swappiness" not in kernel.text(SYSCTL_D)
    assert "vm.dirty_bytes = 268435456" in kernel.text(SYSCTL_D)
    record = json.loads(kernel.text(RECORD))
    assert record["left_alone"] == ["sysctl:vm.swappiness"]
    assert "kernel_settings" in record["wanted"]["os_tuning"]
    assert not back(kernel, keys=["sysctl:vm.swappiness"])["changed"]
    tune(kernel)
    assert (kernel.text(f"{VM}swappiness"), "vm.swappiness = 10" in kernel.text(SYSCTL_D)) == ("10", True)
    assert json.loads(kernel.text(RECORD))["left_alone"] == []


def test_the_last_line_takes_its_file_along_and_a_neighbour_goes_with_its_cause(kernel: LinkedSystemd) -> None:
    tune(kernel)
    back(kernel, keys=[f"sysfs:{THP}"])
    assert not kernel.exists(TMPFILES_D)
    assert kernel.text(f"{VM}min_free_kbytes") == "50000"
    back(kernel, keys=["vm.dirty_*"])
    assert (kernel.text(f"{VM}dirty_ratio"), kernel.text(f"{VM}dirty_bytes")) == ("20", "0")


def test_a_neighbour_does_not_go_back_alone(kernel: LinkedSystemd) -> None:
    tune(kernel)
    (skip,) = back(kernel, keys=["sysctl:vm.dirty_ratio"])["skipped_keys"]
    assert skip == {
        "key": "sysctl:vm.dirty_ratio",
        "reason": "it moves along with sysctl:vm.dirty_bytes; that one must go back as well",
    }


def test_a_key_whose_line_serves_others_is_named(kernel: LinkedSystemd) -> None:
    tune(kernel)
    (skip,) = back(kernel, keys=["block:sda/*"])["skipped_keys"]
    assert "also sets block:sdb/scheduler" in skip["reason"]
    assert kernel.text("/sys/block/sda/queue/scheduler") == "[none] mq-deadline"
    assert not back(kernel, keys=["block:*"])["skipped_keys"]
    assert kernel.text("/sys/block/sda/queue/scheduler") == "none [mq-deadline]"
    assert not kernel.exists(RULES)


def test_a_unit_of_ours_goes_with_its_file_and_a_start_with_what_starts_it_at_boot(kernel: LinkedSystemd) -> None:
    tune(kernel)
    back(kernel, keys=[f"file:{UNIT}", "unit_active:fstrim.timer"])
    assert not {"ai.service", "fstrim.timer"} & kernel.running
    assert not {f"{WANTS}fstrim.timer", UNIT} & {*kernel.links()}
    assert not kernel.exists(UNIT)


def test_what_someone_else_changed_stays_unless_forced(kernel: LinkedSystemd) -> None:
    before = picture(kernel)
    tune(kernel)
    kernel.put(f"{VM}swappiness", "30")
    kernel.put(DROP_IN, "[Journal]\nStorage=none")
    predicted = back(kernel, check=True)
    outcome = back(kernel)
    assert outcome == predicted
    named = {item["key"] for item in outcome["left_alone"]}
    assert named == {"sysctl:vm.swappiness", f"file:{DROP_IN}"}
    assert (kernel.text(f"{VM}swappiness"), outcome["archived"]) == ("30", False)
    assert entries(kernel) == {*named, "dir:/etc/systemd/journald.conf.d"}
    assert not back(kernel)["changed"]
    assert back(kernel, force=True)["archived"]
    assert picture(kernel) == before


def test_what_cannot_go_back_now_stays_in_the_ledger_and_the_others_go(kernel: LinkedSystemd) -> None:
    before = picture(kernel)
    tune(kernel)
    kernel.rules[f"{VM}swappiness"] = refuse(errno.EIO)
    kernel.rules[IRQ] = refuse(errno.EIO)
    outcome = back(kernel)
    reasons = {skip["key"]: skip["reason"] for skip in outcome["skipped_keys"]}
    assert list(reasons) == ["irq:-/eth0", "sysctl:vm.swappiness"]
    assert "Input/output error" in reasons["sysctl:vm.swappiness"]
    assert entries(kernel) == reasons.keys()
    kernel.rules.clear()
    assert back(kernel)["changed"]
    kernel.reboot()
    assert back(kernel)["archived"]
    assert picture(kernel) | {"/proc/sys/kernel/random/boot_id": 0} == before | {"/proc/sys/kernel/random/boot_id": 0}


def test_a_failing_command_leaves_the_values_back_and_is_run_again(kernel: LinkedSystemd) -> None:
    tune(kernel)
    kernel.programs["udevadm"] = lambda _kernel, _argv: FakeKernel.run(kernel, ["false"])
    kernel.commands["udevadm control --reload-rules"] = kernel.run(["x"]).__class__(1, "", "no daemon")
    with pytest.raises(ApplyError, match="udevadm control --reload-rules failed with code 1: no daemon; mend that"):
        back(kernel)
    assert kernel.text(f"{VM}swappiness") == "60"
    del kernel.commands["udevadm control --reload-rules"]
    outcome = back(kernel)
    assert (outcome["actions"], outcome["changes"]) == (["daemon-reload", "udev-reload"], [])
    assert not kernel.exists(LEDGER)


def test_words_that_mean_nothing_are_said_and_an_ordinary_user_is_refused(kernel: LinkedSystemd) -> None:
    tune(kernel)
    first, second = back(kernel, check=True, owners=["os_tunning"], keys=["vm.swapiness"])["warnings"]
    assert first.startswith("owners: nothing is recorded of 'os_tunning'; there is gpu_tuning")
    assert second.startswith("keys: 'vm.swapiness' matches nothing that we changed; a key looks like")
    kernel.root_user = False
    with pytest.raises(RefusedError, match="needs root"):
        back(kernel)


def test_what_a_reboot_brought_back_or_set_anew_is_forgotten(kernel: LinkedSystemd) -> None:
    tune(kernel)
    kernel.reboot()
    kernel.put(IRQ, "0-7")
    outcome = back(kernel)
    assert "irq:-/eth0" not in {change["key"] for change in outcome["changes"]}
    assert outcome["archived"]


def test_an_interrupt_that_irqbalance_moved_is_its_own(kernel: LinkedSystemd) -> None:
    kernel.unit("irqbalance.service", "multi-user.target", running=False)
    tune(kernel)
    kernel.running.add("irqbalance.service")
    kernel.put(IRQ, "5")
    outcome = back(kernel)
    assert (outcome["left_alone"], outcome["archived"], kernel.text(IRQ)) == ([], True, "5")


@pytest.mark.parametrize(("step", "least"), [(tune, 35), (back, 25)])
def test_killed_at_every_write_of_a_run_or_a_rollback_it_is_exact(kernel: LinkedSystemd, step, least: int) -> None:
    before = picture(kernel)
    number, ended = 0, False
    while not ended:
        number += 1
        if step is back:
            tune(kernel)
        ended = not killed(kernel, lambda: step(kernel), number)
        back(kernel)
        assert picture(kernel) == before, number
        assert not kernel.exists(LEDGER)
    assert number > least
