# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every knob is changed behind our back: verify names each one, the next run repairs them all."""

from __future__ import annotations

import json
from collections.abc import Callable

import maximal
from plays import ROOT, Controller
from vm import Vm

LEDGER = "/var/lib/ai-workstation/ledger.json"
TREE = "/opt/drift"
# In the machine: put every place of the ledger that has a getter back to its original, last written first, and print
# the keys whose live value is another one than before.
MOVE = """
import json, sys
sys.path.insert(0, "/opt/drift")
from module_utils.doors.host import Host
from module_utils.engine import knobs
from module_utils.engine.change import Place
from module_utils.engine.machine import Machine
machine = Machine(Host())
entries = sorted(machine.ledger.entries.items(), key=lambda item: -item[1].order)
kinds = ("text", "choice", "cpulist", "cpumask", "irq", "file", "unit_file", "unit_active", "mount_options")
places = [(Place(key, entry.kind, entry.address), entry) for key, entry in entries if entry.kind in kinds]
before = {place.key: knobs.read(machine, place) for place, _entry in places}
for place, entry in places:
    try:
        knobs.write(machine, place, entry.original)
    except OSError as error:
        print(f"{place.key}: {error}", file=sys.stderr)
moved = [place.key for place, _entry in places if knobs.read(machine, place) != before[place.key]]
print(json.dumps(moved))
"""


def verified(vm: Vm) -> tuple[int, list[str]]:
    done = vm.try_ssh("ai-workstation verify --json")
    return done.returncode, [row["key"] for row in json.loads(done.stdout)["drift"]]


def test_every_knob_that_moves_is_named_and_repaired(
    vm: Vm, controller: Controller, proof: Callable[..., None]
) -> None:
    controller.play("site.yml", maximal.VARIABLES).ok()
    assert verified(vm) == (0, [])
    vm.push(ROOT / "plugins" / "module_utils", f"{TREE}/module_utils")
    # CPUs that come and go wake the boot unit, which would repair what was moved before it can be named.
    vm.ssh("systemctl stop ai-workstation.path")
    moved = json.loads(vm.python(MOVE))
    touched = {key for key, entry in json.loads(vm.ssh(f"cat {LEDGER}"))["entries"].items() if entry["touched_by"]}
    code, named = verified(vm)
    missed = sorted(set(moved) - touched - set(named))
    proof(drift_moved=len(moved), drift_named=len(named), drift_missed=len(missed))
    print(f"{len(moved)} keys moved, {len(named)} named, {len(missed)} missed")  # noqa: T201 a figure
    assert (code, missed) == (1, [])
    assert len(moved) > 40
    controller.play("site.yml", maximal.VARIABLES).ok()
    assert verified(vm) == (0, [])
