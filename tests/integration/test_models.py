# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The model store through real Ansible, and playbooks/models.yml. The store lies in a folder of the test."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import private
import pytest
from model_server import serve, sha256

ROOT = Path(__file__).resolve().parents[2]
DATA = bytes(range(256)) * 16384  # 4 MiB

needs_mounts = pytest.mark.skipif(bool(private.why_not()), reason=private.why_not())


@pytest.fixture
def site():
    with serve() as found:
        found.files = {"/a.gguf": DATA}
        yield found


def store(tmp_path, *flags, models, **arguments):
    """The result of the module on a store in the test's folder."""
    whole = {"root": f"{tmp_path}/models", "models": models, "space_reserve": "1M", **arguments}
    return private.call((), "model_store", whole, tmp_path / "play", {}, *flags)


def test_the_module_foretells_fetches_and_is_content(tmp_path, site):
    models = [{"name": "a", "source": f"{site.url}/a.gguf", "sha256": sha256(DATA)}]
    foretold = store(tmp_path, "--check", "--diff", models=models)
    assert foretold["changed"]
    assert (site.requests, (tmp_path / "models").exists()) == ([], False)
    first = store(tmp_path, "--diff", models=models)
    assert first["diff"] == foretold["diff"]
    assert (tmp_path / "models/a/a.gguf").read_bytes() == DATA
    assert not store(tmp_path, models=models)["changed"]
    assert store(tmp_path, models=[{"name": "a", "state": "absent"}])["changed"]
    assert not (tmp_path / "models/a").exists()


def test_a_token_is_used_and_printed_nowhere(tmp_path, site):
    site.redirects["/owner/name/resolve/main/a.gguf"] = "/a.gguf"
    models = [{"name": "a", "source": "hf://owner/name/a.gguf"}]
    secret = "hf_s3cretT0ken"  # noqa: S105 -- made up
    result = store(tmp_path, "-vvv", models=models, hub_url=site.url, token=secret)
    assert f"Bearer {secret}" in {headers.get("Authorization") for _way, _path, headers in site.requests}
    assert secret not in json.dumps(result)
    assert secret not in result["output"]
    for path in (tmp_path / "models").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([{"name": "a", "source": "http://127.0.0.1:1/a", "sha256": "12"}], "is not 64 hexadecimal digits"),
        ([{"name": "a"}], "no source, files or path"),
    ],
)
def test_bad_input_is_one_line(tmp_path, models, message):
    result = store(tmp_path, models=models)
    assert result["failed"]
    assert message in result["msg"]
    assert "\n" not in result["msg"]
    assert "Traceback" not in result["output"]


def test_an_unknown_group_is_named(tmp_path):
    assert "has no group wheelbarrow" in store(tmp_path, models=[], group="wheelbarrow")["msg"]


@needs_mounts
def test_a_full_disk_is_told_the_old_file_is_served_and_the_piece_is_kept(tmp_path, site):
    # A server that does not tell the length: only the transfer itself can notice that the space is not enough.
    site.lengths, site.files["/old.gguf"] = False, b"old"
    folder = tmp_path / "models"
    folder.mkdir()
    script = (
        f"mount -t tmpfs -o size=3m none {folder}; mkdir {folder}/a; echo -n old > {folder}/a/a.gguf;"
        f'"$@"; status=$?; cp -a {folder}/. {tmp_path}/left; exit $status'
    )
    enter = [*private._UNSHARE, "sh", "-c", script, "sh"]
    models = [
        {"name": "a", "path": "a/a.gguf"},
        {"name": "b", "source": f"{site.url}/a.gguf", "sha256": sha256(DATA)},
    ]
    (tmp_path / "left").mkdir()
    arguments = {"root": str(folder), "models": models, "space_reserve": "100K", "retries": 0}
    result = private.call(enter, "model_store", arguments, tmp_path / "play", {})
    assert result["failed"]
    assert "b/a.gguf: needs 1.0 MiB more" in result["msg"]
    assert result["msg"].endswith("done before: a/a.gguf")
    left = tmp_path / "left"
    assert (left / "a/a.gguf").read_bytes() == b"old"
    assert [path.stat().st_size for path in (left / ".ai-workstation/partial").glob("*.part")] == [2 << 20]
    assert list(json.loads((left / ".ai-workstation/manifest.json").read_text())["models"]) == ["a"]


# -- the playbook -----------------------------------------------------------------------------------


def play(tmp_path, **variables):
    """playbooks/models.yml on a store in the test's folder; only what changes no machine."""
    inventory = tmp_path / "hosts.json"
    host = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3",
        "model_store_root": f"{tmp_path}/models",
        "model_store_models": [{"name": "a", "path": "a/a.gguf"}],
    }
    inventory.write_text(json.dumps({"workstations": {"hosts": {"ws": host}}}))
    command = ["ansible-playbook", "-i", str(inventory), "playbooks/models.yml", "-e", json.dumps(variables)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_playbook_lists_verifies_and_ends_with_a_status(tmp_path, site):
    store(tmp_path, models=[{"name": "a", "source": f"{site.url}/a.gguf"}])
    listed = play(tmp_path, models_json=f"{tmp_path}/json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    # How much is in memory is for the kernel to decide.
    assert re.search(r"a  ok             4\.0 MiB  +\d+ % in memory  1 file", listed.stdout), listed.stdout
    written = json.loads((tmp_path / "json/ws.json").read_text())
    assert [(one["name"], one["state"]) for one in written["models"]] == [("a", "ok")]
    assert play(tmp_path, models_action="verify").returncode == 0
    path = tmp_path / "models/a/a.gguf"
    before = path.stat()
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = play(tmp_path, models_action="verify")
    assert done.returncode == 2
    assert "not as they were left: a" in done.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"models_action": "delete"}, "models_action: delete is not one of list, verify, load, unload"),
        ({"models_action": "unload"}, "models: unload needs the names of the models to remove"),
        ({"models_action": "load", "models": "b,a"}, "models: model_store_models declares no b; it declares a"),
        ({"models_action": "verify", "models": "z"}, "names: 'z' is not in the store; it has no model"),
    ],
)
def test_wrong_words_are_told_in_one_line(tmp_path, variables, message):
    done = play(tmp_path, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
