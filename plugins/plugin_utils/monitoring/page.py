# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tables of docs/monitoring.md: every metric of ours, every alert."""

from __future__ import annotations

from collections.abc import Iterator

from ...module_utils.on_host.metric_table import METRICS, PREFIX
from .alerts import ALERTS

_HEAD = """\
# monitoring

## NAME

monitoring - metrics of GPUs, engines and gateway, and alerts that reach somebody

## SYNOPSIS

    monitoring_state: present
    monitoring_webhooks:
      - {url: "https://chat.example/hooks/ai", token_file: /etc/ai-workstation/chat.token}
    ansible-playbook site.yml -l ws5090 -t workstation_plan,monitoring --check --diff

## DESCRIPTION

Prometheus, the node exporter and Alertmanager of the distribution, as instances of our own: units, configuration, data
and ports are ours, and everything listens at 127.0.0.1 unless monitoring_listen says otherwise. The units that the
packages bring do not run; where one of them runs already it is somebody's, and the role refuses to take its port.

    ai-workstation-prometheus.service      127.0.0.1:9090    /etc/ai-workstation/monitoring/prometheus.yml, alerts.yml
    ai-workstation-alertmanager.service    127.0.0.1:9093    /etc/ai-workstation/monitoring/alertmanager.yml
    ai-workstation-node-exporter.service   127.0.0.1:9100
    ai-workstation-metrics.timer           every monitoring_gpu_seconds (15)
    ai-workstation-drift.timer             every monitoring_drift_seconds (300)

The last two run `ai-workstation metrics gpu` and `ai-workstation metrics drift`, which ask the driver through NVML, the
kernel's log for Xid lines, and the record for drift. They set nothing, load no driver and have no network.

Engines and the gateway are scraped where /etc/ai-workstation/services.json says metrics_url. Where an engine wants a
key, monitoring_service_keys names the file that holds it.

Secrets stay in files of root; no configuration holds one. As the unit starts that needs one, root puts a copy into a
folder in memory (/run/ai-workstation-alertmanager, /run/ai-workstation-prometheus) that only its user can enter.
Restart the unit after a change of such a file.

Dashboard: roles/monitoring/files/dashboard.json, for any Grafana 9 or newer. Grafana is in none of the distributions.

Xid numbers and ECC counters were never seen from a real card here.
"""


def monitoring_page() -> str:
    return _HEAD + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "\n## METRICS\n"
    yield "| metric | type | labels | what |\n|---|---|---|---|"
    for metric in METRICS:
        yield f"| {PREFIX}{metric.name} | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.what} |"
    yield "\n## ALERTS\n"
    for alert in ALERTS:
        wait = f", after {alert.waits}" if alert.waits else ""
        yield f"### {alert.name} ({alert.severity}{wait})\n"
        yield f"    {alert.expr}\n"
        yield f"{alert.todo}\n"
    yield "monitoring_alerts_off takes names of this list."
