# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rollback of GPUs: modes that wait for a reboot, a card that is lost or pulled, a driver that is not loaded."""

from __future__ import annotations

import json

from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.ledger import PATH as LEDGER
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.rollback import roll_back
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.selection import Wish
from gpu_box import FULL, Box
from nvml_child import in_child


def back(box: Box, check: bool = False, opens: bool = True):
    def piece():
        machine = Machine(box.kernel, (lambda: open_nvml(None)) if opens else None)
        try:
            return roll_back(Wish(), check, machine)
        finally:
            machine.close()

    return in_child(box.driver, piece)


def entries(box: Box) -> dict:
    text = box.kernel.text(LEDGER)
    return json.loads(text)["entries"] if text else {}


def test_everything_of_a_card_goes_back(make_box):
    box = make_box("rtx3090", "rtx5090")
    before = box.state()
    box.run(**FULL)
    assert box.state() != before
    predicted = back(box, check=True)
    assert back(box) == predicted
    assert predicted["archived"]
    assert box.state() == before


def test_ecc_and_mig_go_back_and_wait_for_a_reboot_where_they_were_in_force(make_box):
    box = make_box("a100")
    before = box.state()[0]
    box.run(ecc=before["ecc"][1] == "off", mig=True)
    box.driver.reboot()
    box.kernel.reboot()
    assert box.state()[0]["mig"] == ["on", "on"]
    outcome = back(box)
    waits = {key.rpartition("/")[2].partition(" ")[0] for key in outcome["reboot_reasons"]}
    assert waits == {"ecc", "mig"}
    after = box.state()[0]
    assert (after["ecc"][1], after["mig"][1]) == (before["ecc"][1], before["mig"][1])
    assert entries(box) == {}
    box.driver.reboot()
    assert {**box.state()[0]} == before


def test_modes_that_were_not_in_force_yet_need_no_reboot_to_go_back(make_box):
    box = make_box("a100")
    box.run(mig=True)
    assert back(box)["reboot_reasons"] == []


def test_a_lost_card_stays_in_the_ledger_and_the_other_goes_back(make_box):
    box = make_box("rtx3090", "rtx4090")
    box.run(persistence=True, power_limit="80%")
    box.driver.lose(1)
    outcome = back(box)
    assert {change["key"].split("/")[0] for change in outcome["changes"]} == {f"gpu:{box.uuid(0)}"}
    assert "GPU_IS_LOST" in outcome["skipped_keys"][0]["reason"]
    assert entries(box).keys() == {f"gpu:{box.uuid(1)}/persistence", f"gpu:{box.uuid(1)}/power_limit_mw"}


def test_without_a_driver_nothing_of_a_card_is_forgotten(make_box):
    box = make_box()
    box.run(persistence=True, power_limit="80%")
    kept = entries(box)
    outcome = back(box, opens=False)
    assert (outcome["changed"], outcome["archived"], entries(box)) == (False, False, kept)
    assert back(box)["archived"]


def test_what_a_lost_card_should_give_back_is_not_forgotten_by_a_run_that_wants_less(make_box):
    box = make_box("rtx3090", "rtx4090")
    box.run(persistence=True, power_limit="80%")
    box.driver.lose(1)
    outcome = box.run(gpus=[{"id": "0", "persistence": True}])
    assert any("cannot be reached" in warning for warning in outcome["warnings"])
    assert {f"gpu:{box.uuid(1)}/persistence", f"gpu:{box.uuid(1)}/power_limit_mw"} <= entries(box).keys()
