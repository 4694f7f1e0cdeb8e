# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The alerts: when each fires, how long it waits, and what to do. The page docs/monitoring.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Jobs of the scrape configuration.
NODE, PROMETHEUS, ALERTMANAGER, ENGINES, GATEWAY = "node", "prometheus", "alertmanager", "engines", "gateway"

# Reasons that say that something is wrong. A power cap is what the owner has set, and no fault.
_FAULTS = "hw_slowdown|sw_thermal_slowdown|hw_thermal_slowdown|hw_power_brake_slowdown"
_CARD = "{{ $labels.pci }} of {{ $labels.instance }}"


@dataclass(frozen=True)
class Alert:
    """waits: as Prometheus writes durations; empty fires at the first look. what: a summary with $labels and $value."""

    name: str
    expr: str
    waits: str
    severity: str
    what: str
    todo: str

    def rule(self) -> dict[str, Any]:
        wait = {"for": self.waits} if self.waits else {}
        labels = {"severity": self.severity}
        return {
            "alert": self.name,
            "expr": self.expr,
            **wait,
            "labels": labels,
            "annotations": {"summary": self.what, "description": self.todo},
        }


ALERTS = (
    Alert(
        "GpuThrottled",
        "max by (instance, pci, reason)"
        f' (avg_over_time(ai_workstation_gpu_clock_event{{reason=~"{_FAULTS}"}}[5m])) > 0.5',
        "2m",
        "warning",
        f"GPU {_CARD} is slowed down: {{{{ $labels.reason }}}}",
        "Look at temperature, fans, dust and power cables. A power cap does not fire this alert.",
    ),
    Alert(
        "GpuXid",
        "time() - max by (instance, pci, xid) (ai_workstation_gpu_xid_last_timestamp_seconds) < 900",
        "",
        "critical",
        f"The driver reported Xid {{{{ $labels.xid }}}} for GPU {_CARD}",
        "journalctl -k -g NVRM has the line; NVIDIA's page on Xid errors says what the number means.",
    ),
    Alert(
        "GpuLost",
        "ai_workstation_gpu_up == 0",
        "1m",
        "critical",
        f"GPU {_CARD} does not answer",
        "journalctl -k -g NVRM says why; a card that fell off the bus comes back with a power cycle.",
    ),
    Alert(
        "GpuDriverDown",
        "ai_workstation_driver_up == 0",
        "1m",
        "critical",
        "The NVIDIA driver of {{ $labels.instance }} does not answer",
        "nvidia-smi says why; after an upgrade of the driver a reboot is needed.",
    ),
    Alert(
        "GpuLinkDegraded",
        "ai_workstation_gpu_pcie_link_width_lanes < ai_workstation_gpu_pcie_link_max_width_lanes"
        " or (ai_workstation_gpu_pcie_link_generation < ai_workstation_gpu_pcie_link_max_generation"
        " and ai_workstation_gpu_utilization_ratio > 0.5)",
        "10m",
        "warning",
        f"The PCIe link of GPU {_CARD} is at {{{{ $value }}}} (lanes or generation), below what card and slot can have",
        "Seat the card and its riser anew; look for AER lines in the kernel's log. That of a resting card may be slow.",
    ),
    Alert(
        "GpuMemoryErrors",
        'increase(ai_workstation_gpu_ecc_errors_total{kind="uncorrected"}[1h]) > 0',
        "",
        "critical",
        f"GPU {_CARD} had memory errors that ECC could not correct",
        "Results since then may be wrong. Reset the card; replace it when the errors come back.",
    ),
    Alert(
        "Drift",
        "ai_workstation_drift_keys > 0",
        "15m",
        "warning",
        "{{ $value }} settings of {{ $labels.instance }} are not as recorded",
        "sudo ai-workstation verify names them and who may have changed them; the next run of site.yml repairs them.",
    ),
    Alert(
        "DriftUnchecked",
        "ai_workstation_drift_unchecked_parts > 0",
        "1h",
        "warning",
        "{{ $value }} parts of the record of {{ $labels.instance }} cannot be checked",
        "sudo ai-workstation verify says why.",
    ),
    Alert(
        "MetricsStale",
        'time() - node_textfile_mtime_seconds{file=~"(.*/)?ai-workstation-(gpu|drift).prom"} > 900',
        "",
        "warning",
        "{{ $labels.file }} of {{ $labels.instance }} is not written any more",
        "systemctl status ai-workstation-metrics ai-workstation-drift says why.",
    ),
    Alert(
        "MemoryPressure",
        "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.05"
        " or rate(node_pressure_memory_stalled_seconds_total[5m]) > 0.1",
        "5m",
        "warning",
        "{{ $labels.instance }} is short of memory",
        "A model may be too large beside the others; systemd-cgtop -m shows who has it.",
    ),
    Alert(
        "ServiceDown",
        f'up{{job="{ENGINES}"}} == 0',
        "2m",
        "critical",
        "Service {{ $labels.service }} of {{ $labels.instance }} does not answer",
        "docker ps and docker logs of its container say why; the watch of the stack may have stopped it.",
    ),
    Alert(
        "GatewayBackendDown",
        'haproxy_server_status{state="UP"} == 0',
        "1m",
        "warning",
        "The gateway of {{ $labels.instance }} has taken {{ $labels.server }} out of {{ $labels.proxy }}",
        "Look at that engine; the gateway takes it back by itself when it is well.",
    ),
    Alert(
        "GatewayEmpty",
        "haproxy_backend_active_servers + haproxy_backend_backup_servers == 0",
        "30s",
        "critical",
        "The gateway of {{ $labels.instance }} has no engine left for {{ $labels.proxy }}",
        "Requests for it fail now. Look at its engines.",
    ),
    Alert(
        "MonitoringDown",
        f'up{{job=~"{NODE}|{PROMETHEUS}|{ALERTMANAGER}|{GATEWAY}"}} == 0',
        "2m",
        "critical",
        "{{ $labels.job }} of {{ $labels.instance }} does not answer",
        "systemctl status of its unit, or docker logs of the gateway, says why.",
    ),
    Alert(
        "AlertsNotDelivered",
        "rate(alertmanager_notifications_failed_total[15m]) > 0",
        "5m",
        "warning",
        "Alerts of {{ $labels.instance }} do not reach their {{ $labels.integration }} receiver",
        "journalctl -u ai-workstation-alertmanager has the reason.",
    ),
)

NAMES = tuple(alert.name for alert in ALERTS)


def rules(off: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    """The rule file of Prometheus, without the alerts that are off."""
    return {"groups": [{"name": "ai-workstation", "rules": [one.rule() for one in ALERTS if one.name not in off]}]}
