# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The readable end of a run."""

from __future__ import annotations

from ansible_collections.ai_infra.workstation.plugins.plugin_utils.summary import HostReport, render


def change(key: str, before="1", after="2", **more):
    return {"key": key, "before": before, "after": after, "reboot_required": False, "reason": "", **more}


def text(report: HostReport, check: bool = False) -> str:
    return "\n".join(render("ws5090", report, check))


def test_what_would_change_is_grouped_by_role_and_merged() -> None:
    report = HostReport(profile="balanced")
    report.add("os_tuning", {"changes": [change("sysctl:vm.swappiness", "60", "10")]})
    report.add("os_tuning", {"changes": [change(f"pm_qos:cpu{number}", "0", "100") for number in range(64)]})
    report.add("gpu_tuning", {"changes": [change("gpu:GPU-1/ecc", "on", "off", reboot_required=True)]})
    shown = text(report, check=True)
    assert "ws5090  profile balanced  dry run: 66 changes planned, nothing was touched" in shown
    assert "sysctl:vm.swappiness" in shown
    assert "60 -> 10" in shown
    assert "pm_qos:cpu0 and 63 more like it" in shown
    assert "(after a reboot)" in shown
    assert len(shown.splitlines()) == 8


def test_a_rollback_says_whose_keys_went_back_and_how_many_links() -> None:
    report = HostReport()
    links = change("unit_links:a.timer", ["/etc/systemd/system/timers.target.wants/a.timer -> ..."], [])
    changes = [links, change("sysctl:vm.swappiness", "10", "60")]
    report.add("", {"changes": [{**one, "owner": "os_tuning/unit_state", "reason": "back"} for one in changes]})
    assert text(report).splitlines()[1:] == [
        "ws5090  2 changes made",
        "  CHANGED  (back)",
        "    os_tuning",
        "      unit_links:a.timer    1 link -> none",
        "      sysctl:vm.swappiness  10 -> 60",
    ]


def test_skips_and_findings_come_with_their_reasons() -> None:
    report = HostReport()
    report.add(
        "os_tuning", {"skipped_keys": [{"key": "a1", "reason": "no cpufreq"}, {"key": "a2", "reason": "no cpufreq"}]}
    )
    report.add(
        "bios_verification",
        {
            "findings": [
                {"item": "Resizable BAR", "result": "fail", "why": "BAR1 is 256 MiB"},
                {"item": "SMT", "result": "pass"},
            ]
        },
    )
    shown = text(report)
    assert "a1, a2: no cpufreq" in shown
    assert "FIRMWARE  1 fail, 0 unknown, 1 pass" in shown
    assert "Resizable BAR: BAR1 is 256 MiB" in shown
    assert "SMT" not in shown


def test_findings_with_one_reason_are_one_line() -> None:
    report = HostReport()
    report.add(
        "bios", {"findings": [{"item": f"item {n}", "result": "unknown", "why": "virtual machine"} for n in range(9)]}
    )
    assert "    unknown  9 items: virtual machine" in text(report).splitlines()


def test_a_second_run_says_so_and_a_failure_is_first() -> None:
    assert "as wanted, nothing to change" in text(HostReport())
    assert text(HostReport(errors=["no"])).splitlines()[1] == "ws5090  FAILED"


def conflict(severity: str, rule: str, accepted: bool = False) -> dict:
    parts = {"what": f"what of {rule}", "why": "why", "variables": ["os_tuning_epp"], "fix": "do this"}
    return {"rule": rule, "severity": severity, "accepted": accepted, **parts}


def test_conflicts_come_first_with_all_their_parts_and_errors_first() -> None:
    report = HostReport()
    found = [
        conflict("note", "c"),
        conflict("warning", "b", accepted=True),
        conflict("error", "a"),
        conflict("error", "d"),
    ]
    report.add("workstation_plan", {"conflicts": found, "changes": [change("sysctl:vm.swappiness")]})
    lines = text(report).splitlines()
    assert lines[2] == "  CONFLICTS  2 errors, 1 warning, 1 note"
    assert lines[3:7] == [
        "    error     a: what of a",
        "              why        why",
        "              variables  os_tuning_epp",
        "              fix        do this",
    ]
    assert [line.split(":")[0].split()[0] for line in lines if ": what of" in line] == [
        "error",
        "error",
        "accepted",
        "note",
    ]
    assert lines.index("  CHANGED") > lines.index("    note      c: what of c")


def test_an_error_of_conflicts_is_only_counted_below_them() -> None:
    error = "Plan: 2 conflicts: a: what of a; do this; d: what of d; do this"
    shown = text(HostReport(conflicts=[conflict("error", "a")], errors=[error])).splitlines()
    assert shown[-1] == "    Plan: 2 conflicts, see CONFLICTS above"
    assert text(HostReport(errors=["Plan: 2 conflicts: a"])).splitlines()[-1] == "    Plan: 2 conflicts: a"


def test_without_conflicts_there_is_no_such_block() -> None:
    report = HostReport()
    report.add("workstation_plan", {"conflicts": []})
    assert "CONFLICTS" not in text(report)


def test_the_last_word_of_a_task_says_whether_a_reboot_is_needed() -> None:
    report = HostReport()
    report.add("os_tuning", {"changes": [], "reboot_reasons": ["a", "b"]}, "Tune")
    report.add("os_tuning", {"changes": [], "reboot_reasons": ["c"]}, "Other")
    report.add("", {"changes": [], "reboot_reasons": ["d"]}, "Tune")
    report.add("", {"changes": [], "reboot_reasons": ["e"]}, "Tune")
    report.add("os_tuning", {"changes": [], "reboot_reasons": ["b"]}, "Tune")
    assert report.reboot == ["b", "c", "d", "e"]
    (title,) = [line for line in render("host", report, check=False) if "A REBOOT IS NEEDED" in line]
    assert "-e workstation_reboot_allowed=true" in title
