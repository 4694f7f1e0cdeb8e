# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration files of Prometheus and Alertmanager. Fields: prometheus.io/docs, configuration; both read YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ...module_utils.errors import InputError
from . import alerts
from .options import SCRAPER, TELLER, Mail, Options, Webhook

_HEAD = "# Written by ai_infra.workstation (monitoring); changes here are lost.\n"
_GATEWAY_ENGINE = "haproxy"


def files(options: Options, services: Mapping[str, Any]) -> dict[str, str]:
    """prometheus, alerts and alertmanager, as texts."""
    return {
        "prometheus": _text(_prometheus(options, services)),
        "alerts": _text(alerts.rules(options.alerts_off)),
        "alertmanager": _text(_alertmanager(options)),
    }


def _text(data: Any) -> str:
    return _HEAD + yaml.safe_dump(data, sort_keys=False, width=10_000)


def _reached(options: Options) -> str:
    """Who listens everywhere is reached here as well."""
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(options.listen, options.listen)  # noqa: S104


def _prometheus(options: Options, services: Mapping[str, Any]) -> dict[str, Any]:
    here = _reached(options)
    interval = f"{options.scrape_seconds}s"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": f"{min(10, options.scrape_seconds)}s",
                   "evaluation_interval": interval},
        "rule_files": [f"{options.folder}/alerts.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{here}:{options.alertmanager_port}"]}]}]},
        "scrape_configs": [
            _job(options, alerts.PROMETHEUS, f"{here}:{options.prometheus_port}"),
            _job(options, alerts.NODE, f"{here}:{options.node_port}"),
            _job(options, alerts.ALERTMANAGER, f"{here}:{options.alertmanager_port}"),
            *_services(options, services),
        ],
    }  # fmt: skip


def _job(options: Options, name: str, target: str) -> dict[str, Any]:
    return {"job_name": name, "static_configs": [_target(options, target)]}


def _target(options: Options, target: str, **labels: str) -> dict[str, Any]:
    return {"targets": [target], "labels": {"instance": options.machine, **labels}}


def _services(options: Options, services: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Engines and the gateway, from the discovery file. A job has one key at most: a service with one has its own."""
    found = services.get("services", {})
    for name in options.keys:
        if name not in found and found:
            raise InputError(f"monitoring_service_keys: {name!r} is no service; there are {', '.join(sorted(found))}")
    open_engines = []
    for name, service in sorted(found.items()):
        url = service.get("metrics_url")
        if not url:
            continue
        address = url.split("/")[2]
        if service.get("engine") == _GATEWAY_ENGINE:
            yield _job(options, alerts.GATEWAY, address)
        elif name in options.keys:
            # One job to the rules, whatever its place in this file.
            yield {
                "job_name": f"{alerts.ENGINES}/{name}",
                "authorization": {"credentials_file": f"{SCRAPER}/key-{name}"},
                "static_configs": [_target(options, address, service=name, job=alerts.ENGINES)],
            }
        else:
            open_engines.append(_target(options, address, service=name))
    if open_engines:
        yield {"job_name": alerts.ENGINES, "static_configs": open_engines}


def _alertmanager(options: Options) -> dict[str, Any]:
    receiver: dict[str, Any] = {"name": "all"}
    if options.webhooks:
        receiver["webhook_configs"] = [_webhook(one) for one in options.webhooks]
    if options.mails:
        receiver["email_configs"] = [_mail(one) for one in options.mails]
    return {
        "route": {
            "receiver": "all",
            "group_by": ["alertname", "instance"],
            "group_wait": "10s",
            "group_interval": "5m",
            "repeat_interval": f"{options.repeat_hours}h",
        },
        # What is down explains the rest of its machine.
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="GpuDriverDown"'],
                "target_matchers": ['alertname="GpuLost"'],
                "equal": ["instance"],
            },
            {
                "source_matchers": ['alertname="GatewayEmpty"'],
                "target_matchers": ['alertname="GatewayBackendDown"'],
                "equal": ["instance", "proxy"],
            },
        ],
        "receivers": [receiver],
    }


def _webhook(one: Webhook) -> dict[str, Any]:
    found: dict[str, Any] = {"url": one.url, "send_resolved": one.resolved}
    if one.token:
        found["http_config"] = {"authorization": {"credentials_file": f"{TELLER}/{one.token}"}}
    return found


def _mail(one: Mail) -> dict[str, Any]:
    found: dict[str, Any] = {
        "to": one.to,
        "from": one.sender,
        "smarthost": one.smarthost,
        "require_tls": one.tls,
        "send_resolved": one.resolved,
    }
    if one.user:
        found["auth_username"] = one.user
    if one.password:
        found["auth_password_file"] = f"{TELLER}/{one.password}"
    return found
