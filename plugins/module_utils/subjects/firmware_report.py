# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Linux can prove of the firmware's settings: rules from facts to findings. Pure, changes nothing.

A finding is pass, fail or unknown. Unknown is an answer as good as the others: an idle link may be
slow, and no program in a virtual machine sees the board.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Callable

from ..errors import InputError, RefusedError
from ..values import integer, print_size
from .firmware_menus import menu

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
NAME = "firmware_report"
# A card that is this busy at some moment runs its link at full speed.
BUSY_PERCENT = 10
MAX_SAMPLE_SECONDS = 600
SECTIONS = ("cpu", "memory", "gpus", "pci", "firmware", "kernel")
# Each way, after 8b/10b or 128b/130b coding, GB/s for one lane.
_LANE_GB = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
_FOUR_GIB = 1 << 32
_NO_RESIZE = {"kepler", "maxwell", "pascal", "volta", "turing"}
# Speed in a part number, by maker: G.Skill F5-6000J..., Corsair CMK64GX5M2B6000..., Kingston KF560C...
_PART_SPEEDS = (
    (re.compile(r"^F[45]-(\d{4})"), 1),
    (re.compile(r"^CM\w+?[XM]\d[A-Z](\d{4})"), 1),
    (re.compile(r"^KF[45](\d\d)C"), 100),
)


@dataclass(frozen=True)
class Wish:
    """What the caller expects; None or "any" leaves an item to its own rule."""

    pcie_generation: int | None = None
    pcie_width: int | None = None
    memory_mts: int | None = None
    cores: int | None = None
    c_states: str = "enabled"
    smt: str = "any"
    virtualization: str = "any"
    iommu: str = "any"
    secure_boot: str = "any"


@dataclass(frozen=True)
class Verdict:
    result: str
    evidence: str
    why: str
    advice: str = ""


@dataclass(frozen=True)
class Finding:
    """One line of the report. `check` is the number of the item in docs/settings.md; `device` a PCI address."""

    id: str
    check: str
    item: str
    device: str
    result: str
    evidence: str
    why: str
    advice: str
    menu: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Facts = Mapping[str, Any]
MachineRule = Callable[[Facts, Wish], Verdict]
CardRule = Callable[[Facts, Facts, Wish], Verdict]


def run(
    params: Mapping[str, Any], gather: Callable[[], Facts], sample: Callable[[Facts, int], Mapping[str, Facts]]
) -> dict[str, Any]:
    """The module's result. `sample` takes facts and seconds, and returns what link_samples.sample() does.

    Raises InputError for unknown items, RefusedError when an item of `fail_on` fails.
    """
    ignore, fail_on = names("ignore", params["ignore"]), names("fail_on", params["fail_on"])
    wish = Wish(**{name: params[f"expect_{name}"] for name in Wish.__dataclass_fields__})
    if wish.memory_mts is not None:
        integer("expect_memory_mts", wish.memory_mts, 1, 100000, "MT/s")
    if wish.cores is not None:
        integer("expect_cores", wish.cores, 1, 8192, "cores")
    seconds = integer("sample_seconds", params["sample_seconds"], 0, MAX_SAMPLE_SECONDS, "seconds")
    facts = gather()
    if seconds and facts["gpus"] and not _hidden(facts):
        samples = sample(facts, seconds)
        facts = {**facts, "gpus": [{**gpu, "samples": samples.get(gpu["pci_address"])} for gpu in facts["gpus"]]}
    findings = report(facts, wish, ignore)
    outcome = {
        "findings": [finding.to_json() for finding in findings],
        "summary": summary(findings),
        "machine": _machine(facts),
    }
    failed = failing(findings, fail_on)
    if failed:
        words = "; ".join(f"{finding.item}: {finding.why}" for finding in failed)
        raise RefusedError(f"fail_on: {words}. Change it in the firmware menus, see findings", **outcome)
    return outcome


def _machine(facts: Facts) -> dict[str, Any]:
    """Which machine this is and which boot of it, for a ticket."""
    firmware, kernel = facts["firmware"], facts["kernel"]
    return {
        "board": {name: firmware["board"][name] for name in ("manufacturer", "product")},
        "system": {name: firmware["system"][name] for name in ("manufacturer", "product")},
        "bios": dict(firmware["bios"]),
        "menu_vendor": firmware["menu_vendor"],
        "boot_id": kernel["boot_id"],
        "machine_id": kernel["machine_id"],
    }


def report(facts: Facts, wish: Wish, ignore: Iterable[str] = ()) -> list[Finding]:
    """All findings in the order of the rules, without the ignored ones."""
    hidden = set(ignore)
    found: list[Finding] = []
    for name, (check, item, _rule) in {**CARD_RULES, **MACHINE_RULES}.items():
        if not hidden & {name, check}:
            found.extend(_findings(name, check, item, facts, wish))
    return found


def names(parameter: str, asked: Sequence[str]) -> list[str]:
    """Check identifiers that a user wrote: ours, or the numbers of the items."""
    rules = {**CARD_RULES, **MACHINE_RULES}
    known = {*rules, *(check for check, _item, _rule in rules.values())}
    for name in asked:
        if name not in known:
            raise InputError(f"{parameter}: {name!r} is not one of {', '.join(rules)}")
    return list(asked)


def failing(findings: Iterable[Finding], fail_on: Iterable[str]) -> list[Finding]:
    """The failed findings that the caller does not accept."""
    strict = set(fail_on)
    return [finding for finding in findings if finding.result == FAIL and strict & {finding.id, finding.check}]


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    return {result: sum(finding.result == result for finding in findings) for result in (PASS, FAIL, UNKNOWN)}


def _findings(name: str, check: str, item: str, facts: Facts, wish: Wish) -> Iterator[Finding]:
    hidden = _hidden(facts)
    cards = [
        (gpu, device) for gpu in facts["gpus"] for device in facts["pci"] if device["address"] == gpu["pci_address"]
    ]
    verdicts: list[tuple[str, Verdict]]
    if hidden:
        verdicts = [("", Verdict(UNKNOWN, hidden[0], hidden[1]))]
    elif name in MACHINE_RULES:
        verdicts = [("", MACHINE_RULES[name][2](facts, wish))]
    elif cards:
        rule = CARD_RULES[name][2]
        verdicts = [(device["address"], rule(gpu, device, wish)) for gpu, device in cards]
    else:
        verdicts = [
            ("", Verdict(UNKNOWN, "/sys/bus/pci/devices: no NVIDIA display", "no NVIDIA GPU is on the PCI bus"))
        ]
    vendor = facts["firmware"]["menu_vendor"]
    for device, verdict in verdicts:
        look_at = [] if hidden or verdict.result == PASS else menu(name, vendor)
        title = f"{item}, GPU {device}" if device else item
        yield Finding(
            name, check, title, device, verdict.result, verdict.evidence, verdict.why, verdict.advice, look_at
        )


def _hidden(facts: Facts) -> tuple[str, str] | None:
    """Why nothing can be said about the board: evidence and reason."""
    kernel = facts["kernel"]
    if kernel["hypervisor"]:
        evidence = f"/proc/cpuinfo, clocksource, DMI: hypervisor {kernel['hypervisor']}"
        return evidence, f"virtual machine ({kernel['hypervisor']}): the settings that matter are those of its host"
    if kernel["container"]:
        evidence = f"/run/systemd/container, /proc/1, /.dockerenv: {kernel['virtualization']}"
        return evidence, "container: run it on the host, a container does not show the board"
    return None


# -- rules for each card ---------------------------------------------------------------------------


def _pcie_link(gpu: Facts, device: Facts, wish: Wish) -> Verdict:
    link, port = device["link"], (device["upstream"] or {}).get("link") or {}
    current, seen = gpu["link"], gpu.get("samples") or {}
    card_generation = max(link["max_gen"] or 0, current["gpu_max_gen"] or 0)
    generation = max(current["current_gen"] or link["current_gen"] or 0, seen.get("generation") or 0)
    width = max(link["current_width"] or current["current_width"] or 0, seen.get("width") or 0)
    port_name = (device["upstream"] or {}).get("address", "none")
    evidence = (
        f"/sys/bus/pci/devices/{device['address']}: gen {_or(generation or None)} x{_or(width or None)} {_when(seen)}, "
        f"gen {_or(card_generation or None)} x{_or(link['max_width'])} at most; "
        f"port {port_name}: gen {_or(port.get('max_gen'))} x{_or(port.get('max_width'))} at most"
    )
    if not card_generation or not link["max_width"] or not width or not generation:
        return Verdict(UNKNOWN, evidence, "the kernel does not tell the link of this card")
    possible = min(card_generation, port.get("max_gen") or card_generation)
    possible_width = min(link["max_width"], port.get("max_width") or link["max_width"])
    faults = _slot_faults(link, port, card_generation, wish)
    less = _less(generation, width, possible, possible_width)
    busy = (seen.get("utilization_percent") or 0) >= BUSY_PERCENT
    if less and busy:
        faults.append(f"{less}, though the card was busy ({seen['utilization_percent']} %)")
    if faults:
        return Verdict(
            FAIL,
            evidence,
            "; ".join(faults),
            "use the slot next to the CPU, without a riser; look for an M.2 drive that takes lanes from it; leave the "
            "generation on Auto (a forced one breaks risers). If the board cannot do more, ignore this item",
        )
    if less:
        rest = "the width seldom falls at rest, so look at slot and riser" if width < possible_width else ""
        return Verdict(
            UNKNOWN,
            evidence,
            f"{less} while the card is idle: sample under load" + (f"; {rest}" if rest else ""),
            "run this report with sample_seconds while the card copies or computes",
        )
    return Verdict(PASS, evidence, f"runs at gen {generation} x{width}, the most that card and slot can do together")


def _when(seen: Facts) -> str:
    if not seen:
        return "now"
    percent = seen["utilization_percent"]
    return f"at best in {seen['looks']} looks" + ("" if percent is None else f", card at most {percent} % busy")


def _less(generation: int, width: int, possible: int, possible_width: int) -> str:
    """What of the link is not used: words, or nothing."""
    words = [f"the link runs at gen {generation} and can do gen {possible}"] if generation < possible else []
    if width < possible_width:
        words.append(f"only {width} of {possible_width} lanes work")
    return ", ".join(words)


def _slot_faults(link: Facts, port: Facts, card_generation: int, wish: Wish) -> list[str]:
    """What card and port can never do together. No load is needed to prove it."""
    port_generation, port_width = port.get("max_gen"), port.get("max_width")
    faults = []
    if port_generation and port_generation < card_generation:
        faults.append(f"the port can do gen {port_generation}, the card gen {card_generation}")
    if port_width and port_width < link["max_width"]:
        faults.append(f"the port has {port_width} lanes, the card {link['max_width']}")
    possible = min(card_generation, port_generation or card_generation)
    possible_width = min(link["max_width"], port_width or link["max_width"])
    if wish.pcie_generation and possible < wish.pcie_generation:
        faults.append(f"gen {wish.pcie_generation} is expected and gen {possible} possible")
    if wish.pcie_width and possible_width < wish.pcie_width:
        faults.append(f"{wish.pcie_width} lanes are expected and {possible_width} possible")
    return faults


def _pcie_bandwidth(gpu: Facts, device: Facts, _wish: Wish) -> Verdict:
    generation, width = gpu["link"]["max_gen"], gpu["link"]["max_width"]
    evidence = f"link of {device['address']}: gen {_or(generation)} x{_or(width)} at most"
    if generation not in _LANE_GB or not width:
        return Verdict(UNKNOWN, evidence, "not measured, and the kernel does not tell the link of this card")
    rate = _LANE_GB[generation] * width
    return Verdict(
        UNKNOWN,
        evidence,
        f"not measured here; gen {generation} x{width} carries at most {rate:.0f} GB/s each way",
        "measure with nvbandwidth (host_to_device_memcpy_ce)",
    )


def _resizable_bar(gpu: Facts, device: Facts, _wish: Wish) -> Verdict:
    window = _bar1(device)
    size = gpu["bar1_bytes"] or (window or {}).get("size_bytes")
    most, vram = (window or {}).get("max_bytes"), gpu["vram_bytes"]
    evidence = (
        f"/sys/bus/pci/devices/{device['address']}/resource1: {_size(size)}, resource1_resize: at most {_size(most)}; "
        f"memory of the card: {_size(vram)}"
    )
    if not size:
        return Verdict(UNKNOWN, evidence, "the size of BAR1 is not shown; run as root")
    if vram and size >= vram:
        return Verdict(PASS, evidence, "the CPU reaches the whole memory of the card")
    if most and size >= most:
        return Verdict(PASS, evidence, "BAR1 has the largest size that the card offers")
    if most or (vram and gpu["architecture"] not in _NO_RESIZE):
        why = f"the CPU reaches the card through a window of {_size(size)}: Resizable BAR is off"
        return Verdict(FAIL, evidence, why, "switch on Above 4G Decoding and Resizable BAR, and CSM off")
    why = "the card offers no other size (or the kernel is older than 6.1 and does not show it)"
    return Verdict(UNKNOWN, evidence, why)


def _above_4g(_gpu: Facts, device: Facts, _wish: Wish) -> Verdict:
    window = _bar1(device)
    if window is None or (window["assigned"] and not window["start"]):
        return Verdict(
            UNKNOWN,
            f"/sys/bus/pci/devices/{device['address']}/resource: no address shown",
            "run as root to see addresses",
        )
    evidence = f"/sys/bus/pci/devices/{device['address']}/resource, line 2: {window['start']:#x}"
    advice = "switch on Above 4G Decoding and switch off CSM"
    if not window["assigned"]:
        return Verdict(FAIL, evidence, "BAR1 got no address: the firmware left no room for it", advice)
    if window["start"] < _FOUR_GIB:
        return Verdict(FAIL, evidence, "BAR1 lies below 4 GiB, where there is no room for a large one", advice)
    return Verdict(PASS, evidence, "BAR1 lies above 4 GiB")


def _bar1(device: Facts) -> Facts | None:
    return next((window for window in device["bars"] if window["index"] == 1), None)


# -- rules for the machine -------------------------------------------------------------------------


def _memory_speed(facts: Facts, wish: Wish) -> Verdict:
    dimms = facts["memory"]["dimms"]
    known = [dimm for dimm in dimms if dimm["configured_mts"]]
    if not known:
        why = (
            "the firmware tables show no DIMM"
            if facts["kernel"]["root"]
            else "run as root: DIMMs are shown to root alone"
        )
        return Verdict(UNKNOWN, "/sys/firmware/dmi/tables/DMI, type 17: nothing", why)
    slow = []
    for dimm in known:
        target = max(dimm["rated_mts"] or 0, _part_speed(dimm["part"]) or 0, wish.memory_mts or 0)
        if dimm["configured_mts"] < target:
            slow.append(f"{dimm['locator'] or 'a DIMM'} runs at {dimm['configured_mts']} of {target} MT/s")
    evidence = "/sys/firmware/dmi/tables/DMI, type 17: " + ", ".join(
        f"{dimm['locator'] or '?'} {dimm['part'] or '?'} rated {_or(dimm['rated_mts'])} "
        f"configured {dimm['configured_mts']} MT/s"
        for dimm in known
    )
    if not slow:
        return Verdict(PASS, evidence, f"all {len(known)} DIMMs run at their rated speed")
    advice = "choose the EXPO or XMP profile, then run a memory test"
    if len(known) > 2 and not any((dimm["type"] or "").startswith("LP") for dimm in known):
        advice = (
            f"{len(known)} DIMMs on two channels often train slower than their profile says; this may be the most that "
            "is stable. Two larger DIMMs run faster than four"
        )
    return Verdict(FAIL, evidence, "; ".join(slow), advice)


def _part_speed(part: str | None) -> int | None:
    for pattern, factor in _PART_SPEEDS:
        match = pattern.match(part or "")
        if match:
            return int(match.group(1)) * factor
    return None


def _boost_override(_facts: Facts, _wish: Wish) -> Verdict:
    return Verdict(
        UNKNOWN,
        "no file of the kernel shows it",
        "Precision Boost Overdrive and its kin cannot be proven from Linux",
        "look into the menu; under load, turbostat shows package watts above the processor's stock limit when it is on",
    )


def _c_states(facts: Facts, wish: Wish) -> Verdict:
    idle, words = facts["cpu"]["idle"], (facts["kernel"]["cmdline"] or "").split()
    shown = [state["name"] for state in idle["states"]]
    evidence = (
        f"/sys/devices/system/cpu/cpu*/cpuidle ({idle['driver'] or 'no driver'}): {', '.join(shown) or 'no states'}"
    )
    limits = [
        word for word in words if re.match(r"^(?:idle=|(?:processor|intel_idle)\.max_cstate=|cpuidle\.off=1)", word)
    ]
    if limits:
        return Verdict(
            UNKNOWN, f"{evidence}; /proc/cmdline: {' '.join(limits)}", "the kernel command line hides states"
        )
    if not idle["driver"] or not shown:
        return Verdict(UNKNOWN, evidence, "this kernel has no idle driver for the processor")
    deep = [name for name in shown if not re.match(r"^(?:POLL|C0|C1(?!\d))", name or "POLL")]
    state = "enabled" if deep else "disabled"
    if wish.c_states in {"any", state}:
        return Verdict(PASS, evidence, f"C-states are {state} in the firmware")
    if deep:
        return Verdict(FAIL, evidence, f"deep states are there ({', '.join(deep)}) and none are expected")
    return Verdict(
        FAIL,
        evidence,
        "only POLL and C1 are there: the firmware keeps deeper states off, which costs power and boost of other cores",
        "enable C-states and bound the latency from the operating system (cpu_governor, idle_latency_us)",
    )


def _smt(facts: Facts, wish: Wish) -> Verdict:
    smt = facts["cpu"]["smt"]
    control, threads = smt["control"], smt["threads_per_core"]
    evidence = f"/sys/devices/system/cpu/smt/control: {_or(control)}; threads per core: {_or(threads)}"
    if control in {"on", "off", "forceoff"} or (threads or 0) > 1:
        state = "on"  # the firmware offers it, whatever the kernel was told to do with it
    elif control == "notsupported":
        state = "off"
    else:
        return Verdict(UNKNOWN, evidence, "this kernel does not tell")
    if wish.smt == "any" and state == "off":
        return Verdict(UNKNOWN, evidence, "the processor has no SMT, or the firmware switched it off")
    return _expected("SMT", state, wish.smt, evidence)


def _virtualization(facts: Facts, wish: Wish) -> Verdict:
    flag, architecture = facts["cpu"]["virtualization"], facts["kernel"]["architecture"]
    evidence = f"/proc/cpuinfo flags: {flag or 'neither svm nor vmx'}"
    if architecture not in {"x86_64", "i686"}:
        return Verdict(UNKNOWN, evidence, f"not told by the flags of a {architecture} processor")
    return _expected("virtualization", "on" if flag else "off", wish.virtualization, evidence)


def _iommu(facts: Facts, wish: Wish) -> Verdict:
    iommu = facts["firmware"]["iommu"]
    types = ", ".join(iommu["types"])
    evidence = (
        f"/sys/class/iommu: {', '.join(iommu['units']) or 'empty'}; {iommu['groups']} groups ({types or 'no types'})"
    )
    verdict = _expected("the IOMMU", "on" if iommu["units"] else "off", wish.iommu, evidence)
    if verdict.result == PASS and any(kind.startswith("DMA") for kind in iommu["types"]):
        advice = (
            "devices are translated, which can slow copies to the GPU; the parameter iommu=pt lifts it for the host"
        )
        return Verdict(PASS, evidence, verdict.why, advice)
    return verdict


def _secure_boot(facts: Facts, wish: Wish) -> Verdict:
    state, efi = facts["firmware"]["secure_boot"], facts["firmware"]["efi"]
    loaded = "nvidia" in facts["kernel"]["modules"]
    evidence = (
        f"efivars SecureBoot: {_or(state if efi else None)}; EFI boot: {_or(efi)}; nvidia module loaded: {loaded}"
    )
    if state is None:
        return Verdict(UNKNOWN, evidence, "the EFI variable is not shown; mount efivarfs and run as root")
    if state and facts["gpus"] and not loaded and "nouveau" not in facts["kernel"]["modules"]:
        return Verdict(
            FAIL,
            evidence,
            "Secure Boot is on and no NVIDIA module is loaded: an unsigned module is refused",
            "sign the module with an enrolled key (mokutil --import) or use the distribution's signed one",
        )
    return _expected("Secure Boot", "on" if state else "off", wish.secure_boot, evidence)


def _cores(facts: Facts, wish: Wish) -> Verdict:
    cpu, sockets = facts["cpu"], [socket for socket in facts["firmware"]["sockets"] if socket["populated"]]
    seen = len({(entry["package"], entry["core"]) for entry in cpu["cpus"] if entry["core"] is not None})
    built = sum(socket["cores"] or 0 for socket in sockets) or None
    enabled = sum(socket["cores_enabled"] or 0 for socket in sockets) or None
    evidence = (
        f"/sys/devices/system/cpu: {seen} cores, CPUs {cpu['online'] or '?'} online; "
        f"SMBIOS type 4: {_or(enabled)} of {_or(built)} cores enabled"
    )
    if wish.cores is not None and seen and seen != wish.cores:
        return Verdict(FAIL, evidence, f"{wish.cores} cores are expected, the kernel has {seen}")
    if built and enabled and enabled < built:
        return Verdict(FAIL, evidence, f"the firmware keeps {built - enabled} of {built} cores off")
    if enabled and seen < enabled:
        why = f"the kernel uses {seen} of {enabled} cores"
        return Verdict(
            FAIL, evidence, why, "look at CPUs that are offline, and for maxcpus= or nr_cpus= in /proc/cmdline"
        )
    if wish.cores is None and not enabled:
        return Verdict(UNKNOWN, evidence, "the firmware tables do not count cores, and no number is expected")
    return Verdict(PASS, evidence, f"all {seen} cores are there")


def _expected(item: str, state: str, wish: str, evidence: str) -> Verdict:
    if wish in {"any", state}:
        return Verdict(
            PASS, evidence, f"{item} is {state}" + (", either is fine" if wish == "any" else ", as expected")
        )
    return Verdict(FAIL, evidence, f"{item} is {state}, expected is {wish}")


def _or(value: object) -> str:
    return "unknown" if value is None else str(value)


def _size(number: int | None) -> str:
    """Sizes of memory are rarely round: tenths of GiB then."""
    if number is None:
        return "unknown"
    return (
        f"{print_size(number)}iB"
        if number % (1 << 20) == 0 and number & (number - 1) == 0
        else f"{number / 2**30:.1f} GiB"
    )


# id -> (number of the item in the table of settings, words for people, rule)
CARD_RULES: dict[str, tuple[str, str, CardRule]] = {
    "pcie_link": ("B01", "PCIe generation and width", _pcie_link),
    "pcie_bandwidth": ("B02", "PCIe bandwidth", _pcie_bandwidth),
    "resizable_bar": ("B03", "Resizable BAR", _resizable_bar),
    "above_4g": ("B04", "Above 4G decoding", _above_4g),
}
MACHINE_RULES: dict[str, tuple[str, str, MachineRule]] = {
    "memory_speed": ("B05", "DIMM speed (EXPO, XMP)", _memory_speed),
    "boost_override": ("B06", "Precision Boost Overdrive", _boost_override),
    "c_states": ("B07", "C-states", _c_states),
    "smt": ("B08", "SMT", _smt),
    "virtualization": ("B09", "Virtualization (SVM, VT-x)", _virtualization),
    "iommu": ("B09", "IOMMU (AMD-Vi, VT-d)", _iommu),
    "secure_boot": ("B10", "Secure Boot", _secure_boot),
    "cores": ("B11", "Processor cores", _cores),
}
IDS = (*CARD_RULES, *MACHINE_RULES)
