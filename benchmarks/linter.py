# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How often the settings linter is right, and how long it takes.

Truth is tests/unit/truth: names of engine versions that the knowledge was not made from, what llama-server --help
prints, and a verdict on every setting of the recipes in tests/unit/recipes. For each version every name that any
version or any recipe has is asked for; to accuse a name is to say that this version does not read it.

precision: of the accused names, the share that the version really does not have. recall: of the names that it does
not have, the share that is accused.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ansible/collections")]

from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.findings import Finding  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.knowledge import known, tables  # noqa: E402
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.lint import (  # noqa: E402
    lint_path,
    lint_service,
)

TRUTH, RECIPES = ROOT / "tests/unit/truth", ROOT / "tests/unit/recipes"
ENGINES = {"vllm": "vLLM", "llama.cpp": "llama.cpp"}
ABSENT = ("fictitious", "unknown", "removed", "not-yet")
RUNS = 7


@dataclass(frozen=True)
class Score:
    """Names accused rightly, accused wrongly and let through."""

    hits: int
    false: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def precision(self) -> float:
        return self.hits / max(self.hits + len(self.false), 1)

    @property
    def recall(self) -> float:
        return self.hits / max(self.hits + len(self.missed), 1)


def truths(engine: str) -> dict[str, set[str]]:
    """The names of every held-out version."""
    found = {}
    for path in sorted(TRUTH.glob(f"{engine}_*.txt")):
        found[path.stem.partition("_")[2]] = set(path.read_text(encoding="ascii").split())
    return found


def accused(finding: Finding) -> bool:
    """Whether a finding says that a program does not read a setting."""
    return finding.rule.partition("-")[2] in ABSENT


def ask(engine: str, version: str, name: str) -> bool:
    """Whether the linter accuses a name for a version."""
    flag = name.startswith("-")
    found = lint_service(engine, version, {} if flag else {name: "1"}, [name] if flag else [])
    return any(accused(one) for one in found)


def score(engine: str, version: str, truth: set[str]) -> Score:
    """The linter on one held-out version."""
    table = tables()[engine]
    records = {one.name for kind in ("environment", "flag") for one in known(kind).values() if one.engine == engine}
    everything = truth | set(table.environment) | set(table.flag) | records
    if engine == "llama.cpp":  # GGML_* and LLAMA_CACHE are read by other parts than the one that truth lists
        everything = {name for name in everything if name in truth or name.startswith(("LLAMA_ARG_", "-"))}
    guilty = {name for name in everything if ask(engine, version, name)}
    return Score(len(guilty - truth), tuple(sorted(guilty & truth)), tuple(sorted(everything - truth - guilty)))


def recipes() -> tuple[Score, list[Finding]]:
    """The linter on the recipes: bad settings caught, real ones not called absent."""
    findings = lint_path(RECIPES).findings
    truth = yaml.safe_load((TRUTH / "recipes.yml").read_text(encoding="ascii"))
    hits, missed, false = 0, [], []
    for file, names in truth["bad"].items():
        texts = [one.message for one in findings if one.file == file and one.severity != "info"]
        caught = [name for name in names if any(name in text for text in texts)]
        hits += len(caught)
        missed += [f"{file}: {name}" for name in names if name not in caught]
    for file, names in truth["real"].items():
        guilty = {one.setting.partition("=")[0] for one in findings if one.file == file and accused(one)}
        false += [f"{file}: {name}" for name in names if name in guilty]
    return Score(hits, tuple(false), tuple(missed)), findings


def rows() -> list[dict[str, Any]]:
    """Scores and time as rows of build/bench.json."""
    found = []
    for engine, title in ENGINES.items():
        all_scores = {version: score(engine, version, names) for version, names in truths(engine).items()}
        scores = {version: one for version, one in all_scores.items() if not version.startswith("help")}
        for what, goal in (("precision", 0.97), ("recall", 0.9)):
            each = {version: getattr(one, what) for version, one in scores.items()}
            detail = "worst of held-out versions: " + ", ".join(f"{name} {value:.3f}" for name, value in each.items())
            found.append(_row(f"linter {title} {what}", min(each.values()), "share", goal, "higher", detail))
    share, detail = help_alarms()
    found.append(_row("linter llama-server --help false alarms", share, "share", 0.02, "lower", detail))
    one, findings = recipes()
    detail = f"{one.hits} settings of the recipes are bad; missed: {', '.join(one.missed) or 'none'}"
    found.append(_row("linter recipes caught", one.recall, "share", 1, "higher", detail))
    detail = f"real settings called absent: {', '.join(one.false) or 'none'}"
    found.append(_row("linter recipes false alarms", len(one.false), "count", 0, "lower", detail))
    times = [_timed() for _run in range(RUNS)]
    detail = f"median of {RUNS}, the recipes ({len(findings)} findings), knowledge loaded"
    found.append(_row("linter time", statistics.median(times), "ms", 100, "lower", detail))
    return found


def help_alarms() -> tuple[float, str]:
    """Names that a llama-server newer than the knowledge prints in its help: the share that is accused."""
    names = truths("llama.cpp")["help-0.7.0"]
    false = score("llama.cpp", "0.7.0", names).false
    return len(false) / len(
        names
    ), f"{len(names)} names of release 0.7.0, newer than the newest build read: {', '.join(false)}"


def _timed() -> float:
    start = time.perf_counter()
    lint_path(RECIPES)
    return (time.perf_counter() - start) * 1000


def _row(name: str, value: float, unit: str, goal: float, better: str, detail: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "better": better, "detail": detail}


if __name__ == "__main__":
    for row in rows():
        print("{name}: {value} {unit} (goal {goal}, {better} is better): {detail}".format(**row))
