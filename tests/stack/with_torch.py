# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a command with TORCH_INDEX: the address of an index that has PyTorch for CPUs, for builds in the host's network.

    tests/stack/with_torch.py VERSION COMMAND...

The wheel comes from where the machine's own pip finds it, or from PyTorch's index, and is kept in the cache.
"""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai_infra.workstation" / "wheels"
INDEX = "https://download.pytorch.org/whl/cpu"
# Python and platform of python-base, whatever this one is.
TARGET = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:", "--no-deps")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Every request is one of pip's."""


def wheel(version: str) -> None:
    """Put the wheel of this version into the cache."""
    folder = CACHE / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"torch-{version}-cp311-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *TARGET]
        wanted = [f"torch=={version}"]
        if subprocess.run([*pip, *wanted], check=False, stdout=sys.stderr).returncode:
            subprocess.run([*pip, "--extra-index-url", INDEX, *wanted], check=True, stdout=sys.stderr)


def main(version: str, command: list[str]) -> int:
    wheel(version)
    # A listing of folders with links is what pip takes for an index.
    handler = functools.partial(Quiet, directory=str(CACHE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "TORCH_INDEX": f"http://127.0.0.1:{server.server_port}/"}
        status = subprocess.run(command, env=environment, check=False).returncode
        server.shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
