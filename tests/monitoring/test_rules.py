# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every alert fires when it must and not when it must not, as promtool says, on the file that the role writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring.alerts import ALERTS, NAMES
from tools import tool, written

GPU = 'instance="ws",job="node",pci="0000:01:00.0"'
NODE = 'instance="ws",job="node"'


def gpu(name: str, values: str, more: str = "") -> tuple[str, str]:
    return f"ai_workstation_gpu_{name}{{{GPU}{more}}}", values


def node(name: str, values: str, more: str = "") -> tuple[str, str]:
    return f"{name}{{{NODE}{more}}}", values


def link(width: int, generation: int, load: float) -> list[tuple[str, str]]:
    return [
        gpu("pcie_link_width_lanes", f"{width}x60"),
        gpu("pcie_link_max_width_lanes", "16x60"),
        gpu("pcie_link_generation", f"{generation}x60"),
        gpu("pcie_link_max_generation", "5x60"),
        gpu("utilization_ratio", f"{load}x60"),
    ]


def memory(available: float, stalled: float) -> list[tuple[str, str]]:
    """Available part, and seconds of each minute that everybody waits."""
    return [
        node("node_memory_MemAvailable_bytes", f"{int(available * 1000)}x60"),
        node("node_memory_MemTotal_bytes", "1000x60"),
        node("node_pressure_memory_stalled_seconds_total", f"0+{stalled}x60"),
    ]


def backends(active: int, backup: int) -> list[tuple[str, str]]:
    where = 'instance="ws",job="gateway",proxy="model_m"'
    return [
        (f"haproxy_backend_active_servers{{{where}}}", f"{active}x60"),
        (f"haproxy_backend_backup_servers{{{where}}}", f"{backup}x60"),
    ]


def server(up: int) -> list[tuple[str, str]]:
    return [('haproxy_server_status{instance="ws",job="gateway",proxy="model_m",server="a",state="UP"}', f"{up}x60")]


def file_written(minute: int) -> list[tuple[str, str]]:
    path = ',file="/run/ai-workstation-metrics/ai-workstation-gpu.prom"'
    return [node("node_textfile_mtime_seconds", f"{60 * minute}x60", path)]


def up(job: str, values: str, more: str = "") -> list[tuple[str, str]]:
    return [(f'up{{instance="ws",job="{job}"{more}}}', values)]


# Alert -> what makes it fire within 30 minutes, and things beside it that must not.
FIRES: dict[str, list[tuple[str, str]]] = {
    "GpuThrottled": [gpu("clock_event", "1x60", ',reason="hw_thermal_slowdown"')],
    "GpuXid": [gpu("xid_last_timestamp_seconds", "1500x60", ',xid="79"')],
    "GpuLost": [gpu("up", "1x5 0x60")],
    "GpuDriverDown": [node("ai_workstation_driver_up", "0x60")],
    "GpuLinkDegraded": link(8, 5, 0.0),
    "GpuMemoryErrors": [gpu("ecc_errors_total", "0x20 2x40", ',kind="uncorrected"')],
    "Drift": [node("ai_workstation_drift_keys", "2x60")],
    "DriftUnchecked": [node("ai_workstation_drift_unchecked_parts", "1x200")],
    "MetricsStale": file_written(5),
    "MemoryPressure": memory(0.04, 0),
    "ServiceDown": up("engines", "1x5 0x60", ',service="llama_gpu"'),
    "GatewayBackendDown": server(0),
    "GatewayEmpty": backends(0, 0),
    "MonitoringDown": up("gateway", "0x60"),
    "AlertsNotDelivered": [node("alertmanager_notifications_failed_total", "0+1x60", ',integration="webhook"')],
}
QUIET: dict[str, list[list[tuple[str, str]]]] = {
    "GpuThrottled": [
        [gpu("clock_event", "1x60", ',reason="sw_power_cap"')],
        [gpu("clock_event", "1x60", ',reason="idle"')],
        [gpu("clock_event", "0x60", ',reason="hw_slowdown"')],
        [gpu("clock_event", "0x28 1 0x40", ',reason="hw_slowdown"')],
    ],
    "GpuXid": [[gpu("xid_last_timestamp_seconds", "300x60", ',xid="79"')]],
    "GpuLost": [[gpu("up", "1x60")]],
    "GpuDriverDown": [[node("ai_workstation_driver_up", "1x60")], [node("ai_workstation_gpus", "0x60")]],
    "GpuLinkDegraded": [link(16, 1, 0.0), link(16, 5, 1.0)],
    "GpuMemoryErrors": [
        [gpu("ecc_errors_total", "0x60", ',kind="uncorrected"')],
        [gpu("ecc_errors_total", "0x20 2x40", ',kind="corrected"')],
    ],
    "Drift": [[node("ai_workstation_drift_keys", "0x60")], [node("ai_workstation_drift_keys", "0x20 2x40")]],
    "DriftUnchecked": [[node("ai_workstation_drift_unchecked_parts", "0x60")]],
    "MetricsStale": [file_written(20)],
    "MemoryPressure": [memory(0.06, 0), memory(0.5, 3)],
    "ServiceDown": [up("engines", "1x60", ',service="llama_gpu"'), up("gateway", "0x60")],
    "GatewayBackendDown": [server(1)],
    "GatewayEmpty": [backends(1, 0), backends(0, 1)],
    "MonitoringDown": [up("gateway", "1x60"), up("engines", "0x60", ',service="llama_gpu"')],
    "AlertsNotDelivered": [[node("alertmanager_notifications_failed_total", "3x60", ',integration="webhook"')]],
}
# Other ways to the same alert.
ALSO = [
    ("GpuLinkDegraded", link(16, 3, 0.9)),
    ("MemoryPressure", memory(0.5, 12)),
    ("MonitoringDown", up("node", "0x60")),
    *(
        ("GpuThrottled", [gpu("clock_event", "1x60", f',reason="{reason}"')])
        for reason in ("hw_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
    ),
]
LATE = {"DriftUnchecked": "90m"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("rules"))["alerts"]


def firing(rules: Path, folder: Path, cases: list[tuple[str, list[tuple[str, str]], bool]]) -> str:
    """What promtool has against the claim that of each case (alert, series, whether it fires) all holds."""
    tests = []
    for name, series, fires in cases:
        moment = LATE.get(name, "30m")
        selector = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
        tests.append(
            {
                "interval": "1m",
                "name": name,
                "input_series": [{"series": one, "values": values} for one, values in series],
                "promql_expr_test": [
                    {
                        "expr": selector,
                        "eval_time": moment,
                        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                    }
                ],
            }
        )
    content: dict[str, Any] = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(content))
    status, said = tool("promtool", "test", "rules", path)
    return "" if status == 0 else said


def test_every_alert_has_its_cases() -> None:
    assert FIRES.keys() == QUIET.keys() == set(NAMES)


def test_every_alert_fires(rules: Path, tmp_path: Path) -> None:
    cases = [(name, series, True) for name, series in [*FIRES.items(), *ALSO]]
    assert firing(rules, tmp_path, cases) == ""


def test_no_alert_fires_for_what_is_well(rules: Path, tmp_path: Path) -> None:
    cases = [(name, series, False) for name, several in QUIET.items() for series in several]
    assert firing(rules, tmp_path, cases) == ""


def test_the_harness_can_fail(rules: Path, tmp_path: Path) -> None:
    assert firing(rules, tmp_path, [("GpuLost", QUIET["GpuLost"][0], True)])
    assert firing(rules, tmp_path, [("GpuLost", FIRES["GpuLost"], False)])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_what_an_alert_says_is_filled_in(alert, rules: Path, tmp_path: Path) -> None:
    """promtool fills in labels and value; a label that is not there would leave a hole."""
    content = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": one, "values": values} for one, values in FIRES[alert.name]],
                # Nothing is expected, so that all that fires is told.
                "alert_rule_test": [{"eval_time": LATE.get(alert.name, "30m"), "alertname": alert.name}],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(content))
    _status, said = tool("promtool", "test", "rules", path)
    assert "summary=" in said
    summary = said.partition("summary=")[2].partition("\n")[0]
    assert "{{" not in summary
    assert "<no value>" not in summary
    assert "  " not in summary
    assert "of  " not in summary
    assert "ws" in summary


def test_an_alert_that_is_off_is_not_there(tmp_path: Path) -> None:
    text = written(tmp_path, alerts_off=["Drift"])["alerts"].read_text()
    assert "alert: Drift\n" not in text
    assert "alert: DriftUnchecked\n" in text
