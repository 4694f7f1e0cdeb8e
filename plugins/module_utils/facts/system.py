# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel, the distribution, what kind of machine this is, firmware and Docker: all from files.

Sources: Documentation/ABI/testing/{sysfs-firmware-efi-vars,sysfs-kernel-iommu_groups}, os-release(5),
the container interface of systemd (CONTAINER_INTERFACE), dockerd's daemon.json.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
import re

from ..doors.host import Host
from ..engine.reboots import pending_reboots
from . import owners, smbios
from .reading import Facts

_MODULES = (
    "nvidia",
    "nvidia_uvm",
    "nvidia_modeset",
    "nvidia_drm",
    "nvidia_peermem",
    "nouveau",
    "vfio_pci",
    "kvm_amd",
    "kvm_intel",
    "amd_pstate",
    "intel_rapl_common",
    "msr",
    "zram",
    "tcp_bbr",
    "overlay",
    "br_netfilter",
)
# What settings of ours need and a kernel may lack.
_NEEDED = ("zram", "tcp_bbr", "sch_fq")
_VENDOR_WORDS = (
    ("asustek", "asus"),
    ("asus", "asus"),
    ("micro-star", "msi"),
    ("gigabyte", "gigabyte"),
    ("giga-byte", "gigabyte"),
    ("asrock", "asrock"),
    ("supermicro", "supermicro"),
    ("dell", "dell"),
    ("lenovo", "lenovo"),
    ("hewlett", "hp"),
    ("hp", "hp"),
)
_HYPERVISORS = (
    ("qemu", "qemu"),
    ("kvm", "kvm"),
    ("vmware", "vmware"),
    ("virtualbox", "oracle"),
    ("innotek", "oracle"),
    ("xen", "xen"),
    ("bochs", "bochs"),
    ("parallels", "parallels"),
    ("bhyve", "bhyve"),
    ("amazon ec2", "amazon"),
    ("google compute engine", "google"),
    ("openstack", "kvm"),
    ("microsoft corporation virtual machine", "microsoft"),
    ("apple virtualization", "apple"),
)
_FAMILIES = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "redhat",
    "fedora": "redhat",
    "suse": "suse",
    "arch": "arch",
}
_DOCKERD = ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd")
_CLOCKS = (("kvm-clock", "kvm"), ("hyperv", "microsoft"), ("xen", "xen"))


def kernel(host: Host) -> Facts:
    """The `kernel` section."""
    container = _container(host)
    hypervisor = _hypervisor(host)
    return {
        "release": host.text("/proc/sys/kernel/osrelease"),
        "architecture": platform.machine(),
        "cmdline": host.text("/proc/cmdline"),
        "os": _os(host),
        "modules": [name for name in _MODULES if host.exists(f"/sys/module/{name}")],
        "loadable": _loadable(host),
        "virtualization": container or hypervisor or "none",
        "hypervisor": hypervisor,
        "container": bool(container),
        "systemd": host.is_dir("/run/systemd/system"),
        "python_version": platform.python_version(),
        "boot_id": host.boot_id(),
        "pending_reboots": pending_reboots(host),
        "machine_id": _machine_id(host),
        "root": host.is_root(),
    }


def _machine_id(host: Host) -> str | None:
    """Which installation this is, derived from /etc/machine-id. That one must not leave the machine: machine-id(5)."""
    secret = host.text("/etc/machine-id")
    return hmac.new(secret.encode(), b"ai_infra.workstation", hashlib.sha256).hexdigest()[:32] if secret else None


def _loadable(host: Host) -> list[str]:
    folder = f"/lib/modules/{host.text('/proc/sys/kernel/osrelease')}"
    lists = (host.raw(f"{folder}/modules.builtin") or b"") + (host.raw(f"{folder}/modules.dep") or b"")
    return [name for name in _NEEDED if f"/{name}.ko".encode() in lists or host.exists(f"/sys/module/{name}")]


def _os(host: Host) -> Facts:
    values: dict[str, str] = {}
    for line in (host.text("/etc/os-release") or host.text("/usr/lib/os-release") or "").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value.strip().strip("\"'")
    words = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    return {
        "id": values.get("ID"),
        "version_id": values.get("VERSION_ID"),
        "codename": values.get("VERSION_CODENAME"),
        "name": values.get("PRETTY_NAME") or values.get("NAME"),
        "family": next((family for word, family in _FAMILIES.items() if word in words), values.get("ID")),
    }


def _container(host: Host) -> str:
    """The container manager: systemd's own record first, then what each manager leaves behind."""
    said = host.text("/run/systemd/container") or ""
    environment = (host.raw("/proc/1/environ") or b"").split(b"\0")
    for entry in environment:
        if not said and entry.startswith(b"container="):
            said = entry[10:].decode("ascii", "replace")
    if said:
        return said
    if host.exists("/run/.containerenv"):
        return "podman"
    if host.exists("/.dockerenv"):
        return "docker"
    groups = host.text("/proc/1/cgroup") or ""
    found = re.search(r"/(docker|lxc|kubepods|libpod)[-/]", groups)
    return {"kubepods": "kubernetes", "libpod": "podman"}.get(found.group(1), found.group(1)) if found else ""


def _hypervisor(host: Host) -> str:
    """The hypervisor below this system, empty on real hardware (also told inside a container)."""
    release = (host.text("/proc/sys/kernel/osrelease") or "").lower()
    if "microsoft" in release or "wsl" in release:
        return "wsl"
    declared = host.text("/sys/hypervisor/type") or host.text("/proc/device-tree/hypervisor/compatible") or ""
    if declared:
        return "kvm" if "kvm" in declared else declared.partition(",")[2] or declared
    keys = ("sys_vendor", "product_name", "bios_vendor", "board_vendor")
    vendor = " ".join(text or "" for text in host.many(f"/sys/class/dmi/id/{key}" for key in keys)).lower()
    brand = next((name for word, name in _HYPERVISORS if word in vendor), "")
    clocks = host.text("/sys/devices/system/clocksource/clocksource0/available_clocksource") or ""
    clock = next((name for word, name in _CLOCKS if word in clocks), "")
    head = (host.many(["/proc/cpuinfo"])[0] or "").partition("\n\n")[0]
    below = re.search(r"^flags\s*:.*\bhypervisor\b", head, re.MULTILINE) is not None
    if not below and not clock:
        # A vendor name alone is no proof: cloud machines without a hypervisor carry it as well.
        return brand if brand in {"qemu", "bochs"} else ""
    return clock or brand or "vm"


def firmware(host: Host, table: bytes | None) -> Facts:
    """The `firmware` section."""
    dmi = smbios.summary(table, host.raw(smbios.ENTRY))
    if table is None:
        _fill_from_sysfs(host, dmi)
    # A container hides the whole folder: then nothing is known.
    efi = host.is_dir("/sys/firmware/efi") if host.names("/sys/firmware") else None
    variable = host.raw("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
    return {
        **dmi,
        "efi": efi,
        "secure_boot": _secure_boot(efi, variable),
        "iommu": _iommu(host),
        "menu_vendor": menu_vendor(dmi["board"]["manufacturer"] or dmi["system"]["manufacturer"]),
    }


def _secure_boot(efi: bool | None, variable: bytes | None) -> bool | None:
    """Four bytes of attributes, then the value. Without EFI there is no Secure Boot."""
    if variable and len(variable) > 4:
        return bool(variable[4])
    return False if efi is False else None


def _fill_from_sysfs(host: Host, dmi: Facts) -> None:
    """The tables need root; /sys/class/dmi/id has the most important texts for everyone."""
    names = {
        ("bios", "vendor"): "bios_vendor",
        ("bios", "version"): "bios_version",
        ("bios", "date"): "bios_date",
        ("system", "manufacturer"): "sys_vendor",
        ("system", "product"): "product_name",
        ("board", "manufacturer"): "board_vendor",
        ("board", "product"): "board_name",
    }
    texts = host.many(f"/sys/class/dmi/id/{name}" for name in names.values())
    for (group, key), text in zip(names, texts):
        dmi[group][key] = text or None


def menu_vendor(manufacturer: str | None) -> str:
    """Whose firmware menus to name: asus, msi, gigabyte, asrock ...; empty for an unknown maker."""
    words = (manufacturer or "").lower()
    return next((name for word, name in _VENDOR_WORDS if words.startswith(word)), "")


def _iommu(host: Host) -> Facts:
    groups = host.names("/sys/kernel/iommu_groups")
    types = set(host.many(f"/sys/kernel/iommu_groups/{group}/type" for group in groups))
    return {
        "units": host.names("/sys/class/iommu"),
        "groups": len(groups),
        # identity: no translation; DMA, DMA-FQ: translated (iommu=pt makes it identity).
        "types": sorted(kind for kind in types if kind),
    }


def docker(host: Host) -> Facts:
    """The `docker` section: from files, the daemon is not asked."""
    present = any(host.exists(path) for path in _DOCKERD)
    text = host.text("/etc/docker/daemon.json")
    config, problem = _config(text)
    options = [str(option) for option in _list(config.get("exec-opts"))]
    driver = next((option.partition("=")[2] for option in options if option.startswith("native.cgroupdriver=")), None)
    default = "systemd" if host.exists("/sys/fs/cgroup/cgroup.controllers") else "cgroupfs"
    features = config.get("features") if isinstance(config.get("features"), dict) else {}
    runtimes = config.get("runtimes") if isinstance(config.get("runtimes"), dict) else {}
    versions = _package_versions(host, ("docker-ce", "docker.io", "nvidia-container-toolkit")) if present else {}
    specs = [f"{folder}/{name}" for folder in ("/etc/cdi", "/var/run/cdi") for name in host.names(folder)]
    return {
        "present": present,
        "version": versions.get("docker-ce") or versions.get("docker.io"),
        "active": owners.unit_active(host, "docker.service") or host.exists("/var/run/docker.pid"),
        "config": "/etc/docker/daemon.json" if text is not None else None,
        "config_problem": problem,
        "cgroup_driver": (driver or default) if present else None,
        "runtimes": sorted(runtimes or {}),
        "default_runtime": config.get("default-runtime"),
        "cdi": {"enabled": (features or {}).get("cdi"), "specs": specs},
        "nvidia_container_toolkit": versions.get("nvidia-container-toolkit"),
    }


def _config(text: str | None) -> tuple[Facts, str | None]:
    if not text:
        return {}, None
    try:
        found = json.loads(text)
    except ValueError as error:
        return {}, f"/etc/docker/daemon.json is not JSON: {error}"
    return (found, None) if isinstance(found, dict) else ({}, "/etc/docker/daemon.json is not a JSON object")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _package_versions(host: Host, names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions from dpkg's status file, found by search: it holds thousands of packages."""
    status = b"\n" + (host.raw("/var/lib/dpkg/status") or b"")
    found = {}
    for name in names:
        start = status.find(f"\nPackage: {name}\n".encode())
        paragraph = status[start + 1 : status.find(b"\n\n", start + 1)] if start >= 0 else b""
        version = re.search(rb"^Version: (\S+)", paragraph, re.MULTILINE)
        if version and b"Status: install ok installed" in paragraph:
            found[name] = version.group(1).decode()
    return found
