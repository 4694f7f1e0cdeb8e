# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""apt_source: one repository of our own, trusted by a key that was checked by its fingerprint before.

The key stands in the file that names the repository (Signed-By, apt 2.3.10 and newer): one file, written at once, and
the key is trusted for this repository alone. Source: sources.list(5), deb822 style.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable

from ..doors.host import FileState, Host
from ..errors import InputError, RefusedError
from ..subjects.drop_in import MARK
from .openpgp import fingerprints

FOLDER = "/etc/apt/sources.list.d"
_HEADER = f"{MARK}; changes here are lost. Undo: the role with state absent\n"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_PRINT = re.compile(r"[0-9A-F]{40}")


def converge(params: dict[str, Any], check_mode: bool, host: Host, download: Callable[[str], str]) -> dict[str, Any]:
    """One call of the module. download: fetches the text behind an address, or raises RefusedError."""
    if not _NAME.fullmatch(params["name"]):
        raise InputError(f"name: '{params['name']}' must be small letters, digits and dashes")
    path = f"{FOLDER}/ai-workstation-{params['name']}.sources"
    file = host.file(path)
    if file is not None and not file.content.startswith(MARK):
        raise RefusedError(f"{path} exists and is not ours; move it away")
    text = _wanted(params, host, path, file.content if file else "", download) if params["state"] == "present" else None
    before = file.content if file else None
    if text != before and not check_mode:
        _write(host, path, text)
    change = {
        "key": f"file:{path}",
        "before": before and "other text",
        "after": text and "our text",
        "scope": "persistent",
        "reboot_required": False,
        "reason": "",
    }
    return {
        "changed": text != before,
        "path": path,
        "changes": [change] if text != before else [],
        "diff": {"before_header": path, "after_header": path, "before": before or "", "after": text or ""},
        "warnings": [],
    }


def _wanted(params: dict[str, Any], host: Host, path: str, now: str, download: Callable[[str], str]) -> str | None:
    for name in ("uris", "suites", "fingerprints"):
        if not params[name]:
            raise InputError(f"{name}: needed with state=present")
    if not (params["key"] or params["key_url"]):
        raise InputError("key_url: needed with state=present, or the key itself as key")
    trusted = [text.replace(" ", "").upper() for text in params["fingerprints"]]
    for text in trusted:
        if not _PRINT.fullmatch(text):
            raise InputError(f"fingerprints: '{text}' must be 40 hexadecimal digits")
    other = _elsewhere(host, path, params["uris"])
    if other and params["existing"] == "keep":
        return now or None
    if other:
        raise RefusedError(
            f"uris: {other} has this repository already, and apt refuses one with two keys: remove it there, or set "
            "existing to keep"
        )
    key = params["key"] or _key_in(now)
    if not key or (not params["key"] and not _is_trusted(key, trusted)):
        key = download(params["key_url"])
    found = fingerprints(key)
    strangers = [text for text in found if text not in trusted]
    if strangers:
        source = "key" if params["key"] else params["key_url"]
        raise RefusedError(
            f"{source}: the key has the fingerprint {', '.join(strangers)}, expected is {', '.join(trusted)}; apt was "
            "not told of it: find out from its owner whether the key was renewed, then change fingerprints"
        )
    fields = [
        ("Types", "deb"),
        ("URIs", " ".join(params["uris"])),
        ("Suites", " ".join(params["suites"])),
        ("Components", " ".join(params["components"])),
        ("Architectures", " ".join(params["architectures"])),
    ]
    lines = [f"{field}: {value}" for field, value in fields if value]
    lines += ["Signed-By:", *(f" {line.strip() or '.'}" for line in key.strip().splitlines())]
    return _HEADER + "\n".join(lines) + "\n"


def _key_in(text: str) -> str:
    """The key that a file of ours holds already."""
    found = re.search(r"^Signed-By:\n((?: .*\n)+)", text, re.MULTILINE)
    return "".join(f"{'' if line == ' .' else line[1:]}\n" for line in found.group(1).splitlines()) if found else ""


def _is_trusted(key: str, trusted: list[str]) -> bool:
    try:
        return set(fingerprints(key)) <= set(trusted)
    except RefusedError:
        return False


def _elsewhere(host: Host, own: str, uris: list[str]) -> str:
    """Where another file names one of the addresses: apt stops working when the two have different keys."""
    for path in ["/etc/apt/sources.list", *host.glob(f"{FOLDER}/*.list"), *host.glob(f"{FOLDER}/*.sources")]:
        for number, line in enumerate((host.text(path) or "").splitlines() if path != own else (), 1):
            words = [] if line.lstrip().startswith("#") else [word.rstrip("/") for word in line.split()]
            if any(uri.rstrip("/") in words for uri in uris):
                return f"{path} line {number}"
    return ""


def _write(host: Host, path: str, text: str | None) -> None:
    if text is None:
        host.remove_file(path)
    else:
        host.write_file(path, FileState(text, 0o644, os.geteuid(), os.getegid()))
