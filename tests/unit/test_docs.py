# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documents that list what code knows are made from it, and defaults say what the documents say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def test_generated_pages_are_made_from_their_sources() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = module.pages()
    assert len(pages) == 4 + len(ROLES)
    for page, content in pages.items():
        assert page.read_text() == content, "run scripts/generate_docs.py"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree_on_names_and_values(role: str) -> None:
    folder = ROOT / "roles" / role
    options = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    path = folder / "defaults" / "main.yml"
    defaults = yaml.safe_load(path.read_text()) if path.exists() else {}
    # workstation_* belongs to the playbook as well as to the role, which therefore has no default of it.
    own = {name: option for name, option in options.items() if name.startswith(f"{role}_")}
    documented = {name: option["default"] for name, option in own.items() if "default" in option}
    assert {name: value for name, value in defaults.items() if value is not None} == documented
    assert defaults.keys() <= options.keys()


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_uses_is_specified(role: str) -> None:
    folder = ROOT / "roles" / role
    options = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    text = "".join(path.read_text() for kind in ("tasks", "templates", "vars") for path in (folder / kind).rglob("*.*"))
    assert set(re.findall(rf"(?<![\w.]){role}_\w+", text)) - {f"{role}_plan"} <= options.keys()


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")], ids=str
)
def test_documents_are_plain_ascii(path: Path) -> None:
    path.read_text(encoding="ascii")
