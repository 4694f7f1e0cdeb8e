# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose key is in an armored OpenPGP block. Pure, and no gpg: a bare host has none.

Sources: RFC 9580, 4.2 (packet headers), 5.5.4 (fingerprints: version 4 is the SHA-1 of the key packet), 6 (armor).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from ..errors import RefusedError

_BLOCK = re.compile(
    r"^-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(?:[\w-]+:[^\n]*\n)*\s*\n(.*?)\n(?:=[\w+/]{4}\s*\n)?"
    r"-----END PGP PUBLIC KEY BLOCK-----\s*$",
    re.MULTILINE | re.DOTALL,
)
_PRIMARY_KEY = 6


def fingerprints(armored: str) -> list[str]:
    """The fingerprints of all primary keys in a block. RefusedError for anything else than one armored block."""
    blocks = _BLOCK.findall(armored.replace("\r\n", "\n"))
    if len(blocks) != 1:
        raise RefusedError(
            f"one armored public key block is needed, found {len(blocks)}; ask for the key as text (.asc)"
        )
    try:
        data = base64.b64decode("".join(blocks[0].split()), validate=True)
        found = [_fingerprint(body) for tag, body in _packets(data) if tag == _PRIMARY_KEY]
    except (binascii.Error, IndexError, ValueError) as error:
        raise RefusedError(f"the key block is damaged ({error})") from None
    if not found:
        raise RefusedError("the key block holds no public key")
    return found


def _fingerprint(body: bytes) -> str:
    if body[0] != 4:
        raise ValueError(f"a key of version {body[0]}, known is 4")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324 the format's


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(data):
        head = data[place]
        if not head & 0x80:
            raise ValueError("no packet where one should begin")
        tag, length, start = _new(data, place) if head & 0x40 else _old(data, place)
        if start + length > len(data):
            raise ValueError("a packet is cut off")
        yield tag, data[start : start + length]
        place = start + length


def _new(data: bytes, place: int) -> tuple[int, int, int]:
    """Tag, length and start of the body, in the header of today."""
    tag, first = data[place] & 0x3F, data[place + 1]
    if first < 192:
        return tag, first, place + 2
    if first < 224:
        return tag, ((first - 192) << 8) + data[place + 2] + 192, place + 3
    if first == 255:
        return tag, int.from_bytes(data[place + 2 : place + 6], "big"), place + 6
    raise ValueError("a packet of unknown length")


def _old(data: bytes, place: int) -> tuple[int, int, int]:
    tag, kind = (data[place] >> 2) & 0x0F, data[place] & 3
    if kind == 3:
        raise ValueError("a packet of unknown length")
    size = 1 << kind
    return tag, int.from_bytes(data[place + 1 : place + 1 + size], "big"), place + 1 + size
