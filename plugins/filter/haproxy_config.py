# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai_infra.workstation.haproxy_config: the configuration of the gateway. See haproxy_config.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import WorkstationError
from ..plugin_utils import gateway


def haproxy_config(endpoints: Any, options: Any = None) -> str:
    """The text of haproxy.cfg."""
    try:
        return gateway.haproxy_config(endpoints, options)
    except WorkstationError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"haproxy_config": haproxy_config}
