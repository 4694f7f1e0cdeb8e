# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A GPU falls off the bus, and somebody is told: program, node exporter, Prometheus, Alertmanager, webhook."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.engine.machine import Machine
from ansible_collections.ai_infra.workstation.plugins.module_utils.on_host import metrics
from gpu_box import Box
from nvml_child import in_child
from tools import written

LIMIT_S = 90
TOKEN = "s3same"  # noqa: S105 -- of the receiver below


class Receiver(BaseHTTPRequestHandler):
    """A webhook that keeps what it is sent, and takes it only with the token."""

    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        good = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if good:
            self.got.append(json.loads(body))
        self.send_response(200 if good else 401)
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _each in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(log: Path, *command: str | Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def until(what: Callable[[], Any], logs: Path) -> Any:
    """The first true answer of `what`; the logs where none comes."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        time.sleep(0.1)
    pytest.fail("\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in logs.glob("*.log")))


def test_a_lost_gpu_reaches_the_webhook(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    box = Box(tmp_path, ["rtx5090"])
    prom = tmp_path / "textfiles" / "ai-workstation-gpu.prom"
    prom.parent.mkdir()

    def measure() -> None:
        """What the timer does; the text as the program makes it, put where the node exporter looks."""
        text = in_child(box.driver, lambda: metrics.text(Machine(box.kernel, lambda: open_nvml(None)), "gpu"))
        (fresh := prom.with_suffix(".new")).write_text(text)
        fresh.rename(prom)

    received: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Receiver,), {"got": received}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = dict(zip(("prometheus_port", "node_port", "alertmanager_port"), free_ports(3), strict=True))
    files = written(
        tmp_path,
        {
            "services": {
                "llama": {"engine": "llama_cpp", "metrics_url": f"http://127.0.0.1:{server.server_port}/metrics"}
            }
        },
        scrape_seconds=1,
        webhooks=[{"url": f"http://127.0.0.1:{server.server_port}/alerts", "token_file": "/etc/token"}],
        **ports,
    )
    faster(files, tmp_path)
    here = {name: f"127.0.0.1:{port}" for name, port in ports.items()}

    def ask(query: str) -> list[dict[str, Any]]:
        url = f"http://{here['prometheus_port']}/api/v1/query?query={query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    measure()
    with (
        running(
            tmp_path / "node.log",
            "prometheus-node-exporter",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={prom.parent}",
            f"--web.listen-address={here['node_port']}",
        ),
        running(
            tmp_path / "alertmanager.log",
            "prometheus-alertmanager",
            f"--config.file={files['alertmanager']}",
            f"--storage.path={tmp_path / 'am'}",
            f"--web.listen-address={here['alertmanager_port']}",
            "--cluster.listen-address=",
        ),
        running(
            tmp_path / "prometheus.log",
            "prometheus",
            f"--config.file={files['prometheus']}",
            f"--storage.tsdb.path={tmp_path / 'db'}",
            f"--web.listen-address={here['prometheus_port']}",
        ),
    ):
        until(lambda: ask("ai_workstation_gpu_up==1"), tmp_path)
        assert not any("GpuLost" in str(one) for one in received)
        box.driver.lose()
        measure()
        until(lambda: [one for one in received if one["groupLabels"]["alertname"] == "GpuLost"], tmp_path)
        until(lambda: [one for one in received if one["groupLabels"]["alertname"] == "ServiceDown"], tmp_path)
        (lost,) = next(one for one in received if one["groupLabels"]["alertname"] == "GpuLost")["alerts"]
        assert (lost["status"], lost["labels"]["severity"], lost["labels"]["instance"]) == ("firing", "critical", "ws")
        assert "does not answer" in lost["annotations"]["summary"]
        box.driver.reload_driver(force=True)
        measure()
        until(lambda: [one for one in received if one["status"] == "resolved" and "GpuLost" in str(one)], tmp_path)
    server.shutdown()
    server.server_close()


def faster(files: dict[str, Path], folder: Path) -> None:
    """The same files without the patience that people want, and with the token where a test may read it."""
    config = yaml.safe_load(files["alertmanager"].read_text())
    config["route"].update(group_wait="1s", group_interval="1s")
    token = folder / "token"
    token.write_text(TOKEN)
    config["receivers"][0]["webhook_configs"][0]["http_config"]["authorization"]["credentials_file"] = str(token)
    files["alertmanager"].write_text(yaml.safe_dump(config))
    rules = yaml.safe_load(files["alerts"].read_text())
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    files["alerts"].write_text(yaml.safe_dump(rules))
