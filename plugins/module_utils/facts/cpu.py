# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPUs: topology, caches, frequency scaling and idle states.

Sources: Documentation/ABI/testing/sysfs-devices-system-cpu, admin-guide/cputopology.rst,
admin-guide/pm/{cpufreq,intel_pstate,amd-pstate,cpuidle}.rst. Every file is read at most once; what
CPUs share (siblings, L3) is read from one CPU of the group.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..doors.host import Host
from ..values import cpu_list
from .reading import Facts, cpu_numbers, flag, kib, mhz, number, numbered, table

SYS = "/sys/devices/system/cpu"
_ARM_MAKERS = {"0x41": "ARM", "0x48": "HiSilicon", "0x4e": "NVIDIA", "0x51": "Qualcomm", "0xc0": "Ampere"}
_POLICY = (
    "affected_cpus",
    "scaling_governor",
    "energy_performance_preference",
    "scaling_min_freq",
    "scaling_max_freq",
    "cpuinfo_min_freq",
    "cpuinfo_max_freq",
)


def gather(host: Host) -> Facts:
    """The `cpu` section."""
    names = ("online", "present", "offline", "isolated", "smt/control", "smt/active")
    online_text, present_text, offline_text, isolated, smt_control, smt_active = host.many(f"{SYS}/{n}" for n in names)
    online = cpu_numbers(online_text)
    present = cpu_numbers(present_text) or online
    cpufreq = _cpufreq(host)
    details, domains = _cpus(host, present, online, cpufreq)
    return {
        **_identity(host),
        "online": cpu_list(online),
        "present": cpu_list(present),
        # Without the present mask an "offline" CPU may be one that the board could hold, but does not.
        "offline": cpu_list(set(cpu_numbers(offline_text)) & set(present)),
        "isolated": cpu_list(cpu_numbers(isolated)),
        "smt": {
            "control": smt_control,
            "active": flag(smt_active),
            "threads_per_core": max((len(cpu_numbers(cpu["siblings"])) for cpu in details), default=0) or None,
        },
        "cpus": details,
        "l3_domains": domains,
        "cpufreq": cpufreq,
        "idle": _idle(host, online),
    }


def _identity(host: Host) -> Facts:
    # The first CPU's paragraph is enough, and the whole file is 400 KB on 256 CPUs.
    head = host.many(["/proc/cpuinfo"])[0]
    first = table((head or "").split("\n\n")[0])
    flags = set((first.get("flags") or first.get("Features") or "").split())
    return {
        "model": first.get("model name") or None,
        "vendor": first.get("vendor_id") or _ARM_MAKERS.get(first.get("CPU implementer", "")),
        "family": number(first.get("cpu family")),
        "model_number": number(first.get("model")),
        "stepping": number(first.get("stepping")),
        "microcode": first.get("microcode") or None,
        "virtualization": next((name for name in ("svm", "vmx") if name in flags), ""),
        "hypervisor": "hypervisor" in flags,
    }


def _cpus(host: Host, present: Sequence[int], online: Sequence[int], cpufreq: Facts) -> tuple[list[Facts], list[Facts]]:
    files = ("core_id", "physical_package_id", "die_id")
    texts = host.many(f"{SYS}/cpu{cpu}/topology/{name}" for cpu in online for name in files)
    place = {cpu: [number(text) for text in texts[index * 3 : index * 3 + 3]] for index, cpu in enumerate(online)}
    siblings = _groups(host, online, "topology/thread_siblings_list")
    domains = _l3_domains(host, online)
    l3 = {cpu: domain for domain in domains for cpu in cpu_numbers(domain["cpus"])}
    nodes = _nodes(host)
    types = _core_types(host, online)
    top = {cpu: policy["hardware_max_mhz"] for policy in cpufreq["policies"] for cpu in cpu_numbers(policy["cpus"])}
    is_online = set(online)
    details = []
    for cpu in present:
        core, package, die = place.get(cpu, (None, None, None))
        domain = l3.get(cpu, {})
        details.append(
            {
                "cpu": cpu,
                "core": core,
                "package": package,
                "die": die,
                "l3": domain.get("cpus"),
                "l3_size_bytes": domain.get("size_bytes"),
                "node": nodes.get(cpu),
                "siblings": siblings.get(cpu, str(cpu) if cpu in is_online else ""),
                "core_type": types.get(cpu, ""),
                "online": cpu in is_online,
                "max_mhz": top.get(cpu),
            }
        )
    return details, domains


def _groups(host: Host, online: Sequence[int], name: str) -> dict[int, str]:
    """A list that all its members share, read from the first member."""
    found: dict[int, str] = {}
    for cpu in online:
        if cpu not in found:
            text = host.many([f"{SYS}/cpu{cpu}/{name}"])[0]
            members = cpu_numbers(text)
            if cpu in members:
                found.update(dict.fromkeys(members, cpu_list(members)))
    return found


def _l3_domains(host: Host, online: Sequence[int]) -> list[Facts]:
    """CPUs that share a level 3 cache. The index that holds level 3 differs between processors."""
    covered: set[int] = set()
    domains: list[Facts] = []
    index = "index3"
    for cpu in online:
        if cpu in covered:
            continue
        cache = f"{SYS}/cpu{cpu}/cache"
        if host.many([f"{cache}/{index}/level"])[0] != "3":
            entries = [name for name in host.names(cache) if name.startswith("index")]
            levels = host.many(f"{cache}/{name}/level" for name in entries)
            third = [name for name, level in zip(entries, levels) if level == "3"]
            if not third:
                continue
            index = third[0]
        shared, size = host.many((f"{cache}/{index}/shared_cpu_list", f"{cache}/{index}/size"))
        members = cpu_numbers(shared) or (cpu,)
        covered.update(members)
        domains.append({"cpus": cpu_list(members), "size_bytes": kib(size)})
    return domains


def _nodes(host: Host) -> dict[int, int]:
    folder = "/sys/devices/system/node"
    nodes = numbered(host.names(folder), "node")
    lists = host.many(f"{folder}/node{node}/cpulist" for node in nodes)
    return {cpu: node for node, text in zip(nodes, lists) for cpu in cpu_numbers(text)}


def _core_types(host: Host, online: Sequence[int]) -> dict[int, str]:
    """Performance and efficiency cores: Intel names them as two PMUs, ARM by relative capacity."""
    big, small = host.many(("/sys/devices/cpu_core/cpus", "/sys/devices/cpu_atom/cpus"))
    if big or small:
        return {
            **dict.fromkeys(cpu_numbers(big), "performance"),
            **dict.fromkeys(cpu_numbers(small), "efficiency"),
        }
    if not online or not host.exists(f"{SYS}/cpu{online[0]}/cpu_capacity"):
        return {}
    capacity = [number(text) for text in host.many(f"{SYS}/cpu{cpu}/cpu_capacity" for cpu in online)]
    known = [value for value in capacity if value is not None]
    if not known or min(known) == max(known):
        return {}
    return {
        cpu: "performance" if value == max(known) else "efficiency"
        for cpu, value in zip(online, capacity)
        if value is not None
    }


def _cpufreq(host: Host) -> Facts:
    folder = f"{SYS}/cpufreq"
    numbers = numbered(host.names(folder), "policy")
    if not numbers:
        return {"driver": None, "policies": []}
    # One driver serves all policies, so what it offers is read from the first.
    first = f"{folder}/policy{numbers[0]}"
    driver, governors, epps, own_boost, boost, no_turbo = host.many(
        (
            f"{first}/scaling_driver",
            f"{first}/scaling_available_governors",
            f"{first}/energy_performance_available_preferences",
            f"{first}/boost",
            f"{folder}/boost",
            f"{SYS}/intel_pstate/no_turbo",
        )
    )
    files = _POLICY if own_boost is None else (*_POLICY, "boost")
    texts = host.many(f"{folder}/policy{number}/{name}" for number in numbers for name in files)
    turbo_off = flag(no_turbo)
    common_boost = flag(boost) if turbo_off is None else not turbo_off
    policies = []
    for index, policy in enumerate(numbers):
        row = texts[index * len(files) : (index + 1) * len(files)]
        policies.append(
            {
                "policy": policy,
                "cpus": cpu_list(cpu_numbers(",".join((row[0] or "").split()))),
                "governor": row[1],
                "governors": (governors or "").split(),
                "epp": row[2],
                "epps": (epps or "").split(),
                "min_mhz": mhz(row[3]),
                "max_mhz": mhz(row[4]),
                "hardware_min_mhz": mhz(row[5]),
                "hardware_max_mhz": mhz(row[6]),
                "boost": common_boost if own_boost is None else flag(row[7]),
            }
        )
    return {"driver": driver, "policies": policies}


def _idle(host: Host, online: Sequence[int]) -> Facts:
    """Idle states as the first CPU lists them; `disabled` where no online CPU may enter the state."""
    driver, governor = host.many((f"{SYS}/cpuidle/current_driver", f"{SYS}/cpuidle/current_governor"))
    facts: Facts = {"driver": None if driver == "none" else driver, "governor": governor, "states": []}
    if not online:
        return facts
    first = f"{SYS}/cpu{online[0]}/cpuidle"
    states = numbered(host.names(first), "state")
    switches = host.many(f"{SYS}/cpu{cpu}/cpuidle/state{state}/disable" for state in states for cpu in online)
    for index, state in enumerate(states):
        name, latency = host.many((f"{first}/state{state}/name", f"{first}/state{state}/latency"))
        row = switches[index * len(online) : (index + 1) * len(online)]
        # The file shows a bit mask: 1 by the user, 2 by the driver.
        off = [cpu for cpu, text in zip(online, row) if text not in (None, "0")]
        facts["states"].append(
            {
                "name": name,
                "latency_us": number(latency),
                "disabled": len(off) == len(online),
                "disabled_cpus": cpu_list(off),
            }
        )
    return facts
