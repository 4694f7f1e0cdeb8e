# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dashboard, as Grafana 9 and newer import it. Source: grafana.com/docs, dashboard JSON model, schema 36."""

from __future__ import annotations

import json
from typing import Any

from .alerts import ENGINES

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3  # a grid of 24 columns
_HERE = 'instance=~"$instance"'
_ROOMS = f'{{fstype!~"tmpfs|overlay",{_HERE}}}'
_FIRST_TOKENS = f"rate(vllm:time_to_first_token_seconds_bucket{{{_HERE}}}[5m])"
_ANSWERS = f"rate(haproxy_backend_http_responses_total{{{_HERE}}}[1m])"
_UNCORRECTED = ',kind="uncorrected"'
_CARD = "{{instance}} {{pci}}"


def _own(name: str, more: str = "") -> str:
    return f"ai_workstation_{name}{{{_HERE}{more}}}"


# title, unit of Grafana, [(expression, legend)]
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Firing alerts", "short", ((f'count by (alertname) (ALERTS{{alertstate="firing",{_HERE}}})', "{{alertname}}"),)),
    ("Services", "short", ((f'up{{job="{ENGINES}",{_HERE}}}', "{{instance}} {{service}}"),)),
    ("Settings that drifted", "short", ((_own("drift_keys"), "{{instance}}"),)),
    ("GPU load", "percentunit", ((_own("gpu_utilization_ratio"), _CARD),)),
    (
        "GPU power",
        "watt",
        ((_own("gpu_power_watts"), _CARD), (_own("gpu_power_limit_watts"), _CARD + " limit")),
    ),
    ("GPU temperature", "celsius", ((_own("gpu_temperature_celsius"), _CARD),)),
    ("GPU memory in use", "bytes", ((_own("gpu_memory_used_bytes"), _CARD),)),
    ("GPU clock", "hertz", ((_own("gpu_sm_clock_hertz"), _CARD),)),
    (
        "What holds the clocks down",
        "short",
        ((_own("gpu_clock_event", ',reason!="idle"') + " == 1", _CARD + " {{reason}}"),),
    ),
    ("PCIe lanes", "short", ((_own("gpu_pcie_link_width_lanes"), _CARD),)),
    ("PCIe generation", "short", ((_own("gpu_pcie_link_generation"), _CARD),)),
    (
        "Uncorrected memory errors",
        "short",
        ((f"increase({_own('gpu_ecc_errors_total', _UNCORRECTED)}[1h])", _CARD),),
    ),
    (
        "Tokens per second, generated",
        "short",
        (
            (f"rate(llamacpp:tokens_predicted_total{{{_HERE}}}[1m])", "{{instance}} {{service}}"),
            (f"rate(vllm:generation_tokens_total{{{_HERE}}}[1m])", "{{instance}} {{service}}"),
        ),
    ),
    (
        "Requests waiting",
        "short",
        (
            (f"llamacpp:requests_deferred{{{_HERE}}}", "{{instance}} {{service}}"),
            (f"vllm:num_requests_waiting{{{_HERE}}}", "{{instance}} {{service}}"),
        ),
    ),
    (
        "Time to first token, 95 percent",
        "s",
        (
            (
                f"histogram_quantile(0.95, sum by (instance, service, le) ({_FIRST_TOKENS}))",
                "{{instance}} {{service}}",
            ),
        ),
    ),
    (
        "Gateway: requests per second",
        "reqps",
        ((f"sum by (instance, code) ({_ANSWERS})", "{{instance}} {{code}}"),),
    ),
    (
        "Gateway: engines that are up",
        "short",
        ((f"haproxy_backend_active_servers{{{_HERE}}}", "{{instance}} {{proxy}}"),),
    ),
    ("Memory available", "bytes", ((f"node_memory_MemAvailable_bytes{{{_HERE}}}", "{{instance}}"),)),
    (
        "Waiting for memory",
        "percentunit",
        ((f"rate(node_pressure_memory_stalled_seconds_total{{{_HERE}}}[5m])", "{{instance}}"),),
    ),
    (
        "CPU load",
        "percentunit",
        ((f'1 - avg by (instance) (rate(node_cpu_seconds_total{{mode="idle",{_HERE}}}[1m]))', "{{instance}}"),),
    ),
    (
        "File systems",
        "percentunit",
        (
            (
                f"1 - node_filesystem_avail_bytes{_ROOMS} / node_filesystem_size_bytes{_ROOMS}",
                "{{instance}} {{mountpoint}}",
            ),
        ),
    ),
)


def dashboard() -> str:
    """The text of dashboard.json."""
    content = {
        "title": "AI workstations",
        "uid": "ai-workstation",
        "schemaVersion": 36,
        "tags": ["ai-workstation"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_source(), _instance()]},
        "panels": [_panel(index, *panel) for index, panel in enumerate(PANELS)],
    }
    return json.dumps(content, indent=1) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Machine",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(ai_workstation_gpus, instance)", "refId": "instance"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(index: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    return {
        "id": index + 1,
        "title": title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(queries)
        ],
    }
