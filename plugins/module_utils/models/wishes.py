# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the user wants of the model store: parameters become typed wishes, or one-line errors. Pure.

A shorthand is resolved here, so that the rest knows files and addresses only:
hf://owner/name@revision/file names a file of a hub, and a source that ends in -00001-of-00003.gguf names all the
parts of a set (the naming of llama.cpp's gguf-split).
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

# The folder below the root that is ours: manifest, lock, partial files.
STATE_DIR = ".ai-workstation"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<suffix>\.[A-Za-z0-9]+)")
_HUB = re.compile(r"hf://(?P<owner>[^/@?#]+)/(?P<name>[^/@?#]+?)(?:@(?P<revision>[^?#]+?))?/(?P<file>[^?#@]+)")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST_PARTS = 999


@dataclass(frozen=True)
class WantedFile:
    """One file. path: relative to the root (the folder, with unpack). source: where from; empty to adopt only.

    sha256 is empty where the first content that is seen becomes the wanted one.
    """

    path: str
    source: str
    sha256: str
    unpack: bool = False

    @property
    def origin(self) -> str:
        """The source without its query, which may hold a signature: what is shown and recorded."""
        return self.source.split("?", 1)[0].split("#", 1)[0]


@dataclass(frozen=True)
class Model:
    """One model: all of its files are there, or none."""

    name: str
    present: bool
    files: tuple[WantedFile, ...] = ()
    preload: bool = False
    lock: bool = False
    hugepages: bool = False

    def purpose(self) -> dict[str, bool]:
        """What the boot units do with it."""
        return {"preload": self.preload, "lock": self.lock, "hugepages": self.hugepages}


def parse_models(items: Sequence[Mapping[str, Any]], hub_url: str) -> tuple[Model, ...]:
    """The wishes of the parameter `models`, in its order."""
    found: dict[str, Model] = {}
    owners: dict[str, str] = {}
    for item in items:
        model = _model(item, hub_url.rstrip("/"))
        if model.name in found:
            raise InputError(f"models: {model.name} is named twice; one entry describes each model once")
        found[model.name] = model
        for file in model.files:
            if file.path in owners:
                raise InputError(
                    f"models {model.name}: the path {file.path!r} belongs to {owners[file.path]} already; "
                    "give one of them another path"
                )
            owners[file.path] = model.name
    return tuple(found.values())


def _model(item: Mapping[str, Any], hub_url: str) -> Model:
    name = str(item["name"])
    if not _NAME.fullmatch(name):
        raise InputError(f"models: {name!r} is not a name of letters, digits, . _ and -, a letter or digit first")
    if item.get("state") == "absent":
        return Model(name, present=False)
    files = _files(name, item, hub_url)
    lock = bool(item.get("lock"))
    return Model(name, True, files, bool(item.get("preload")) or lock, lock, bool(item.get("hugepages")))


def _files(name: str, item: Mapping[str, Any], hub_url: str) -> tuple[WantedFile, ...]:
    where, sums = f"models {name}", [str(text) for text in item.get("sha256") or []]
    source, path, several = str(item.get("source") or ""), str(item.get("path") or ""), item.get("files") or []
    if several:
        if source or path or sums or item.get("unpack"):
            raise InputError(f"{where}: files stands alone; source, path, sha256 and unpack belong into its entries")
        found = []
        for entry in several:
            inner = [str(entry["sha256"])] if entry.get("sha256") else []
            found += _set(where, name, str(entry.get("source") or ""), str(entry.get("path") or ""), inner, hub_url)
        return tuple(found)
    if not source and not path:
        raise InputError(f"{where}: no source, files or path; source is an address, path alone adopts what is there")
    if item.get("unpack"):
        return (_archive(where, source, path or name, sums, hub_url),)
    return tuple(_set(where, name, source, path, sums, hub_url))


def _archive(where: str, source: str, path: str, sums: Sequence[str], hub_url: str) -> WantedFile:
    address = _address(where, source, hub_url)
    if not urllib.parse.urlsplit(address).path.endswith(_ARCHIVES):
        raise InputError(f"{where}: unpack: {source!r} is not an archive; one of {', '.join(_ARCHIVES)} is unpacked")
    if len(sums) > 1:
        raise InputError(f"{where}: sha256 has {len(sums)} entries for one archive")
    wanted = WantedFile(_path(where, path), address, _sum(where, sums[0] if sums else ""), unpack=True)
    _check_transport(where, wanted)
    return wanted


def _set(where: str, name: str, source: str, path: str, sums: Sequence[str], hub_url: str) -> list[WantedFile]:
    """The file that a source names, or all parts of the set that it begins."""
    address = _address(where, source, hub_url) if source else ""
    addresses = _parts(where, address)
    if sums and len(sums) != len(addresses):
        raise InputError(f"{where}: sha256 has {len(sums)} entries for {len(addresses)} files; give one for each")
    found = []
    for index, one in enumerate(addresses):
        base = urllib.parse.unquote(posixpath.basename(urllib.parse.urlsplit(one).path))
        target = f"{path or name}/{base}" if len(addresses) > 1 else path or f"{name}/{base}"
        wanted = WantedFile(_path(where, target), one, _sum(where, sums[index] if sums else ""))
        _check_transport(where, wanted)
        found.append(wanted)
    return found


def _parts(where: str, address: str) -> list[str]:
    folder, _slash, last = address.partition("?")[0].rpartition("/")
    match = _PART.fullmatch(last)
    if not match or int(match["parts"]) == 1:
        return [address]
    parts = int(match["parts"])
    if int(match["part"]) != 1 or not 1 < parts <= _MOST_PARTS:
        raise InputError(f"{where}: source: {last!r} is one part of a set; name its first, {_part(match, 1)}")
    return [f"{folder}/{_part(match, part)}" + address[len(folder) + 1 + len(last) :] for part in range(1, parts + 1)]


def _part(match: re.Match[str], part: int) -> str:
    return f"{match['stem']}-{part:05d}-of-{match['parts']}{match['suffix']}"


def _address(where: str, source: str, hub_url: str) -> str:
    """The full address of a source, checked."""
    if source.startswith("hf://"):
        match = _HUB.fullmatch(source)
        if not match:
            raise InputError(f"{where}: source: {source!r} is not like hf://owner/name@revision/file")
        revision = urllib.parse.quote(match["revision"] or "main", safe="")
        return f"{hub_url}/{match['owner']}/{match['name']}/resolve/{revision}/{urllib.parse.quote(match['file'])}"
    if source.startswith("/"):
        source = f"file://{urllib.parse.quote(source)}"
    parts = urllib.parse.urlsplit(source)
    if parts.scheme not in ("http", "https", "file") or not parts.path.strip("/") or parts.path.endswith("/"):
        raise InputError(f"{where}: source: {source!r} is not the address of a file by http, https, file or hf")
    if "@" in parts.netloc:
        raise InputError(f"{where}: source: an address must not hold a password; use the token or a token file")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise InputError(f"{where}: source: {source!r} names a host; a file of the target is file:///path")
    if any(ord(char) < 0x21 or ord(char) == 0x7F for char in source):
        raise InputError(f"{where}: source: {source!r} has white space in it; write %20")
    return source


def _check_transport(where: str, wanted: WantedFile) -> None:
    parts = urllib.parse.urlsplit(wanted.source)
    if parts.scheme == "http" and not wanted.sha256 and parts.hostname not in _LOOPBACK:
        raise InputError(f"{where}: {wanted.origin}: over plain http the sha256 is required; or use https")


def plain_path(path: str) -> bool:
    """Whether a path stays below the root, outside of our own folder, and can be printed."""
    straight = posixpath.normpath(path) == path and not path.startswith(("/", "../")) and path not in (".", "..")
    printed = all(ord(char) >= 0x20 and ord(char) != 0x7F for char in path)
    return straight and printed and not f"{path}/".startswith(f"{STATE_DIR}/")


def _path(where: str, path: str) -> str:
    if not plain_path(path):
        raise InputError(f"{where}: path: {path!r} is not a plain path below the root, like 'qwen3/model.gguf'")
    return path


def _sum(where: str, text: str) -> str:
    found = text.lower().removeprefix("sha256:")
    if found and not re.fullmatch(r"[0-9a-f]{64}", found):
        raise InputError(f"{where}: sha256: {text!r} is not 64 hexadecimal digits")
    return found
