# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Environment files (.env, *.env): KEY=value lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .context import Context, Variable
from .environment import check_environment
from .findings import Finding

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=(.*)")


def check_env_file(text: str, context: Context) -> list[Finding]:
    """Everything that is wrong in an environment file."""
    return [*_comments(text, context), *check_environment(_variables(text, context), context)]


def _comments(text: str, context: Context) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match and re.match(r"\s*[^\"'\s#][^\"'#]*\s#", match[2]):
            message = "compose drops the comment, but docker run --env-file and systemd make it part of the value"
            yield context.finding(number, "env-comment", match[1], message, "a comment on a line of its own")


def _variables(text: str, context: Context) -> list[Variable]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match and not line.lstrip().startswith("#"):
            value = re.split(r"\s+#", match[2].strip(), maxsplit=1)[0].strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            # Names that compose files expand are the author's own, whatever they begin with.
            if match[1] not in context.own:
                found.append(Variable(match[1], None if "$" in value else value, number))
    return found
