# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""service_stack against an engine in memory: plans, order, the way back, faults, and a kill at every write."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import pytest
import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from ansible_collections.ai_infra.workstation.plugins.module_utils.stack.call import converge
from fake_compose import FakeEngine
from fake_kernel import FakeKernel, killed

FOLDER = "/var/lib/ai-workstation/stack"
NETWORK = {"stack": {"ipam": {"config": [{"subnet": "172.20.0.0/24"}]}}}
UNIT = {"name": "watch.service", "content": "# Written by ai_infra.workstation\n[Service]", "program": "pass",
        "program_path": "/usr/local/lib/ai-workstation/watch.py"}  # fmt: skip


class Bed:
    """A machine with an engine, and calls of the module on it."""

    def __init__(self, folder: Any) -> None:
        self.kernel = FakeKernel(folder)
        self.kernel.put("/etc/machine-id", "0123456789abcdef0123456789abcdef")
        self.kernel.put("/proc/net/tcp", "head")
        os.makedirs(self.kernel.at("/usr/local/lib"), exist_ok=True)
        self.engine = FakeEngine(self.kernel)
        self.options: dict[str, Any] = {}

    def run(self, *services: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        definitions = {one["name"]: _definition(one) for one in services}
        params = {
            "state": "present",
            "compose": {"name": "ai", "services": definitions, "networks": NETWORK},
            "project": "ai",
            "directory": FOLDER,
            "services": [{"local_image": True, **one} for one in services],
            "files": [],
            "secrets": [],
            "secret_values": [],
            "units": [],
            "remove_volumes": "none",
            **self.options,
            **more,
        }
        return converge(params, check, self.kernel)

    def on_disk(self) -> dict[str, Any]:
        return yaml.safe_load(self.kernel.text(f"{FOLDER}/compose.yml") or "")


def _definition(one: dict[str, Any]) -> dict[str, Any]:
    found = {"image": one.pop("image", "good:1"), "user": "10001:10001", "pull_policy": "never", "volumes": []}
    for key in ("cpuset", "mem_limit", "ports", "configs", "secrets", "volumes"):
        if key in one:
            found[key] = one.pop(key)
    return found


def a(**more: Any) -> dict[str, Any]:
    return {"name": "a", "health_seconds": 1, **more}


def b(**more: Any) -> dict[str, Any]:
    return {"name": "b", "health_seconds": 1, **more}


@pytest.fixture
def bed(tmp_path) -> Bed:
    return Bed(tmp_path)


# -- plans -------------------------------------------------------------------------------------------


def test_services_are_made_in_their_order_and_a_second_run_changes_nothing(bed) -> None:
    foretold = bed.run(b(), a(), check=True)
    assert bed.kernel.writes == []
    done = bed.run(b(), a())
    assert [row["key"] for row in done["changes"]] == ["service:b", "service:a"]
    assert (done["changes"], done["diff"]) == (foretold["changes"], foretold["diff"])
    assert list(bed.engine.containers) == ["b", "a"]
    again = bed.run(b(), a())
    assert again["changed"] is False
    assert again["changes"] == again["diff"] == []


def test_a_changed_cpu_set_makes_this_service_alone_anew(bed) -> None:
    bed.run(a(cpuset="0"), b(cpuset="1"))
    before = {name: one["Id"] for name, one in bed.engine.containers.items()}
    done = bed.run(a(cpuset="0"), b(cpuset="2"))
    assert [(row["key"], row["reason"]) for row in done["changes"]] == [("service:b", "recreate: changed: CPU set")]
    assert bed.engine.containers["a"]["Id"] == before["a"]
    assert bed.engine.containers["b"]["Id"] != before["b"]
    assert '-  cpuset: "1"' not in done["diff"][0]["after"]


def test_an_image_that_was_built_anew_makes_its_service_anew(bed) -> None:
    bed.run(a())
    bed.engine.images["good:1"] = "sha256:good1-again"
    assert bed.run(a(), check=True)["changes"][0]["reason"] == "recreate: changed: image"


def test_what_is_not_declared_any_more_is_removed(bed) -> None:
    bed.run(a(), b())
    done = bed.run(a())
    assert [(row["key"], row["after"]) for row in done["changes"]] == [("service:b", None)]
    assert list(bed.engine.containers) == ["a"]
    assert list(bed.on_disk()["services"]) == ["a"]


def test_a_stopped_service_is_started_and_the_watchs_reason_is_said_once(bed) -> None:
    bed.run(a())
    bed.engine.containers["a"]["State"]["Status"] = "exited"
    bed.kernel.put(f"{FOLDER}/stopped.json", json.dumps({"a": "started again too often"}))
    done = bed.run(a())
    assert done["changes"][0]["reason"] == "start: the watch stopped it, started again too often"
    assert not bed.kernel.exists(f"{FOLDER}/stopped.json")
    assert bed.run(a())["changed"] is False


def test_a_changed_network_makes_all_anew(bed) -> None:
    bed.run(a(), b())
    other = {"stack": {"ipam": {"config": [{"subnet": "172.21.0.0/24"}]}}}
    services = {name: dict(bed.on_disk()["services"][name], image="good:1") for name in ("a", "b")}
    for one in services.values():
        one.pop("labels")
        one.setdefault("volumes", [])
    done = bed.run(a(), b(), compose={"name": "ai", "services": services, "networks": other})
    assert {row["reason"] for row in done["changes"]} == {"recreate: the network has changed"}
    assert bed.engine.networks["ai_stack"] == "172.21.0.0/24"


# -- the way back ------------------------------------------------------------------------------------


def test_a_version_that_is_not_well_goes_back_to_the_last_good_one(bed) -> None:
    bed.run(a(), b())
    good = bed.kernel.text(f"{FOLDER}/compose.yml")
    with pytest.raises(ApplyError) as caught:
        bed.run(a(image="good:2"), b(image="bad:1"), {"name": "c", "health_seconds": 1})
    assert str(caught.value) == (
        "service b: its program ends by itself, exit status 3; its last lines: out of cheese; returned to its last "
        "good version, which is well; not tried after it: c; updated before it: a"
    )
    assert caught.value.details == {"service": "b", "returned": True, "updated": ["a"], "not_tried": ["c"]}
    assert {name: one["Image"] for name, one in bed.engine.containers.items()} == {
        "a": "sha256:good2",
        "b": "sha256:good1",
    }
    assert bed.on_disk()["services"]["b"] == yaml.safe_load(good)["services"]["b"]
    # What was declared still differs from what runs, so the next run tries again.
    assert [row["key"] for row in bed.run(a(image="good:2"), b(image="bad:1"), check=True)["changes"]] == ["service:b"]


def test_a_first_version_that_is_not_well_is_removed(bed) -> None:
    with pytest.raises(ApplyError, match="there is no earlier version, so its container was removed"):
        bed.run(a(image="bad:1"))
    assert bed.engine.containers == {}
    assert bed.on_disk()["services"] == {}


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        ("unhealthy", "service a: its health check fails"),
        ("oom", "service a: the kernel ended it: it needs more memory than its limit of 64M"),
    ],
)
def test_what_went_wrong_is_said(bed, fate, message) -> None:
    bed.run(a())
    bed.engine.sick["sha256:bad1"] = fate
    with pytest.raises(ApplyError, match=message):
        bed.run(a(image="bad:1", mem_limit=64 << 20))
    assert bed.engine.containers["a"]["Image"] == "sha256:good1"


def test_a_last_good_version_that_is_gone_is_said(bed) -> None:
    bed.run(a())
    del bed.engine.images["good:1"]
    with pytest.raises(ApplyError, match="the last good version does not come up either: Error response from daemon"):
        bed.run(a(image="bad:1"))


# -- files and secrets ---------------------------------------------------------------------------------


def secret(bed: Bed, **more: Any) -> dict[str, Any]:
    mine = {"service": "a", "name": "key", "uid": os.geteuid(), "gid": os.getegid()}
    return {"secrets": [mine], "secret_values": [{"name": "key", **more}]}


def test_a_secret_is_a_file_of_its_user_and_new_content_makes_the_service_anew(bed) -> None:
    bed.run(a(), **secret(bed, value="hunter2"))
    [name] = bed.kernel.names(f"{FOLDER}/secrets")
    assert bed.kernel.file(f"{FOLDER}/secrets/{name}").mode == 0o400
    assert bed.kernel.dir_mode(FOLDER) == 0o700
    for file in ("compose.yml", "state.json"):
        assert "hunter2" not in bed.kernel.text(f"{FOLDER}/{file}")
    assert bed.run(a(), **secret(bed, value="hunter2"))["changed"] is False
    done = bed.run(a(), **secret(bed, value="hunter3"))
    assert done["changes"][0]["reason"] == "recreate: changed: secrets"
    assert "hunter" not in json.dumps(done)
    assert len(bed.kernel.names(f"{FOLDER}/secrets")) == 1


def test_a_generated_secret_is_made_once(bed) -> None:
    foretold = bed.run(a(), check=True, **secret(bed, generate=True))
    done = bed.run(a(), **secret(bed, generate=True))
    assert done["diff"] == foretold["diff"]
    made = bed.kernel.text(f"{FOLDER}/generated/key")
    assert len(made) >= 40
    assert bed.run(a(), **secret(bed, generate=True))["changed"] is False
    assert bed.kernel.text(f"{FOLDER}/secrets/a_key.generated") == made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"file": "/etc/none"}, "'key': /etc/none cannot be read or is empty"),
        ({}, "'key' must have one of value, file and generate"),
        ({"value": "x", "generate": True}, "must have one of value, file and generate"),
    ],
)
def test_a_secret_that_is_none_is_refused(bed, given, message) -> None:
    with pytest.raises((InputError, RefusedError), match=message):
        bed.run(a(), **secret(bed, **given))


def test_a_secret_that_nobody_declared_is_refused(bed) -> None:
    with pytest.raises(InputError, match="secrets: 'key' is used and not declared"):
        bed.run(a(), **{**secret(bed), "secret_values": []})


def test_new_content_of_a_file_makes_its_service_anew(bed) -> None:
    file = {"service": "a", "name": "conf", "content": "one\n"}
    bed.run(a(), files=[file])
    assert bed.run(a(), files=[file])["changed"] is False
    done = bed.run(a(), files=[{**file, "content": "two\n"}])
    assert done["changes"][0]["reason"] == "recreate: changed: configuration files"
    [path] = bed.on_disk()["configs"].values()
    assert path["file"].startswith(f"{FOLDER}/files/a_conf.")


# -- the ground ----------------------------------------------------------------------------------------


def test_all_that_is_missing_is_said_before_the_first_change(bed) -> None:
    bed.kernel.put("/models/closed", "x")
    os.chmod(bed.kernel.at("/models/closed"), 0o600)
    bed.kernel.put("/proc/net/tcp", "head\n 0: 0100007F:1F90 00000000:0000 0A 0")
    bed.engine.networks["other"] = "172.20.0.0/16"
    with pytest.raises(RefusedError) as caught:
        bed.run(a(image="none:1", ports=["127.0.0.1:8080:80"], models=["/models/closed"]), b(models=["/models/none"]))
    for part in (
        "service a: port 8080 on 127.0.0.1 is taken by another program",
        "subnet 172.20.0.0/24: the Docker network other has it",
        "service a: image: none:1 is not on this machine",
        "service a: model: user 10001 cannot read /models/closed (mode 0600)",
        "service b: model: /models/none is not there",
    ):
        assert part in str(caught.value)
    assert bed.kernel.writes == []


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("0: 00000000:1F90 00000000:0000 0A 0", True),
        ("0: 0100007F:1F90 00000000:0000 01 0", False),
        ("0: 0101A8C0:1F90 00000000:0000 0A 0", False),
        ("0: 0100007F:1F91 00000000:0000 0A 0", False),
    ],
)
def test_a_port_is_taken_where_something_listens_on_that_address(bed, line, taken) -> None:
    bed.kernel.put("/proc/net/tcp", f"head\n {line}")
    if taken:
        with pytest.raises(RefusedError, match="is taken by another program"):
            bed.run(a(ports=["127.0.0.1:8080:80"]))
    else:
        bed.run(a(ports=["127.0.0.1:8080:80"]))


def test_a_port_of_our_own_container_is_not_taken(bed) -> None:
    bed.run(a(ports=["127.0.0.1:8080:80"]))
    bed.kernel.put("/proc/net/tcp", "head\n 0: 0100007F:1F90 00000000:0000 0A 0")
    assert bed.run(a(ports=["127.0.0.1:8080:80"], cpuset="1"))["changed"] is True


def test_a_route_of_the_machine_is_not_taken_over(bed) -> None:
    route = "eth1 000014AC 00000000 0001 0 0 0 0000FFFF 0 0 0"
    bed.kernel.put("/proc/net/route", f"Iface\n{route}")
    with pytest.raises(RefusedError, match=r"subnet 172\.20\.0\.0/24: eth1 leads to 172\.20\.0\.0/16"):
        bed.run(a())


def test_a_bare_machine_is_previewed_and_refused(bed) -> None:
    bed.engine.down = True
    found = bed.run(a(models=["/models/none"]), check=True)
    assert found["changes"][0]["key"] == "service:a"
    assert found["skipped_keys"][0]["reason"].startswith("after install: Docker is not running: Cannot connect")
    with pytest.raises(RefusedError, match="Docker is not running"):
        bed.run(a())
    assert bed.kernel.writes == []


def test_missing_models_and_images_are_said_in_a_preview(bed) -> None:
    found = bed.run(a(image="none:1", models=["/models/none"]), check=True)
    assert [row["reason"].split(";")[0] for row in found["skipped_keys"]] == [
        "after install: service a: image: none:1 is not on this machine",
        "after install: service a: model: /models/none is not there",
    ]


def test_somebody_else_than_root_is_refused(bed) -> None:
    bed.kernel.root_user = False
    with pytest.raises(RefusedError, match="needs root"):
        bed.run(a())


def test_a_broken_record_is_refused(bed) -> None:
    bed.kernel.put(f"{FOLDER}/state.json", "{")
    with pytest.raises(RefusedError, match=r"state\.json: it cannot be read"):
        bed.run(a())


# -- units ---------------------------------------------------------------------------------------------


def test_units_are_installed_before_the_services_and_removed_when_nobody_wants_them(bed) -> None:
    done = bed.run(a(), units=[UNIT])
    assert [row["key"] for row in done["changes"]] == ["unit:watch.service", "service:a"]
    assert bed.kernel.acted.index("systemctl restart watch.service") < bed.kernel.acted.index(
        next(line for line in bed.kernel.acted if " up " in line)
    )
    assert bed.run(a(), units=[UNIT])["changed"] is False
    changed = bed.run(a(), units=[{**UNIT, "program": "exit()"}])
    assert [(row["key"], row["reason"]) for row in changed["changes"]] == [("unit:watch.service", "change")]
    bed.run(a())
    assert "systemctl disable --quiet --now watch.service" in bed.kernel.acted
    assert not bed.kernel.exists("/etc/systemd/system/watch.service")
    assert not bed.kernel.exists(UNIT["program_path"])


def test_a_unit_of_somebody_else_is_left_alone(bed) -> None:
    bed.kernel.put("/etc/systemd/system/watch.service", "[Unit]")
    with pytest.raises(RefusedError, match="this unit exists and is not ours"):
        bed.run(a(), units=[UNIT])


# -- absent --------------------------------------------------------------------------------------------


def test_absent_leaves_nothing_of_ours(bed) -> None:
    bed.run(a(), units=[UNIT], **secret(bed, generate=True))
    foretold = bed.run(state="absent", check=True)
    done = bed.run(state="absent")
    assert done["changes"] == foretold["changes"]
    assert {row["key"] for row in done["changes"]} == {"unit:watch.service", "service:a", f"dir:{FOLDER}"}
    assert bed.engine.containers == {}
    assert "ai_stack" not in bed.engine.networks
    assert not bed.kernel.exists(FOLDER)
    assert not bed.kernel.exists("/etc/systemd/system/watch.service")
    assert bed.run(state="absent")["changed"] is False


def test_absent_without_an_engine_removes_the_files(bed) -> None:
    bed.run(a())
    bed.engine.down = True
    bed.run(state="absent")
    assert not bed.kernel.exists(FOLDER)


# -- killed anywhere -----------------------------------------------------------------------------------


def test_killed_at_any_write_the_next_run_converges(tmp_path) -> None:
    def arrange(number: int) -> Bed:
        bed = Bed(tmp_path / str(number))
        bed.run(a(), b(), units=[UNIT], **secret(bed, value="one"))
        return bed

    def change(bed: Bed) -> dict[str, Any]:
        return bed.run(a(image="good:2"), {"name": "c", "health_seconds": 1}, **secret(bed, value="two"))

    traced = arrange(0)
    before = len(traced.kernel.writes)
    change(traced)
    wanted, points = traced.on_disk(), len(traced.kernel.writes) - before
    assert points > 8
    for point in range(1, points + 1):
        bed = arrange(point)
        assert killed(bed.kernel, partial(change, bed), point)
        change(bed)
        assert bed.on_disk() == wanted, point
        assert {name: one["Image"] for name, one in bed.engine.containers.items()} == {
            "a": "sha256:good2",
            "c": "sha256:good1",
        }
        assert len(bed.kernel.names(f"{FOLDER}/secrets")) == 1
        assert change(bed)["changed"] is False, point
        bed.run(state="absent")
        assert not bed.kernel.exists(FOLDER), point


def test_killed_while_units_are_installed_absent_still_removes_them(bed) -> None:
    assert killed(bed.kernel, lambda: bed.run(a(), units=[UNIT]), point="systemctl restart watch.service")
    bed.run(state="absent")
    assert not bed.kernel.exists("/etc/systemd/system/watch.service")
    assert not bed.kernel.exists(UNIT["program_path"])


def test_the_last_good_version_keeps_its_volumes(bed) -> None:
    cache = {"type": "volume", "source": "a_cache", "target": "/cache"}
    bed.run(a(volumes=[cache]))
    assert bed.on_disk()["volumes"] == {"a_cache": {}}
    with pytest.raises(ApplyError, match="returned to its last good version"):
        bed.run(a(image="bad:1"))
    assert bed.on_disk()["volumes"] == {"a_cache": {}}
