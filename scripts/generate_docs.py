# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the pages that list what code knows: docs/settings.md from the table of settings, docs/rules.md from
the conflict rules and their homes, docs/monitoring.md and the dashboard from metrics and alerts, and the README
of every role from its argument specification. A test fails when a page and its source differ."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter.page import linter_page
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring.dashboard import dashboard
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.monitoring.page import monitoring_page
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.profiles import NAMES, Setting, settings
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.rules.page import rules_page

ROOT = Path(__file__).resolve().parents[1]

_HEAD = """\
# Settings

What the collection sets, setting by setting: our three values, why, where the fact comes from, how to see it
on the running machine, and what we think of what common recipes say.

This page is made from plugins/plugin_utils/settings.yml by scripts/generate_docs.py; do not edit it.

A value of `-` leaves the vendor's default. Any variable set in the inventory overrides the profile; set to null
it leaves the default, and what we had set before goes back to the value it had.

To undo one setting: set its variable to null and run the play. To undo a role's settings: set all of its
variables to null. Every original value is in /var/lib/ai-workstation/ledger.json on the machine.
"""


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    roles = [path.parents[1] for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))]
    documents = {
        ROOT / "docs" / "settings.md": _settings(),
        ROOT / "docs" / "rules.md": rules_page(),
        ROOT / "docs" / "monitoring.md": monitoring_page(),
        ROOT / "roles" / "monitoring" / "files" / "dashboard.json": dashboard(),
    }
    return {**documents, **{role / "README.md": _role(role) for role in roles}}


def _settings() -> str:
    return _HEAD + "".join(f"\n{part}" for part in _overview()) + "".join(_section(setting) for setting in settings())


def _overview() -> Iterator[str]:
    yield "## Overview\n"
    yield f"| setting | {' | '.join(NAMES)} |"
    yield f"|---|{'---|' * len(NAMES)}"
    for setting in settings():
        values = " | ".join(_value(setting.profiles[name]) for name in NAMES)
        yield f"| {setting.name} | {values} |"
    yield ""


def _section(setting: Setting) -> str:
    name = setting.variable + (f"['{setting.key}']" if setting.key else "")
    rows = [
        ("what", setting.what),
        ("variable", f"{name} ({', '.join(setting.choices) or setting.unit})"),
        ("applied by", f"ai_infra.workstation.{setting.module}"),
        *((profile, _value(setting.profiles[profile])) for profile in NAMES),
        ("why", setting.why),
        ("source", setting.source),
        ("verify", setting.verify),
        ("recipes", setting.recipes),
    ]
    lines = "".join(_row(label, text) for label, text in rows)
    return f"\n## {setting.name}\n\n{lines}"


def _row(label: str, text: str) -> str:
    wrapped = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    return f"    {label:<13} " + ("\n" + " " * 18).join(wrapped) + "\n"


def _value(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, dict) and "if" in value:
        return f"{_value(value['then'])} (if {value['if'].replace('_', ' ')}, else {_value(value['else'])})"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "; ".join(_value(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_value(item)}" for key, item in value.items())
    return str(value)


def _role(role: Path) -> str:
    """One README: what the role does, how to call it, its variables."""
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
    by_profile = {setting.variable for setting in settings()}
    parts = [f"# {role.name}\n\n{spec['short_description']}.\n"]
    parts += [f"\n{textwrap.fill(_plain(text), 110)}\n" for text in _listed(spec["description"])]
    parts.append(f"""
    - hosts: workstations
      roles:
        - role: ai_infra.workstation.{role.name}
""")
    parts.append("\n## Variables\n")
    for name, option in spec["options"].items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        if "choices" in option:
            kind += f", one of {', '.join(map(str, option['choices']))}"
        default = "by profile" if name in by_profile else f"default {_default(option.get('default'))}"
        text = "\n".join(
            textwrap.fill(_plain(line), 104, initial_indent=" " * 8, subsequent_indent=" " * 8)
            for line in _listed(option["description"])
        )
        parts.append(f"\n    {name}  ({kind}; {default})\n{text}\n")
    parts.append("\nThis page is made from meta/argument_specs.yml by scripts/generate_docs.py; do not edit it.\n")
    return "".join(parts)


def _listed(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _plain(text: str) -> str:
    """Ansible's markup without its marks: C(x) is x."""
    return re.sub(r"[A-Z]+\(([^)]*)\)", r"\1", text)


def _default(value: Any) -> str:
    return "none" if value is None else yaml.safe_dump(value, default_flow_style=True).splitlines()[0]


if __name__ == "__main__":
    for page, content in {**pages(), ROOT / "docs" / "linter.md": linter_page()}.items():
        page.write_text(content, encoding="ascii")
