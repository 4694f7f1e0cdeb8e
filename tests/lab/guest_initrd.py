# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs inside a machine of the lab: prints a hash of what an initial file system holds."""

import hashlib
import subprocess
import sys
import zlib


def initial_files(image: str) -> str:
    """A hash of what an initial file system holds: names, modes and contents. Times and the order are new in each."""
    unpacked = subprocess.run(["lz4", "-dc", image], capture_output=True, check=True).stdout
    found, at = [], 0
    while unpacked[at : at + 6] == b"070701":  # cpio(5), the format newc: 13 numbers of eight hexadecimal digits
        header = unpacked[at + 6 : at + 110]
        numbers = [int(header[place : place + 8], 16) for place in range(0, 104, 8)]
        mode, uid, gid, size, name_size = numbers[1], numbers[2], numbers[3], numbers[6], numbers[11]
        start = at + 110
        name = unpacked[start : start + name_size - 1]
        content = (start + name_size + 3) // 4 * 4
        at = (content + size + 3) // 4 * 4
        check = zlib.crc32(unpacked[content : content + size])  # ten times quicker here than a digest
        found.append(f"{name!r} {mode} {uid}:{gid} {size} {check:08x}")
    assert len(found) > 100, f"{image}: {len(found)} files"
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


print(initial_files(sys.argv[1]))  # noqa: T201 its result
