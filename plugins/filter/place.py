# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai_infra.workstation.place: CPU sets, memory and GPUs for services. Documentation: place.yml beside this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import WorkstationError
from ..plugin_utils import placement


def place(
    facts: Any,
    services: Any,
    smt: Any = None,
    housekeeping_cpus: Any = 2,
    reserve_bytes: Any = placement.DEFAULT_RESERVE_BYTES,
    hint: Any = None,
    refuse: bool = True,
) -> dict[str, Any]:
    """The placement; wishes that conflict are an error, or with refuse=False in the result."""
    try:
        found = placement.place(facts, services, smt, housekeeping_cpus, reserve_bytes, hint)
    except WorkstationError as error:
        raise AnsibleFilterError(str(error)) from error
    if refuse and not found["feasible"]:
        reasons = "; ".join(conflict["message"] for conflict in found["conflicts"])
        raise AnsibleFilterError(reasons)
    return found


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"place": place}
