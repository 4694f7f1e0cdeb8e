# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Landlock (Documentation/userspace-api/landlock.rst): this process and its children make no file in one folder."""

import ctypes
import os
import struct

_REFUSED = "/etc/tmpfiles.d"
_MAKE_REG = 1 << 8  # LANDLOCK_ACCESS_FS_MAKE_REG
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the system calls
_PATH_BENEATH, _NO_NEW_PRIVS = 1, 38


def _call(number, *arguments):
    result = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return result


def _allow(ruleset, path):
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(struct.pack("<Qi", _MAKE_REG, handle))
    _call(_ADD, ruleset, _PATH_BENEATH, rule, 0)
    os.close(handle)


_attributes = ctypes.create_string_buffer(struct.pack("<Q", _MAKE_REG))
_ruleset = _call(_CREATE, _attributes, 8, 0)
for _parent in ("/", "/etc"):
    for _entry in os.scandir(_parent):
        if _entry.is_dir(follow_symlinks=False) and _entry.path not in ("/etc", _REFUSED):
            _allow(_ruleset, _entry.path)
ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
_call(_RESTRICT, _ruleset, 0)
os.close(_ruleset)
