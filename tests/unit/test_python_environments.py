# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python environments: bad input, and the locks that the role brings. The rest needs uv: tests/integration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Host
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import WorkstationError
from ansible_collections.ai_infra.workstation.plugins.module_utils.python_environments import converge, parse

FILES = Path(__file__).resolve().parents[2] / "roles" / "python_environment" / "files"
UV = f"uv==0.13.8 --hash=sha256:{'0' * 64}"
LOCK = f"demo==1.0 --hash=sha256:{'0' * 64}"


def wishes(uv=UV, **wish):
    return parse({"folder": "/opt/uv", "uv": uv, "environments": [{"path": "/srv/e", "python": "3.12", **wish}]})


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"lock": "demo"}, "'demo' is not pinned with a hash"),
        ({"lock": "demo==1.0"}, "'demo==1.0' is not pinned with a hash"),
        ({"lock": f"{LOCK}\nother>=2"}, "'other>=2' is not pinned with a hash"),
        ({"lock": ""}, "it names no package"),
        ({"lock": LOCK, "python": "three"}, "python: 'three' is not a version"),
        ({"lock": LOCK, "path": "env"}, "is not a plain absolute path"),
        ({"lock": LOCK, "path": "/srv/../etc"}, "is not a plain absolute path"),
        ({"lock": LOCK, "torch_backend": "fast"}, "torch_backend: 'fast' is not one of"),
        ({"lock": LOCK, "uv": "uv"}, "not a pinned requirement with hashes"),
        ({"lock": LOCK, "uv": ""}, "needs uv, the pinned installer"),
    ],
)
def test_bad_input_is_one_line(wish, message):
    with pytest.raises(WorkstationError, match=re.escape(message)) as caught:
        wishes(**wish)
    assert "\n" not in str(caught.value)


def test_an_unknown_user_and_a_link_are_refused(tmp_path):
    with pytest.raises(WorkstationError, match="there is no user nobody-here"):
        converge(wishes(lock=LOCK, owner="nobody-here"), Host(str(tmp_path)), check=True)
    (tmp_path / "srv").symlink_to(tmp_path)
    with pytest.raises(WorkstationError, match="a link on the way leads to /e"):
        converge(wishes(lock=LOCK), Host(str(tmp_path)), check=True)


@pytest.mark.parametrize("lock", sorted(FILES.glob("*.lock")), ids=lambda path: path.stem)
def test_every_lock_of_the_role_is_pinned_and_hashed(lock):
    text = lock.read_text()
    if lock.stem == "uv":
        assert wishes(uv=text, lock=LOCK).version
    else:
        assert wishes(lock=text).environments[0].lock.strip() == text.strip()


def test_the_locks_of_the_role_agree_so_that_they_can_be_joined():
    found = {}
    for lock in FILES.glob("*.lock"):
        for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE):
            assert found.setdefault(name, version) == version, f"{name} in {lock.name}"
    assert {"torch", "transformers", "accelerate", "mlflow", "jupyterlab"} <= found.keys()
