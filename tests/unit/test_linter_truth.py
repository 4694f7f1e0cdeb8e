# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How often the linter is right: floors under the figures that benchmarks/linter.py prints, on held-out truth."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter import knowledge
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.versions import version_key

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("benchmark_linter", ROOT / "benchmarks" / "linter.py")
bench = importlib.util.module_from_spec(_SPEC)
sys.modules["benchmark_linter"] = bench
_PATH = list(sys.path)
_SPEC.loader.exec_module(bench)
sys.path[:] = _PATH

HELD_OUT = [(engine, version) for engine in bench.ENGINES for version in bench.truths(engine) if version[0].isdigit()]
# What the linter must reach on every held-out version. The figures of today are higher, see benchmarks/linter.py.
PRECISION = 0.98
RECALL = {"vllm": 0.9, "llama.cpp": 0.8}


@pytest.mark.parametrize(("engine", "version"), HELD_OUT)
def test_held_out_versions(engine: str, version: str) -> None:
    one = bench.score(engine, version, bench.truths(engine)[version])
    assert one.precision >= PRECISION, one.false
    assert one.recall >= RECALL[engine], one.missed


@pytest.mark.parametrize(("engine", "version"), HELD_OUT)
def test_no_held_out_version_was_used_for_the_knowledge(engine: str, version: str) -> None:
    assert version_key(version) not in [version_key(one) for one in knowledge.tables()[engine].versions]


def test_hardly_a_name_of_a_newer_help_is_accused() -> None:
    share, detail = bench.help_alarms()
    assert share <= 0.01, detail


def test_every_bad_setting_of_the_recipes_is_caught_and_no_real_one_is_called_absent() -> None:
    one, findings = bench.recipes()
    assert one.missed == ()
    assert one.false == ()
    assert one.hits > 60
    assert all(finding.line > 0 for finding in findings)


def test_every_error_of_the_recipes_names_a_line_that_holds_the_setting() -> None:
    # Settings that name a service or an image are found by the key instead.
    checked = 0
    for finding in bench.recipes()[1]:
        name = finding.setting.partition("=")[0].split()[-1]
        line = (bench.RECIPES / finding.file).read_text().splitlines()[finding.line - 1]
        if finding.rule.startswith(("env-", "sysctl-", "dockerfile-env-", "allocator-")):
            assert name.replace(".", "/") in line or name in line, finding
            checked += 1
    assert checked > 50


def test_the_rows_of_the_benchmark_are_complete() -> None:
    rows = bench.rows()
    assert all(row.keys() == {"name", "value", "unit", "goal", "better", "detail"} for row in rows)
    assert len({row["name"] for row in rows}) == len(rows) == 8
