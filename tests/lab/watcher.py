# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every write of the process tree of Ansible's modules, as the kernel sees it: strace around their interpreter."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

from plays import Controller
from vm import Vm

_FOLDER = "/opt/watcher"  # below /run nothing may be executed
_CALLS = (
    "open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,"
    "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,truncate,ftruncate,mknod,mknodat,mount,umount2,swapon,swapoff,"
    "sethostname,init_module,finit_module,delete_module,setxattr,fsetxattr,removexattr,utimensat,bpf,kill"
)
_INTERPRETER = f"""#!/bin/sh
exec strace -f -qq -y -e signal=none -e trace={_CALLS} -o {_FOLDER}/$$.trace /usr/bin/python3 "$@"
"""
# Ansible's own temporary files, and how Python finds out where they may be; and the state of the stand-in for the
# driver, which keeps count of its callers in files where a real one does in the kernel.
_HARMLESS = re.compile(
    r'/(root|tmp)/\.ansible|/tmp/ansible_|"/tmp/[a-z0-9_]{8}"|'
    r"/dev/(null|tty|pts/|shm/sem)|pipe:|socket:|anon_inode:"
    r"|/var/lib/fake-nvml/|/run/fake-nvml/|/var/lib/nvidia-stand-in/|/run/nvidia-stand-in/"
    # systemd-analyze, which alone can say whether the conditions of a unit hold: it asks for a folder that is there,
    # makes and removes an empty one of its own, and renews the time of systemd's own /run/systemd/systemd-units-load
    # (through /proc/self/fd, as nothing else here names a file).
    r'|"/run/systemd", 0755\) = -1 EEXIST|(mkdir|rmdir)\("/tmp/systemd-temporary-\w{6}"'
    r'|utimensat\(AT_FDCWD</root>, "/proc/self/fd/\d+"'
)
_WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")


class Watcher:
    """`with watcher:` around plays; writes() then says what their modules wrote, one system call a line."""

    def __init__(self, vm: Vm, controller: Controller) -> None:
        self._vm, self._controller = vm, controller
        vm.ssh(f"mkdir -p {_FOLDER} && cat > {_FOLDER}/python3 && chmod 755 {_FOLDER}/python3", _INTERPRETER)

    def __enter__(self) -> Self:
        self._vm.ssh(f"rm -f {_FOLDER}/*.trace")
        self._controller.variables["ansible_python_interpreter"] = f"{_FOLDER}/python3"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        del self._controller.variables["ansible_python_interpreter"]

    def writes(self) -> list[str]:
        """System calls that changed something, or tried to. At least one process must have been watched."""
        lines = self._vm.ssh(f"cat {_FOLDER}/*.trace").splitlines()
        assert lines, "no process was watched"
        return [line for line in lines if _changes(line)]


def _changes(line: str) -> bool:
    call = re.match(r"\d+\s+(\w+)\(", line)
    if call is None or _HARMLESS.search(line):
        return False
    if call[1] in ("open", "openat"):
        return bool(_WRITING.search(line))
    return call[1] != "kill"
