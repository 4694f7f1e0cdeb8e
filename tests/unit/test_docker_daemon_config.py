# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker_daemon_config: our keys beside those of others, and an engine that is told only what it does not know."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.docker.daemon_config import RECORD, converge
from ansible_collections.ai_infra.workstation.plugins.module_utils.docker.daemon_json import (
    FILE,
    leaves,
    merge,
    parse,
    settled,
)
from ansible_collections.ai_infra.workstation.plugins.module_utils.docker.daemon_json import Record as OurRecord
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.host import Completed
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import ApplyError, InputError, RefusedError
from fake_kernel import FakeKernel, killed
from hypothesis import example, given
from hypothesis import strategies as st

FOREIGN = '{\n    "insecure-registries": ["r:5000"],\n    "proxies": {"no-proxy": "x"}\n}\n'


class FakeDocker(FakeKernel):
    """A machine with a Docker engine: it reads daemon.json when it starts, and some of it at a reload."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.pid, self.now, self.loaded, self.flags = 0, 1000, {}, ["-H", "fd://"]
        self.breaks_on = self.refuses = ""
        self.put("/proc/stat", "btime 0")
        self.put("/usr/sbin/dockerd", "")
        os.makedirs(self.at("/etc/docker"))
        self.programs = {"systemctl": _systemctl, "dockerd": _dockerd, "docker": _info, "journalctl": _journal}
        self.start()

    def config(self) -> Any:
        text = self.text(FILE)
        return json.loads(text) if text else {}

    def own(self, text: str, age: int = 0) -> None:
        """An administrator writes the file, so many seconds after the engine's start."""
        self.put(FILE, text.rstrip("\n"))
        os.utime(self.at(FILE), (self.now + age, self.now + age))

    def start(self) -> None:
        self.pid += 1
        self.now += 100
        self.loaded = self.config()
        self.put(f"/proc/{self.pid}/cmdline", "\0".join(["/usr/sbin/dockerd", *self.flags, ""]))
        fields = " ".join(["S", *["0"] * 18, str(self.now * 100)])
        self.put(f"/proc/{self.pid}/stat", f"{self.pid} (a) b) {fields}")
        Path(self.at(f"/proc/{self.pid}/cmdline")).write_bytes("\0".join(["dockerd", *self.flags, ""]).encode())

    def stop(self) -> None:
        self.pid = 0


def _systemctl(docker: FakeDocker, words: list[str]) -> Completed:
    if words[0] == "show":
        start = f"{{ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd {' '.join(docker.flags)} $OPTS ; ignore=no }}"
        place = "/lib/systemd/system/docker.service"
        return Completed(0, f"LoadState=loaded\nMainPID={docker.pid}\nExecStart={start}\nFragmentPath={place}\n", "")
    if words[0] == "restart":
        if docker.breaks_on and docker.breaks_on in docker.config():
            return Completed(1, "", "Job for docker.service failed.")
        docker.start()
    if words[0] == "reload":
        docker.loaded = {**docker.loaded, **{key: docker.config().get(key, False) for key in ("live-restore", "debug")}}
    return Completed(0, "", "")


def _dockerd(docker: FakeDocker, words: list[str]) -> Completed:
    assert words[:2] == docker.flags[:2]
    assert words[-2:] == ["--validate", "--config-file=/dev/stdin"]
    return Completed(1, "", docker.refuses) if docker.refuses else Completed(0, "", "configuration OK")


def _info(docker: FakeDocker, words: list[str]) -> Completed:
    live_restore, debug = docker.loaded.get("live-restore", False), docker.loaded.get("debug", False)
    return Completed(
        0, json.dumps({"ServerVersion": "26.1", "LiveRestoreEnabled": live_restore, "Debug": debug, "Runtimes": {}}), ""
    )


def _journal(docker: FakeDocker, words: list[str]) -> Completed:
    return Completed(0, 'failed to start daemon: cannot do "that"\nsystemd: gave up\n', "")


@pytest.fixture
def docker(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path)


def call(docker: FakeDocker, config: Any = None, check: bool = False, **params: Any) -> dict[str, Any]:
    given = {"config": config, "accept": [], "restart": True, "state": "present", **params}
    return converge(given, check, docker)


def absent(docker: FakeDocker, **params: Any) -> dict[str, Any]:
    return call(docker, state="absent", **params)


# --- the file --------------------------------------------------------------------------------------


def test_keys_of_others_stay_and_ours_go_to_the_byte(docker: FakeDocker) -> None:
    docker.own(FOREIGN)
    os.chmod(docker.at(FILE), 0o640)
    predicted = call(docker, {"log-driver": "local", "log-opts": {"max-size": "10m"}}, check=True)
    assert not docker.writes
    outcome = call(docker, {"log-driver": "local", "log-opts": {"max-size": "10m"}})
    assert outcome == predicted
    assert [change["key"] for change in outcome["changes"]] == [
        "daemon.json:log-driver",
        "daemon.json:log-opts.max-size",
        "docker.service",
    ]
    assert docker.config() == {**json.loads(FOREIGN), "log-driver": "local", "log-opts": {"max-size": "10m"}}
    assert docker.text(FILE).startswith('{\n    "insecure')
    assert "proxies" not in outcome["diff"]["before"] + outcome["diff"]["after"]
    assert not call(docker, {"log-driver": "local", "log-opts": {"max-size": "10m"}})["changed"]
    assert absent(docker)["changed"]
    assert docker.file(FILE).content == FOREIGN
    assert docker.file(FILE).mode == 0o640
    assert not docker.exists(RECORD)
    assert not absent(docker)["changed"]


def test_a_file_of_ours_alone_goes_as_a_whole(docker: FakeDocker) -> None:
    call(docker, {"log-driver": "local"})
    assert docker.file(FILE).mode == 0o644
    absent(docker)
    assert not docker.exists(FILE)


def test_what_others_add_between_two_runs_stays(docker: FakeDocker) -> None:
    docker.own('{"debug": true, "log-opts": {"tag": "t"}}')
    call(docker, {"log-opts": {"max-size": "10m"}, "features": {"cdi": True}})
    docker.own(json.dumps({**docker.config(), "ipv6": True}))
    absent(docker)
    assert docker.config() == {"debug": True, "log-opts": {"tag": "t"}, "ipv6": True}


def test_a_key_no_longer_wanted_goes_back_to_what_it_was(docker: FakeDocker) -> None:
    docker.own('{"log-driver": "syslog"}')
    call(docker, {"log-driver": "local", "debug": True}, accept=["log-driver"])
    call(docker, {"debug": True})
    assert docker.config() == {"log-driver": "syslog", "debug": True}


def test_a_value_that_was_there_already_is_not_ours(docker: FakeDocker) -> None:
    docker.own('{"live-restore": true}')
    docker.start()
    assert not call(docker, {"live-restore": True})["changed"]
    absent(docker)
    assert docker.config() == {"live-restore": True}


def test_a_conflict_names_both_sides_and_the_way_out(docker: FakeDocker) -> None:
    docker.own('{"log-driver": "syslog", "log-opts": "none"}')
    with pytest.raises(RefusedError) as caught:
        call(docker, {"log-driver": "local", "log-opts": {"max-size": "1m"}})
    assert str(caught.value) == (
        f'log-driver: config says "local", {FILE} says "syslog", and that stays; name \'log-driver\' in accept to let '
        f'config win, or take it out of config; log-opts.max-size: config says "1m", {FILE} says "none" at log-opts, '
        "and that stays; name 'log-opts' in accept to let config win, or take it out of config"
    )
    assert not docker.writes
    call(docker, {"log-driver": "local", "log-opts": {"max-size": "1m"}}, accept=["log-driver", "log-opts"])
    assert docker.config() == {"log-driver": "local", "log-opts": {"max-size": "1m"}}


def test_what_an_administrator_made_of_ours_is_a_conflict_and_stays_when_ours_goes(docker: FakeDocker) -> None:
    call(docker, {"log-driver": "local"})
    docker.own('{"log-driver": "journald"}')
    with pytest.raises(RefusedError, match="journald"):
        call(docker, {"log-driver": "local"})
    assert "was changed since" in absent(docker)["warnings"][0]
    assert docker.config() == {"log-driver": "journald"}


def test_ours_removed_by_others_comes_back(docker: FakeDocker) -> None:
    call(docker, {"log-driver": "local"})
    docker.own("{}")
    assert call(docker, {"log-driver": "local"})["changed"]
    assert docker.config() == {"log-driver": "local"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n  "b" 2}', "line 2 column 7: Expecting ':' delimiter"),
        ("[1]", "a JSON object is needed, found [1]"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
    ],
)
def test_a_file_that_dockerd_cannot_read_is_named_with_its_place(docker: FakeDocker, text: str, message: str) -> None:
    docker.own(text)
    with pytest.raises(RefusedError) as caught:
        call(docker, {"debug": True})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert docker.file(FILE).content.strip() == text


@pytest.mark.parametrize("text", ["", "\n", "{}"])
def test_an_empty_file_is_an_empty_configuration(text: str) -> None:
    assert parse(text) == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config: needed with state=present"),
        ({"log-opts": {"max-file": 3}}, "config.log-opts.max-file: 3 must be a string"),
        ({"bip": None}, "config.bip: null is no value"),
    ],
)
def test_bad_input_is_one_line(docker: FakeDocker, config: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        call(docker, config)
    assert message in str(caught.value)


def test_a_link_is_not_replaced(docker: FakeDocker) -> None:
    os.symlink("/srv/daemon.json", docker.at(FILE))
    with pytest.raises(RefusedError, match="is a link to /srv/daemon.json"):
        call(docker, {"debug": True})


def test_a_damaged_record_is_refused(docker: FakeDocker) -> None:
    docker.put(RECORD, "{")
    with pytest.raises(RefusedError, match="which keys of .* are ours"):
        call(docker, {"debug": True})


# --- the engine ------------------------------------------------------------------------------------


def test_the_engine_is_restarted_once_and_not_for_keys_of_others(docker: FakeDocker) -> None:
    assert call(docker, {"log-driver": "local"})["engine"]["action"] == "restart"
    assert docker.loaded == {"log-driver": "local"}
    docker.own(json.dumps({**docker.config(), "ipv6": True}), age=50)
    assert call(docker, {"log-driver": "local"})["engine"]["action"] == "none"
    assert docker.acted.count("systemctl restart docker.service") == 1


def test_an_engine_older_than_the_file_is_told(docker: FakeDocker) -> None:
    docker.own('{"log-driver": "local"}', age=5)
    assert call(docker, {"log-driver": "local"}, check=True)["changes"][0]["key"] == "docker.service"
    outcome = call(docker, {"log-driver": "local"})
    assert (outcome["changed"], docker.loaded) == (True, {"log-driver": "local"})
    os.utime(docker.at(FILE), (docker.now - 1, docker.now - 1))
    assert not call(docker, {"log-driver": "local"})["changed"]


def test_a_run_killed_before_the_restart_is_finished_by_the_next(docker: FakeDocker) -> None:
    docker.own(FOREIGN)
    assert killed(docker, lambda: call(docker, {"log-driver": "local"}), point="systemctl reset-failed docker.service")
    os.utime(docker.at(FILE), (docker.now + 1, docker.now + 1))
    assert call(docker, {"log-driver": "local"})["engine"]["action"] == "restart"
    absent(docker)
    assert docker.file(FILE).content == FOREIGN


def test_live_restore_alone_needs_a_reload(docker: FakeDocker) -> None:
    assert call(docker, {"live-restore": True})["engine"]["action"] == "reload"
    assert docker.acted == ["systemctl reload docker.service"]
    assert not call(docker, {"live-restore": True})["changed"]


def test_a_reload_that_does_not_act_costs_no_container(docker: FakeDocker) -> None:
    with pytest.raises(ApplyError, match="docker info does not show it"):
        call(docker, {"runtimes": {"own": {"path": "/bin/own"}}})
    assert docker.acted == ["systemctl reload docker.service"] * 2
    assert not docker.exists(FILE)


def test_live_restore_comes_before_the_restart_that_it_is_for(docker: FakeDocker) -> None:
    call(docker, {"live-restore": True, "log-driver": "local"})
    assert [line.split()[1] for line in docker.acted] == ["reload", "reset-failed", "restart"]


def test_a_restart_that_is_not_allowed_is_said_until_it_happened(docker: FakeDocker) -> None:
    first = call(docker, {"log-driver": "local"}, restart=False)
    os.utime(docker.at(FILE), (docker.now + 1, docker.now + 1))
    again = call(docker, {"log-driver": "local"}, restart=False)
    assert docker.acted == []
    assert (first["changed"], again["changed"]) == (True, False)
    for outcome in (first, again):
        assert outcome["engine"] == {"state": "running", "action": "none", "needed": "restart"}
        assert "has to be restarted" in outcome["warnings"][0]
    docker.start()
    assert call(docker, {"log-driver": "local"}, restart=False)["warnings"] == []


def test_an_engine_that_is_stopped_stays_so(docker: FakeDocker) -> None:
    docker.stop()
    assert call(docker, {"log-driver": "local"})["engine"] == {"state": "stopped", "action": "none", "needed": "none"}
    assert docker.acted == []


def test_without_an_engine_the_file_is_written(docker: FakeDocker) -> None:
    docker.stop()
    os.unlink(docker.at("/usr/sbin/dockerd"))
    os.rmdir(docker.at("/etc/docker"))
    docker.refuses = "not asked"
    assert call(docker, {"log-driver": "local"})["engine"]["state"] == "not installed"
    assert docker.config() == {"log-driver": "local"}


def test_a_flag_for_the_same_key_is_refused_with_its_place(docker: FakeDocker) -> None:
    docker.flags = ["-H", "fd://", "--log-driver=syslog", "--add-runtime", "x=y", "--debug"]
    docker.start()
    with pytest.raises(RefusedError) as caught:
        call(docker, {"hosts": ["tcp://0"], "log-driver": "local", "debug": False, "runtimes": {"r": {"path": "p"}}})
    said = str(caught.value)
    assert 'hosts: config says ["tcp://0"], the flag -H of dockerd says "fd://"' in said
    assert 'log-driver: config says "local", the flag --log-driver of dockerd says "syslog"' in said
    assert 'debug: config says false, the flag --debug of dockerd says "true"' in said
    assert "runtimes" not in said
    assert "/lib/systemd/system/docker.service" in said
    docker.stop()
    with pytest.raises(RefusedError, match="hosts"):
        call(docker, {"hosts": []})


def test_what_dockerd_refuses_is_not_written(docker: FakeDocker) -> None:
    docker.refuses = "unable to configure the Docker daemon with file /dev/stdin: no such directive: nonsense"
    for check in (True, False):
        with pytest.raises(RefusedError, match=f"with file {FILE}: no such directive: nonsense"):
            call(docker, {"nonsense": 1}, check=check)
    assert not docker.exists(FILE)
    docker.refuses = "unknown flag: --validate"
    assert call(docker, {"debug": True})["changed"]


def test_an_engine_that_does_not_start_gets_its_old_file_back(docker: FakeDocker) -> None:
    docker.own(FOREIGN)
    docker.breaks_on = "bip"
    with pytest.raises(ApplyError) as caught:
        call(docker, {"bip": "nonsense"})
    assert str(caught.value) == (
        'the engine does not take the configuration: failed to start daemon: cannot do "that"; '
        f"{FILE} is as it was and the engine runs with it"
    )
    assert docker.file(FILE).content == FOREIGN
    assert docker.loaded == json.loads(FOREIGN)
    assert not docker.exists(RECORD)


def test_a_full_disk_leaves_everything_as_it_was(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.own(FOREIGN)

    def full(path: str) -> None:
        if path == FILE:
            raise OSError(28, "No space left on device", path)

    docker.before_write = full
    with pytest.raises(OSError, match="No space"):
        call(docker, {"debug": True})
    assert docker.file(FILE).content == FOREIGN
    assert not docker.exists(RECORD)


# --- any file, any wish ----------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c"])
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        st.integers(0, 2) | st.booleans() | st.lists(st.integers(0, 1), max_size=2),
        lambda inner: st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


# What is released last may have the value that it had before us: then the text alone differs.
@example({"a": {}, "c": {}}, [{"a": {}, "b": {}, "c": 0}, {"c": {}}])
@given(TREES, st.lists(TREES, min_size=1, max_size=3))
def test_any_sequence_of_wishes_ends_where_it_began(foreign: Any, wishes: list[Any]) -> None:
    text: str | None = json.dumps(foreign)
    record = OurRecord()
    for wanted in (*wishes, {}):
        step = merge(text, wanted, record, ["a", "b", "c"])
        for path, value in leaves(wanted):
            live: Any = step.config
            for key in path:
                live = live[key]
            assert value in (live, {})
        text, record = step.text, settled(step.record, step.text, "", [])
        assert not merge(text, wanted, record, ["a", "b", "c"]).changes
    assert text == json.dumps(foreign)
