# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lint a repository, or the services that a playbook declares. Reads files; runs and imports nothing of them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .compose import check_compose, looks_like_compose
from .context import Context, Flag, Variable
from .dockerfile import check_dockerfile
from .env_file import check_env_file
from .environment import check_environment
from .findings import Finding, in_order
from .flags import check_flags, parse
from .nodes import BrokenYamlError, documents
from .shell import check_script, words
from .sysctl import check_sysctl_file, looks_like_sysctl

SKIPPED_FOLDERS = frozenset((".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".ansible"))
# Larger files are no configuration.
LARGEST = 1 << 20
_EXPANDED = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
Checker = Callable[[str, Context], list[Finding]]


@dataclass
class Report:
    """What was found, and how many files of each kind were checked."""

    findings: list[Finding] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)


def lint_path(path: str | Path) -> Report:
    """Check every file of a known kind under a path (or one file). Raises FileNotFoundError."""
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"path: {path} does not exist")
    texts, findings = {}, []
    for file in _files(root):
        name = str(file.relative_to(root)) if file != root else file.name
        text, problem = _read(file, name)
        if problem:
            findings.append(problem)
        elif text is not None:
            texts[name] = text
    own = frozenset(match[1] for text in texts.values() for match in _EXPANDED.finditer(text))
    report = Report(findings)
    for name, text in texts.items():
        kind, check = classify(name, text)
        if check:
            report.files[kind] = report.files.get(kind, 0) + 1
            report.findings += check(text, Context(name, own=own))
    report.findings = in_order(report.findings)
    return report


def lint_service(
    engine: str, version: str | None, environment: Mapping[str, object], flags: Sequence[str] | str
) -> list[Finding]:
    """Check a declared service: engine (vllm or llama.cpp), its version, variables and command line."""
    context = Context("", engine, version)
    variables = [Variable(name, None if value is None else str(value)) for name, value in environment.items()]
    listed = words([flags], 0) if isinstance(flags, str) else [(str(flag), 0) for flag in flags]
    parsed: list[Flag] = parse(listed, engine)
    return in_order([*check_environment(variables, context, parsed), *check_flags(parsed, context)])


def classify(name: str, text: str) -> tuple[str, Checker | None]:
    """The kind of a file and what checks it."""
    base = os.path.basename(name).lower()
    if re.search(r"(^|[._-])(docker|container)file([._-].*)?$", base):
        return "Dockerfile", check_dockerfile
    if re.search(r"\.ya?ml$", base):
        return ("compose", check_compose) if _is_compose(base, text) else ("", None)
    if re.search(r"(^|\.)env(\.[\w-]+)?$", base):
        return "environment", check_env_file
    if re.search(r"(^|/)sysctl\.d/[^/]*\.conf$|(^|/)[^/]*sysctl[^/]*\.conf$", name) or (
        base.endswith(".conf") and looks_like_sysctl(text)
    ):
        return "sysctl", check_sysctl_file
    if re.search(r"\.(ba|z|k|da)?sh$", base) or re.match(r"#!\s*\S*(/|\s)(ba|da|z|k)?sh\b", text):
        return "script", check_script
    return "", None


def _is_compose(base: str, text: str) -> bool:
    if looks_like_compose(base, None):
        return True
    if not re.search(r"^services:", text, re.MULTILINE):
        return False
    try:
        return any(looks_like_compose(base, root) for root in documents(text))
    except BrokenYamlError:
        return False


def _files(root: Path) -> Iterator[Path]:
    """Ordinary files, in a fixed order. Links are not followed: they can lead out of the repository."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            file = Path(folder, name)
            if not file.is_symlink():
                yield file


def _read(file: Path, name: str) -> tuple[str | None, Finding | None]:
    """The text of a file, None where it is no text, or what kept us from reading it."""
    context = Context(name)
    interesting = classify(name, "")[1] is not None
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            return None, None
        if state.st_size > LARGEST:
            message = f"{state.st_size} bytes; files above {LARGEST} are not checked"
            return None, context.finding(0, "file-skipped", name, message) if interesting else None
        content = file.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        return None, context.finding(0, "file-unreadable", name, message) if interesting else None
    if b"\0" in content:
        message = "holds binary data"
        return None, context.finding(0, "file-unreadable", name, message) if interesting else None
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return None, context.finding(line, "file-unreadable", name, "is not UTF-8") if interesting else None
