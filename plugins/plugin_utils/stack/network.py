# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The private network of the stack. Whether its addresses are free on the machine is looked up there, by the module."""

from __future__ import annotations

import ipaddress
from typing import Any

from ...module_utils.errors import InputError
from .options import Options


def network(options: Options) -> dict[str, Any]:
    """A bridge of its own. Raises InputError for a subnet that is none, is public or has no room."""
    try:
        found = ipaddress.IPv4Network(options.subnet)
    except ValueError:
        raise InputError(
            f"service_stack_subnet: {options.subnet!r} is not an IPv4 network; write one like 172.20.0.0/24"
        ) from None
    if not found.is_private or found.prefixlen > 28:
        raise InputError(
            f"service_stack_subnet: {options.subnet} must be a private network of 16 addresses or more, "
            "like 172.20.0.0/24"
        )
    return {"driver": "bridge", "ipam": {"config": [{"subnet": str(found)}]}}
