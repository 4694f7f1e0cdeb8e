# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images that are built on the machine itself: the contexts in docker/, as what travels to the machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ...module_utils.errors import InputError
from ...module_utils.values import choice
from ..fields import known_fields, texts

FOLDER = Path(__file__).resolve().parents[3] / "docker"
_ARG = re.compile(r"^ARG\s+([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)
# BuildKit and the older builder know these without being told.
_PREDEFINED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PREFIX = re.compile(r"[a-z0-9]+([._/:-][a-z0-9]+)*")


def contexts(images: Any, args: Any, gpus: Any, prefix: Any, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """What the module needs of each image: tag, files, arguments, and the hash of all of it. In the order asked for."""
    known = yaml.safe_load((folder / "images.yml").read_text(encoding="utf-8"))
    names = texts("images", images)
    if not names:
        raise InputError(f"images: none; name what to build: {', '.join(sorted(known))}")
    given = known_fields("args", {} if args is None else args, sorted(known))
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InputError(f"prefix: {prefix!r} is not the beginning of an image's name, like 'ai-workstation'")
    found = []
    for name in dict.fromkeys(names):
        image = known[choice("images", name, sorted(known))]
        mine = _arguments(name, given.get(name, {}), folder)
        if image.get("architectures") and image["architectures"] not in mine and (chips := architectures(gpus)):
            mine[image["architectures"]] = ";".join(chips)
        files = _files(folder / name)
        found.append(
            {
                "name": name,
                "tag": f"{prefix}/{name}:{image['version']}",
                "files": files,
                "args": mine,
                "context": _hash(files, mine),
            }
        )
    return found


def architectures(gpus: Iterable[str]) -> list[str]:
    """What to compile for these GPUs, by the driver's names of them; nothing for those that are not known."""
    table = yaml.safe_load(Path(__file__).with_name("gpus.yml").read_text(encoding="utf-8"))
    found = set()
    for name in texts("gpus", list(gpus)):
        chips = [row["architecture"] for row in table if re.search(row["names"], name)]
        if not chips:
            raise InputError(f"gpus: {name!r} is of no generation that is known; set CUDA_ARCHITECTURES in args")
        found.add(chips[0])
    return sorted(found, key=lambda chip: int(re.sub(r"\D", "", chip)))


def _arguments(name: str, given: Any, folder: Path) -> dict[str, str]:
    """The arguments of one image, which its Dockerfile must have."""
    if not isinstance(given, Mapping):
        raise InputError(f"args: {name}: {given!r} is not a dictionary of ARGUMENT: VALUE")
    allowed = sorted({*_ARG.findall((folder / name / "Dockerfile").read_text(encoding="utf-8")), *_PREDEFINED})
    mine = known_fields(f"args: {name}", given, allowed)
    for argument, value in mine.items():
        if isinstance(value, (Mapping, list)) or re.search(r"[\n\0]", str(value)):
            raise InputError(f"args: {name}: {argument}: {value!r} is not one line of text")
    return {argument: str(value) for argument, value in sorted(mine.items())}


def _files(folder: Path) -> list[dict[str, Any]]:
    """The files of a context. They are texts, and few."""
    return [
        {
            "path": str(path.relative_to(folder)),
            "content": path.read_text(encoding="utf-8"),
            "executable": bool(path.stat().st_mode & 0o100),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _hash(files: list[dict[str, Any]], args: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([files, args], sort_keys=True).encode()).hexdigest()
