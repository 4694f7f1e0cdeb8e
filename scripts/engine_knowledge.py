# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read which variables and flags an engine knows in which version, out of its own unpacked source packages.

    python scripts/engine_knowledge.py vllm 0.19.0=DIR 0.20.0=DIR ... > plugins/plugin_utils/knowledge/vllm_versions.yml
    python scripts/engine_knowledge.py llama.cpp 8929=DIR ... > plugins/plugin_utils/knowledge/llama_cpp_versions.yml
    python scripts/engine_knowledge.py --names vllm 0.19.1=DIR > tests/unit/truth/vllm_0.19.1.txt

DIR is the root of a vLLM source package, or a folder with llama.cpp's arg.cpp (found at any depth). Sources are
parsed, never run, and only names and versions come out: facts, no text of theirs.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

Names = Mapping[str, set[str]]

_HEAD = """\
# Names that {engine} knows, by version: [first version that has it, last one (null: still there in the newest)].
# Made by scripts/engine_knowledge.py from the source packages of the versions listed; do not edit it.
---
"""
# cli_args.py has moved between folders.
_VLLM_FLAG_FILES = ("engine/arg_utils.py", "entrypoints/**/cli_args.py", "entrypoints/cli/serve.py")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]+")


def vllm(root: Path) -> Names:
    """The keys of vllm/envs.py and every flag of `vllm serve`."""
    package = root / "vllm"
    found: dict[str, set[str]] = {"environment": set(), "flag": set()}
    for node in ast.walk(ast.parse((package / "envs.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "environment_variables":
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            found["environment"] |= {name for name in _strings(keys) if name.startswith("VLLM_")}
    for path in (path for pattern in _VLLM_FLAG_FILES for path in package.glob(pattern)):
        found["flag"] |= _flags(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _flags(tree: ast.Module) -> set[str]:
    """Flags by add_argument, and the fields of the classes whose every field becomes a flag."""
    flags = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            flags |= {text for text in _strings(node.args) if text.startswith("-")}
        if isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
            fields = [item.target.id for item in node.body if _is_field(item)]  # type: ignore[attr-defined]
            flags |= {"--" + name.replace("_", "-") for name in fields}
    return flags


def _is_field(item: ast.stmt) -> bool:
    if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
        return False
    return "ClassVar" not in ast.unparse(item.annotation)


def _strings(nodes: Iterable[ast.expr | None]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def llama_cpp(root: Path) -> Names:
    """Flags and variables of llama-server: the options of common/arg.cpp that are for all programs or for it."""
    text = next(root.rglob("arg.cpp")).read_text(encoding="utf-8")
    found: dict[str, set[str]] = {"environment": set(), "flag": set()}
    for chunk in text.split("add_opt(common_arg(")[1:]:
        groups = re.match(r"\s*\{([^}]*)\}(?:\s*,\s*\{([^}]*)\})?", chunk)
        examples = re.search(r"\.set_examples\(\{([^}]*)\}", chunk)
        excludes = re.search(r"\.set_excludes\(\{([^}]*)\}", chunk)
        elsewhere = examples and not re.search(r"LLAMA_EXAMPLE_(SERVER|COMMON)\b", examples[1])
        if not groups or elsewhere or (excludes and "LLAMA_EXAMPLE_SERVER" in excludes[1]):
            continue
        found["flag"] |= set(re.findall(r'"(--?[^"\s]+)"', " ".join(group or "" for group in groups.groups())))
        found["environment"] |= set(re.findall(r'\.set_env\("([A-Z0-9_]+)"\)', chunk))
    return found


READERS = {"vllm": vllm, "llama.cpp": llama_cpp}


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def ranges(by_version: Mapping[str, Names], kind: str) -> dict[str, tuple[str, str | None]]:
    """First and last version of every name; the last one is None where the newest version has it."""
    versions = sorted(by_version, key=version_key)
    result = {}
    for name in sorted(set().union(*(by_version[version][kind] for version in versions))):
        having = [version for version in versions if name in by_version[version][kind]]
        result[name] = (having[0], None if having[-1] == versions[-1] else having[-1])
    return result


def render(engine: str, by_version: Mapping[str, Names]) -> str:
    versions = sorted(by_version, key=version_key)
    lines = [f"engine: {engine}", "versions:", *(f'  - "{version}"' for version in versions)]
    for kind in ("environment", "flag"):
        lines.append(f"{kind}:")
        for name, (since, until) in ranges(by_version, kind).items():
            last = "null" if until is None else f'"{until}"'
            lines.append(f'  {name}: ["{since}", {last}]')
    return _HEAD.format(engine=engine) + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    names_only = arguments[:1] == ["--names"]
    engine, *places = arguments[1:] if names_only else arguments
    by_version = {}
    for place in places:
        version, _equals, folder = place.partition("=")
        by_version[version] = READERS[engine](Path(folder))
    if names_only:
        for names in by_version.values():
            print("\n".join(sorted(names["environment"]) + sorted(names["flag"])))
    else:
        print(render(engine, by_version), end="")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
