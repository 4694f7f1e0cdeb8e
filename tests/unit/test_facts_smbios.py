# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The SMBIOS parser: what tables say, and that no table can make it fail."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts import smbios
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.gather import gather
from ansible_collections.ai_infra.workstation.plugins.module_utils.facts.system import menu_vendor
from hypothesis import given
from hypothesis import strategies as st
from machines import board, dimm, structure, write_dmi
from topologies import GIB, put

WHOLE = board() + dimm("DIMM_A2", 48, 6000, 5600) + structure(127, b"")


def test_texts_of_the_board(tmp_path: Path) -> None:
    write_dmi(tmp_path, board(), dimm("DIMM_A2", 48, 6000, 5600), dimm("DIMM_A1", 0, 0, 0))
    found = gather(Host(str(tmp_path)), ["firmware", "memory"])
    firmware = found["firmware"]
    assert firmware["smbios"] == "3.7"
    assert firmware["bios"] == {"vendor": "American Megatrends Inc.", "version": "1605", "date": "09/05/26"}
    assert firmware["system"] == {
        "manufacturer": "ASUSTeK COMPUTER INC.",
        "product": "System Product Name",
        "version": "1.0",
        "family": "Desktop",
    }
    assert firmware["board"]["product"] == "ROG CROSSHAIR X870E HERO"
    assert firmware["chassis"] == {"manufacturer": "ASUSTeK COMPUTER INC.", "type": 3}
    assert firmware["sockets"] == [
        {
            "socket": "AM5",
            "version": "AMD Ryzen 9 9950X",
            "populated": True,
            "max_mhz": 5750,
            "cores": 16,
            "cores_enabled": 16,
            "threads": 32,
        }
    ]
    assert (firmware["memory_error_correction"], firmware["menu_vendor"]) == ("none", "asus")
    assert found["memory"]["dimms"] == [
        {
            "locator": "DIMM_A2",
            "bank": "P0 CHANNEL A",
            "size_bytes": 48 * GIB,
            "type": "DDR5",
            "rated_mts": 6000,
            "configured_mts": 5600,
            "manufacturer": "G Skill Intl",
            "part": "F5-6000J3040G32G",
            "rank": 2,
        }
    ]


@pytest.mark.parametrize(
    ("size", "extended", "expected"),
    [
        (0, 0, None),
        (0xFFFF, 0, None),
        (8192, 0, 8 * GIB),
        (0x8000 | 512, 0, 512 * 1024),  # counted in KiB
        (0x7FFF, 65536, 64 * GIB),
    ],
)
def test_sizes_of_memory_devices(size: int, extended: int, expected: int | None) -> None:
    body = bytearray(struct.pack("<HHHHH", 0, 0, 64, 64, size) + bytes(26))
    body[0x1C - 4 : 0x20 - 4] = struct.pack("<I", extended)
    found = smbios.dimms(structure(17, bytes(body)))
    assert [entry["size_bytes"] for entry in found] == ([expected] if expected else [])


def test_speeds_beyond_sixteen_bits() -> None:
    (found,) = smbios.dimms(dimm("A", 16, 70000, 66000))
    assert (found["rated_mts"], found["configured_mts"], found["size_bytes"]) == (70000, 66000, 16 * GIB)


def test_more_than_255_cores_are_in_the_wide_field() -> None:
    table = board().replace(
        bytes((16, 16, 32)) + struct.pack("<HHHHH", 0, 0, 16, 16, 32),
        bytes((255, 255, 255)) + struct.pack("<HHHHH", 0, 0, 288, 256, 576),
    )
    (socket,) = smbios.summary(table)["sockets"]
    assert (socket["cores"], socket["cores_enabled"], socket["threads"]) == (288, 256, 576)


def test_an_old_short_structure_lacks_only_its_new_fields() -> None:
    body = struct.pack("<HHHHHBBBBBH", 0, 0, 64, 64, 4096, 9, 0, 1, 0, 0x18, 0)
    (found,) = smbios.dimms(structure(17, body, "DIMM0"))
    assert (found["locator"], found["size_bytes"], found["type"]) == ("DIMM0", 4 * GIB, "DDR3")
    assert (found["rated_mts"], found["configured_mts"], found["part"]) == (None, None, None)


def test_entry_points() -> None:
    assert smbios.version(b"_SM3_\0\x18\x03\x07\0" + bytes(14)) == "3.7"
    assert smbios.version(b"_SM_\0\x1f\x02\x08" + bytes(23)) == "2.8"
    assert smbios.version(b"garbage") is smbios.version(None) is None


def test_nothing_after_the_end_mark_counts() -> None:
    assert [entry["locator"] for entry in smbios.dimms(WHOLE + dimm("GHOST", 16, 1, 1))] == ["DIMM_A2"]


@given(st.integers(0, len(WHOLE)))
def test_a_table_cut_anywhere_gives_what_came_before(end: int) -> None:
    known = list(smbios.structures(WHOLE))
    assert list(smbios.structures(WHOLE[:end])) == known[: len(list(smbios.structures(WHOLE[:end])))]
    smbios.summary(WHOLE[:end])
    smbios.dimms(WHOLE[:end])


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(table: bytes) -> None:
    smbios.summary(table, table)
    smbios.dimms(table)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_no_damage_makes_it_fail(damage: list[tuple[int, int]]) -> None:
    table = bytearray(WHOLE)
    for position, value in damage:
        table[position] = value
    smbios.summary(bytes(table))
    smbios.dimms(bytes(table))


def test_without_root_the_texts_come_from_sysfs(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "sys/class/dmi/id/board_vendor": "Micro-Star International Co., Ltd.",
            "sys/class/dmi/id/board_name": "MAG X870 TOMAHAWK",
        },
    )
    found = gather(Host(str(tmp_path)), ["firmware"])["firmware"]
    assert (found["board"]["product"], found["menu_vendor"], found["sockets"]) == ("MAG X870 TOMAHAWK", "msi", [])


@pytest.mark.parametrize(
    ("maker", "expected"),
    [
        ("ASUSTeK COMPUTER INC.", "asus"),
        ("Gigabyte Technology Co., Ltd.", "gigabyte"),
        ("Giga Computing", ""),
        ("ASRock", "asrock"),
        ("ASRockRack", "asrock"),
        ("HP", "hp"),
        (None, ""),
    ],
)
def test_menu_vendors(maker: str | None, expected: str) -> None:
    assert menu_vendor(maker) == expected


@pytest.mark.parametrize(("value", "expected"), [(1, True), (0, False)])
def test_secure_boot_is_the_fifth_byte(tmp_path: Path, value: int, expected: bool) -> None:
    path = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    put(tmp_path, {path: ""})
    (tmp_path / path).write_bytes(bytes((6, 0, 0, 0, value)))
    found = gather(Host(str(tmp_path)), ["firmware"])["firmware"]
    assert (found["efi"], found["secure_boot"]) == (True, expected)


def test_legacy_boot_has_no_secure_boot_and_a_container_does_not_tell(tmp_path: Path) -> None:
    put(tmp_path / "legacy", {"sys/firmware/acpi/tables/DSDT": ""})
    found = gather(Host(str(tmp_path / "legacy")), ["firmware"])["firmware"]
    assert (found["efi"], found["secure_boot"]) == (False, False)
    found = gather(Host(str(tmp_path / "container")), ["firmware"])["firmware"]
    assert (found["efi"], found["secure_boot"]) == (None, None)
