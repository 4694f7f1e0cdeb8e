# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Firmware tables as the kernel exports them in /sys/firmware/dmi/tables, read without dmidecode.

Source: DMTF DSP0134 (SMBIOS reference specification), the structures 0 (BIOS), 1 (system),
2 (board), 3 (chassis), 4 (processor), 16 (memory array) and 17 (memory device). Pure: bytes in, values out.
A damaged table gives what could be read before the damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .reading import Facts

TABLE = "/sys/firmware/dmi/tables/DMI"
ENTRY = "/sys/firmware/dmi/tables/smbios_entry_point"
_END = 127
_MEMORY_TYPES = {
    0x12: "DDR",
    0x13: "DDR2",
    0x18: "DDR3",
    0x1A: "DDR4",
    0x1B: "LPDDR",
    0x1C: "LPDDR2",
    0x1D: "LPDDR3",
    0x1E: "LPDDR4",
    0x20: "HBM",
    0x21: "HBM2",
    0x22: "DDR5",
    0x23: "LPDDR5",
    0x24: "HBM3",
}
_ERROR_CORRECTION = {3: "none", 4: "parity", 5: "single_bit", 6: "multi_bit", 7: "crc"}
_EMPTY_WORDS = {"", "not specified", "unknown", "none", "default string", "to be filled by o.e.m.", "no dimm", "n/a"}


@dataclass(frozen=True)
class Structure:
    """One SMBIOS structure: its formatted bytes (header included) and its strings."""

    kind: int
    handle: int
    data: bytes
    strings: tuple[str, ...]

    def byte(self, offset: int) -> int | None:
        return self.data[offset] if offset < len(self.data) else None

    def word(self, offset: int) -> int | None:
        return int(struct.unpack_from("<H", self.data, offset)[0]) if offset + 2 <= len(self.data) else None

    def double(self, offset: int) -> int | None:
        return int(struct.unpack_from("<I", self.data, offset)[0]) if offset + 4 <= len(self.data) else None

    def text(self, offset: int) -> str | None:
        """The string that the byte at `offset` numbers; None for an empty one or a vendor's filler."""
        index = self.byte(offset)
        if not index or index > len(self.strings):
            return None
        found = self.strings[index - 1].strip()
        return None if found.lower() in _EMPTY_WORDS else found


def version(entry: bytes | None) -> str | None:
    """SMBIOS version of the 64-bit ("_SM3_") or 32-bit ("_SM_") entry point."""
    if entry and entry[:5] == b"_SM3_" and len(entry) > 8:
        return f"{entry[7]}.{entry[8]}"
    if entry and entry[:4] == b"_SM_" and len(entry) > 7:
        return f"{entry[6]}.{entry[7]}"
    return None


def structures(table: bytes) -> Iterator[Structure]:
    """All structures, up to the end mark or to where the table makes no sense."""
    position = 0
    while position + 4 <= len(table):
        kind, length, handle = struct.unpack_from("<BBH", table, position)
        end = table.find(b"\0\0", position + length)
        if length < 4 or end < 0 or position + length > len(table):
            return
        strings = table[position + length : end].split(b"\0") if end > position + length else []
        yield Structure(
            kind,
            handle,
            table[position : position + length],
            tuple(string.decode("ascii", "replace") for string in strings),
        )
        if kind == _END:
            return
        position = end + 2


def summary(table: bytes | None, entry: bytes | None = None) -> Facts:
    """BIOS, system, board, chassis and processor sockets; None for what the tables do not say."""
    first: dict[int, Structure] = {}
    sockets = []
    correction = None
    for item in structures(table or b""):
        first.setdefault(item.kind, item)
        if item.kind == 4:
            sockets.append(_socket(item))
        elif item.kind == 16 and item.byte(5) == 3:  # use: system memory
            correction = _ERROR_CORRECTION.get(item.byte(6) or 0)
    return {
        "smbios": version(entry),
        "bios": _texts(first.get(0), {"vendor": 4, "version": 5, "date": 8}),
        "system": _texts(first.get(1), {"manufacturer": 4, "product": 5, "version": 6, "family": 0x1A}),
        "board": _texts(first.get(2), {"manufacturer": 4, "product": 5, "version": 6}),
        "chassis": {**_texts(first.get(3), {"manufacturer": 4}), "type": _chassis_type(first.get(3))},
        "sockets": sockets,
        "memory_error_correction": correction,
    }


def dimms(table: bytes | None) -> list[Facts]:
    """The memory devices that hold a module."""
    found = [_dimm(item) for item in structures(table or b"") if item.kind == 17]
    return [dimm for dimm in found if dimm["size_bytes"]]


def _texts(item: Structure | None, offsets: dict[str, int]) -> Facts:
    return {name: item.text(offset) if item else None for name, offset in offsets.items()}


def _chassis_type(item: Structure | None) -> int | None:
    kind = item.byte(5) if item else None
    return None if kind is None else kind & 0x7F


def _socket(item: Structure) -> Facts:
    cores, enabled, threads = item.byte(0x23), item.byte(0x24), item.byte(0x25)
    # 0xFF: the number is in the word that SMBIOS 3.0 added.
    return {
        "socket": item.text(4),
        "version": item.text(0x10),
        "populated": bool((item.byte(0x18) or 0) & 0x40),
        "max_mhz": item.word(0x14) or None,
        "cores": item.word(0x2A) if cores == 0xFF else cores or None,
        "cores_enabled": item.word(0x2C) if enabled == 0xFF else enabled or None,
        "threads": item.word(0x2E) if threads == 0xFF else threads or None,
    }


def _dimm(item: Structure) -> Facts:
    return {
        "locator": item.text(0x10),
        "bank": item.text(0x11),
        "size_bytes": _dimm_size(item),
        "type": _MEMORY_TYPES.get(item.byte(0x12) or 0),
        "rated_mts": _speed(item, 0x15, 0x54),
        "configured_mts": _speed(item, 0x20, 0x58),
        "manufacturer": item.text(0x17),
        "part": item.text(0x1A),
        "rank": (item.byte(0x1B) or 0) & 0x0F or None,
    }


def _dimm_size(item: Structure) -> int | None:
    size = item.word(0x0C)
    if size is None or size in (0, 0xFFFF):
        return None  # empty slot, unknown
    if size == 0x7FFF:
        extended = item.double(0x1C)
        return None if extended is None else (extended & 0x7FFFFFFF) << 20
    return (size & 0x7FFF) << (10 if size & 0x8000 else 20)


def _speed(item: Structure, offset: int, extended: int) -> int | None:
    """MT/s; 0 is unknown and 0xFFFF sends to the 32-bit field."""
    speed = item.word(offset)
    return (item.double(extended) if speed == 0xFFFF else speed) or None
