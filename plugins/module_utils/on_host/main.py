# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line of the program on the machine.

    ai-workstation boot             bring back what boot, resume or a driver load took away
    ai-workstation verify [--json]  compare the machine with what was recorded
    ai-workstation rollback         take back what was tuned: all, or by --owner and --key; --check, --force
    ai-workstation restore          take back what no controller has confirmed; --boot: only that of an earlier boot
    ai-workstation metrics SOURCE   what Prometheus is told: gpu or drift; --output FILE writes it there

Exit status of verify: 0 as recorded, 1 drift, 2 could not be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from ..doors.host import Host
from ..engine.machine import Machine
from ..errors import WorkstationError

_FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    machine = Machine(Host(), _driver)
    if not machine.host.is_root():
        return _refuse("only root may read the record; run it with sudo")
    try:
        code: int = given.run(machine, given)
    except (WorkstationError, OSError) as error:
        return _refuse(str(error))
    except Exception:  # noqa: BLE001 -- a defect must not look like drift, which is what Python's own 1 would say
        traceback.print_exc()
        return _FAILED
    finally:
        machine.close()
    return code


def _refuse(why: str) -> int:
    sys.stderr.write(f"ai-workstation: {why}\n")
    return _FAILED


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ai-workstation", description="Settings of this machine, kept and checked.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    boot = commands.add_parser("boot", help="bring back what boot, resume or a driver load took away")
    boot.set_defaults(run=_boot)
    verify = commands.add_parser("verify", help="compare the machine with what was recorded")
    verify.add_argument("--json", action="store_true", help="print one JSON document")
    verify.set_defaults(run=_verify)
    rollback = commands.add_parser("rollback", help="take back what was tuned")
    rollback.add_argument("--owner", action="append", default=[], help="a role, or role/part; may be given again")
    rollback.add_argument("--key", action="append", default=[], help="a key, or a pattern; may be given again")
    rollback.add_argument("--force", action="store_true", help="also what someone else has changed since")
    rollback.add_argument("--check", action="store_true", help="say what would go back, and write nothing")
    rollback.set_defaults(run=_rollback)
    restore = commands.add_parser("restore", help="take back what no controller has confirmed")
    restore.add_argument("--boot", action="store_true", help="only what an earlier boot has left")
    restore.set_defaults(run=_restore)
    metrics = commands.add_parser("metrics", help="what Prometheus is told of this machine")
    metrics.add_argument("source", choices=["gpu", "drift"], help="cards and driver, or the machine beside its record")
    metrics.add_argument("--output", default="", help="write it to this file, at once and whole")
    metrics.set_defaults(run=_metrics)
    return parser


def _driver() -> Any:
    from ..doors.nvml import open_present  # noqa: PLC0415 -- only machines with a GPU pay for it

    return open_present(Host())


def _boot(machine: Machine, _given: argparse.Namespace) -> int:
    from . import boot  # noqa: PLC0415 -- each command imports what it needs

    code = 0
    for line in boot.run(machine):
        code = code or int(boot.is_warning(line))
        # systemd reads the level in front of a line; a person need not.
        _say(line if "JOURNAL_STREAM" in os.environ else line[3:])
    return code


def _verify(machine: Machine, given: argparse.Namespace) -> int:
    from . import verify  # noqa: PLC0415 -- each command imports what it needs

    report = verify.against_record(machine)
    _say(json.dumps(report, indent=1) if given.json else "\n".join(verify.lines(report)))
    return verify.status(report)


def _rollback(machine: Machine, given: argparse.Namespace) -> int:
    from . import back  # noqa: PLC0415 -- each command imports what it needs

    code = 0
    for line in back.rollback(machine, tuple(given.owner), tuple(given.key), given.force, given.check):
        code = code or int(line.startswith(back.LEFT))
        _say(line)
    return code


def _restore(machine: Machine, given: argparse.Namespace) -> int:
    from . import back  # noqa: PLC0415 -- each command imports what it needs

    for line in back.restore(machine, given.boot):
        _say(line)
    return 0


def _metrics(machine: Machine, given: argparse.Namespace) -> int:
    from . import metrics  # noqa: PLC0415 -- each command imports what it needs

    if given.output:
        metrics.put(machine, given.source, given.output)
    else:
        sys.stdout.write(metrics.text(machine, given.source))
    return 0
