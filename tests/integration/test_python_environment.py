# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python environments through real Ansible, with the real uv, from wheels in a folder instead of an index."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import private
import pytest

_SPEC = importlib.util.spec_from_file_location(
    "make_wheel", Path(__file__).resolve().parents[1] / "models" / "make_wheel.py"
)
make_wheel = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_wheel)

pytestmark = [
    pytest.mark.skipif(shutil.which("uv") is None, reason="no uv in PATH"),
    pytest.mark.skipif(
        subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"], capture_output=True, check=False).returncode
        != 0,
        reason="the machine's python3 has no ensurepip (package python3-venv)",
    ),
]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Bench:
    """Wheels, a folder for uv and one environment, all below the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.uv = make_wheel.uv_wheel(self.wheels)
        self.lock = make_wheel.demo_wheel(self.wheels)
        self.path = folder / "env"

    def call(self, *flags, uv=None, **environment):
        wish = {"path": str(self.path), "python": VERSION, "lock": self.lock, **environment}
        arguments = {
            "folder": f"{self.folder}/uv",
            "uv": self.uv if uv is None else uv,
            "wheels": str(self.wheels),
            "environments": [wish],
        }
        settings = {
            "UV_CACHE_DIR": f"{self.folder}/cache",
            "PIP_NO_CACHE_DIR": "1",
            "UV_PYTHON_SEARCH_PATH": str(Path(sys.base_prefix) / "bin"),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return private.call((), "python_environment", arguments, self.folder / "play", settings, *flags)

    def version(self) -> str:
        command = [f"{self.path}/bin/python", "-c", "import demo; print(demo.VERSION)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_an_environment_is_what_its_lock_says(bench):
    foretold = bench.call("--check", "--diff")
    assert foretold["changed"]
    assert not bench.path.exists()
    assert not (bench.folder / "uv").exists()
    first = bench.call("--diff")
    assert first.get("msg", "") == ""
    assert (first["changes"], first["diff"]) == (foretold["changes"], foretold["diff"])
    assert bench.version() == "1.0"
    assert not bench.call()["changed"]
    assert not bench.call("--check")["changed"]

    bench.lock = make_wheel.demo_wheel(bench.wheels, "2.0")
    assert bench.call("--check")["changed"]
    assert bench.version() == "1.0"
    assert [change["key"] for change in bench.call()["changes"]] == [f"packages:{bench.path}"]
    assert bench.version() == "2.0"

    remove = ["uv", "pip", "uninstall", "--quiet", "--python", f"{bench.path}/bin/python", "demo"]
    subprocess.run(remove, check=True, capture_output=True)
    assert "changed by someone" in bench.call("--check")["changes"][0]["before"]
    assert bench.call()["changed"]
    assert bench.version() == "2.0"

    gone = bench.call(state="absent", uv="")
    assert [change["key"] for change in gone["changes"]] == [f"python:{bench.path}", "uv"]
    assert not bench.path.exists()
    assert not (bench.folder / "uv").exists()
    assert not bench.call(state="absent", uv="")["changed"]


def test_a_wheel_with_another_hash_is_refused_and_the_next_run_goes_on(bench):
    right, bench.lock = bench.lock, f"demo==1.0 --hash=sha256:{'0' * 64}"
    result = bench.call()
    assert result["failed"]
    assert "hash" in result["msg"].lower()
    assert "\n" not in result["msg"]
    bench.lock = right
    assert bench.call()["changed"]
    assert bench.version() == "1.0"


def test_another_uv_than_the_pinned_one_is_refused(bench):
    pin = bench.uv.split("sha256:")[0] + "sha256:" + "0" * 64
    result = bench.call(uv=pin)
    assert result["failed"]
    assert "hash" in result["msg"].lower()
    assert not bench.path.exists()


def test_a_folder_that_is_not_ours_is_left_alone(bench):
    bench.path.mkdir()
    (bench.path / "mine").touch()
    assert "it is not ours" in bench.call()["msg"]
    assert "it is not ours" in bench.call(state="absent")["msg"]
    assert [path.name for path in bench.path.iterdir()] == ["mine"]
