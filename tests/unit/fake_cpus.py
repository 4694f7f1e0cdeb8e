# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPUs with frequency drivers, idle states and SMT, for FakeKernel: they refuse and move what the kernel does."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpu_list
from fake_kernel import FakeKernel

CPU = "/sys/devices/system/cpu"
EPP_NUMBERS = {"0": "performance", "128": "balance_performance", "192": "balance_power", "255": "power"}
EPP_WORDS = [*EPP_NUMBERS.values(), "default"]
LOWEST, BASE, BOOSTED = 400000, 3500000, 5000000  # kHz
STATES = (("POLL", 0), ("C1", 1), ("C2", 18), ("C3", 350))


@dataclass
class FakeCpus:
    """`cores` cores with two threads, numbered as x86 does: core n has the CPUs n and n + cores."""

    kernel: FakeKernel
    cores: int = 4
    driver: str = "amd-pstate-epp"
    governors: tuple[str, ...] = ("performance", "powersave")
    boost: str = "boost"
    default_governor: str = "powersave"
    shared: int = 1
    # Linux before 6.10 with intel_pstate: cpuinfo_max_freq stays where it is while turbo is off.
    ceiling_shown: bool = True
    # What was asked for as a limit, by path, with what it showed then: the kernel keeps the first and shows
    # it cut to what the CPU does at the time.
    asked: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = 2 * self.cores
        self.kernel.put(f"{CPU}/present", f"0-{count - 1}")
        self.kernel.put(f"{CPU}/online", f"0-{count - 1}")
        self.kernel.put(f"{CPU}/smt/control", "on", self._smt)
        for cpu in range(count):
            self._put_cpu(cpu)
        for first in range(0, count, self.shared):
            self._put_policy(first)
        if self.boost == "boost":
            self.kernel.put(f"{CPU}/cpufreq/boost", "1", self._boost)
        elif self.boost == "no_turbo":
            self.kernel.put(f"{CPU}/intel_pstate/no_turbo", "0", self._no_turbo)

    @property
    def active(self) -> bool:
        return self.driver in ("intel_pstate", "amd-pstate-epp")

    def policy(self, number: int, name: str) -> str:
        return f"{CPU}/cpufreq/policy{number}/{name}"

    def read(self, number: int, name: str) -> str | None:
        return self.kernel.text(self.policy(number, name))

    def tree(self) -> dict[str, str]:
        """Every file below the CPU folder."""
        root = Path(self.kernel.at(CPU))
        return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}

    def _put_cpu(self, cpu: int) -> None:
        core = cpu % self.cores
        self.kernel.put(f"{CPU}/cpu{cpu}/topology/thread_siblings_list", f"{core},{core + self.cores}")
        self.kernel.put(f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us", "0", _pm_qos)
        for number, (name, latency) in enumerate(STATES):
            folder = f"{CPU}/cpu{cpu}/cpuidle/state{number}"
            self.kernel.put_all({f"{folder}/name": name, f"{folder}/latency": latency, f"{folder}/disable": 0})

    def _put_policy(self, number: int) -> None:
        def at(name: str) -> str:
            return self.policy(number, name)

        cpus = range(number, number + self.shared)
        self.kernel.put_all(
            {
                at("related_cpus"): " ".join(str(cpu) for cpu in cpus),
                at("scaling_driver"): self.driver,
                at("scaling_available_governors"): " ".join(self.governors),
                at("cpuinfo_min_freq"): LOWEST,
                at("cpuinfo_max_freq"): BOOSTED,
            }
        )
        self.kernel.put(at("scaling_governor"), self.default_governor, self._governor(number))
        self.kernel.put(at("scaling_min_freq"), str(LOWEST), self._limit(number))
        self.kernel.put(at("scaling_max_freq"), str(BOOSTED), self._limit(number))
        if self.active or self.driver == "intel_cpufreq":
            self.kernel.put(at("energy_performance_available_preferences"), " ".join(EPP_WORDS))
            self.kernel.put(at("energy_performance_preference"), "balance_performance", self._epp(number))
        if self.driver.startswith("intel"):
            self.kernel.put(at("base_frequency"), str(BASE))
        if self.boost in ("boost", "policy"):
            self.kernel.put(at("boost"), "1", self._policy_boost(number))
        self._move_ceiling(number, self._boosts())

    # -- what the drivers do -----------------------------------------------------------------------

    def _governor(self, number: int):
        def rule(kernel: FakeKernel, text: str) -> str:
            if text not in self.governors:
                raise OSError(errno.EINVAL, "Invalid argument")
            if text == "performance" and self.active:
                kernel.put(self.policy(number, "energy_performance_preference"), "performance")
            return text

        return rule

    def _epp(self, number: int):
        def rule(_kernel: FakeKernel, text: str) -> str:
            if text not in EPP_WORDS and not text.isdigit():
                raise OSError(errno.EINVAL, "Invalid argument")
            if self.active and self.read(number, "scaling_governor") == "performance" and text != "performance":
                raise OSError(errno.EBUSY, "Device or resource busy")
            return EPP_NUMBERS.get(text, "balance_performance" if text == "default" else text)

        return rule

    def _limit(self, number: int):
        """A minimum above the maximum is refused, as kernels before the frequency requests (5.3) did."""

        def rule(kernel: FakeKernel, text: str) -> str:
            path = kernel.writes[-1]
            low, high = (int(self.read(number, f"scaling_{end}_freq") or 0) for end in ("min", "max"))
            low, high = (int(text), high) if path.endswith("min_freq") else (low, int(text))
            if low > high:
                raise OSError(errno.EINVAL, "Invalid argument")
            self.asked[path] = (int(text), int(text))
            kernel.put(path, text)
            self._show_limits(number)
            return kernel.text(path) or ""

        return rule

    def _show_limits(self, number: int) -> None:
        """cpufreq_verify_within_limits(): every limit shows what was asked for, cut to what goes now."""
        high = BOOSTED if self.read(number, "boost") != "0" and self._boosts() else BASE
        if self.driver == "acpi-cpufreq":
            high = BOOSTED  # the table of this driver is the same with and without boost
        for name in ("scaling_max_freq", "scaling_min_freq"):
            path, shown = self.policy(number, name), int(self.read(number, name) or 0)
            asked, last = self.asked.get(path, (shown, shown))
            asked = asked if shown == last else shown
            high = min(max(asked, LOWEST), high)
            self.asked[path] = (asked, high)
            self.kernel.put(path, str(high))

    def _boosts(self) -> bool:
        """The switch for all CPUs."""
        no_turbo, boost = self.kernel.text(f"{CPU}/intel_pstate/no_turbo"), self.kernel.text(f"{CPU}/cpufreq/boost")
        return no_turbo != "1" and boost != "0"

    def _boost(self, kernel: FakeKernel, text: str) -> str:
        return self._switch(f"{CPU}/cpufreq/boost", text, text == "1")

    def _no_turbo(self, kernel: FakeKernel, text: str) -> str:
        return self._switch(f"{CPU}/intel_pstate/no_turbo", text, text == "0")

    def _switch(self, path: str, text: str, up: bool) -> str:
        self.kernel.put(path, text)
        for folder in self.kernel.glob(f"{CPU}/cpufreq/policy*"):
            self._move_ceiling(int(folder.rpartition("policy")[2]), up)
        return text

    def _policy_boost(self, number: int):
        def rule(_kernel: FakeKernel, text: str) -> str:
            if not self._boosts():
                raise OSError(errno.EINVAL, "Invalid argument")
            self._move_ceiling(number, text == "1")
            return text

        return rule

    def _move_ceiling(self, number: int, up: bool) -> None:
        """Boost moves the switch of the policy, what the CPU does and what the limits show."""
        if self.read(number, "boost") is not None:
            self.kernel.put(self.policy(number, "boost"), str(int(up)))
        if self.ceiling_shown and self.driver != "acpi-cpufreq":
            self.kernel.put(self.policy(number, "cpuinfo_max_freq"), str(BOOSTED if up else BASE))
        self._show_limits(number)

    def _smt(self, kernel: FakeKernel, text: str) -> str:
        if kernel.text(f"{CPU}/smt/control") == "forceoff":
            raise OSError(errno.EPERM, "Operation not permitted")
        threads = range(self.cores, 2 * self.cores)
        for cpu in threads:
            gone = not kernel.exists(f"{CPU}/cpu{cpu}/topology")
            if text == "on" and gone:
                self._come(cpu)
            elif text != "on" and not gone:
                self._go(cpu)
        count = 2 * self.cores if text == "on" else self.cores
        kernel.put(f"{CPU}/online", cpu_list(range(count)))
        return text

    def _go(self, cpu: int) -> None:
        for path in (f"{CPU}/cpu{cpu}/topology", f"{CPU}/cpu{cpu}/cpuidle", f"{CPU}/cpufreq/policy{cpu}"):
            shutil.rmtree(self.kernel.at(path), ignore_errors=True)

    def _come(self, cpu: int) -> None:
        bound = self.kernel.text(f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us")
        self._put_cpu(cpu)
        self.kernel.put(f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us", bound or "0")
        if self.shared == 1:
            self._put_policy(cpu)


def _pm_qos(_kernel: FakeKernel, text: str) -> str:
    if text != "n/a" and not (text.isdigit() and int(text) < 2**31):
        raise OSError(errno.EINVAL, "Invalid argument")
    return text
