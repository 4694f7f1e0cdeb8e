# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files that the role writes, the metrics and the dashboard, judged by those who read them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import metrics
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host.metric_table import METRICS, PREFIX
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring import monitoring_files
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring.alerts import ALERTS
from gpu_box import CARDS, Box
from nvml_child import in_child
from tools import tool, written

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {
    "version": 1,
    "services": {
        "llama_gpu": {"engine": "llama_cpp", "key": False, "metrics_url": "http://127.0.0.1:8004/metrics"},
        "vllm_gpu": {"engine": "vllm", "key": True, "metrics_url": "http://127.0.0.1:8005/metrics"},
        "open_webui": {"engine": "open_webui", "key": False, "metrics_url": None},
        "gateway": {"engine": "haproxy", "key": True, "metrics_url": "http://127.0.0.1:8405/metrics"},
    },
}
WEBHOOK = {"url": "https://chat.example/hook", "token_file": "/etc/ai-workstation/chat.token"}
MAIL = {"to": "ops@example.org", "from": "ai@example.org", "smarthost": "mail.example.org:587", "user": "ai",
        "password_file": "/etc/ai-workstation/mail.password"}  # fmt: skip
# What others call their metrics: the documentation of node exporter, HAProxy 2.4+, llama.cpp, vLLM, Alertmanager.
OTHERS = {
    "up", "ALERTS", "node_textfile_mtime_seconds", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
    "node_pressure_memory_stalled_seconds_total", "node_cpu_seconds_total", "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes", "haproxy_server_status", "haproxy_backend_active_servers",
    "haproxy_backend_backup_servers", "haproxy_backend_http_responses_total", "alertmanager_notifications_failed_total",
    "llamacpp:tokens_predicted_total", "llamacpp:requests_deferred", "vllm:generation_tokens_total",
    "vllm:num_requests_waiting", "vllm:time_to_first_token_seconds_bucket",
}  # fmt: skip
KNOWN = OTHERS | {PREFIX + metric.name for metric in METRICS}
_NAME = re.compile(r"\b(?:[a-z]+_[a-zA-Z_]+|(?:llamacpp|vllm):[a-z_]+|up|ALERTS)\b")
_FUNCTIONS = {"avg_over_time", "histogram_quantile"}


@pytest.mark.parametrize("options", [{}, {"webhooks": [WEBHOOK], "mails": [MAIL], "listen": "[::]"}])
@pytest.mark.parametrize("services", [{}, SERVICES])
def test_their_readers_accept_them(tmp_path: Path, services, options) -> None:
    files = written(tmp_path, services, **options)
    for words in (
        ("promtool", "check", "rules", files["alerts"]),
        ("promtool", "check", "config", files["prometheus"]),
        ("amtool", "check-config", files["alertmanager"]),
    ):
        status, said = tool(*words)
        assert status == 0, said


def test_every_service_that_tells_is_asked(tmp_path: Path) -> None:
    config = yaml.safe_load(written(tmp_path, SERVICES, keys={"vllm_gpu": "/etc/k"})["prometheus"].read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert {job["static_configs"][0]["targets"][0] for job in jobs.values()} == {
        "127.0.0.1:9090", "127.0.0.1:9093", "127.0.0.1:9100", "127.0.0.1:8004", "127.0.0.1:8005", "127.0.0.1:8405",
    }  # fmt: skip
    labels = {"instance": "ws", "service": "vllm_gpu", "job": "engines"}
    assert jobs["engines/vllm_gpu"]["static_configs"][0]["labels"] == labels
    assert (
        jobs["engines/vllm_gpu"]["authorization"]["credentials_file"] == "/run/ai-workstation-prometheus/key-vllm_gpu"
    )


def test_no_secret_and_no_path_of_one_is_in_them(tmp_path: Path) -> None:
    files = written(tmp_path, SERVICES, webhooks=[WEBHOOK], mails=[MAIL], keys={"vllm_gpu": "/root/vllm.key"})
    text = "".join(path.read_text() for path in files.values())
    for path in (WEBHOOK["token_file"], MAIL["password_file"], "/root/vllm.key"):
        assert path not in text
    assert "/run/ai-workstation-alertmanager/mail-0" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alerts_off": ["GpuThrotled"]}, "'GpuThrotled' is no alert of ours; the nearest is GpuThrottled"),
        ({"prometheus_port": 70000}, "monitoring_prometheus_port: .*70000"),
        ({"node_port": 9090}, "two of its ports are one"),
        ({"listen": "here:1"}, "monitoring_listen: 'here:1' is not an address"),
        ({"webhooks": [{"url": "chat.example"}]}, r"monitoring_webhooks\[0\].url: not http"),
        ({"webhooks": [{"url": "https://ann:secret@chat.example/"}]}, "without user and password"),
        ({"webhooks": [{"url": "https://a/", "tokn": "x"}]}, "'tokn' is not a field of it"),
        ({"webhooks": [{"url": "https://a/", "token_file": "x"}]}, "token_file: 'x' is not the path"),
        ({"keys": {"vllm_gpu": "/root/a key"}}, "monitoring_service_keys.vllm_gpu: '/root/a key' is not the path"),
        ({"webhooks": "https://a/"}, "is not a list"),
        ({"mails": [{"to": "a@b"}]}, r"monitoring_mails\[0\].from: missing"),
        ({"mails": [{**MAIL, "smarthost": "mail"}]}, "'mail' has no port"),
        ({"mails": [{**MAIL, "password_file": None}]}, "a user needs a password"),
        ({"keys": {"vlm_gpu": "/etc/k"}}, "monitoring_service_keys: 'vlm_gpu' is no service; there are gateway,"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(options, words: str) -> None:
    with pytest.raises(InputError, match=words) as found:
        monitoring_files(options, SERVICES)
    assert "\n" not in str(found.value)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("card", CARDS)
def test_promtool_accepts_the_metrics(tmp_path: Path, card: str) -> None:
    tmp_path.chmod(0o755)
    box = Box(tmp_path, [card])
    box.kernel.put_all({"/dev/kmsg": "4,2,7500000,-;NVRM: Xid (PCI:0000:01:00): 31, pid=1234\n"})
    text = in_child(box.driver, lambda: metrics.text(Machine(box.kernel, lambda: open_nvml(None)), "gpu"))
    assert tool("promtool", "check", "metrics", text=text) == (0, "")
    assert tool("promtool", "check", "metrics", text=text.replace("# HELP", "# HELP_", 1))[0] != 0


def names_in(expression: str) -> set[str]:
    """Names of metrics: what is left without labels, groups and functions."""
    bare = re.sub(r"\{[^}]*\}|(?:by|without|on|ignoring) \([^)]*\)|\[[^]]*\]", "", expression)
    return set(_NAME.findall(bare)) - _FUNCTIONS


def panels() -> list[dict]:
    return json.loads((ROOT / "roles/monitoring/files/dashboard.json").read_text())["panels"]


def test_every_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    """As recording rules: promtool parses them as Prometheus would."""
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    rules = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    status, said = tool("promtool", "check", "rules", path)
    assert (status, f"{len(expressions)} rules found" in said) == (0, True), said
    rules.append({"record": "panel:broken", "expr": "rate(up"})
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert tool("promtool", "check", "rules", path)[0] != 0


def test_every_metric_of_dashboard_and_alerts_is_known() -> None:
    used = {name for panel in panels() for target in panel["targets"] for name in names_in(target["expr"])}
    used |= {name for alert in ALERTS for name in names_in(alert.expr)}
    assert used - KNOWN == set()
    assert used >= OTHERS
    assert names_in("rate(ai_workstation_gpu_pwer[1m])") - KNOWN == {"ai_workstation_gpu_pwer"}


def test_the_panels_do_not_lie_on_each_other() -> None:
    fields = [
        (x, y)
        for panel in panels()
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(fields) == len(set(fields))
    assert max(x for x, _y in fields) < 24
