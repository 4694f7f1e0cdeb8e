# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai_infra.workstation.gateway_keys: the gateway's file of API keys. See gateway_keys.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import WorkstationError
from ..plugin_utils.gateway.keys import keys_file


def gateway_keys(keys: Any) -> str:
    """The text of the file that the option keys_file of haproxy_config names."""
    try:
        return keys_file(keys)
    except WorkstationError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gateway_keys": gateway_keys}
