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
from fake_systemd import FakeSystemd


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


def test_a_generated_unit_is_masked_and_generated_again(kernel: FakeSystemd) -> None:
    kernel.units["dev-sda2.swap"] = ["generated", "active"]
    unit = {"name": "dev-sda2.swap", "unit_file": "masked", "active": False}
    call(kernel, unit)
    assert kernel.units["dev-sda2.swap"] == ["masked", "inactive"]
    assert not call(kernel, unit)["changed"]
    call(kernel)
    assert kernel.units["dev-sda2.swap"] == ["generated", "active"]


def test_a_failed_start_takes_the_enablement_back(kernel: FakeSystemd) -> None:
    kernel.broken.add("ppd.service")
    with pytest.raises(ApplyError, match="systemctl --no-reload mask ppd.service: Job failed"):
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


def test_what_was_masked_first_and_stopped_later_is_unmasked_before_it_starts(kernel: FakeSystemd) -> None:
    call(kernel, {"name": "ppd.service", "unit_file": "masked"})
    call(kernel, MASK)
    assert kernel.units["ppd.service"] == ["masked", "inactive"]
    call(kernel)
    assert kernel.units["ppd.service"] == ["enabled", "active"]


def test_what_an_administrator_masked_stays_masked_unless_it_is_asked_for_by_name(kernel: FakeSystemd) -> None:
    kernel.units["fstrim.timer"] = ["masked", "inactive"]
    outcome = call(kernel, TRIM, optional=["fstrim.timer"])
    assert (outcome["changed"], kernel.units["fstrim.timer"]) == (False, ["masked", "inactive"])
    assert {skip["key"] for skip in outcome["skipped_keys"]} == {"unit_file:fstrim.timer", "unit_active:fstrim.timer"}
    assert "the administrator has masked it" in outcome["skipped_keys"][0]["reason"]
    call(kernel, TRIM)
    assert kernel.units["fstrim.timer"] == ["enabled", "active"]
    call(kernel)
    assert kernel.units["fstrim.timer"] == ["masked", "inactive"]


def test_what_we_masked_we_unmask_also_where_only_a_profile_asks(kernel: FakeSystemd) -> None:
    call(kernel, {**TRIM, "unit_file": "masked", "active": None})
    call(kernel, TRIM, optional=["fstrim.timer"])
    assert kernel.units["fstrim.timer"] == ["enabled", "active"]


def test_systemd_reads_its_files_once_before_the_first_start(kernel: FakeSystemd) -> None:
    kernel.units["a.service"] = ["disabled", "inactive"]
    more = {"name": "a.service", "unit_file": "enabled", "active": True}
    call(kernel, TRIM, MASK, more)
    assert [word for word in kernel.acted if "ppd" not in word or "mask" in word] == [
        "systemctl --no-reload enable fstrim.timer",
        "systemctl --no-reload mask ppd.service",
        "systemctl --no-reload enable a.service",
        "systemctl daemon-reload",
        "systemctl start fstrim.timer",
        "systemctl start a.service",
    ]
    assert kernel.acted[0] == "systemctl stop ppd.service"
    kernel.acted.clear()
    call(kernel)
    assert kernel.acted.count("systemctl daemon-reload") == 1
    assert kernel.units["ppd.service"] == ["enabled", "active"]


def test_a_unit_that_does_not_start_is_told_with_its_last_words(kernel: FakeSystemd) -> None:
    kernel.broken.add("fstrim.timer")
    kernel.units["fstrim.timer"] = ["enabled", "inactive"]
    kernel.programs["journalctl"] = lambda _kernel, argv: Completed(0, f"no disk for {argv[-1]}\n", "")
    with pytest.raises(
        ApplyError, match=r"start fstrim.timer: Job failed; it said last: no disk for _SYSTEMD_UNIT=fstrim.timer"
    ):
        call(kernel, TRIM)
