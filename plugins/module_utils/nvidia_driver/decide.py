# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The decision: what is there, what is wanted, what may be done. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError
from ..values import version
from .data import CUDA, CUDNN, generation, is_signed, packages


@dataclass(frozen=True)
class Seen:
    """What the machine has. Versions are empty where there is none; secure_boot is None where nobody can say.

    module: the driver whose module is loaded. library: the user-space library's. packaged: what dpkg says of it.
    on_disk: whether the running kernel has a module to load. mok: whether the key of local builds is enrolled.
    """

    gpus: tuple[str, ...] = ()
    system: str = "ubuntu"
    kernel: str = "generic"
    release: str = ""
    module: str = ""
    is_open: bool | None = None
    library: str = ""
    packaged: tuple[str, ...] = ()
    on_disk: bool = False
    nouveau: bool = False
    secure_boot: bool | None = None
    mok: bool = False


@dataclass(frozen=True)
class Wish:
    """source: leave, distribution or nvidia. branch: as 580. modules: auto, open or proprietary."""

    source: str = "leave"
    branch: str = ""
    modules: str = "auto"
    headless: bool = True
    change_branch: bool = False
    cuda: str = ""
    cudnn: str = ""


@dataclass
class Decision:
    """state: no_gpu, absent, foreign, mixed, mismatch, working, pending or broken. install: packages to install now."""

    state: str
    branch: str = ""
    is_open: bool | None = None
    install: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reboot_reasons: list[str] = field(default_factory=list)
    reason: str = ""


def state(seen: Seen) -> str:
    """The state of the driver, by what is really there: apt is not asked what it thinks."""
    if not seen.gpus:
        return "no_gpu"
    if not seen.packaged:
        return "foreign" if seen.module or seen.library else "absent"
    if len({branch_of(text) for text in seen.packaged}) > 1:
        return "mixed"
    if seen.module and seen.library and seen.module != seen.library:
        return "mismatch"
    if seen.module:
        return "working"
    return "pending" if seen.on_disk else "broken"


def branch_of(text: str) -> str:
    """580 of 580.95.05-1."""
    return str(version(text)[0]) if version(text) else ""


def decide(wish: Wish, seen: Seen) -> Decision:
    """What to do. Nothing is installed beside a refusal."""
    _check_input(wish)
    found = Decision(state(seen))
    found.branch = branch_of(seen.packaged[0] if seen.packaged else seen.module or seen.library)
    found.is_open = seen.is_open
    found.reboot_reasons += _reboots(seen, found.state)
    if found.state == "no_gpu":
        found.reason = "no NVIDIA GPU"
        return found
    if wish.source == "leave":
        found.reason = "left alone"
        found.warnings += _unfit(seen, seen.module or seen.library, seen.is_open) if seen.module or seen.library else []
    else:
        _decide_packages(wish, seen, found)
    _check_cuda(wish, seen, found)
    if found.refusals:
        found.install = []
    return found


def _check_input(wish: Wish) -> None:
    if wish.source != "leave" and not wish.branch.isdigit():
        raise InputError(
            f"branch: '{wish.branch}' must be a driver branch such as 580, needed with source={wish.source}"
        )
    if wish.cuda and wish.cuda not in CUDA:
        raise InputError(f"cuda_toolkit: '{wish.cuda}' is not known; choices: {', '.join(CUDA)}")
    if wish.cudnn and wish.cudnn not in CUDNN:
        raise InputError(f"cudnn: '{wish.cudnn}' is not known; choices: {', '.join(CUDNN)}")
    if wish.cudnn and (not wish.cuda or wish.cuda.partition(".")[0] not in CUDNN[wish.cudnn]):
        majors = " or ".join(CUDNN[wish.cudnn])
        raise InputError(f"cudnn: {wish.cudnn} needs cuda_toolkit {majors}, found '{wish.cuda}'")


def _decide_packages(wish: Wish, seen: Seen, found: Decision) -> None:
    if found.state == "foreign":
        found.refusals.append(
            f"the driver {seen.module or seen.library} belongs to no package (NVIDIA's .run installer?): remove it "
            "with nvidia-uninstall and reboot, or set source to leave"
        )
    elif found.state == "mixed":
        found.refusals.append(
            f"packages of several drivers are installed ({', '.join(seen.packaged)}): remove those of one branch first"
        )
    elif found.state != "absent" and found.branch == wish.branch:
        found.reason = "installed"  # a rerun never upgrades
        if found.state == "broken":
            found.refusals.append(
                f"the packages of {found.branch} are installed, and the kernel {seen.release} has no module of them: "
                "install its headers (linux-headers-" + seen.release + "), run dkms autoinstall, read dkms status"
            )
        found.warnings += _unfit(seen, seen.packaged[0], seen.is_open)
    elif found.state != "absent" and not wish.change_branch:
        found.refusals.append(
            f"branch {found.branch} is installed and {wish.branch} is wanted; a driver is only exchanged when "
            "change_branch says so, and the machine needs a reboot then"
        )
    else:
        _install(wish, seen, found)


def _install(wish: Wish, seen: Seen, found: Decision) -> None:
    never = [gpu for gpu in seen.gpus if _open(gpu) == "never"]
    only = [gpu for gpu in seen.gpus if _open(gpu) == "only"]
    is_open = wish.modules == "open" or (wish.modules == "auto" and not never)
    if never and only:
        found.refusals.append(f"no driver serves both {never[0]} (no open modules) and {only[0]} (open modules only)")
    # Any release of the branch is as new as its number says: 570.999 stands for the newest of it.
    found.refusals += _unfit(seen, f"{wish.branch}.999", is_open)
    if seen.secure_boot and not is_signed(wish.source, seen.system) and not seen.mok:
        found.refusals.append(
            "Secure Boot is on and the module would be built here, unsigned for it: the kernel would not load it. Turn "
            "Secure Boot off in the firmware; or enroll a key (mokutil --import /var/lib/dkms/mok.pub, set a password, "
            "reboot, confirm on the screen) and run this again"
            + ("; or set source to distribution, whose modules are signed" if seen.system == "ubuntu" else "")
        )
    found.branch, found.is_open = wish.branch, is_open
    found.install = packages(wish.source, seen.system, wish.branch, is_open, wish.headless, seen.kernel)
    found.reason = "not installed" if found.state == "absent" else f"change to branch {wish.branch}"


def _unfit(seen: Seen, driver: str, is_open: bool | None) -> list[str]:
    """What speaks against a driver for the cards of this machine."""
    said = []
    for gpu in sorted(set(seen.gpus)):
        known = generation(gpu)
        if known is None:
            continue
        if version(driver) < version(known.driver):
            said.append(
                f"{gpu} ({known.name}) needs driver {known.driver} or newer, {driver.replace('.999', '')} is older"
            )
        if known.open == "only" and is_open is False:
            said.append(f"{gpu} ({known.name}) works with the open kernel modules only; set modules to open or auto")
        if known.open == "never" and is_open:
            said.append(f"{gpu} ({known.name}) does not work with the open kernel modules; set modules to proprietary")
    return said


def _open(gpu: str) -> str:
    known = generation(gpu)
    return known.open if known else "possible"


def _reboots(seen: Seen, found: str) -> list[str]:
    if found == "mismatch":
        said = f"the NVIDIA library is {seen.library}, the loaded kernel module {seen.module}"
        return [f"{said}: every call to the driver fails until the machine has rebooted"]
    if found == "pending":
        blocker = ", nouveau has the card" if seen.nouveau else ""
        return [f"the NVIDIA driver {seen.packaged[0]} is installed and its kernel module not loaded{blocker}"]
    return []


def _check_cuda(wish: Wish, seen: Seen, found: Decision) -> None:
    """A toolkit needs the first driver of its major version, and the one of its own release for all of it."""
    if not wish.cuda:
        return
    driver = f"{wish.branch}.999" if found.install else seen.module or seen.library
    first = CUDA[f"{wish.cuda.partition('.')[0]}.0"]
    shown = driver.replace(".999", "") or "no driver"
    if version(driver) < version(first):
        found.refusals.append(f"CUDA toolkit {wish.cuda} needs driver {first} or newer, this machine has {shown}")
    elif version(driver) < version(CUDA[wish.cuda]):
        found.warnings.append(
            f"CUDA toolkit {wish.cuda} came with driver {CUDA[wish.cuda]}, this machine has {shown}: what needs the "
            "newer driver fails when it is called"
        )
