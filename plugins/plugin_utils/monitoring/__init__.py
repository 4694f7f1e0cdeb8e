# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role monitoring puts on a machine: pure, from options and the discovery file to texts.

options     what is asked for, parsed
alerts      the rules of Prometheus
render      prometheus.yml, alerts.yml, alertmanager.yml
dashboard   for Grafana
page        docs/monitoring.md
"""

from __future__ import annotations

from typing import Any

from ...module_utils.errors import InputError
from . import render
from .options import parse


def monitoring_files(options: Any, services: Any = None) -> dict[str, str]:
    """The texts by name: prometheus, alerts, alertmanager. services: what is in services.json. Raises InputError."""
    if services and not isinstance(services, dict):
        raise InputError("/etc/ai-workstation/services.json: not the discovery file of service_stack")
    return render.files(parse(options), services or {})
