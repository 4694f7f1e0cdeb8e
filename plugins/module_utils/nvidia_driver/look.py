# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the machine has of an NVIDIA driver, from the kernel, the libraries and dpkg."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..doors.host import Host
from .data import DRIVER_PACKAGES, VERSIONED
from .decide import Seen

_VERSION = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Where DKMS of Debian and Ubuntu keep the key that they sign local builds with.
_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
# Where the module is: built by DKMS, by Ubuntu's signed packages, by others.
_MODULES = (
    "updates/dkms/nvidia*.ko*",
    "kernel/nvidia-*/nvidia.ko*",
    "kernel/drivers/video/nvidia.ko*",
    "extra/nvidia.ko*",
)


def look(host: Host, assumed: Iterable[str]) -> tuple[Seen, dict[str, Any]]:
    """What decide() needs, and the driver's packages {installed: {name: version}, held: [name]}.

    assumed: PCI ids of cards that are not in the machine yet.
    """
    release = host.text("/proc/sys/kernel/osrelease") or ""
    text = host.text("/proc/driver/nvidia/version") or ""
    loaded = _VERSION.search(text.partition("\n")[0])
    found = _packages(host)
    drivers = {name: version for name, (version, _held) in found.items() if _matches(name, DRIVER_PACKAGES)}
    secure_boot = _secure_boot(host)
    seen = Seen(
        gpus=(*_cards(host), *assumed),
        system="ubuntu" if re.search(r"^ID=\W?ubuntu", host.text("/etc/os-release") or "", re.MULTILINE) else "debian",
        kernel=_flavour(found, release),
        release=release,
        module=loaded.group(1) if loaded else host.text("/sys/module/nvidia/version") or "",
        is_open="Open Kernel Module" in text if text else None,
        library=_library(host),
        packaged=tuple(sorted({_plain(version) for name, version in drivers.items() if _matches(name, VERSIONED)})),
        on_disk=any(host.glob(f"/lib/modules/{release}/{pattern}") for pattern in _MODULES),
        nouveau=host.exists("/sys/module/nouveau"),
        secure_boot=secure_boot,
        mok=bool(secure_boot) and _enrolled(host),
    )
    held = sorted(name for name in drivers if found[name][1])
    return seen, {"installed": dict(sorted(drivers.items())), "held": held}


def _cards(host: Host) -> list[str]:
    """PCI ids of NVIDIA displays (class 03)."""
    found = []
    for folder in host.glob("/sys/bus/pci/devices/*"):
        vendor, kind, device = host.many([f"{folder}/{name}" for name in ("vendor", "class", "device")])
        if vendor == "0x10de" and (kind or "").startswith("0x03"):
            found.append(f"10de:{(device or '')[2:]}")
    return found


def _packages(host: Host) -> dict[str, tuple[str, bool]]:
    """Installed packages that matter here: name -> (version, held)."""
    found = {}
    for paragraph in (host.raw("/var/lib/dpkg/status") or b"").split(b"\n\n"):
        name = re.search(rb"^Package: (\S*(?:nvidia|cuda|linux-image)\S*)", paragraph, re.MULTILINE)
        status = re.search(rb"^Status: (\w+) ok installed", paragraph, re.MULTILINE)
        version = re.search(rb"^Version: (\S+)", paragraph, re.MULTILINE)
        if name and status and version:
            found[name.group(1).decode()] = (version.group(1).decode(), status.group(1) == b"hold")
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _plain(version: str) -> str:
    """580.95.05 of 1:580.95.05-1."""
    found = _VERSION.search(version)
    return found.group(1) if found else version


def _flavour(packages: Iterable[str], release: str) -> str:
    """The kernel's metapackage without linux-image-: generic-hwe-24.04, amd64. Modules follow the same one."""
    flavour = release.rpartition("-")[2]
    names = [name[len("linux-image-") :] for name in packages if name.startswith("linux-image-")]
    metas = sorted((name for name in names if not name[:1].isdigit() and name.startswith(flavour)), key=len)
    return metas[-1] if metas else flavour


def _library(host: Host) -> str:
    """The version of the library that programs get, from the name that its link ends at."""
    for link in host.glob("/usr/lib/*/libnvidia-ml.so.1"):
        found = _VERSION.search(host.resolve(link).rpartition("/")[2])
        if found:
            return found.group(1)
    return ""


def _secure_boot(host: Host) -> bool | None:
    """Four bytes of attributes, then the value; None where the firmware's variables are hidden."""
    value = host.raw(_SECURE_BOOT)
    if value and len(value) > 4:
        return bool(value[4])
    return False if host.names("/sys/firmware") and not host.is_dir("/sys/firmware/efi") else None


def _enrolled(host: Host) -> bool:
    return any(
        "is already enrolled" in host.run(["mokutil", "--test-key", key]).out for key in _KEYS if host.exists(key)
    )
