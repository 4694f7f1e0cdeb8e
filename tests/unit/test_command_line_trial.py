# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A command line on trial, against a GRUB that boots next_entry once and empties it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.parts import converge_parts
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import kernel_command_line, kernel_settings
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.command_line import parse_command_line
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.grub_menu import default_entry
from fake_kernel import FakeKernel, killed, run_module

CONF = "/etc/default/grub.d/99-zz-ai-workstation.cfg"
SCRIPT = "/etc/grub.d/99_ai-workstation-trial"
UNIT = "/etc/systemd/system/ai-workstation-trial.service"
CFG = "/boot/grub/grub.cfg"
ENV = "/boot/grub/grubenv"
ID = "ai-workstation-trial"
HEADER = """if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="%s"
fi
"""
ENTRY = """menuentry '%s' --class os $menuentry_id_option 'gnulinux-%s' {
\tinsmod ext2
\tlinux\t/vmlinuz-%s root=UUID=1 ro %s
\tinitrd\t/initrd-%s
}
"""
PANIC = {"panic": "30", "panic_on_oops": "1", "softlockup_panic": "1", "hung_task_panic": "1"}


def update_grub(kernel: FakeKernel, _argv: list[str]) -> Completed:
    """Source the files with a real shell, write two kernels, and run our script as grub-mkconfig runs it."""
    script = (
        'set -e; . "$1/etc/default/grub"; for x in "$1"/etc/default/grub.d/*.cfg; do [ ! -e "$x" ] || . "$x"; done; '
        'echo "$GRUB_CMDLINE_LINUX_DEFAULT"; echo "$GRUB_DEFAULT"'
    )
    done = subprocess.run(["/bin/sh", "-c", script, "sh", kernel.root], capture_output=True, text=True, check=True)
    line, default = done.stdout.splitlines()
    text = HEADER % ("${saved_entry}" if default == "saved" else default)
    text += "".join(ENTRY % (f"Debian {version}", version, version, line, version) for version in ("7", "6"))
    if kernel.exists(SCRIPT):
        text += subprocess.run([kernel.at(SCRIPT)], capture_output=True, text=True, check=True).stdout
    kernel.put(CFG, text)
    return Completed(0, "", "done")


def environment(kernel: FakeKernel, **values: str | None) -> None:
    lines = (kernel.text(ENV) or "# GRUB Environment Block").splitlines()
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    for name, value in values.items():
        if value is None:
            known.pop(name, None)
        else:
            known[name] = value
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in known.items())
    Path(kernel.at(ENV)).write_text(text.ljust(1024, "#"))


def editenv(kernel: FakeKernel, argv: list[str]) -> Completed:
    name, _equals, value = argv[2].partition("=")
    environment(kernel, **{name: value if argv[1] == "set" else None})
    return Completed(0, "", "")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put("/etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"')
    for folder in ("/etc/default/grub.d", "/etc/grub.d", "/boot/grub"):
        os.makedirs(kernel.at(folder))
    kernel.put("/usr/sbin/update-grub", "")
    kernel.put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-7 root=UUID=1 ro quiet")
    kernel.put_all({f"/proc/sys/kernel/{name}": 0 for name in PANIC})
    environment(kernel)
    kernel.programs.update({"update-grub": update_grub, "grub-editenv": editenv})
    kernel.commands["grub-probe --target=fs /boot/grub"] = Completed(0, "ext2\n", "")
    update_grub(kernel, [])
    return kernel


def linux(kernel: FakeKernel, name: str = "gnulinux-7") -> str:
    """The parameters of an entry of the menu."""
    body = (kernel.text(CFG) or "").partition(f"'{name}' {{")[2]
    return re.search(r"linux\s(\S+) ([^;\n]*)", body).group(2)


def boot(kernel: FakeKernel, boot_id: str, comes_up: bool = True) -> None:
    """What GRUB and the kernel do. A trial that does not come up ends in a second boot."""
    on_trial = f"next_entry={ID}" in kernel.text(ENV)
    if on_trial:
        environment(kernel, next_entry="")
    line = linux(kernel, ID) if on_trial and comes_up else linux(kernel)
    kernel.put("/proc/cmdline", f"BOOT_IMAGE=/vmlinuz-7 {line}")
    trial = "ai_workstation.trial=" in line
    kernel.put_all({f"/proc/sys/kernel/{name}": value if trial else 0 for name, value in PANIC.items()})
    kernel.reboot(boot_id)


def call(kernel: FakeKernel, check: bool = False, **params):
    return run_module(kernel_command_line, kernel, check, **{"trial": True, **params})


def both(kernel: FakeKernel, **params):
    """A prediction and the run after it, which must be the same and leave nothing to do."""
    predicted = call(kernel, check=True, **params)
    real = call(kernel, **params)
    # The menu is made before its entry is chosen, ahead of the order that is foretold.
    assert {**predicted, "actions": sorted(predicted["actions"])} == {**real, "actions": sorted(real["actions"])}
    return real


def picture(kernel: FakeKernel) -> dict[str, str | None]:
    folders = ("/etc/default/grub.d", "/etc/grub.d", "/etc/systemd/system", "/boot/grub")
    return {
        f"{folder}/{name}": kernel.raw(f"{folder}/{name}")
        for folder in folders
        for name in kernel.names(folder)
        if kernel.raw(f"{folder}/{name}") is not None
    } | {name: kernel.text(f"/proc/sys/kernel/{name}") for name in PANIC}


WANTED = {"iommu": "pt", "nosmt": None}


def test_a_trial_that_comes_up_becomes_the_default(kernel: FakeKernel) -> None:
    before = picture(kernel)
    armed = both(kernel, present=WANTED)
    assert (armed["trial"], armed["reboot_required"]) == ("waits", True)
    assert armed["reboot_reasons"][0] == "the next boot tries the kernel command line iommu=pt nosmt"
    assert linux(kernel) == "root=UUID=1 ro quiet"
    tried = linux(kernel, ID)
    assert tried.startswith("root=UUID=1 ro quiet iommu=pt nosmt ai_workstation.trial=")
    assert tried.endswith(f" systemd.wants={ID}.service panic=30 oops=panic softlockup_panic=1 hung_task_panic=1")
    assert (os.stat(kernel.at(SCRIPT)).st_mode & 0o777, kernel.exists(CONF)) == (0o755, False)
    again = both(kernel, present=WANTED)
    assert (again["changed"], again["trial"], again["reboot_required"]) == (False, "waits", True)
    boot(kernel, "boot-2")
    confirmed = both(kernel, present=WANTED)
    assert (confirmed["trial"], confirmed["reboot_required"]) == ("confirmed", False)
    assert f"stop:{ID}.service" in confirmed["actions"]
    assert linux(kernel) == "root=UUID=1 ro quiet iommu=pt nosmt"
    left = {path for path, value in picture(kernel).items() if before.get(path) != value}
    assert left == {CONF, CFG}
    assert both(kernel, present=WANTED)["changed"] is False
    boot(kernel, "boot-3")
    assert (both(kernel, present=WANTED)["changed"], kernel.text("/proc/cmdline")) == (
        False,
        "BOOT_IMAGE=/vmlinuz-7 root=UUID=1 ro quiet iommu=pt nosmt",
    )
    assert both(kernel)["changed"]
    assert picture(kernel) == before
    assert json.loads(kernel.text(LEDGER))["entries"] == {}


def test_a_trial_that_does_not_come_up_is_withdrawn_said_and_can_be_repeated(kernel: FakeKernel) -> None:
    before = picture(kernel)
    call(kernel, present=WANTED)
    boot(kernel, "boot-2", comes_up=False)
    writes = len(kernel.writes)
    with pytest.raises(RefusedError, match="the trial of iommu=pt nosmt failed: .*run again for another trial") as one:
        call(kernel, check=True, present=WANTED)
    assert len(kernel.writes) == writes
    with pytest.raises(RefusedError, match="the trial of iommu=pt nosmt failed") as two:
        call(kernel, present=WANTED)
    assert str(one.value) == str(two.value)
    assert "\n" not in str(two.value)
    assert picture(kernel) == before
    assert json.loads(kernel.text(LEDGER))["entries"] == {}
    assert both(kernel, present=WANTED)["trial"] == "waits"
    boot(kernel, "boot-3")
    assert both(kernel, present=WANTED)["trial"] == "confirmed"


def test_a_failed_trial_ends_a_call_of_many_parts_before_the_others(kernel: FakeKernel) -> None:
    kernel.put("/proc/sys/vm/swappiness", "60")
    call(kernel, present=WANTED)
    boot(kernel, "boot-2", comes_up=False)
    parts = [
        (kernel_settings, {"sysctl": {"vm.swappiness": 10}}),
        (kernel_command_line, {"present": WANTED, "trial": True}),
    ]
    for check in (True, False):
        with pytest.raises(RefusedError, match="^kernel_command_line: the trial of iommu=pt nosmt failed"):
            converge_parts(parts, check, Machine(kernel))
        assert kernel.exists(SCRIPT) is check
        assert kernel.text("/proc/sys/vm/swappiness") == "60"
    assert converge_parts(parts, False, Machine(kernel))["parts"]["kernel_command_line"]["trial"] == "waits"


def test_other_parameters_after_a_failed_trial_are_tried_with_a_warning(kernel: FakeKernel) -> None:
    call(kernel, present=WANTED)
    boot(kernel, "boot-2", comes_up=False)
    outcome = both(kernel, present={"iommu": "on"})
    assert outcome["warnings"] == ["the trial of iommu=pt nosmt did not come up and is replaced by this one"]
    assert "iommu=on" in linux(kernel, ID)
    boot(kernel, "boot-3")
    assert both(kernel, present={"iommu": "on"})["trial"] == "confirmed"


def test_a_change_of_ours_is_tried_in_the_place_of_the_old_one(kernel: FakeKernel) -> None:
    call(kernel, present={"iommu": "pt"}, trial=False)
    boot(kernel, "boot-2")
    both(kernel, present={"iommu": "on"})
    assert linux(kernel) == "root=UUID=1 ro quiet iommu=pt"
    assert linux(kernel, ID).startswith("root=UUID=1 ro quiet iommu=on ai_workstation.trial=")
    boot(kernel, "boot-3", comes_up=False)
    with pytest.raises(RefusedError, match="the trial of iommu=on failed"):
        call(kernel, present={"iommu": "on"})
    assert linux(kernel) == "root=UUID=1 ro quiet iommu=pt"
    assert both(kernel, present={"iommu": "pt"})["changed"] is False


@pytest.mark.parametrize("started", [False, True])
def test_to_want_nothing_takes_a_trial_back(kernel: FakeKernel, started: bool) -> None:
    before = picture(kernel)
    call(kernel, present=WANTED)
    if started:
        boot(kernel, "boot-2")
    gone = both(kernel)
    assert (gone["changed"], gone["reboot_required"]) == (True, started)
    assert picture(kernel) == before
    assert both(kernel)["reboot_required"] is started
    boot(kernel, "boot-3")
    assert both(kernel)["reboot_required"] is False


def test_without_a_trial_the_default_is_written_and_the_trial_goes(kernel: FakeKernel) -> None:
    call(kernel, present=WANTED)
    outcome = both(kernel, present=WANTED, trial=False)
    assert (outcome["trial"], outcome["reboot_required"], kernel.exists(SCRIPT)) == ("none", True, False)
    assert (linux(kernel), f"next_entry={ID}" in kernel.text(ENV)) == ("root=UUID=1 ro quiet iommu=pt nosmt", False)


def test_what_runs_already_needs_no_trial(kernel: FakeKernel) -> None:
    kernel.put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-7 quiet iommu=pt")
    outcome = both(kernel, present={"iommu": "pt"})
    assert (outcome["trial"], kernel.exists(CONF), kernel.exists(SCRIPT)) == ("none", True, False)


def test_what_someone_configured_stays_when_the_trial_ends(kernel: FakeKernel) -> None:
    call(kernel, present=WANTED)
    boot(kernel, "boot-2")
    kernel.put("/etc/sysctl.d/10-panic.conf", "kernel.panic = 30")
    kernel.put("/proc/sys/kernel/hung_task_panic", "0")
    call(kernel, present=WANTED)
    assert [kernel.text(f"/proc/sys/kernel/{name}") for name in PANIC] == ["30", "0", "0", "0"]


@pytest.mark.parametrize(
    ("default", "saved", "kernel_file"),
    [("0", None, "7"), ("1", None, "6"), ("saved", None, "7"), ("saved", "gnulinux-6", "6"), ("Debian 6", None, "6")],
)
def test_the_default_entry_is_the_one_that_is_tried(kernel: FakeKernel, default: str, saved, kernel_file: str) -> None:
    kernel.put("/etc/default/grub", f"GRUB_DEFAULT='{default}'\nGRUB_CMDLINE_LINUX_DEFAULT=quiet")
    environment(kernel, saved_entry=saved)
    update_grub(kernel, [])
    call(kernel, present=WANTED)
    body = kernel.text(CFG).partition(f"'{ID}' {{")[2]
    assert f"if linux /vmlinuz-{kernel_file} root=UUID=1" in body
    assert f"if initrd\t/initrd-{kernel_file}; then true; else reboot; fi" in body


def lvm(kernel: FakeKernel) -> None:
    kernel.commands["grub-probe --target=abstraction /boot/grub"] = Completed(0, "lvm\n", "")


def btrfs(kernel: FakeKernel) -> None:
    kernel.commands["grub-probe --target=fs /boot/grub"] = Completed(0, "btrfs\n", "")


def no_probe(kernel: FakeKernel) -> None:
    kernel.commands["grub-probe --target=fs /boot/grub"] = Completed(1, "", "failed")


def no_environment(kernel: FakeKernel) -> None:
    os.unlink(kernel.at(ENV))


def linked_environment(kernel: FakeKernel) -> None:
    os.rename(kernel.at(ENV), kernel.at("/boot/env"))
    os.symlink(kernel.at("/boot/env"), kernel.at(ENV))


def other_loader(kernel: FakeKernel) -> None:
    kernel.put("/proc/cmdline", "root=UUID=1 ro quiet")


def chain(kernel: FakeKernel) -> None:
    kernel.put(CFG, HEADER % "0" + "menuentry 'Windows' {\n\tchainloader +1\n}")


def old_menu(kernel: FakeKernel) -> None:
    kernel.put(CFG, 'set default="0"\n' + ENTRY % ("x", "x", "7", "", "7"))


def chosen(kernel: FakeKernel) -> None:
    environment(kernel, next_entry="Windows")


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (lvm, "/boot/grub is on lvm, where GRUB cannot clear next_entry"),
        (btrfs, "/boot/grub is on btrfs"),
        (no_probe, "on an unknown file system"),
        (no_environment, "grub-editenv /boot/grub/grubenv create"),
        (linked_environment, "is no environment block"),
        (other_loader, "not booted through GRUB"),
        (chain, "the default entry of /boot/grub/grub.cfg is not one with a Linux kernel"),
        (old_menu, "does not read next_entry"),
        (chosen, "next_entry is 'Windows' already, set by someone else"),
    ],
)
def test_where_there_can_be_no_trial_nothing_is_written(kernel: FakeKernel, arrange, reason: str) -> None:
    arrange(kernel)
    with pytest.raises(RefusedError, match=f"trial: .*{reason}.*os_tuning_kernel_parameters_trial") as caught:
        call(kernel, present=WANTED)
    assert ("\n" in str(caught.value), kernel.writes) == (False, [])
    if arrange not in (chain, old_menu):
        assert call(kernel, present=WANTED, trial=False)["changed"]


@pytest.mark.parametrize("reboots", [False, True])
@pytest.mark.parametrize("step", ["arm", "confirm"])
def test_killed_at_every_write_it_converges_and_goes_back(tmp_path: Path, kernel: FakeKernel, step, reboots) -> None:
    def prepare() -> None:
        call(kernel)
        boot(kernel, "boot-1")
        call(kernel)
        if step == "confirm":
            call(kernel, present=WANTED)
            boot(kernel, "boot-2")

    before = picture(kernel)
    number, ended = 0, False
    while not ended:
        number += 1
        prepare()
        ended = not killed(kernel, lambda: call(kernel, present=WANTED), number)
        if reboots:
            boot(kernel, "boot-9")
        for count in range(3):
            # A reboot before the trial was confirmed has ended it: that is said once, and tried again.
            with contextlib.suppress(RefusedError) if reboots and not count else contextlib.nullcontext():
                call(kernel, present=WANTED)
            boot(kernel, f"boot-1{count}")
        after = call(kernel, present=WANTED)
        assert (after["changed"], after["reboot_required"]) == (False, False), number
        assert linux(kernel) == "root=UUID=1 ro quiet iommu=pt nosmt"
        call(kernel)
        assert picture(kernel) == before, number
    assert number > 6


def test_bad_input_is_one_line(kernel: FakeKernel) -> None:
    with pytest.raises(InputError, match="trial_seconds: 5 is not a whole number from 60 to 86400"):
        call(kernel, present=WANTED, trial_seconds=5)


UBUNTU = (
    HEADER % "1>gnulinux-6-advanced"
    + ENTRY % ("Ubuntu", "simple", "7", "quiet $vt_handoff", "7")
    + "submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {\n"
    + ENTRY.replace("}", "\t}") % ("Ubuntu, with '\\''7'\\''", "7-advanced", "7", "quiet", "7")
    + ENTRY.replace("}", "\t}") % ("Ubuntu, 6", "6-advanced", "6", "quiet", "6")
    + "}\nif [ x = y ]; then\nmenuentry 'UEFI' $menuentry_id_option 'uefi' {\n\tfwsetup\n}\nfi\n"
)


@pytest.mark.parametrize(
    ("default", "title"),
    [
        ("1>gnulinux-6-advanced", "Ubuntu, 6"),
        ("Advanced options>Ubuntu, with '7'", "Ubuntu, with '7'"),
        ("1", "Ubuntu, with '7'"),
        ("gnulinux-advanced>1", "Ubuntu, 6"),
        ("2", "UEFI"),
        ("not there", "Ubuntu"),
        ("9", "Ubuntu"),
    ],
)
def test_a_default_in_a_submenu_is_found(default: str, title: str) -> None:
    found = default_entry(UBUNTU.replace("1>gnulinux-6-advanced", default), "")
    assert found.title == title


def test_a_default_that_grub_computes_is_not_guessed() -> None:
    assert default_entry(UBUNTU.replace("1>gnulinux-6-advanced", "${mine}"), "") is None
    assert default_entry("", "") is None
    assert parse_command_line("a ai_workstation.trial=1")[1] == ("ai_workstation.trial", "1")
