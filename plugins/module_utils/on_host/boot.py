# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the boot unit does: bring the values of the record back that nothing native keeps."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.again import bring_back
from ..engine.change import Change, public_value
from ..engine.machine import Machine
from ..engine.plan import locked
from ..engine.record import PATH as RECORD
from ..engine.record import Record
from ..errors import WorkstationError
from .subject import subject_of

# The order matters: the driver asks for a GPU's interrupts when it is opened, and SMT decides over CPUs. All other
# parts have files that the system itself reads at boot. They are not here, because this runs at each driver load too,
# and must not take back what the administrator has set by hand since.
VOLATILE = ("nvidia_gpu_state", "cpu_governor", "irq_affinity")

# Lines as sd-daemon(3) takes them: the level in front.
_NOTICE, _WARNING = "<5>", "<4>"


def run(machine: Machine) -> Iterator[str]:
    """Do it, and say it line by line; a line that says what could not be had begins with a warning's level.

    Raises RefusedError where the record cannot be read.
    """
    # The run that it may have to wait for decides what is recorded: a record read before would be that run's past.
    with locked(machine):
        yield from _run(machine)


def _run(machine: Machine) -> Iterator[str]:
    if not machine.host.exists(RECORD):
        yield f"{_NOTICE}nothing is recorded on this machine"
        return
    record = Record(machine.host)
    parts = [found for found in record.parts() if found[1] in VOLATILE]
    count = 0
    for owner, part, params in sorted(parts, key=lambda found: VOLATILE.index(found[1])):
        subject = subject_of(part)
        try:
            outcome = bring_back(subject, params, machine, record.left_alone)
        except (WorkstationError, OSError) as error:
            yield f"{_WARNING}{part} of {owner}: {_words(error)}"
            continue
        count += len(outcome.done)
        yield from (f"{_NOTICE}{_line(change)}" for change in outcome.done)
        yield from (f"{_NOTICE}skipped: {text}" for text in outcome.skipped)
        yield from (f"{_WARNING}not brought back: {' '.join(text.split())}" for text in outcome.left)
    yield f"{_NOTICE}{count} values brought back" if count else f"{_NOTICE}all is as recorded"


def is_warning(line: str) -> bool:
    return line.startswith(_WARNING)


def _line(change: Change) -> str:
    return f"{change.key}: {public_value(change.before)} -> {public_value(change.after)}"


def _words(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
