# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The results on docs/placement.md are what the filter says today. Run as a program, this writes them."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / ".ansible/collections"), str(ROOT / "tests/unit")]

from ansible_collections.ai_infra.workstation.plugins.plugin_utils.placement import place  # noqa: E402
from placing import MACHINES  # noqa: E402

PAGE = ROOT / "docs" / "placement.md"
EXAMPLE = re.compile(r"(?P<request>```yaml\n(?P<input>.*?)```\n\n```text\n)(?P<output>.*?)```", re.DOTALL)


def render(request: dict[str, Any]) -> str:
    """The result of an example as the page shows it."""
    found = place(MACHINES[request.pop("machine")], request.pop("services"), **request)
    lines = []
    for name, one in found["services"].items():
        gpus = f"  gpus {', '.join(one['gpus'])}" if one["gpus"] else ""
        lines += [f"{name:<13}cpus {one['cpus']}  node {one['memory_node']}{gpus}", f"{'':<13}{one['why']}"]
    if found["feasible"]:
        lines += [f"housekeeping {found['housekeeping_cpus']}", f"interrupts   {found['interrupt_cpus']}"]
        lines += [f"left         cpus {found['left']['cpus'] or '-'}"]
    lines += [f"warning      {text}" for text in found["warnings"]]
    lines += [f"conflict     {conflict['message']}" for conflict in found["conflicts"]]
    return "".join(f"{line}\n" for text in lines for line in textwrap.wrap(text, 112, subsequent_indent=" " * 13))


def renewed(page: str) -> str:
    return EXAMPLE.sub(lambda found: found["request"] + render(yaml.safe_load(found["input"])) + "```", page)


def test_the_page_shows_what_the_filter_says() -> None:
    page = PAGE.read_text(encoding="ascii")
    assert len(EXAMPLE.findall(page)) >= 6
    assert page == renewed(page), f"run python {Path(__file__).relative_to(ROOT)}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="ascii")), encoding="ascii")
