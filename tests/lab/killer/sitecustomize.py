# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python's own audit events (PEP 578) show every write of the program; the one after the journal's kills it."""

import os
import signal
import sys

_DONE = os.path.join(os.path.dirname(__file__), "killed")
_journal_written = False


def _watch(event, arguments):
    global _journal_written  # noqa: PLW0603 a hook has no other place
    if event == "os.rename" and str(arguments[1]).endswith("/ledger.json"):
        _journal_written = True
    elif _journal_written and not os.path.exists(_DONE) and _writes(event, arguments):
        _journal_written = False
        with open(_DONE, "w", encoding="utf-8") as note:
            note.write(f"{event} {arguments}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def _writes(event, arguments):
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if event == "subprocess.Popen":
        return not {"is-enabled", "is-active", "show"} & set(map(str, arguments[1]))
    # The driver is a library: its own functions raise no events. Looking up a setter comes before calling it.
    return event == "ctypes.dlsym" and "Set" in str(arguments[1])


sys.addaudithook(_watch)
