# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ai_infra.workstation.render_stack: services as one compose file. Documentation: render_stack.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import WorkstationError
from ..plugin_utils import stack
from ..plugin_utils.plain import plain


def render_stack(
    services: Any, options: Any = None, placement: Any = None, facts: Any = None, gateway: Any = None
) -> dict[str, Any]:
    """The rendered stack; what is wrong, all of it, is one error."""
    try:
        return stack.render(plain(services), plain(options or {}), plain(placement or {}), facts or {}, plain(gateway))
    except WorkstationError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"render_stack": render_stack}
