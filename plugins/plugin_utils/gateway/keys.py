# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file of API keys: one line for each, its SHA-256 and the name of the client. No key can be read out of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ...module_utils.errors import InputError
from .options import CLIENT

# What tools make as keys, and nothing that a header cannot carry. Short ones could be guessed from their hashes.
_KEY = re.compile(r"[\x21-\x7e]{20,512}")


def keys_file(keys: Any) -> str:
    """The text of the file for {client: key}. Messages name the client, never a key."""
    if not isinstance(keys, Mapping) or not keys:
        raise InputError("keys: not a dictionary of CLIENT: KEY with at least one client")
    lines: dict[str, str] = {}
    for client, key in sorted(keys.items(), key=lambda pair: str(pair[0])):
        if not isinstance(client, str) or not CLIENT.fullmatch(client):
            raise InputError(f"keys: {client!r} is not a client; write letters, digits and . _ @ -")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InputError(
                f"keys: the key of {client} is not 20 to 512 printable characters; make one: openssl rand -hex 24"
            )
        digest = hashlib.sha256(key.encode()).hexdigest()
        if digest in lines:
            raise InputError(f"keys: {lines[digest]} and {client} have the same key; give each client its own")
        lines[digest] = client
    return "".join(f"{digest} {client}\n" for digest, client in lines.items())
