# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a signed, flat apt repository of stand-in packages. Runs on a test host, with gpg and dpkg-deb.

    apt_repository.py DESCRIPTION.json FOLDER

DESCRIPTION: [{name, version, depends, provides, files: {path: text}, scripts: {postinst: text}}]. A text that starts
with `#!` becomes a program. FOLDER gets the packages, Packages, Release, Release.gpg, InRelease and key.asc; the key is
made once. The last line of the output is its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

OWNER = "Test repository <test@example.invalid>"


def build(package: dict[str, Any], folder: Path) -> str:
    """One package, and its paragraph of the index."""
    fields = {
        "Package": package["name"],
        "Version": package["version"],
        "Architecture": "all",
        "Maintainer": OWNER,
        "Depends": package.get("depends"),
        "Provides": package.get("provides"),
        "Conflicts": package.get("conflicts"),
        "Description": "a stand-in for tests",
    }
    control = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
    file = folder / f"{package['name']}_{package['version'].replace(':', '%3a')}_all.deb"
    with tempfile.TemporaryDirectory() as scratch:
        texts = {"DEBIAN/control": control}
        texts.update({f"DEBIAN/{name}": text for name, text in package.get("scripts", {}).items()})
        texts.update({path.lstrip("/"): text for path, text in package.get("files", {}).items()})
        Path(scratch).chmod(0o755)
        for path, text in texts.items():
            target = Path(scratch) / path
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            target.write_text(text, encoding="utf-8")
            target.chmod(0o755 if text.startswith("#!") else 0o644)
        run("dpkg-deb", "--root-owner-group", "--build", scratch, str(file))
    data = file.read_bytes()
    return f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, umask=0o022).stdout


def main() -> None:
    description, folder = sys.argv[1:]
    here = Path(folder)
    here.mkdir(parents=True, exist_ok=True)
    os.environ["GNUPGHOME"] = f"{folder}.gnupg"
    Path(os.environ["GNUPGHOME"]).mkdir(mode=0o700, exist_ok=True)
    gpg = ["gpg", "--quiet", "--batch", "--yes", "--passphrase", ""]
    if not (here / "key.asc").exists():
        run(*gpg, "--quick-generate-key", OWNER, "rsa3072", "sign", "never")
        (here / "key.asc").write_text(run(*gpg, "--armor", "--export"), encoding="utf-8")
    packages = json.loads(Path(description).read_text(encoding="utf-8"))
    index = "\n".join(build(package, here) for package in packages)
    (here / "Packages").write_text(index, encoding="utf-8")
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = (
        f"Origin: test\nLabel: test\nArchitectures: all amd64\nSHA256:\n {digest} {len(index.encode())} Packages\n"
    )
    (here / "Release").write_text(release, encoding="utf-8")
    run(*gpg, "--armor", "--detach-sign", "--output", f"{folder}/Release.gpg", f"{folder}/Release")
    run(*gpg, "--clear-sign", "--output", f"{folder}/InRelease", f"{folder}/Release")
    keys = run(*gpg, "--with-colons", "--list-keys").splitlines()
    print(next(line.split(":")[9] for line in keys if line.startswith("fpr")))  # noqa: T201


if __name__ == "__main__":
    main()
