# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""unit_state on a systemd stand-in that keeps enablement and activity."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects import unit_state
from fake_kernel import FakeKernel, run_module


class FakeSystemd(FakeKernel):
    """Answers the systemctl calls that the subject and the knobs make."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.units = {
            "fstrim.timer": ["disabled", "inactive"],
            "ppd.service": ["enabled", "active"],
            "udev.service": ["static", "active"],
        }
        self.broken: set[str] = set()
        self.unmet: set[str] = set()
        self.tests_conditions = True

    def run(self, argv, timeout: float = 120) -> Completed:
        verb, names = argv[1], [word for word in argv[2:] if not word.startswith("--")]
        if argv[0] == "systemd-analyze":
            failed = argv[2].partition("=")[2] in self.unmet and self.tests_conditions
            return Completed(
                int(failed), "", "fstrim.timer: ConditionVirtualization=!container failed." if failed else ""
            )
        if verb == "show" and "-P" in argv:
            return Completed(0, "no" if names[-1] in self.unmet else "yes", "")
        if verb == "show":
            return Completed(0, "\n\n".join(self._show(name) for name in names) + "\n", "")
        unit = self.units.get(names[0])
        if unit is None:
            return Completed(1, "", f"Unit {names[0]} not found.")
        if names[0] in self.broken:
            return Completed(1, "", "Job failed")
        if verb == "is-enabled":
            return Completed(0, unit[0] + "\n", "")
        if verb == "is-active":
            return Completed(0, unit[1] + "\n", "")
        effect = {
            "enable": (0, "enabled"),
            "disable": (0, "disabled"),
            "mask": (0, "masked"),
            "unmask": (0, "disabled"),
            "start": (1, "active"),
            "stop": (1, "inactive"),
        }[verb]
        if verb != "start" or names[0] not in self.unmet:
            unit[effect[0]] = effect[1]
        return Completed(0, "", "")

    def _show(self, name: str) -> str:
        if name not in self.units:
            return "LoadState=not-found\nUnitFileState=\nActiveState=inactive"
        return f"LoadState=loaded\nUnitFileState={self.units[name][0]}\nActiveState={self.units[name][1]}"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeSystemd:
    return FakeSystemd(tmp_path)


def call(kernel: FakeKernel, *units, check: bool = False, **params):
    return run_module(unit_state, kernel, check, units=list(units), **params)


TRIM = {"name": "fstrim.timer", "unit_file": "enabled", "active": True}
MASK = {"name": "ppd.service", "unit_file": "masked", "active": False}


def test_sets_both_and_is_idempotent(kernel: FakeSystemd) -> None:
    predicted = call(kernel, TRIM, MASK, check=True)
    assert kernel.acted == []
    assert call(kernel, TRIM, MASK) == predicted
    assert kernel.units["fstrim.timer"] == ["enabled", "active"]
    assert kernel.units["ppd.service"] == ["masked", "inactive"]
    assert not call(kernel, TRIM, MASK)["changed"]


def test_no_longer_named_goes_back(kernel: FakeSystemd) -> None:
    call(kernel, TRIM, MASK)
    call(kernel)
    assert kernel.units["fstrim.timer"] == ["disabled", "inactive"]
    assert kernel.units["ppd.service"] == ["enabled", "active"]


def test_a_failed_start_takes_the_enablement_back(kernel: FakeSystemd) -> None:
    kernel.broken.add("ppd.service")
    with pytest.raises(ApplyError, match="systemctl mask ppd.service: Job failed"):
        call(kernel, TRIM, MASK)
    assert kernel.units["fstrim.timer"] == ["disabled", "inactive"]


def test_missing_static_and_no_systemd(kernel: FakeSystemd) -> None:
    static = {"name": "udev.service", "unit_file": "enabled"}
    with pytest.raises(RefusedError, match="the unit is static"):
        call(kernel, static)
    with pytest.raises(RefusedError, match="no such unit"):
        call(kernel, {"name": "none.service", "active": True})
    outcome = call(kernel, {"name": "none.service", "active": True}, static, optional=["none.service", "udev.service"])
    assert len(outcome["skipped_keys"]) == 2
    Path(kernel.at("/run/systemd/system")).rmdir()
    with pytest.raises(RefusedError, match="systemd does not run here"):
        call(kernel, TRIM)


@pytest.mark.parametrize("tests_conditions", [True, False])
def test_a_unit_whose_conditions_do_not_hold_is_skipped(kernel: FakeSystemd, tests_conditions: bool) -> None:
    kernel.unmet.add("fstrim.timer")
    kernel.tests_conditions = tests_conditions
    outcome = call(kernel, TRIM, optional=["fstrim.timer"])
    assert [change["key"] for change in outcome["changes"]] == ["unit_file:fstrim.timer"]
    assert outcome["skipped_keys"][0]["key"] == "unit_active:fstrim.timer"
    assert not call(kernel, TRIM, optional=["fstrim.timer"])["changed"]


def test_a_unit_of_ours_may_come_later_in_check_mode(kernel: FakeSystemd) -> None:
    unit = {"name": "ai.service", "unit_file": "enabled", "ours": True}
    assert call(kernel, unit, check=True)["changes"][0]["before"] == "disabled"


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({"name": "fstrim", "active": True}, "with its suffix"),
        ({"name": "fstrim.timer"}, "says nothing"),
        ({"name": "x.service", "unit_file": "masked", "active": True}, "cannot be active"),
    ],
)
def test_bad_input(kernel: FakeSystemd, unit, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, unit)
