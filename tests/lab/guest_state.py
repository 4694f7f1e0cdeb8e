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
                elif path.is_file():
                    what += f" {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
                found[f"file {path}"] = what
    return found


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
