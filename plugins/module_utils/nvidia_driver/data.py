# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cards, CUDA releases and packages need of a driver. Data, with its sources.

- Generations by PCI device id: the list of chips in the README of NVIDIA/open-gpu-kernel-modules and pci.ids.
- First driver of a generation: CUDA release notes, table "CUDA Toolkit and Corresponding Driver Versions", for the CUDA
  release that first knows the generation (10.0 Turing, 11.0 GA100, 11.1 GA10x, 11.8 Ada and Hopper). Blackwell:
  10de:2b85 first stands in the README of tag 570.86.16, and not in those of 570.86.15 and 565.77.
- Open kernel modules: NVIDIA driver installation guide, "Kernel Modules": Turing and newer; Blackwell needs them (same
  README). They are the suggested flavour from 560 on.
- Packages: the same guide, "Install a specific branch"; packages.ubuntu.com; packages.debian.org.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """first, last: PCI device ids, inclusive. driver: the first that knows it. open: never, possible or only."""

    name: str
    first: int
    last: int
    driver: str
    open: str


GENERATIONS = (
    Generation("Maxwell", 0x1340, 0x15EF, "346.46", "never"),
    Generation("Pascal", 0x15F0, 0x15FF, "367.48", "never"),
    Generation("Maxwell", 0x1600, 0x17FF, "346.46", "never"),
    Generation("Pascal", 0x1B00, 0x1D7F, "367.48", "never"),
    Generation("Volta", 0x1D80, 0x1DFF, "384.81", "never"),
    Generation("Turing", 0x1E00, 0x1FFF, "410.48", "possible"),
    Generation("Ampere", 0x2080, 0x20FF, "450.51.05", "possible"),
    Generation("Turing", 0x2180, 0x21FF, "410.48", "possible"),
    Generation("Ampere", 0x2200, 0x22FF, "455.23", "possible"),
    Generation("Hopper", 0x2300, 0x23FF, "520.61.05", "possible"),
    Generation("Ampere", 0x2400, 0x25FF, "455.23", "possible"),
    Generation("Ada", 0x2680, 0x28FF, "520.61.05", "possible"),
    Generation("Blackwell", 0x2900, 0x3FFF, "570.86.16", "only"),
)

# CUDA toolkit -> the driver it came with. Any driver that is new enough for the first release of the same major version
# runs its programs too, without what is new in the driver ("minor version compatibility" in the same notes).
CUDA = {
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595.45.04",
}
# cuDNN major version -> the CUDA major versions that it is packaged for (cuDNN support matrix).
CUDNN = {"9": ("12", "13")}

# What belongs to a driver, as regular expressions on package names. The container toolkit does not.
DRIVER_PACKAGES = (
    r"nvidia-(?!container|cuda-|cudnn|settings|modprobe|installer|alternative|legacy-check|support|persistenced).*",
    r"libnvidia-(?!container).*",
    r"libcuda1",
    r"linux-modules-nvidia-.*",
    r"cuda-drivers.*",
    r"xserver-xorg-video-nvidia.*",
    r"firmware-nvidia-gsp.*",
)
# Of these, the ones whose version is the driver's. The first that is installed speaks for all.
VERSIONED = (
    r"libnvidia-compute-?.*",
    r"libcuda1",
    r"libnvidia-ml1",
    r"nvidia-driver(-\d+.*)?",
    r"nvidia-(open-)?kernel-(open-)?dkms",
    r"nvidia-dkms-.*",
    r"nvidia-utils-\d+.*",
)
# In the same order of thought, for apt_preferences(5), which has globs and no look-ahead. The container toolkit's
# versions (1.x) are no driver's, so that the pin leaves them alone.
PINNED = (
    "nvidia-* libnvidia-* libcuda1 linux-modules-nvidia-* cuda-drivers* xserver-xorg-video-nvidia* firmware-nvidia-gsp"
)


def generation(device_id: str) -> Generation | None:
    """By PCI id, as 10de:2b85; None for one that is not in the table."""
    try:
        number = int(device_id.rpartition(":")[2], 16)
    except ValueError:
        return None
    return next((one for one in GENERATIONS if one.first <= number <= one.last), None)


def packages(source: str, system: str, branch: str, is_open: bool, headless: bool, kernel: str) -> list[str]:
    """What to install. system: ubuntu or debian. kernel: the kernel's metapackage flavour, as generic-hwe-24.04."""
    flavour = "-open" if is_open else ""
    if source == "nvidia":
        # One metapackage for library and module; from 590 on the branch is chosen by the pin alone.
        name = "nvidia-open" if is_open else "cuda-drivers"
        return [name if int(branch) >= 590 else f"{name}-{branch}"]
    if system == "ubuntu":
        part = f"nvidia-headless-no-dkms-{branch}{flavour}" if headless else f"nvidia-driver-{branch}{flavour}"
        return [part, f"nvidia-utils-{branch}", f"linux-modules-nvidia-{branch}{flavour}-{kernel}"]
    module = "nvidia-open-kernel-dkms" if is_open else "nvidia-kernel-dkms"
    libraries = ["libcuda1", "nvidia-smi"] if headless else ["nvidia-driver", "nvidia-smi"]
    return [module, *libraries, "firmware-nvidia-gsp", f"linux-headers-{kernel}"]


def is_signed(source: str, system: str) -> bool:
    """Whether the module comes signed for Secure Boot. Canonical signs linux-modules-nvidia; DKMS builds are not."""
    return source == "distribution" and system == "ubuntu"
