# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door to the kernel's log: what is in its buffer now, without waiting for more.

Source: Documentation/ABI/testing/dev-kmsg. A read gives one record, "level,number,microseconds,flags;text"; lines of
it that begin with a space are a dictionary. EPIPE: records were overwritten, the next read goes on behind them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .host import Host

PATH = "/dev/kmsg"
_LINE = re.compile(r"^\d+,\d+,(\d+),[^;]*;(.*)$")
_RECORD_BYTES = 8192  # more than the kernel ever puts into one record
_RECORDS = 100_000  # more than any buffer holds: a flood must not keep us here


def records(host: Host) -> Iterator[tuple[float, str]]:
    """(seconds since boot, text), the oldest first; none where the log cannot be read."""
    try:
        handle = os.open(host.at(PATH), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        for _record in range(_RECORDS):
            try:
                data = os.read(handle, _RECORD_BYTES)
            except BrokenPipeError:
                continue
            except OSError:
                return
            if not data:
                return
            for line in data.decode("utf-8", "replace").splitlines():
                found = _LINE.match(line)
                if found:
                    yield int(found[1]) / 1e6, found[2]
    finally:
        os.close(handle)
