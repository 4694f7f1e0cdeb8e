# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The NVIDIA driver: states, what a wish gets in each, and what is read from a machine."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.nvidia_driver.data import (
    CUDA,
    DRIVER_PACKAGES,
    GENERATIONS,
    generation,
    packages,
)
from ansible_collections.ai_infra.workstation.plugins.module_utils.nvidia_driver.decide import Seen, Wish, decide, state
from ansible_collections.ai_infra.workstation.plugins.module_utils.nvidia_driver.state import converge
from ansible_collections.ai_infra.workstation.plugins.module_utils.values import version
from fake_kernel import FakeKernel

ADA, AMPERE, PASCAL, BLACKWELL = "10de:2684", "10de:2204", "10de:1b80", "10de:2b85"
NEW = "580.95.05"
WORKING = Seen(gpus=(ADA,), module=NEW, library=NEW, packaged=(NEW,), on_disk=True, is_open=True, release="6.8.0-1")
ABSENT = Seen(gpus=(ADA,), release="6.8.0-1")
WANT = Wish(source="distribution", branch="580")


# --- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (replace(WORKING, gpus=()), "no_gpu"),
        (ABSENT, "absent"),
        (replace(ABSENT, module=NEW), "foreign"),
        (replace(ABSENT, library=NEW), "foreign"),
        (replace(WORKING, packaged=("570.1.1", NEW)), "mixed"),
        (WORKING, "working"),
        (replace(WORKING, library=""), "working"),
        (replace(WORKING, library="580.95.07"), "mismatch"),
        (replace(WORKING, module=""), "pending"),
        (replace(WORKING, module="", on_disk=False), "broken"),
    ],
)
def test_state(seen: Seen, expected: str) -> None:
    assert state(seen) == expected


def test_every_combination_has_one_decision() -> None:
    """A machine is either left alone, refused, or told to install: never two of them, and never without a reason."""
    versions = ("", NEW, "570.1.1")
    kinds = itertools.product(
        ((), (ADA,), (BLACKWELL,), (PASCAL,)),
        versions,
        versions,
        ((), (NEW,), ("570.1.1",)),
        (True, False),
        (True, False),
    )
    wishes = [
        Wish(),
        WANT,
        replace(WANT, source="nvidia"),
        replace(WANT, change_branch=True),
        replace(WANT, modules="open"),
    ]
    for (gpus, module, library, packaged, on_disk, secure), wish in itertools.product(list(kinds), wishes):
        seen = Seen(gpus, "debian", "amd64", "6.12", module, None, library, packaged, on_disk, False, secure)
        found = decide(wish, seen)
        assert found.state in {"no_gpu", "absent", "foreign", "mixed", "mismatch", "working", "pending", "broken"}
        assert not (found.install and found.refusals)
        assert found.reason or found.refusals
        if wish.source == "leave" or not gpus:
            assert not found.install
            assert not found.refusals
        if found.install:
            assert "580" not in {text[:3] for text in packaged}  # never an upgrade
            assert found.state == "absent" or wish.change_branch
            assert not secure
        assert bool(found.reboot_reasons) == (found.state in {"mismatch", "pending"})


# --- decisions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [WORKING, replace(WORKING, module=""), replace(WORKING, library="580.1.1")])
def test_a_rerun_never_upgrades(seen: Seen) -> None:
    found = decide(WANT, seen)
    assert (found.install, found.reason) == ([], "installed")


def test_another_branch_is_exchanged_only_when_that_is_said() -> None:
    refused = decide(replace(WANT, branch="590"), WORKING)
    assert "branch 580 is installed and 590 is wanted" in refused.refusals[0]
    allowed = decide(replace(WANT, branch="590", change_branch=True), WORKING)
    assert allowed.install == [
        "nvidia-headless-no-dkms-590-open",
        "nvidia-utils-590",
        "linux-modules-nvidia-590-open-generic",
    ]


def test_a_mismatch_is_a_reboot_and_no_installation() -> None:
    found = decide(Wish(), replace(WORKING, library="580.95.07"))
    reason = "the NVIDIA library is 580.95.07, the loaded kernel module 580.95.05: every call to the driver fails"
    assert found.reboot_reasons == [f"{reason} until the machine has rebooted"]


def test_nouveau_is_named() -> None:
    assert "nouveau has the card" in decide(WANT, replace(WORKING, module="", nouveau=True)).reboot_reasons[0]


@pytest.mark.parametrize(
    ("gpus", "wish", "message"),
    [
        (
            (BLACKWELL,),
            replace(WANT, branch="550"),
            "10de:2b85 (Blackwell) needs driver 570.86.16 or newer, 550 is older",
        ),
        (
            (BLACKWELL,),
            replace(WANT, modules="proprietary"),
            "10de:2b85 (Blackwell) works with the open kernel modules only",
        ),
        ((PASCAL,), replace(WANT, modules="open"), "10de:1b80 (Pascal) does not work with the open kernel modules"),
        ((PASCAL, BLACKWELL), WANT, "no driver serves both 10de:1b80"),
    ],
)
def test_what_the_cards_do_not_work_with_is_refused(gpus: tuple[str, ...], wish: Wish, message: str) -> None:
    found = decide(wish, replace(ABSENT, gpus=gpus))
    assert message in "; ".join(found.refusals)
    assert not found.install


@pytest.mark.parametrize(
    ("gpus", "is_open"), [((ADA,), True), ((PASCAL,), False), ((PASCAL, ADA), False), ((BLACKWELL,), True)]
)
def test_auto_takes_the_open_modules_where_all_cards_work_with_them(gpus: tuple[str, ...], is_open: bool) -> None:
    assert decide(WANT, replace(ABSENT, gpus=gpus)).is_open is is_open


def test_a_driver_that_does_not_fit_is_warned_of_when_it_is_left_alone() -> None:
    old = replace(WORKING, gpus=(BLACKWELL,), module="550.1", library="550.1", packaged=("550.1",), is_open=False)
    found = decide(Wish(), old)
    assert [text[:25] for text in found.warnings] == ["10de:2b85 (Blackwell) nee", "10de:2b85 (Blackwell) wor"]
    assert not found.refusals


@pytest.mark.parametrize(
    ("source", "system", "mok", "refused"),
    [
        ("distribution", "ubuntu", False, False),
        ("distribution", "debian", False, True),
        ("distribution", "debian", True, False),
        ("nvidia", "ubuntu", False, True),
        ("nvidia", "ubuntu", True, False),
    ],
)
def test_secure_boot_refuses_what_the_kernel_would_not_load(source: str, system: str, mok: bool, refused: bool) -> None:
    seen = replace(ABSENT, system=system, secure_boot=True, mok=mok)
    found = decide(replace(WANT, source=source), seen)
    assert bool(found.refusals) is refused
    if refused:
        assert "mokutil --import" in found.refusals[0]
        assert ("set source to distribution" in found.refusals[0]) is (system == "ubuntu")
    assert decide(replace(WANT, source=source), replace(seen, secure_boot=None, mok=False)).install


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (replace(ABSENT, module=NEW), "belongs to no package"),
        (replace(WORKING, packaged=("570.1", NEW)), "packages of several drivers"),
        (replace(WORKING, module="", on_disk=False), "linux-headers-6.8.0-1"),
    ],
)
def test_what_only_hands_can_mend_is_refused_with_the_steps(seen: Seen, message: str) -> None:
    found = decide(WANT, seen)
    assert message in found.refusals[0]
    assert not decide(Wish(), seen).refusals


@pytest.mark.parametrize(
    ("toolkit", "driver", "refused", "warned"),
    [
        ("12.8", "580.95.05", False, False),
        ("12.8", "550.54.14", False, True),
        ("12.0", "525.60.13", False, False),
        ("12.0", "520.61.05", True, False),
        ("13.1", "580.95.05", False, True),
        ("13.0", "570.86.16", True, False),
    ],
)
def test_cuda_toolkit_against_the_driver(toolkit: str, driver: str, refused: bool, warned: bool) -> None:
    seen = replace(WORKING, module=driver, library=driver, packaged=(driver,))
    found = decide(Wish(cuda=toolkit), seen)
    assert (bool(found.refusals), bool(found.warnings)) == (refused, warned)


def test_cuda_toolkit_against_a_driver_that_is_to_come() -> None:
    assert not decide(replace(WANT, cuda="13.0"), ABSENT).refusals
    assert "this machine has no driver" in decide(Wish(cuda="13.0"), ABSENT).refusals[0]
    assert "this machine has 570" in decide(replace(WANT, branch="570", cuda="13.0"), ABSENT).refusals[0]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(source="nvidia"), "branch: '' must be a driver branch such as 580"),
        (Wish(source="nvidia", branch="580.95"), "branch: '580.95'"),
        (Wish(cuda="12.7"), "cuda_toolkit: '12.7' is not known; choices: 12.0"),
        (Wish(cuda="12.8", cudnn="8"), "cudnn: '8' is not known"),
        (Wish(cudnn="9"), "cudnn: 9 needs cuda_toolkit 12 or 13, found ''"),
    ],
)
def test_bad_input_is_one_line(wish: Wish, message: str) -> None:
    with pytest.raises(InputError) as caught:
        decide(wish, WORKING)
    assert message in str(caught.value)


# --- data ------------------------------------------------------------------------------------------


def test_generations_do_not_overlap_and_cards_are_where_they_belong() -> None:
    ordered = sorted(GENERATIONS, key=lambda one: one.first)
    assert all(one.first <= one.last < other.first for one, other in itertools.pairwise(ordered))
    known = {ADA: "Ada", AMPERE: "Ampere", PASCAL: "Pascal", BLACKWELL: "Blackwell", "10de:2330": "Hopper"}
    known |= {
        "10de:1e04": "Turing",
        "10de:2184": "Turing",
        "10de:20b0": "Ampere",
        "10de:1db4": "Volta",
        "10de:17c8": "Maxwell",
    }
    assert {gpu: found.name for gpu in known if (found := generation(gpu))} == known
    assert generation("10de:0fff") is None
    assert generation("nonsense") is None


def test_newer_cuda_needs_newer_drivers() -> None:
    drivers = [version(driver) for _toolkit, driver in sorted(CUDA.items(), key=lambda item: version(item[0]))]
    assert drivers == sorted(drivers)


@pytest.mark.parametrize(
    ("source", "system", "branch", "is_open", "headless", "expected"),
    [
        ("nvidia", "debian", "580", True, True, ["nvidia-open-580"]),
        ("nvidia", "ubuntu", "580", False, True, ["cuda-drivers-580"]),
        ("nvidia", "ubuntu", "595", True, True, ["nvidia-open"]),
        (
            "distribution",
            "ubuntu",
            "570",
            False,
            False,
            ["nvidia-driver-570", "nvidia-utils-570", "linux-modules-nvidia-570-k"],
        ),
        (
            "distribution",
            "debian",
            "550",
            True,
            True,
            ["nvidia-open-kernel-dkms", "libcuda1", "nvidia-smi", "firmware-nvidia-gsp", "linux-headers-k"],
        ),
    ],
)
def test_packages(source: str, system: str, branch: str, is_open: bool, headless: bool, expected: list[str]) -> None:
    assert packages(source, system, branch, is_open, headless, "k") == expected


def test_the_container_toolkit_is_no_part_of_the_driver() -> None:
    def is_driver(name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in DRIVER_PACKAGES)

    assert not any(map(is_driver, ["nvidia-container-toolkit", "libnvidia-container1", "nvidia-cuda-toolkit"]))
    assert all(map(is_driver, ["nvidia-driver-580-open", "libnvidia-compute-580", "libcuda1", "nvidia-smi"]))


# --- a machine -------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.put_all(
        {
            "/proc/sys/kernel/osrelease": "6.8.0-45-generic",
            "/etc/os-release": 'NAME="Ubuntu"\nID=ubuntu',
            "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
            "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
            "/sys/bus/pci/devices/0000:01:00.0/device": "0x2684",
            "/sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de",
            "/sys/bus/pci/devices/0000:01:00.1/class": "0x040300",
            "/sys/bus/pci/devices/0000:01:00.1/device": "0x22ba",
        }
    )
    return kernel


def dpkg(kernel: FakeKernel, **versions: str) -> None:
    paragraphs = []
    for key, text in versions.items():
        name, hold = key.replace("_", "-"), text.endswith(" hold")
        status = "hold ok installed" if hold else "install ok installed"
        paragraphs.append(f"Package: {name}\nStatus: {status}\nVersion: {text.partition(' ')[0]}\n")
    kernel.put("/var/lib/dpkg/status", "\n".join(paragraphs))


def load(kernel: FakeKernel, loaded: str, library: str) -> None:
    kernel.put(
        "/proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {loaded}  Release"
    )
    folder = "/usr/lib/x86_64-linux-gnu"
    kernel.put(f"{folder}/libnvidia-ml.so.{library}", "")
    os.symlink(f"libnvidia-ml.so.{library}", kernel.at(f"{folder}/libnvidia-ml.so.1"))


def call(kernel: FakeKernel, **params: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "source": "leave",
        "branch": "",
        "modules": "auto",
        "headless": True,
        "change_branch": False,
        "cuda_toolkit": "",
        "cudnn": "",
        "assume_gpus": [],
    }
    return converge({**given, **params}, kernel)


def test_a_bare_machine(machine: FakeKernel) -> None:
    dpkg(machine, linux_image_generic_hwe_24="6.8", linux_image_6="6.8")
    outcome = call(machine, source="distribution", branch="580")
    assert (outcome["state"], outcome["gpus"]) == ("absent", [ADA])
    assert outcome["install"][-1] == "linux-modules-nvidia-580-open-generic-hwe-24"
    assert not machine.writes


def test_a_library_that_was_upgraded_under_a_running_module(machine: FakeKernel) -> None:
    dpkg(
        machine,
        libnvidia_compute_580="580.95.07-0ubuntu1",
        nvidia_utils_580="580.95.07-0ubuntu1 hold",
        nvidia_container_toolkit="1.18.2-1",
    )
    load(machine, "580.95.05", "580.95.07")
    outcome = call(machine)
    assert (outcome["state"], outcome["reboot_required"], outcome["open_modules"]) == ("mismatch", True, True)
    assert outcome["versions"] == {"module": "580.95.05", "library": "580.95.07", "packages": ["580.95.07"]}
    assert outcome["packages"]["held"] == ["nvidia-utils-580"]
    assert list(outcome["packages"]["installed"]) == ["libnvidia-compute-580", "nvidia-utils-580"]


def test_a_module_that_is_there_and_not_loaded(machine: FakeKernel) -> None:
    dpkg(machine, libcuda1="1:580.95.05-1")
    assert call(machine)["state"] == "broken"
    machine.put("/lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko.zst", "")
    assert call(machine)["state"] == "pending"


def test_secure_boot_and_its_keys(machine: FakeKernel) -> None:
    variable = Path(machine.at("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\x06\0\0\0\x01")
    with pytest.raises(RefusedError, match="Secure Boot is on"):
        call(machine, source="nvidia", branch="580")
    machine.put("/var/lib/dkms/mok.pub", "")
    machine.commands["mokutil --test-key /var/lib/dkms/mok.pub"] = Completed(
        1, "/var/lib/dkms/mok.pub is already enrolled", ""
    )
    assert call(machine, source="nvidia", branch="580")["install"] == ["nvidia-open-580"]
    variable.write_bytes(b"\x06\0\0\0\0")
    os.unlink(machine.at("/var/lib/dkms/mok.pub"))
    assert call(machine, source="nvidia", branch="580")["install"]


def test_a_card_that_is_not_in_yet(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    assert call(kernel)["state"] == "no_gpu"
    assert call(kernel, assume_gpus=[BLACKWELL])["state"] == "absent"
