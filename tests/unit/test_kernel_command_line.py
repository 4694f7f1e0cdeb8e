# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kernel_command_line against an update-grub that builds grub.cfg as Debian's does."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import verify
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_command_line
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.command_line import (
    parse_command_line,
    print_command_line,
)
from fake_kernel import FakeKernel, killed, run_module
from hypothesis import given
from hypothesis import strategies as st

CONF = "/etc/default/grub.d/99-zz-ai-workstation.cfg"
CFG = "/boot/grub/grub.cfg"
CMDLINE = "/proc/cmdline"


def update_grub(kernel: FakeKernel, _argv: list[str]) -> Completed:
    """Source the files with a real shell and write the two entries."""
    script = (
        'set -e; . "$1/etc/default/grub"; for x in "$1"/etc/default/grub.d/*.cfg; do [ ! -e "$x" ] || . "$x"; done; '
    )
    script += 'echo "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"; echo "single $GRUB_CMDLINE_LINUX"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", kernel.root], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    )
    normal, recovery = done.stdout.splitlines()
    entries = "".join(f"menuentry x {{\n\tlinux\t/vmlinuz root=UUID=1 ro {line}\n}}\n" for line in (normal, recovery))
    kernel.put(CFG, entries)
    return Completed(0, "", "done")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put("/etc/default/grub", 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""')
    os.makedirs(kernel.at("/etc/default/grub.d"))
    kernel.put("/usr/sbin/update-grub", "")
    kernel.put(CMDLINE, "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet")
    kernel.programs["update-grub"] = update_grub
    update_grub(kernel, [])
    kernel.acted.clear()
    return kernel


def boot(kernel: FakeKernel) -> None:
    line = re.search(r"linux\t(\S+) (.*)", kernel.text(CFG))
    kernel.put(CMDLINE, f"BOOT_IMAGE={line.group(1)} {line.group(2)}")
    kernel.reboot()


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(kernel_command_line, kernel, check, **params)


def test_there_again_reboot_and_back(kernel: FakeKernel) -> None:
    before = (kernel.text(CFG), os.listdir(kernel.at("/etc/default/grub.d")))
    wanted = {"present": {"iommu": "pt", "nosmt": None, "hugepages": 4, "hugepagesz": "1G"}}
    predicted = call(kernel, check=True, **wanted)
    assert kernel.writes == []
    real = call(kernel, **wanted)
    # A dictionary has no order: the one in the record is another than that of the call.
    assert verify.against_record(Machine(kernel))["drift"] == []
    assert real == predicted
    assert (real["actions"], real["reboot_required"]) == (["update-grub"], True)
    assert (real["changes"][0]["scope"], real["changes"][0]["reboot_required"]) == ("boot", True)
    assert "quiet iommu=pt nosmt hugepagesz=1G hugepages=4\n" in kernel.text(CFG)
    assert "ro single" in kernel.text(CFG).splitlines()[4]
    assert "iommu" not in kernel.text(CFG).splitlines()[4]
    again = call(kernel, **wanted)
    assert (again["changed"], again["reboot_required"]) == (False, True)
    assert again["waiting"] == ["hugepages", "hugepagesz", "iommu", "nosmt"]
    boot(kernel)
    after = call(kernel, **wanted)
    assert (after["changed"], after["reboot_required"], after["waiting"]) == (False, False, [])
    gone = call(kernel)
    assert (gone["changed"], gone["reboot_required"], gone["actions"]) == (True, True, ["update-grub"])
    assert (kernel.text(CFG), os.listdir(kernel.at("/etc/default/grub.d"))) == before
    assert json.loads(kernel.text(LEDGER))["entries"] == {}
    still = call(kernel)
    assert (still["changed"], still["waiting"]) == (False, ["hugepages", "hugepagesz", "iommu", "nosmt"])
    boot(kernel)
    assert call(kernel)["reboot_required"] is False


def test_removing_one_waits_for_a_reboot_on_every_call(kernel: FakeKernel) -> None:
    call(kernel, present={"iommu": "pt", "nosmt": None})
    boot(kernel)
    call(kernel, present={"iommu": "pt"})
    again = call(kernel, present={"iommu": "pt"})
    assert again["reboot_reasons"] == ["kernel parameter nosmt was removed and acts until a reboot"]
    boot(kernel)
    assert call(kernel, present={"iommu": "pt"})["reboot_reasons"] == []


def test_a_changed_value_waits_and_one_that_runs_already_does_not(kernel: FakeKernel) -> None:
    kernel.put(CMDLINE, "ro quiet intel-iommu=on")
    outcome = call(kernel, present={"intel_iommu": "on"})
    assert (outcome["changed"], outcome["reboot_required"]) == (True, False)
    assert call(kernel, present={"intel_iommu": "off"})["reboot_required"] is True


def test_a_missing_folder_comes_and_goes(kernel: FakeKernel) -> None:
    os.rmdir(kernel.at("/etc/default/grub.d"))
    call(kernel, present=["nosmt"])
    assert kernel.exists(CONF)
    call(kernel)
    assert not kernel.exists("/etc/default/grub.d")


@pytest.mark.parametrize(
    ("present", "line"),
    [
        ({"hugepagesz": ["1G", "2M"], "hugepages": [4, 512]}, "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=512"),
        (["hugepagesz=2M", "hugepages=8", {"iommu": "pt"}, "nosmt"], "hugepagesz=2M hugepages=8 iommu=pt nosmt"),
        ({"console": ["tty1", "ttyS0,115200n8"]}, "console=tty1 console=ttyS0,115200n8"),
        ({"memmap": "4G!8G", "nohz_full": "1-3,^2"}, "memmap=4G!8G nohz_full=1-3,^2"),
    ],
)
def test_order_and_repetition(kernel: FakeKernel, present, line: str) -> None:
    call(kernel, present=present)
    assert f"quiet {line}\n" in kernel.text(CFG)
    boot(kernel)
    assert call(kernel, present=present)["reboot_required"] is False


def test_an_earlier_file_is_warned_about_and_loses(kernel: FakeKernel) -> None:
    kernel.put("/etc/default/grub.d/50-cloud.cfg", '# cloud\nGRUB_CMDLINE_LINUX="iommu=off console=ttyS0"')
    outcome = call(kernel, present={"iommu": "pt", "console": "tty1"})
    assert len(outcome["warnings"]) == 1
    assert "iommu: /etc/default/grub.d/50-cloud.cfg:2 sets iommu=off; iommu=pt of" in outcome["warnings"][0]
    boot(kernel)
    assert call(kernel, present={"iommu": "pt", "console": "tty1"})["reboot_required"] is False


def test_a_line_that_a_later_file_replaces_is_no_conflict(kernel: FakeKernel) -> None:
    kernel.put("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=off"')
    kernel.put("/etc/default/grub.d/50-cloud.cfg", 'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0"')
    assert call(kernel, present={"iommu": "pt"}, absent=["nosmt"])["warnings"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT} iommu=off"',
            "99-zzz.cfg:1 sets iommu=off, is read",
        ),
        ("GRUB_CMDLINE_LINUX_DEFAULT=splash", "99-zzz.cfg:1 sets GRUB_CMDLINE_LINUX_DEFAULT anew and drops our"),
    ],
)
def test_a_later_file_that_wins_is_refused(kernel: FakeKernel, text: str, message: str) -> None:
    kernel.put("/etc/default/grub.d/99-zzz.cfg", text)
    with pytest.raises(RefusedError, match=message):
        call(kernel, present={"iommu": "pt"})
    assert kernel.writes == []


def test_absent_in_a_file_of_others_is_refused_with_its_line(kernel: FakeKernel) -> None:
    with pytest.raises(RefusedError, match="absent: quiet is set by /etc/default/grub:2, which is not ours to edit"):
        call(kernel, absent=["quiet"])
    kernel.put(CMDLINE, "ro isolcpus=2-3")
    assert call(kernel, absent=["isolcpus"])["waiting"] == ["isolcpus"]


def test_a_run_killed_before_update_grub_is_finished(kernel: FakeKernel) -> None:
    assert killed(kernel, lambda: call(kernel, present={"iommu": "pt"}), point="update-grub")
    assert call(kernel, check=True, present={"iommu": "pt"})["actions"] == ["update-grub"]
    assert call(kernel, present={"iommu": "pt"})["changed"]
    assert "iommu=pt" in kernel.text(CFG)
    assert not call(kernel, present={"iommu": "pt"})["changed"]


def test_an_old_boot_menu_is_made_again_and_a_new_one_that_lacks_it_is_told(kernel: FakeKernel) -> None:
    stale = kernel.text(CFG)
    call(kernel, present={"iommu": "pt"})
    kernel.put(CFG, stale)
    os.utime(kernel.at(CFG), (1, 1))
    assert call(kernel, check=True, present={"iommu": "pt"})["actions"] == ["update-grub"]
    assert call(kernel, present={"iommu": "pt"})["actions"] == ["update-grub"]
    kernel.put(CFG, stale)
    os.utime(kernel.at(CONF), (1, 1))
    outcome = call(kernel, present={"iommu": "pt"})
    assert (outcome["changed"], "does not show iommu" in outcome["warnings"][0]) == (False, True)


def test_a_failing_update_grub_takes_the_file_back(kernel: FakeKernel) -> None:
    kernel.commands["update-grub"] = Completed(1, "", "cannot find a device for /")
    with pytest.raises(ApplyError, match="update-grub failed with code 1: cannot find a device for /"):
        call(kernel, present={"iommu": "pt"})
    assert not kernel.exists(CONF)


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.EROFS])
def test_a_failing_write_leaves_nothing(kernel: FakeKernel, code: int) -> None:
    def fail(path: str) -> None:
        if path == CONF:
            raise OSError(code, os.strerror(code), path)

    kernel.before_write = fail
    with pytest.raises(ApplyError, match=re.escape(os.strerror(code))):
        call(kernel, present={"iommu": "pt"})
    assert (kernel.exists(CONF), "iommu" in kernel.text(CFG)) == (False, False)
    kernel.before_write = kernel.writes.append
    assert call(kernel)["changed"] is False


def test_our_file_changed_by_an_admin_is_left_alone_when_released(kernel: FakeKernel) -> None:
    call(kernel, present={"iommu": "pt"})
    kernel.put(CONF, "# mine now")
    assert "changed by someone else" in call(kernel)["warnings"][0]
    assert kernel.text(CONF) == "# mine now"


@pytest.mark.parametrize("missing", ["/usr/sbin/update-grub", "/etc/default/grub"])
def test_without_grub(kernel: FakeKernel, missing: str) -> None:
    os.unlink(kernel.at(missing))
    with pytest.raises(RefusedError, match=f"no GRUB as Debian and Ubuntu have it .there is no {missing}."):
        call(kernel, present={"iommu": "pt"})
    outcome = call(kernel, present={"iommu": "pt"}, optional=["iommu"])
    assert (outcome["changed"], outcome["reboot_required"], len(outcome["skipped_keys"])) == (False, False, 1)
    assert call(kernel, present={})["changed"] is False


def test_isolcpus_is_warned_about(kernel: FakeKernel) -> None:
    assert "pile up on one of them" in call(kernel, check=True, present={"isolcpus": "2-3"})["warnings"][0]


@pytest.mark.parametrize(
    ("present", "name"),
    [
        ({"mitigations": "off"}, "mitigations"),
        (["idle=poll"], "idle"),
        (["init=/bin/sh"], "init"),
        (["spectre-v2=off"], "spectre_v2"),
    ],
)
def test_dangerous_ones_must_be_accepted(kernel: FakeKernel, present, name: str) -> None:
    with pytest.raises(InputError, match=f"=.*remove it, or add {name} to accept"):
        call(kernel, present=present)
    assert call(kernel, check=True, present=present, accept=[name])["changed"]
    assert call(kernel, check=True, present={"mitigations": "auto", "idle": "nomwait"})["changed"]


@pytest.mark.parametrize("spelling", ["nospectre_v2", "nospectre-v2"])
def test_a_dangerous_one_is_known_in_every_spelling(kernel: FakeKernel, spelling: str) -> None:
    with pytest.raises(InputError, match="switches a protection off; remove it, or add nospectre_v2 to accept"):
        call(kernel, present=[spelling])
    for accepted in ("nospectre_v2", "nospectre-v2"):
        assert call(kernel, check=True, present=[spelling], accept=[accepted])["changed"]


def test_without_root_there_is_one_line(kernel: FakeKernel) -> None:
    kernel.root_user = False
    with pytest.raises(RefusedError, match="kernel_command_line: changing file:.*needs root"):
        call(kernel, present={"iommu": "pt"})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"present": {"intel_iommu": True}}, "YAML reads this as True; quote the word, or write null for a flag"),
        ({"present": {"a": 'b"; reboot; "'}}, "which the shell or GRUB would read otherwise"),
        ({"present": {"a": "$(reboot)"}}, "would read otherwise"),
        ({"present": {"a": "b c"}}, "has ' '"),
        ({"present": ["a=b\nc=d"]}, "would read otherwise"),
        ({"present": {"a": ""}}, "is not a value; write a text or a number, or null for a flag"),
        ({"present": {"a\n": 1}}, "is not the name of a kernel parameter"),
        ({"absent": ["a\n"]}, "is not the name of a kernel parameter"),
        ({"present": {"a b": 1}}, "'a b' is not the name of a kernel parameter"),
        ({"present": {"a": []}}, "a has an empty list"),
        ({"present": [3]}, "3 is not a parameter; write 'name=value'"),
        ({"present": "quiet"}, "'quiet' is not a dictionary or a list"),
        ({"present": {"hugepagesz": ["1G", "2M"], "hugepages": 4}}, "hugepagesz has 2 values and hugepages 1"),
        ({"present": {"a": "x" * 1501}}, "the kernel reads 2048 in all"),
        ({"present": {"no-smt": None}, "absent": ["no_smt"]}, "absent: no_smt is in present as well"),
        ({"absent": ["a=b"]}, "absent: 'a=b' is not the name"),
        ({"accept": ["mitigation"]}, "accept: 'mitigation' is not one of mitigations, idle"),
        ({"name": "../x"}, "becomes part of a file name"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(kernel, **params)
    assert "\n" not in str(caught.value)
    assert kernel.writes == []


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("quiet  root=UUID=1-2 -- --flag x=1", [("quiet", None), ("root", "UUID=1-2")]),
        ('dyndbg="file x +p" "y=a b"', [("dyndbg", "file x +p"), ("y", "a b")]),
        ("a= b", [("a", ""), ("b", None)]),
        ('a="open end', [("a", "open end")]),
        ("", []),
    ],
)
def test_the_command_line_is_split_as_the_kernel_does(text: str, parameters: list) -> None:
    assert parse_command_line(text) == parameters


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True),
            st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"'), max_size=9),
        )
    )
)
def test_printing_and_parsing_is_a_round_trip(parameters: list) -> None:
    assert parse_command_line(print_command_line(parameters)) == parameters
