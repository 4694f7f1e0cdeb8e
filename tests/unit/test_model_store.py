# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The model store against a real web server on the loopback address."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tarfile
import threading

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.big_files import BigFiles
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import (
    ApplyError,
    RefusedError,
    WorkstationError,
)
from model_box import Box, tar
from model_server import serve, sha256

DATA = bytes(range(256)) * 16384  # 4 MiB
OTHER = DATA[::-1]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


@pytest.fixture
def site():
    with serve() as found:
        found.files = {"/a.gguf": DATA, "/b.gguf": OTHER}
        yield found


def model(site, name="a", **more):
    return {"name": name, "source": f"{site.url}/{name}.gguf", **more}


# -- fetching ---------------------------------------------------------------------------------------


def test_a_model_is_fetched_proven_and_recorded_and_the_second_run_does_nothing(box, site):
    wish = model(site, sha256=[sha256(DATA)])
    first = box.call(wish)
    assert first["changed"]
    assert first["paths"] == {"a": ["/models/a/a.gguf"]}
    assert first["pinned"] == []
    assert box.tree() == {"a/a.gguf": DATA}
    record = box.manifest()["a"]["files"]["a/a.gguf"]
    assert (record["sha256"], record["size"], record["source"]) == (sha256(DATA), len(DATA), f"{site.url}/a.gguf")
    assert record["how"] == "downloaded"
    assert box.path("a/a.gguf").stat().st_mode & 0o7777 == 0o644
    assert box.path("a").stat().st_mode & 0o7777 == 0o755
    assert box.partial() == []
    asked, box.writes[:] = len(site.requests), []
    second = box.call(wish)
    assert not second["changed"]
    assert second["changes"] == []
    assert (len(site.requests), box.writes) == (asked, [])


def test_without_a_hash_the_first_content_is_the_wanted_one(box, site):
    first = box.call(model(site))
    assert first["pinned"] == ["a/a.gguf"]
    site.files["/a.gguf"] = OTHER
    assert not box.call(model(site))["changed"]
    box.path("a/a.gguf").unlink()
    with pytest.raises(ApplyError, match=sha256(DATA)):
        box.call(model(site))
    assert box.tree() == {}


def test_check_mode_writes_nothing_asks_nobody_and_foretells_the_diff(box, site):
    wishes = [model(site, preload=True), model(site, "b", sha256=[sha256(OTHER)])]
    foretold = box.call(*wishes, check=True)
    assert foretold["changed"]
    assert (box.writes, site.requests, box.path("").exists()) == ([], [], False)
    done = box.call(*wishes)
    assert done["diff"] == foretold["diff"]
    assert [change["key"] for change in done["changes"]] == [change["key"] for change in foretold["changes"]]
    assert "pinned by the first download" in done["diff"]["after"]


def test_the_diff_before_is_what_the_manifest_says(box, site):
    box.call(model(site))
    diff = box.call(model(site, "b"), {"name": "a", "state": "absent"}, check=True)["diff"]
    assert f"a/a.gguf: {sha256(DATA)} from {site.url}/a.gguf" in diff["before"]
    assert "a/a.gguf" not in diff["after"]
    assert "b/b.gguf" in diff["after"]


def test_a_cut_fetch_goes_on_where_it_ended(box, site):
    site.cuts["/a.gguf"] = [1 << 20, 2 << 20]
    box.call(model(site))
    assert box.tree() == {"a/a.gguf": DATA}
    assert site.header("Range") == [None, f"bytes={1 << 20}-", f"bytes={3 << 20}-"]
    tag = f'"{sha256(DATA)[:16]}"'
    assert site.header("If-Range") == [None, tag, tag]
    assert len(box.pauses) == 2


def test_what_is_left_of_a_failed_run_is_used_by_the_next(box, site):
    site.cuts["/a.gguf"] = [1 << 20] * 3
    with pytest.raises(ApplyError, match=r"cut off after .* given up after 3 attempts; 3.0 MiB of it are kept"):
        box.call(model(site))
    assert box.report()["partial"] == [{"source": f"{site.url}/a.gguf", "have_bytes": 3 << 20, "size_bytes": len(DATA)}]
    box.call(model(site))
    assert site.header("Range")[-1] == f"bytes={3 << 20}-"
    assert box.tree() == {"a/a.gguf": DATA}


def test_a_file_that_changed_at_its_source_is_begun_anew(box, site):
    site.cuts["/a.gguf"] = [1 << 20] * 3
    with pytest.raises(ApplyError):
        box.call(model(site))
    site.files["/a.gguf"] = OTHER
    box.call(model(site))
    assert box.tree() == {"a/a.gguf": OTHER}


def test_a_file_that_became_shorter_at_its_source_is_begun_anew(box, site):
    site.tags, site.cuts["/a.gguf"] = False, [3 << 20] * 3
    short = DATA[: 1 << 20]
    with pytest.raises(ApplyError):
        box.call(model(site, sha256=[sha256(short)]), retries=0)
    site.files["/a.gguf"], site.cuts = short, {}
    box.call(model(site, sha256=[sha256(short)]))
    assert box.tree() == {"a/a.gguf": short}


def test_a_server_without_ranges_is_asked_for_all_of_it_again(box, site):
    site.ranges, site.cuts["/a.gguf"] = False, [1 << 20]
    box.call(model(site, sha256=[sha256(DATA)]))
    assert box.tree() == {"a/a.gguf": DATA}


def test_without_validator_and_hash_nothing_is_resumed(box, site):
    site.tags, site.cuts["/a.gguf"] = False, [1 << 20]
    box.call(model(site))
    assert site.header("Range") == [None, None]
    assert box.tree() == {"a/a.gguf": DATA}


def test_a_piece_from_before_a_power_cut_is_used_only_where_the_hash_is_known(box, site):
    for sums, wanted in (([], None), ([sha256(DATA)], f"bytes={1 << 20}-")):
        box.boot, site.cuts["/a.gguf"] = "boot-1", [1 << 20]
        with pytest.raises(ApplyError):
            box.call(model(site, sha256=sums), retries=0)
        box.boot = "boot-2"
        box.call(model(site, sha256=sums))
        assert site.header("Range")[-1] == wanted
        box.call({"name": "a", "state": "absent"})


def test_a_corrupt_piece_is_fetched_again_once(box, site):
    site.cuts["/a.gguf"] = [1 << 20]
    wish = model(site, sha256=[sha256(DATA)])
    with pytest.raises(ApplyError):
        box.call(wish, retries=0)
    piece = next(box.path(".ai-workstation/partial").glob("*.part"))
    piece.write_bytes(b"x" * (1 << 20))
    box.call(wish)
    assert box.tree() == {"a/a.gguf": DATA}


def test_a_wrong_hash_puts_nothing_in_place_and_leaves_nothing(box, site):
    with pytest.raises(ApplyError, match=rf"{sha256(DATA)}, wanted {sha256(OTHER)}; nothing was put in place"):
        box.call(model(site, sha256=[sha256(OTHER)]))
    assert (box.tree(), box.partial()) == ({}, [])


def test_a_cut_that_the_server_does_not_announce_is_found_by_the_hash_or_refused(box, site):
    site.lengths, site.cuts["/a.gguf"] = False, [1 << 20] * 2
    with pytest.raises(RefusedError, match=r"does not say how long the file is.* give its sha256"):
        box.call(model(site))
    with pytest.raises(ApplyError, match="SHA-256"):
        box.call(model(site, sha256=[sha256(DATA)]))
    site.cuts = {}
    box.call(model(site, sha256=[sha256(DATA)]))
    assert box.tree() == {"a/a.gguf": DATA}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(box, site, status):
    site.statuses["/a.gguf"] = [status, status]
    box.call(model(site))
    assert (len(box.pauses), box.tree()) == (2, {"a/a.gguf": DATA})


def test_what_is_missing_at_its_source_is_found_before_anything_is_fetched(box, site):
    with pytest.raises(RefusedError, match=r"/none\.gguf: the server answers 404: no such file"):
        box.call(model(site), {"name": "none", "source": f"{site.url}/none.gguf"})
    assert (site.asked("GET"), box.tree()) == ([], {})


def test_a_server_that_is_not_there(box):
    with pytest.raises(ApplyError, match=r"127\.0\.0\.1:9/a: .*refused.*given up after 3 attempts"):
        box.call({"name": "a", "source": "http://127.0.0.1:9/a"})


def test_redirects_are_followed_and_the_token_goes_to_its_own_origin_only(box, site):
    with serve() as store:
        store.files["/blob"] = DATA
        site.redirects["/owner/name/resolve/main/a.gguf"] = f"{site.url}/again"
        site.redirects["/again"] = f"{store.url}/blob"
        site.redirect_headers = {"X-Linked-Etag": f'"{sha256(DATA)}"'}
        box.call({"name": "a", "source": "hf://owner/name/a.gguf"}, hub_url=site.url, token="s3cret")  # noqa: S106
        assert box.tree() == {"a/a.gguf": DATA}
        assert {headers.get("Authorization") for _way, _path, headers in site.requests} == {"Bearer s3cret"}
        assert {headers.get("Authorization") for _way, _path, headers in store.requests} == {None}
    for path in box.path("").rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()
    assert "s3cret" not in "".join(box.log)


def test_the_hash_that_a_hub_tells_is_checked(box, site):
    site.redirects["/owner/name/resolve/v1/a.gguf"] = "/a.gguf"
    site.redirect_headers = {"X-Linked-Etag": f'"{sha256(OTHER)}"'}
    with pytest.raises(ApplyError, match="the server promised"):
        box.call({"name": "a", "source": "hf://owner/name@v1/a.gguf"}, hub_url=site.url)


def test_a_signature_in_an_address_is_used_and_never_written_down(box, site):
    result = box.call({"name": "a", "source": f"{site.url}/a.gguf?signature=s3cret"})
    assert "s3cret" not in json.dumps([result, box.manifest(), box.log])
    assert not box.call({"name": "a", "source": f"{site.url}/a.gguf?signature=another"})["changed"]


def test_a_file_of_the_target_is_copied(box, site, tmp_path):
    (tmp_path / "here.gguf").write_bytes(DATA)
    box.call({"name": "a", "source": f"file://{tmp_path}/here.gguf"})
    assert box.tree() == {"a/here.gguf": DATA}
    with pytest.raises(RefusedError, match="No such file"):
        box.call({"name": "b", "source": f"{tmp_path}/none.gguf"}, check=True)


def test_progress_is_logged(box, site):
    box.call(model(site))
    assert any("100% of 4 MiB" in line for line in box.log)


# -- sets and archives ------------------------------------------------------------------------------


def test_the_first_part_of_a_set_names_all_of_it(box, site):
    for part in (1, 2, 3):
        site.files[f"/big-0000{part}-of-00003.gguf"] = DATA[part:]
    wish = {"name": "big", "source": f"{site.url}/big-00001-of-00003.gguf"}
    wish["sha256"] = [sha256(DATA[part:]) for part in (1, 2, 3)]
    result = box.call(wish)
    assert result["paths"]["big"] == [f"/models/big/big-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert len(box.manifest()["big"]["files"]) == 3
    assert not box.call(wish)["changed"]
    box.call({"name": "big", "state": "absent"})
    assert box.tree() == {}


def test_an_archive_is_one_model(box, site):
    members = {"config.json": b"{}", "sub/model.safetensors": DATA}
    site.files["/m.tar.gz"] = tar(members)
    wish = {"name": "m", "source": f"{site.url}/m.tar.gz", "unpack": True, "sha256": [sha256(site.files["/m.tar.gz"])]}
    foretold = box.call(wish, check=True)
    assert box.call(wish)["diff"] == foretold["diff"]
    assert box.tree() == {f"m/{name}": data for name, data in members.items()}
    assert box.partial() == []
    assert not box.call(wish)["changed"]
    box.put("m/config.json", b"changed")
    assert [change["reason"] for change in box.call(wish)["changes"]] == ["m/config.json is not as it was unpacked"]
    assert box.tree()["m/config.json"] == b"{}"


def test_another_version_of_an_archive_takes_its_old_files_along(box, site):
    site.files["/m.tar"] = tar({"old": b"1", "same": b"1"}, "w")
    wish = {"name": "m", "source": f"{site.url}/m.tar", "unpack": True}
    box.call(wish)
    site.files["/m.tar"] = tar({"new": b"2", "same": b"2"}, "w")
    box.call({**wish, "sha256": [sha256(site.files["/m.tar"])]})
    assert box.tree() == {"m/new": b"2", "m/same": b"2"}
    box.call({"name": "m", "state": "absent"})
    assert box.tree() == {}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "link", "a/../../outside"])
def test_an_archive_cannot_write_elsewhere(box, site, name):
    extra = tarfile.TarInfo(name)
    if name == "link":
        extra.type, extra.linkname = tarfile.SYMTYPE, "/etc"
    site.files["/m.tar"] = tar({"good": b"1"}, "w", extra)
    with pytest.raises(RefusedError, match="only plain files are unpacked"):
        box.call({"name": "m", "source": f"{site.url}/m.tar", "unpack": True})
    assert box.tree() == {}


def test_an_archive_that_is_none(box, site):
    site.files["/m.tar.gz"] = DATA
    with pytest.raises(RefusedError, match="not an archive"):
        box.call({"name": "m", "source": f"{site.url}/m.tar.gz", "unpack": True})


def test_an_archive_does_not_overwrite_what_is_not_ours(box, site):
    site.files["/m.tar"] = tar({"a": b"1", "b": b"2"}, "w")
    box.put("m/b", b"mine")
    with pytest.raises(RefusedError, match="m/b is there, not ours"):
        box.call({"name": "m", "source": f"{site.url}/m.tar", "unpack": True})
    assert box.tree() == {"m/b": b"mine"}


# -- files that are there ---------------------------------------------------------------------------


def test_a_file_that_is_there_is_adopted_with_its_hash(box, site):
    path = box.put("a/a.gguf", DATA)
    path.chmod(0o664)
    result = box.call(model(site, sha256=[sha256(DATA)]))
    assert result["adopted"] == ["/models/a/a.gguf"]
    assert site.requests == []
    assert (box.manifest()["a"]["files"]["a/a.gguf"]["how"], path.stat().st_mode & 0o777) == ("adopted", 0o644)
    assert not box.call(model(site, sha256=[sha256(DATA)]))["changed"]


def test_a_path_alone_adopts_and_a_missing_one_is_refused(box):
    box.put("mine/x.gguf", DATA)
    result = box.call({"name": "mine", "path": "mine/x.gguf"})
    assert (result["adopted"], result["pinned"]) == (["/models/mine/x.gguf"], ["mine/x.gguf"])
    with pytest.raises(RefusedError, match="no source says where to get it"):
        box.call({"name": "none", "path": "none.gguf"})


def test_a_file_that_is_not_ours_and_not_the_wanted_one_is_refused(box, site):
    box.put("a/a.gguf", OTHER)
    with pytest.raises(RefusedError, match=rf"not ours, with the SHA-256 {sha256(OTHER)} and not {sha256(DATA)}"):
        box.call(model(site, sha256=[sha256(DATA)]))
    assert box.tree() == {"a/a.gguf": OTHER}


def test_a_link_is_refused_and_so_is_a_folder_that_leads_out(box, site, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    box.path("").mkdir()
    box.path("a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="a link on the way leads out"):
        box.call(model(site))
    assert not list((tmp_path / "elsewhere").iterdir())
    box.path("a").unlink()
    box.path("a").mkdir()
    box.path("a/a.gguf").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="is a link or no file"):
        box.call(model(site))


def test_hashes_are_trusted_until_the_directory_entry_changes(box, site, monkeypatch):
    wish = model(site)
    box.call(wish)
    read = []
    original = BigFiles.sha256
    monkeypatch.setattr(BigFiles, "sha256", lambda self, path, size=None: read.append(path) or original(self, path))
    assert not box.call(wish)["changed"]
    assert read == []
    os.utime(box.path("a/a.gguf"), (1, 1))
    result = box.call(wish)
    assert (read, [change["before"] == change["after"] for change in result["changes"]]) == (["a/a.gguf"] * 2, [True])
    assert not box.call(wish)["changed"]


def test_a_changed_file_is_fetched_again(box, site):
    box.call(model(site))
    box.put("a/a.gguf", OTHER)
    assert [one["state"] for one in box.report()["models"]] == ["touched"]
    assert [one["state"] for one in box.report(verify=True)["models"]] == ["wrong"]
    result = box.call(model(site))
    assert "changed by someone else" in result["changes"][0]["reason"]
    assert box.tree() == {"a/a.gguf": DATA}


def test_another_version_replaces_the_file_and_who_has_the_old_one_open_keeps_it(box, site):
    box.call(model(site, path="served.gguf"))
    with open(box.path("served.gguf"), "rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        box.call({"name": "a", "path": "served.gguf", "source": f"{site.url}/b.gguf", "sha256": [sha256(OTHER)]})
        assert bytes(mapping) == DATA
        assert reader.read() == DATA
    assert box.tree() == {"served.gguf": OTHER}


def test_while_a_new_version_comes_the_old_one_is_served(box, site):
    wish = {"name": "a", "path": "served.gguf", "source": f"{site.url}/a.gguf"}
    box.call(wish)
    site.gate = threading.Event()
    run = threading.Thread(target=box.call, args=({**wish, "source": f"{site.url}/b.gguf", "sha256": [sha256(OTHER)]},))
    run.start()
    try:
        assert site.waiting.wait(30)
        assert box.tree() == {"served.gguf": DATA}
    finally:
        site.gate.set()
        run.join()
    assert box.tree() == {"served.gguf": OTHER}


# -- removing ---------------------------------------------------------------------------------------


def test_what_is_removed_is_ours_and_unchanged(box, site):
    box.call(model(site), model(site, "b"))
    box.put("a/notes.txt", b"mine")
    box.put("b/b.gguf", b"changed by someone")
    result = box.call({"name": "a", "state": "absent"}, {"name": "b", "state": "absent"})
    assert [skip["key"] for skip in result["skipped_keys"]] == ["model:b:b/b.gguf"]
    assert box.tree() == {"a/notes.txt": b"mine", "b/b.gguf": b"changed by someone"}
    assert box.manifest() == {}
    assert not box.call({"name": "a", "state": "absent"})["changed"]


def test_models_that_are_not_named_stay_unless_purge(box, site):
    box.call(model(site), model(site, "b"))
    assert not box.call(model(site))["changed"]
    foretold = box.call(model(site), purge=True, check=True)
    assert sorted(box.tree()) == ["a/a.gguf", "b/b.gguf"]
    assert box.call(model(site), purge=True)["diff"] == foretold["diff"]
    assert sorted(box.tree()) == ["a/a.gguf"]
    assert not box.path("b").exists()


def test_a_model_under_another_name_keeps_its_file(box, site):
    box.call(model(site, path="x.gguf"))
    box.call({**model(site, path="x.gguf"), "name": "new"}, purge=True)
    assert (box.tree(), list(box.manifest())) == ({"x.gguf": DATA}, ["new"])
    assert len(site.asked("GET")) == 1


def test_files_that_a_model_has_no_more_go_with_the_change(box, site):
    both = [{"source": f"{site.url}/a.gguf"}, {"source": f"{site.url}/b.gguf"}]
    box.call({"name": "m", "files": both})
    assert sorted(box.tree()) == ["m/a.gguf", "m/b.gguf"]
    box.call({"name": "m", "files": both[:1]})
    assert sorted(box.tree()) == ["m/a.gguf"]


# -- limits -----------------------------------------------------------------------------------------


def test_free_space_is_checked_for_the_whole_set_before_the_first_byte(box, site):
    box.free = 8 << 20
    with pytest.raises(RefusedError, match=r"needs 8.0 MiB more, /models has 8.0 MiB free of which 1.0 MiB"):
        box.call(model(site), model(site, "b"))
    assert site.asked("GET") == []


def test_a_file_system_that_fills_meanwhile_keeps_its_reserve(box, site):
    class Filling(list):
        def append(self, path):
            super().append(path)
            if path.endswith(".part"):
                box.free -= 2 << 20

    box.free, box.writes = 8 << 20, Filling()
    box.before_write = box.writes.append
    with pytest.raises(RefusedError, match="needs 1.0 MiB more"):
        box.call(model(site))
    box.free, box.before_write = None, lambda _path: None
    box.call(model(site))
    assert site.header("Range")[-1] not in (None, "bytes=0-")
    assert box.tree() == {"a/a.gguf": DATA}


def test_more_than_the_memory_is_not_preloaded(box, site):
    box.memory_kib = 8 << 10
    with pytest.raises(RefusedError, match=r"preload and lock of a, b keep 8.0 MiB in memory, and 6\.\d MiB are left"):
        box.call(model(site, preload=True), model(site, "b", lock=True))
    assert site.asked("GET") == []
    box.call(model(site, preload=True), model(site, "b"))
    with pytest.raises(RefusedError, match="preload fewer"):
        box.call(model(site, preload=True), model(site, "b", preload=True), check=True)


def test_what_is_kept_in_memory_is_recorded_and_can_change(box, site):
    box.call(model(site, preload=True))
    assert box.manifest()["a"]["preload"] is True
    result = box.call(model(site))
    assert [(change["before"], change["after"]) for change in result["changes"]] == [("preload", "use from disk")]
    assert box.manifest()["a"]["preload"] is False


# -- crashes and company ----------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for kill -9: nothing that follows in the call runs, but for `finally`."""


def test_killed_at_any_write_the_next_run_ends_the_work(tmp_path, site):
    wishes = [
        model(site, sha256=[sha256(DATA)]),
        {"name": "m", "source": f"{site.url}/m.tar", "unpack": True},
        {"name": "gone", "state": "absent"},
    ]
    site.files["/m.tar"] = tar({"x": b"1" * 5000, "y/z": b"2"}, "w")
    site.files["/gone.gguf"] = b"old"

    def arranged(folder):
        folder.mkdir()
        found = Box(folder)
        found.call(model(site, "gone"))
        found.writes[:] = []
        return found

    traced = arranged(tmp_path / "traced")
    traced.call(*wishes)
    wanted = traced.tree()
    assert len(traced.writes) > 25
    for point in range(len(traced.writes)):
        box = arranged(tmp_path / str(point))

        def stop(path, box=box, point=point):
            if len(box.writes) == point:
                raise KilledError
            box.writes.append(path)

        box.before_write = stop
        with pytest.raises(KilledError):
            box.call(*wishes)
        box.report()
        box.before_write = lambda _path: None
        box.call(*wishes)
        assert box.tree() == wanted, traced.writes[point]
        assert box.partial() == []
        assert not box.call(*wishes)["changed"]
        assert box.report(verify=True)["broken"] == []


def test_killed_for_real_in_the_middle_of_a_fetch_the_next_run_goes_on(box, site):
    site.gate = threading.Event()
    wish = model(site)
    script = f"import pathlib, model_box; model_box.Box(pathlib.Path({box.root!r})).call({wish!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
        assert site.waiting.wait(60)
        half = len(DATA) // 2
        piece = box.path(".ai-workstation/partial")
        while not any(path.stat().st_size == half for path in piece.glob("*.part")):
            assert process.poll() is None
        process.kill()
    site.gate.set()
    site.gate = None
    assert box.tree() == {}
    box.call(wish)
    assert site.header("Range") == [None, f"bytes={half}-"]
    assert box.tree() == {"a/a.gguf": DATA}


def test_two_runs_take_turns_and_fetch_once(box, site):
    site.gate = threading.Event()
    results = []
    runs = [threading.Thread(target=lambda: results.append(box.call(model(site)))) for _run in range(2)]
    box.pause = lambda _seconds: threading.Event().wait(0.01)
    for run in runs:
        run.start()
    assert site.waiting.wait(30)
    site.gate.set()
    for run in runs:
        run.join()
    assert sorted(result["changed"] for result in results) == [False, True]
    assert site.asked("GET") == ["/a.gguf"]


def test_a_broken_manifest_is_named(box, site):
    box.call(model(site))
    box.path(".ai-workstation/manifest.json").write_text("{]")
    with pytest.raises(RefusedError, match=r"/models/.ai-workstation/manifest.json is not a manifest"):
        box.call(model(site))


# -- the report -------------------------------------------------------------------------------------


def test_the_report_lists_models_foreign_files_and_what_is_in_memory(box, site):
    box.call(model(site, preload=True))
    box.put("foreign.bin", b"x")
    found = box.report()
    assert found["foreign"] == ["foreign.bin"]
    assert [(one["name"], one["state"], one["size_bytes"]) for one in found["models"]] == [("a", "ok", len(DATA))]
    assert "not ours: foreign.bin" in found["lines"]
    box.path("a/a.gguf").unlink()
    assert box.report()["broken"] == ["a"]
    with pytest.raises(WorkstationError, match="names: 'z' is not in the store; it has a"):
        box.report("z")
