# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The watch: when it is enough, what it does then, and what it leaves alone."""

from __future__ import annotations

import fcntl
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "roles" / "service_stack" / "files" / "stack_watch.py"
spec = importlib.util.spec_from_file_location("stack_watch", PROGRAM)
watch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watch)


def event(action: str, code: str = "1") -> dict[str, Any]:
    attributes = {"com.docker.compose.service": "llama", "exitCode": code}
    return {"Action": action, "Actor": {"ID": "c1", "Attributes": attributes}}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """state: what the engine says of the container. done: what was changed."""
    found: dict[str, Any] = {"state": "true true", "done": []}

    def docker(*words: str) -> str:
        if words[0] == "inspect":
            return found["state"]
        if words[0] == "logs":
            return "out of cheese"
        found["done"].append(words)
        return ""

    monkeypatch.setattr(watch, "docker", docker)
    monkeypatch.setattr(watch, "run_in_progress", lambda: False)
    return found


def test_enough_is_enough_within_its_time_only() -> None:
    breaker = watch.Breaker(3, 10)
    assert [breaker.trips("a", now) for now in (0, 5, 11, 12)] == [False, False, False, True]
    assert not breaker.trips("a", 13)
    assert not breaker.trips("b", 13)


def test_what_does_not_stay_up_is_stopped_with_a_reason_on_disk_first(engine, tmp_path, capsys) -> None:
    path = tmp_path / "stopped.json"
    path.write_text('{"other": "before"}')
    breaker = watch.Breaker(2, 60)
    watch.take(event("die"), breaker, 60, path)
    assert engine["done"] == []
    watch.take(event("die", "137"), breaker, 60, path)
    assert engine["done"] == [("stop", "c1")]
    known = json.loads(path.read_text())
    assert known["other"] == "before"
    assert known["llama"] == "started again too often within 60 s; the last time it ended with exit status 137"
    assert capsys.readouterr().out == f"<3>service llama is stopped: {known['llama']}. out of cheese\n"


def test_what_is_unwell_is_started_again_and_counted(engine, tmp_path) -> None:
    breaker = watch.Breaker(2, 60)
    watch.take(event("health_status: unhealthy"), breaker, 60, tmp_path / "s")
    assert engine["done"] == [("restart", "c1")]
    watch.take(event("health_status: unhealthy"), breaker, 60, tmp_path / "s")
    assert engine["done"][1:] == [("stop", "c1")]


@pytest.mark.parametrize("state", ["false false", ""])
def test_what_was_stopped_or_removed_by_hand_is_not_counted(engine, tmp_path, state) -> None:
    engine["state"] = state
    watch.take(event("die"), watch.Breaker(1, 60), 60, tmp_path / "s")
    assert engine["done"] == []


def test_becoming_healthy_is_no_trouble(engine, tmp_path) -> None:
    watch.take(event("health_status: healthy"), watch.Breaker(1, 60), 60, tmp_path / "s")
    assert engine["done"] == []


def test_while_the_module_is_at_work_it_judges_alone(engine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(watch, "run_in_progress", lambda: True)
    watch.take(event("health_status: unhealthy"), watch.Breaker(1, 60), 60, tmp_path / "s")
    assert engine["done"] == []


def test_the_lock_of_the_module_is_seen(tmp_path) -> None:
    spare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(spare)
    lock = tmp_path / "lock"
    assert not spare.run_in_progress(lock)
    with lock.open("wb") as handle:
        assert not spare.run_in_progress(lock)
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert spare.run_in_progress(lock)
