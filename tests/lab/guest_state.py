# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs inside a machine of the lab: prints its whole state as one JSON object, key by key.

Read from the kernel, the files, systemd and the driver alone, with no code of the product.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

# Every file below /sys and /proc that a knob of ours is, or moves.
KNOBS = (
    "/proc/cmdline",
    "/proc/irq/default_smp_affinity",
    "/proc/irq/*/smp_affinity",
    "/sys/block/*/queue/*",
    "/sys/block/zram*/*",
    "/sys/bus/pci/devices/*/power/control",
    "/sys/class/net/*/queues/*/*ps_cpus",
    "/sys/class/net/*/tx_queue_len",
    "/sys/devices/system/cpu/cpu*/cpuidle/state*/disable",
    "/sys/devices/system/cpu/cpu*/online",
    "/sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq",
    "/sys/devices/system/cpu/isolated",
    "/sys/devices/system/cpu/nohz_full",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/smt/control",
    "/sys/devices/system/node/node*/hugepages/*/nr_hugepages",
    "/sys/fs/cgroup/*.slice/cpu.weight",
    "/sys/fs/cgroup/*.slice/cpuset.cpus*",
    "/sys/fs/cgroup/*.slice/io.weight",
    "/sys/fs/cgroup/*.slice/memory.high",
    "/sys/fs/cgroup/*.slice/memory.max",
    "/sys/kernel/mm/hugepages/*/nr_*hugepages",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/ksm/*sleep*",
    "/sys/kernel/mm/lru_gen/*",
    "/sys/kernel/mm/transparent_hugepage/*",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/*",
    "/sys/module/*/parameters/*",
)
TREES = ("/etc", "/boot")
UNIT_TYPES = "service,socket,timer,mount,swap,slice,path,target"


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace").strip()
    except OSError as error:
        return f"<{error.strerror}>"


def kernel() -> dict:
    found = {}
    for folder, _folders, names in os.walk("/proc/sys"):
        for name in names:
            path = Path(folder, name)
            if path.stat().st_mode & 0o444:
                found[f"sysctl {path.relative_to('/proc/sys')}"] = text(path)
    for pattern in KNOBS:
        for path in Path("/").glob(pattern.lstrip("/")):
            if path.is_file() and path.stat().st_mode & 0o444:
                found[str(path)] = text(path)
    for line in text(Path("/proc/modules")).splitlines():
        found[f"module {line.split()[0]}"] = "loaded"
    for line in text(Path("/proc/swaps")).splitlines()[1:]:
        fields = line.split()
        found[f"swap {fields[0]}"] = " ".join([fields[1], fields[2], fields[4]])
    for line in text(Path("/proc/self/mounts")).splitlines():
        fields = line.split()
        found[f"mount {fields[1]}"] = " ".join([*fields[:1], *fields[2:4]])
    return found


def files() -> dict:
    found = {}
    for tree in TREES:
        for folder, folders, names in os.walk(tree):
            for name in [*folders, *names]:
                path = Path(folder, name)
                status = path.lstat()
                what = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
                if path.is_symlink():
                    what += f" -> {path.readlink()}"
                elif name.startswith("initrd.img"):
                    what += f" {initial_files(path)}"
                elif path.is_file():
                    what += f" {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
                found[f"file {path}"] = what
    return found


def initial_files(image: Path) -> str:
    """A hash of what an initial file system holds: names, modes and contents. Times and the order are new in each."""
    unpacked = subprocess.run(["lz4", "-dc", image], capture_output=True, check=True).stdout
    found, at = [], 0
    while unpacked[at : at + 6] == b"070701":  # cpio(5), the format newc: 13 numbers of eight hexadecimal digits
        numbers = [int(unpacked[at + 6 + 8 * index :][:8], 16) for index in range(13)]
        mode, uid, gid, size, name_size = numbers[1], numbers[2], numbers[3], numbers[6], numbers[11]
        start = at + 110
        name = unpacked[start : start + name_size - 1]
        content = (start + name_size + 3) // 4 * 4
        at = (content + size + 3) // 4 * 4
        check = zlib.crc32(unpacked[content : content + size])  # ten times quicker here than a digest
        found.append(f"{name!r} {mode} {uid}:{gid} {size} {check:08x}")
    assert len(found) > 100, f"{image}: {len(found)} files"
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def systemctl(*arguments: str) -> list:
    command = ["systemctl", "--no-legend", "--no-pager", "--plain", "--full", f"--type={UNIT_TYPES}", *arguments]
    patient = {**os.environ, "SYSTEMD_BUS_TIMEOUT": "120"}  # emulated processors are slow
    return subprocess.run(command, capture_output=True, text=True, check=True, env=patient).stdout.splitlines()


def units() -> dict:
    found = {f"enabled {line.split()[0]}": line.split()[1] for line in systemctl("list-unit-files")}
    for line in systemctl("list-units", "--all"):
        name, load, active, *_rest = line.split()
        found[f"unit {name}"] = f"{load} {active}"
    return found


def gpus() -> dict:
    sys.path.append("/opt/nvidia-stand-in")
    import pynvml  # noqa: PLC0415 lies in the folder above, in the machine alone

    def ask(function: str, *arguments: object) -> str:
        try:
            return repr(getattr(pynvml, function)(*arguments))
        except pynvml.NVMLError as error:
            return f"<{error}>"

    found = {}
    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        for name in ("PersistenceMode", "EnforcedPowerLimit", "PowerManagementLimit", "ComputeMode", "EccMode"):
            found[f"gpu{index} {name}"] = ask(f"nvmlDeviceGet{name}", gpu)
        for name, clock in (("graphics", pynvml.NVML_CLOCK_GRAPHICS), ("memory", pynvml.NVML_CLOCK_MEM)):
            found[f"gpu{index} {name} clock"] = ask("nvmlDeviceGetClockInfo", gpu, clock)
            found[f"gpu{index} {name} application clock"] = ask("nvmlDeviceGetApplicationsClock", gpu, clock)
    pynvml.nvmlShutdown()
    return found


print(json.dumps({**kernel(), **files(), **units(), **gpus()}))  # noqa: T201 its result
