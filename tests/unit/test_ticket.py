# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ticket for the firmware menus: what it says, and what it says after the restart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.subjects.firmware_menus import menu
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.ticket import (
    FORMAT,
    compose,
    dump,
    lines,
    parse,
)

MACHINE = {
    "board": {"manufacturer": "ASUSTeK COMPUTER INC.", "product": "ProArt X870E-CREATOR WIFI"},
    "system": {"manufacturer": "ASUS", "product": "System Product Name"},
    "bios": {"vendor": "American Megatrends Inc.", "version": "1104", "date": "06/11/2025"},
    "menu_vendor": "asus",
    "boot_id": "boot-1",
    "machine_id": "m",
}
AFTER = {**MACHINE, "boot_id": "boot-2"}


def finding(name: str, result: str, device: str = "", why: str = "", vendor: str = "asus") -> dict[str, Any]:
    return {
        "id": name,
        "check": "B00",
        "item": f"{name}, GPU {device}" if device else name,
        "device": device,
        "result": result,
        "evidence": f"/sys/{name}: 1",
        "why": why or f"{name} is {result}",
        "advice": "do this" if result == "fail" else "",
        "menu": [] if result == "pass" else menu(name, vendor),
    }


BEFORE = [
    finding("resizable_bar", "fail", "0000:01:00.0"),
    finding("memory_speed", "fail"),
    finding("boost_override", "unknown"),
    finding("smt", "pass"),
]


def text(ticket: dict[str, Any]) -> str:
    return "\n".join(lines(ticket))


def test_the_ticket_says_what_is_wrong_with_evidence_and_the_menu_of_this_board() -> None:
    shown = text(compose("ws5090", BEFORE, MACHINE, None))
    assert "board     ASUSTeK COMPUTER INC. ProArt X870E-CREATOR WIFI" in shown
    assert "firmware  American Megatrends Inc. 1104 06/11/2025" in shown
    assert "2 wrong, 1 not provable, 1 right" in shown
    wrong = shown[shown.index("PROVEN WRONG") : shown.index("NOT PROVABLE")]
    assert "1. [ ] resizable_bar, GPU 0000:01:00.0" in wrong
    assert "evidence  /sys/resizable_bar: 1" in wrong
    assert "menu      ASUS: Advanced > PCI Subsystem Settings > Re-Size BAR Support" in wrong
    assert "MSI" not in shown
    assert "boost_override" in shown[shown.index("NOT PROVABLE") : shown.index("RIGHT")]
    assert "smt: smt is pass" in shown[shown.index("RIGHT") :]
    assert "SINCE" not in shown
    assert "ansible-playbook site.yml -l ws5090 -t bios_verification" in shown
    assert "AFTERWARDS" not in text(compose("ws5090", BEFORE[2:], MACHINE, None))
    assert max(map(len, shown.splitlines())) <= 110
    shown.encode("ascii")


@pytest.mark.parametrize(("vendor", "word"), [("msi", "MSI: "), ("gigabyte", "Gigabyte: "), ("asrock", "ASRock: ")])
def test_menus_are_those_of_the_maker(vendor: str, word: str) -> None:
    shown = text(compose("w", [finding("resizable_bar", "fail", vendor=vendor)], MACHINE, None))
    assert f"menu      {word}" in shown
    assert "ASUS: " not in shown


def test_after_the_restart_it_says_what_the_visit_has_brought() -> None:
    first = compose("w", BEFORE, MACHINE, None)
    now = [
        finding("resizable_bar", "pass", "0000:01:00.0"),
        finding("memory_speed", "fail"),
        finding("boost_override", "unknown"),
        finding("smt", "fail"),
    ]
    second = compose("w", now, {**AFTER, "bios": {**MACHINE["bios"], "version": "1205"}}, first)
    assert second["since"] == {
        "rebooted": True,
        "bios": ["1104", "1205"],
        "items": {
            "fixed": ["resizable_bar, GPU 0000:01:00.0"],
            "still wrong": ["memory_speed"],
            "new": ["smt"],
            "cannot be told any more": [],
        },
    }
    shown = text(second)
    assert "the machine was restarted" in shown
    assert "fixed: resizable_bar, GPU 0000:01:00.0" in shown
    assert "still wrong: memory_speed" in shown
    assert "new: smt" in shown
    assert "firmware version 1104 -> 1205" in shown


def test_without_a_restart_nothing_can_have_changed_and_it_says_so() -> None:
    second = compose("w", BEFORE, MACHINE, compose("w", BEFORE, MACHINE, None))
    assert second["since"]["rebooted"] is False
    assert "was not restarted" in text(second)


def test_another_run_of_the_same_boot_keeps_what_the_first_one_found() -> None:
    now = [finding("resizable_bar", "pass", "0000:01:00.0"), *BEFORE[1:]]
    second = compose("w", now, AFTER, compose("w", BEFORE, MACHINE, None))
    assert second["since"]["items"]["fixed"] != []
    assert compose("w", now, AFTER, second) == second


def test_what_failed_and_is_unknown_now_is_not_called_fixed() -> None:
    now = [finding("resizable_bar", "unknown", "0000:01:00.0"), *BEFORE[1:]]
    since = compose("w", now, AFTER, compose("w", BEFORE, MACHINE, None))["since"]
    assert since["items"]["fixed"] == []
    assert since["items"]["cannot be told any more"] == ["resizable_bar, GPU 0000:01:00.0"]


def test_each_card_is_compared_with_itself() -> None:
    old = [finding("pcie_link", "fail", "0000:01:00.0"), finding("pcie_link", "pass", "0000:02:00.0")]
    now = [finding("pcie_link", "pass", "0000:01:00.0"), finding("pcie_link", "fail", "0000:02:00.0")]
    items = compose("w", now, AFTER, compose("w", old, MACHINE, None))["since"]["items"]
    assert items["fixed"] == ["pcie_link, GPU 0000:01:00.0"]
    assert items["new"] == ["pcie_link, GPU 0000:02:00.0"]


def test_one_reason_for_all_is_said_once() -> None:
    hidden = [finding(name, "unknown", why="virtual machine (kvm)") for name in ("smt", "iommu", "cores")]
    shown = text(compose("w", hidden, MACHINE, None))
    assert shown.count("virtual machine (kvm)") == 1
    assert "smt, iommu, cores" in shown


def test_a_ticket_is_read_back_and_anything_else_is_none() -> None:
    ticket = compose("w", BEFORE, MACHINE, None)
    assert parse(dump(ticket)) == ticket
    broken = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({"format": FORMAT}),
        json.dumps({**ticket, "format": "other"}),
        json.dumps({**ticket, "machine": None}),
        json.dumps({**ticket, "machine": {"boot_id": "1", "bios": None}}),
        json.dumps({**ticket, "findings": [1]}),
    ]
    assert [parse(one) for one in broken] == [None] * len(broken)
