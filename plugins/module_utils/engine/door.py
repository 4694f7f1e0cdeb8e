# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a result leaves a state module."""

from __future__ import annotations

from typing import Any, Callable

from ..doors.host import Host
from ..errors import WorkstationError
from .machine import Machine
from .plan import Subject, converge


def run(module: Any, subject: Subject, open_driver: Any = None, binding: Any = lambda: None) -> None:
    """Run a subject for an AnsibleModule (taken as it is: this tree imports nothing of Ansible)."""
    leave(
        module,
        Machine(Host(), open_driver, binding),
        lambda machine: converge(subject, module.params, module.check_mode, machine),
    )


def leave(module: Any, machine: Machine, call: Callable[[Machine], dict[str, Any]]) -> None:
    """End the module with what the call returns, or with its one-line error."""
    try:
        outcome = call(machine)
        for warning in outcome.pop("warnings"):
            module.warn(warning)
        module.exit_json(**outcome)
    except WorkstationError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    finally:
        machine.close()
