# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write wheels without a network: a package of one line, and uv from the program that is installed here.

tests/models/make_wheel.py FOLDER     writes two wheels and prints the lock of each, as JSON
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes], tag: str = "py3-none-any") -> str:
    """Write a wheel; its line of a lock file."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in whole.items())
    whole[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for inside, data in whole.items():
            entry = zipfile.ZipInfo(inside)
            entry.external_attr = 0o100755 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def uv_wheel(folder: Path) -> str:
    """The uv of this machine as a wheel; its line of a lock file."""
    program = shutil.which("uv")
    if program is None:
        raise FileNotFoundError("no uv in PATH; scripts/setup dev installs it")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return wheel(folder, "uv", version, {f"uv-{version}.data/scripts/uv": Path(program).read_bytes()})


def demo_wheel(folder: Path, version: str = "1.0") -> str:
    """A package with a version; its line of a lock file."""
    return wheel(folder, "demo", version, {"demo.py": f"VERSION = {version!r}\n".encode()})


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    os.makedirs(target, exist_ok=True)
    sys.stdout.write(json.dumps({"uv": uv_wheel(target), "demo": demo_wheel(target)}) + "\n")
