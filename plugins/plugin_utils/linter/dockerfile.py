# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dockerfiles: ENV as BuildKit reads it, images, commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .context import Context, Variable, engine_of_image, pinned
from .environment import check_environment
from .findings import Finding
from .flags import Word, check_flags, engine_command, parse
from .shell import check_line, words

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'])+""", re.DOTALL)
_HEREDOC = re.compile(r"<<-?[\"']?(\w+)[\"']?")


@dataclass
class Instruction:
    """One instruction: its name and its physical lines, comments inside of continuations left out."""

    name: str
    lines: list[Word] = field(default_factory=list)

    @property
    def first(self) -> int:
        return self.lines[0][1]

    @property
    def text(self) -> str:
        return "\n".join(text for text, _line in self.lines)

    def line_at(self, offset: int) -> int:
        """The line in the file of a place in `text`."""
        return self.lines[min(self.text.count("\n", 0, offset), len(self.lines) - 1)][1]


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile."""
    escape = "`" if re.match(r"(?:#[^\n]*\n)*#\s*escape\s*=\s*`", text) else "\\"
    held: list[Word] = []
    until = ""
    for number, line in enumerate(text.splitlines(), 1):
        if until:
            until = "" if line.strip() == until else until
            continue
        if line.lstrip().startswith("#") or (held and not line.strip()):
            continue
        continued = line.rstrip().endswith(escape)
        held.append((line.rstrip().removesuffix(escape) if continued else line, number))
        if continued:
            continue
        document = _HEREDOC.search(line)
        until = document[1] if document and re.match(r"\s*(RUN|COPY|ADD)\b", held[0][0], re.IGNORECASE) else ""
        yield from _made(held)
        held = []
    yield from _made(held)


def _made(held: list[Word]) -> Iterator[Instruction]:
    match = _INSTRUCTION.match(held[0][0]) if held else None
    if match:
        yield Instruction(match[1].upper(), [(match[2], held[0][1]), *held[1:]])


def check_dockerfile(text: str, context: Context) -> list[Finding]:
    """Everything that is wrong in a Dockerfile."""
    found: list[Finding] = []
    stages: set[str] = set()
    for instruction in instructions(text):
        if instruction.name == "FROM":
            image, name = _from(instruction.text)
            context = context.of(*engine_of_image(image))
            found += _image(image, instruction.first, stages, context)
            stages.add(name)
        elif instruction.name == "ENV":
            found += _env(instruction, context)
        elif instruction.name == "RUN":
            lines = [text for text, _line in instruction.lines]
            found += check_line(lines, instruction.first, context)
        elif instruction.name in ("CMD", "ENTRYPOINT"):
            found += _command(instruction, context)
    return found


def _from(text: str) -> tuple[str, str]:
    parts = [part for part in text.split() if not part.startswith("--")]
    name = parts[2] if len(parts) > 2 and parts[1].lower() == "as" else ""
    return (parts[0] if parts else ""), name


def _image(image: str, line: int, stages: set[str], context: Context) -> Iterator[Finding]:
    if image and image != "scratch" and image not in stages and not pinned(image):
        yield context.finding(line, "image-tag", image, "names no version; the next build is another engine")


def _env(instruction: Instruction, context: Context) -> Iterator[Finding]:
    """ENV as BuildKit takes it apart: KEY=value words, or the old form KEY value."""
    text = instruction.text
    found = list(_WORD.finditer(text))
    if not found:
        return
    if "=" not in found[0][0]:
        value = text[found[0].end() :].strip()
        name, line = found[0][0], instruction.line_at(found[0].start())
        if not value:
            yield context.finding(line, "dockerfile-env-syntax", f"ENV {name}", "has no value; the build fails")
        elif re.search(r"\s#", value):
            message = "in the form ENV KEY value the comment becomes part of the value"
            yield context.finding(line, "dockerfile-env-comment", name, message, "a comment on a line of its own")
        yield from _variables([Variable(name, _plain(re.split(r"\s#", value)[0]), line)], context)
        return
    variables: list[Variable] = []
    for match in found:
        name, equals, value = match[0].partition("=")
        line = instruction.line_at(match.start())
        if match[0].startswith("#"):
            last = variables[-1].name if variables else "ENV"
            message = f'a comment behind a value: the build fails with: can\'t find = in "{match[0]}"'
            yield context.finding(line, "dockerfile-env-comment", last, message, "a comment on a line of its own")
            break
        if not equals:
            message = f"{match[0]!r} is not of the form KEY=value; the build fails"
            yield context.finding(line, "dockerfile-env-syntax", "ENV", message)
            break
        variables.append(Variable(name, _plain(value), line))
    yield from _variables(variables, context)


def _variables(variables: list[Variable], context: Context) -> Iterator[Finding]:
    yield from check_environment(variables, context)
    for variable in variables:
        if variable.name.startswith("CUDA_MPS_"):
            message = "set in an image it does nothing: no MPS daemon runs there"
            yield context.finding(
                variable.line,
                "dockerfile-mps",
                variable.name,
                message,
                "the daemon on the host and its directory mounted into the container",
            )


def _plain(value: str) -> str | None:
    value = value.strip()
    if "$" in value:
        return None
    return re.sub(r"\\(.)", r"\1", value.replace('"', "").replace("'", ""))


def _command(instruction: Instruction, context: Context) -> Iterator[Finding]:
    text = instruction.text.strip()
    parts: list[Word]
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError:
            message = "begins like JSON and is none; Docker runs it through a shell"
            yield context.finding(instruction.first, "dockerfile-env-syntax", instruction.name, message)
            return
        if not all(isinstance(part, str) for part in parsed):
            return
        parts = [(part, instruction.line_at(max(text.find(json.dumps(part)), 0))) for part in parsed]
    else:
        parts = words([line for line, _number in instruction.lines], instruction.first)
    engine, arguments = engine_command(parts)
    if not engine and context.engine and parts and parts[0][0].startswith("-"):
        engine, arguments = context.engine, parts
    if engine:
        version = context.version if engine == context.engine else None
        yield from check_flags(parse(arguments, engine), context.of(engine, version))
