# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai_infra.workstation.monitoring_files: the configuration of the monitoring. See monitoring_files.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import WorkstationError
from ..plugin_utils import monitoring
from ..plugin_utils.plain import plain


def monitoring_files(services: Any, options: Any = None) -> dict[str, str]:
    """The texts by name; what is wrong is one line."""
    try:
        return monitoring.monitoring_files(plain(options or {}), plain(services or {}))
    except WorkstationError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"monitoring_files": monitoring_files}
