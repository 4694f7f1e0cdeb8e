# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of the monitoring, parsed. Errors are one line: name, value, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import integer
from ..fields import boolean, known_fields, texts
from .alerts import NAMES

_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_FOLDER = "/etc/ai-workstation/monitoring"
# What a unit of systemd takes as it stands.
_PATH = re.compile(r"/[A-Za-z0-9_./@+-]+")
# Folders in memory that only the user of the unit can enter; root puts copies of the secrets there as it starts.
TELLER = "/run/ai-workstation-alertmanager"
SCRAPER = "/run/ai-workstation-prometheus"


@dataclass(frozen=True)
class Webhook:
    url: str
    token: str = ""
    resolved: bool = True


@dataclass(frozen=True)
class Mail:
    to: str
    sender: str
    smarthost: str
    user: str = ""
    password: str = ""
    tls: bool = True
    resolved: bool = True


@dataclass(frozen=True)
class Options:
    """Secrets are names of files in TELLER and SCRAPER. keys: by service, the file of root that holds its key."""

    machine: str
    listen: str
    prometheus_port: int
    node_port: int
    alertmanager_port: int
    scrape_seconds: int
    alerts_off: frozenset[str]
    webhooks: tuple[Webhook, ...]
    mails: tuple[Mail, ...]
    keys: Mapping[str, str]
    repeat_hours: int
    folder: str = _FOLDER


NAMES_OF_OPTIONS = tuple(field.name for field in fields(Options) if field.name != "folder")


def parse(given: Any) -> Options:
    """The options with their defaults. Raises InputError."""
    known = known_fields("monitoring", given, NAMES_OF_OPTIONS)
    listen = str(known.get("listen", "127.0.0.1"))
    if not _HOST.fullmatch(listen):
        raise InputError(f"monitoring_listen: {listen!r} is not an address; write 127.0.0.1, 0.0.0.0 or [::1]")
    ports = [
        integer(f"monitoring_{name}", known.get(name, default), 1, 65535)
        for name, default in (("prometheus_port", 9090), ("node_port", 9100), ("alertmanager_port", 9093))
    ]
    if len(set(ports)) < len(ports):
        raise InputError(f"monitoring: {' '.join(map(str, ports))}: two of its ports are one; choose others")
    return Options(
        machine=str(known.get("machine", "localhost")),
        listen=listen,
        prometheus_port=ports[0],
        node_port=ports[1],
        alertmanager_port=ports[2],
        scrape_seconds=integer("monitoring_scrape_seconds", known.get("scrape_seconds", 15), 1, 300),
        alerts_off=_off(known.get("alerts_off", [])),
        webhooks=tuple(_webhook(index, one) for index, one in enumerate(_list("webhooks", known.get("webhooks")))),
        mails=tuple(_mail(index, one) for index, one in enumerate(_list("mails", known.get("mails")))),
        keys=_keys(known.get("keys", {})),
        repeat_hours=integer("monitoring_repeat_hours", known.get("repeat_hours", 4), 1, 720),
    )


def _keys(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise InputError(f"monitoring_service_keys: {given!r} is not a dictionary of services and files")
    return {str(name): _file("monitoring_service_keys", given, name) for name in given}


def _list(name: str, given: Any) -> list[Any]:
    if given is not None and not isinstance(given, list):
        raise InputError(f"monitoring_{name}: {given!r} is not a list")
    return given or []


def _off(given: Any) -> frozenset[str]:
    names = texts("monitoring_alerts_off", given)
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1, 0.0)[0]
            raise InputError(f"monitoring_alerts_off: {name!r} is no alert of ours; the nearest is {near}")
    return frozenset(names)


def _webhook(index: int, given: Any) -> Webhook:
    where = f"monitoring_webhooks[{index}]"
    known = known_fields(where, given, ("url", "token_file", "resolved"))
    url = str(known.get("url", ""))
    if not _URL.fullmatch(url) or "@" in url.split("/")[2]:
        # Not the value: a user name and a password may be in it.
        raise InputError(f"{where}.url: not http(s)://HOST[:PORT]/PATH without user and password; use token_file")
    token = f"webhook-{index}" if _file(where, known, "token_file") else ""
    return Webhook(url, token, boolean(f"{where}.resolved", known.get("resolved", True)))


def _mail(index: int, given: Any) -> Mail:
    where = f"monitoring_mails[{index}]"
    known = known_fields(where, given, ("to", "from", "smarthost", "user", "password_file", "tls", "resolved"))
    for name in ("to", "from", "smarthost"):
        if not isinstance(known.get(name), str) or not known[name]:
            raise InputError(f"{where}.{name}: missing; a mail needs to, from and smarthost (HOST:PORT)")
    if ":" not in known["smarthost"]:
        raise InputError(f"{where}.smarthost: {known['smarthost']!r} has no port; write HOST:PORT")
    if known.get("user") and not known.get("password_file"):
        raise InputError(f"{where}.password_file: missing; a user needs a password, in a file of root")
    return Mail(
        to=known["to"],
        sender=known["from"],
        smarthost=known["smarthost"],
        user=str(known.get("user", "")),
        password=f"mail-{index}" if _file(where, known, "password_file") else "",
        tls=boolean(f"{where}.tls", known.get("tls", True)),
        resolved=boolean(f"{where}.resolved", known.get("resolved", True)),
    )


def _file(where: str, known: Mapping[str, Any], name: str) -> str:
    path = str(known.get(name) or "")
    if path and not _PATH.fullmatch(path):
        raise InputError(f"{where}.{name}: {path!r} is not the path of a file; write /, letters, digits and _ . @ + -")
    return path
