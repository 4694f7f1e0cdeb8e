# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPUs with frequency drivers, idle states and SMT, for FakeKernel: they refuse and move what the kernel does."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.ai_infra.workstation.plugins.module_utils.values import cpu_list
from fake_kernel import FakeKernel

CPU = "/sys/devices/system/cpu"
EPP_NUMBERS = {"0": "performance", "128": "balance_performance", "192": "balance_power", "255": "power"}
EPP_WORDS = [*EPP_NUMBERS.values(), "default"]
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
    parked: dict[int, Path] = field(default_factory=dict)

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
        at = lambda name: self.policy(number, name)  # noqa: E731
        cpus = range(number, number + self.shared)
        self.kernel.put_all(
            {
                at("related_cpus"): " ".join(str(cpu) for cpu in cpus),
                at("scaling_driver"): self.driver,
                at("scaling_available_governors"): " ".join(self.governors),
                at("cpuinfo_min_freq"): 400000,
                at("cpuinfo_max_freq"): 5000000,
            }
        )
        self.kernel.put(at("scaling_governor"), self.default_governor, self._governor(number))
        self.kernel.put(at("scaling_min_freq"), "400000", self._limit(number))
        self.kernel.put(at("scaling_max_freq"), "5000000", self._limit(number))
        if self.active or self.driver == "intel_cpufreq":
            self.kernel.put(at("energy_performance_available_preferences"), " ".join(EPP_WORDS))
            self.kernel.put(at("energy_performance_preference"), "balance_performance", self._epp(number))
        if self.boost in ("boost", "policy"):
            self.kernel.put(at("boost"), "1", self._policy_boost(number))

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
        """A minimum above the maximum is refused, and both are pulled into the hardware's range."""

        def rule(kernel: FakeKernel, text: str) -> str:
            path = kernel.writes[-1]
            low, high = (int(self.read(number, f"scaling_{end}_freq") or 0) for end in ("min", "max"))
            low, high = (int(text), high) if path.endswith("min_freq") else (low, int(text))
            if low > high:
                raise OSError(errno.EINVAL, "Invalid argument")
            return str(min(max(int(text), 400000), int(self.read(number, "cpuinfo_max_freq") or 0)))

        return rule

    def _boost(self, _kernel: FakeKernel, text: str) -> str:
        self._move_ceiling(text == "1")
        return text

    def _no_turbo(self, _kernel: FakeKernel, text: str) -> str:
        self._move_ceiling(text == "0")
        return text

    def _policy_boost(self, number: int):
        def rule(_kernel: FakeKernel, text: str) -> str:
            self._move_ceiling(text == "1", f"policy{number}")
            return text

        return rule

    def _move_ceiling(self, up: bool, policies: str = "policy*") -> None:
        """Boost changes the hardware limit, the limit of the policy and the switch of the policy along."""
        for path in self.kernel.glob(f"{CPU}/cpufreq/{policies}/scaling_max_freq"):
            folder = os.path.dirname(path)
            ceiling = 5000000 if up else 3500000
            self.kernel.put(f"{folder}/cpuinfo_max_freq", str(ceiling))
            limit = ceiling if up else min(ceiling, int(self.kernel.text(path) or 0))
            self.kernel.put(path, str(limit))
            if self.kernel.exists(f"{folder}/boost"):
                self.kernel.put(f"{folder}/boost", str(int(up)))

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
