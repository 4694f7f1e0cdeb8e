# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines of shell scripts and of RUN in Dockerfiles: nvidia-smi, sysctl, exported variables, engine commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from .context import Context, Flag, Variable, engine_of_image
from .environment import check_environment
from .findings import Finding
from .flags import Word, check_flags, engine_command, parse
from .sysctl import check_setting

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_PROC_SYS = re.compile(r"(?:>|\btee\b)\s*(?:-\S+\s+)*[\"']?/proc/sys/([\w/.-]+)")
_ECHO = re.compile(r"\becho\s+(?:-\w+\s+)?[\"']?([^\s\"'|>]+)")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")
_OPERATORS = ("&&", "||", ";", "|", "&", "(", ")", ";;")
# Options of `docker run` that come with a word of their own and matter here.
_DOCKER_ENV = ("-e", "--env")


def logical_lines(text: str, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Lines with their continuations: number of the first, and the physical lines. Bodies of here-documents are left
    out: they are another file's text."""
    held: list[str] = []
    start, until = first, ""
    for number, line in enumerate(text.splitlines(), first):
        if until:
            until = "" if line.strip() == until else until
            continue
        if not held:
            start = number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            held.append(line)
            continue
        yield start, [*held, line]
        document = _HEREDOC.search(line)
        until = document[1] if document and "<<<" not in line else ""
        held = []
    if held:
        yield start, held


def words(physical: Sequence[str], start: int) -> list[Word]:
    """The words of a logical line, each with the physical line that it is on."""
    joined = " ".join(line.removesuffix("\\") for line in physical)
    lexer = shlex.shlex(joined, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        texts = list(lexer)
    except ValueError:  # a quote that ends on another line
        texts = joined.split()
    found: list[Word] = []
    place = 0
    for text in texts:
        probe = text.split("\n")[0][:40]
        while place < len(physical) - 1 and probe not in physical[place]:
            place += 1
        if probe not in physical[place]:
            place = found[-1][1] - start if found else 0
        found.append((text, start + place))
    return found


def commands(line: Sequence[Word]) -> Iterator[list[Word]]:
    """The simple commands of a line."""
    held: list[Word] = []
    for word in line:
        if word[0] in _OPERATORS:
            if held:
                yield held
            held = []
        else:
            held.append(word)
    if held:
        yield held


def check_script(text: str, context: Context, first: int = 1) -> list[Finding]:
    """Everything that is wrong in a script."""
    found: list[Finding] = []
    for start, physical in logical_lines(text, first):
        found += check_line(physical, start, context)
    return found


def check_line(physical: Sequence[str], start: int, context: Context) -> list[Finding]:
    """Everything that is wrong in one logical line."""
    raw = "\n".join(physical)
    if raw.lstrip().startswith("#"):
        return []
    found = list(_patterns(raw, start, context))
    for command in commands(words(physical, start)):
        found += _command(command, context)
    return found


def _command(command: Sequence[Word], context: Context) -> Iterator[Finding]:
    variables, rest = _variables(command)
    image = next((text for text, _line in rest if engine_of_image(text)[0] and "/" in text and ":" in text), "")
    engine, arguments = engine_command(rest)
    if rest and rest[0][0] == "docker" and image:
        engine, version = engine_of_image(image)
        place = [text for text, _line in rest].index(image)
        arguments = list(rest[place + 1 :])
    else:
        version = context.version if engine == context.engine else None
    flags: list[Flag] = parse(arguments, engine) if engine else []
    mine = context.of(engine, version)
    if engine:
        yield from check_flags(flags, mine)
    yield from check_environment(variables, mine, flags)
    yield from _sysctl_command(rest, context)


def _variables(command: Sequence[Word]) -> tuple[list[Variable], list[Word]]:
    """Variables that a command gives to a program: export X=1, X=1 program, docker run -e X=1."""
    found: list[Variable] = []
    place = 0
    exporting = bool(command) and command[0][0] in ("export", "env", "declare", "set")
    rest = list(command[1:] if exporting else command)
    while place < len(rest) and (match := _ASSIGNMENT.fullmatch(rest[place][0])):
        found.append(_variable(match, rest[place][1]))
        place += 1
    rest = rest[place:]
    if not rest and not exporting:
        # A variable of the script itself, unless it is exported later on: only what nobody reads is worth a word.
        return found, []
    for index, (text, _line) in enumerate(rest[:-1]):
        if text in _DOCKER_ENV and (match := _ASSIGNMENT.fullmatch(rest[index + 1][0])):
            found.append(_variable(match, rest[index + 1][1]))
    for text, number in rest:
        if text.startswith("--env=") and (match := _ASSIGNMENT.fullmatch(text[6:])):
            found.append(_variable(match, number))
    return found, rest


def _variable(match: re.Match[str], number: int) -> Variable:
    return Variable(match[1], None if "$" in match[2] or "`" in match[2] else match[2], number)


def _sysctl_command(command: Sequence[Word], context: Context) -> Iterator[Finding]:
    """sysctl -w key=value."""
    names = [text.rsplit("/", 1)[-1] for text, _line in command]
    if "sysctl" not in names:
        return
    for text, number in command[names.index("sysctl") + 1 :]:
        key, equals, value = text.partition("=")
        if equals and not key.startswith("-") and "." in key.replace("/", "."):
            yield from check_setting(key, value, number, context)


def _patterns(raw: str, start: int, context: Context) -> Iterator[Finding]:
    for match in _PROC_SYS.finditer(raw):
        number = start + raw[: match.start()].count("\n")
        key = match[1].replace("/", ".")
        written = _ECHO.search(raw)
        if key == "vm.drop_caches":
            text = "it throws the page cache away and with it the loaded model"
            yield context.finding(number, "shell-drop-caches", key, text)
        elif written and "$" not in written[1]:
            yield from check_setting(key, written[1], number, context)
    if "nvidia-smi" in raw:
        if re.search(r"grep.*Clocks Throttle Reasons", raw, re.IGNORECASE):
            text = "drivers of today call them Clocks Event Reasons, and the search finds nothing"
            yield context.finding(
                start, "shell-throttle-name", "nvidia-smi", text, "--query-gpu=clocks_event_reasons.active"
            )
        if re.search(r"grep.*Tensor Cores?", raw, re.IGNORECASE):
            text = "there is no field about tensor cores"
            yield context.finding(start, "shell-no-such-field", "nvidia-smi", text)
    if re.search(r"\bchmod\s+(-R\s+)?0?1?777\s+\S*cache", raw):
        text = "every user of the host can plant code in a cache with mode 777"
        yield context.finding(
            start, "shell-world-writable-cache", "chmod", text, "a directory of the service's user, mode 0700"
        )
