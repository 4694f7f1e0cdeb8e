# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of the dead-man switch: a new connection, and what is said when there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ai_infra.workstation.plugins.action import workstation_state
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.ship import NvmlAction

WAITS = {"id": "abc", "seconds": 30, "reasons": {"irq:eth0": "an interrupt moves"}}


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Bed:
    """The action plugin with a connection and a module call that do as they are told."""

    def __init__(self, monkeypatch, outcome: dict, answers: list, transport: str = "ssh") -> None:
        self.events: list[str] = []
        self.answers = answers
        monkeypatch.setattr(NvmlAction, "run", lambda _self, _tmp, _vars: outcome)
        monkeypatch.setattr(workstation_state, "time", Clock())
        self.action = workstation_state.ActionModule.__new__(workstation_state.ActionModule)
        self.action._connection = SimpleNamespace(transport=transport, reset=self._reset)
        self.action._execute_module = self._execute

    def _reset(self) -> None:
        self.events.append("reset")

    def _execute(self, module_name: str, module_args: dict, task_vars: object) -> dict:
        self.events.append(f"{module_name.rpartition('.')[2]} {module_args['id']}")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self) -> dict:
        return self.action.run(None, {})


def test_a_call_without_risk_is_not_confirmed(monkeypatch) -> None:
    bed = Bed(monkeypatch, {"changed": True}, [])
    assert bed.run() == {"changed": True}
    assert bed.events == []


@pytest.mark.parametrize("failed", [False, True])
def test_it_is_confirmed_over_a_new_connection_also_where_the_call_failed(monkeypatch, failed: bool) -> None:
    bed = Bed(monkeypatch, {"unconfirmed": WAITS, "failed": failed}, [{"changed": True}])
    assert bed.run() == {"unconfirmed": WAITS, "confirmed": True, "failed": failed}
    assert bed.events == ["reset", "tuning_confirm abc"]


def test_a_local_connection_has_none_to_reset(monkeypatch) -> None:
    bed = Bed(monkeypatch, {"unconfirmed": WAITS}, [{}], transport="local")
    assert bed.run()["confirmed"]
    assert bed.events == ["tuning_confirm abc"]


def test_it_tries_until_the_machine_answers(monkeypatch) -> None:
    bed = Bed(monkeypatch, {"unconfirmed": WAITS}, [AnsibleConnectionFailure("timed out")] * 3 + [{}])
    assert bed.run()["confirmed"]
    assert bed.events.count("reset") == 4


def test_a_machine_that_does_not_answer_in_time_fails_the_task(monkeypatch) -> None:
    bed = Bed(monkeypatch, {"unconfirmed": WAITS}, [AnsibleConnectionFailure("timed out")])
    outcome = bed.run()
    assert (outcome["failed"], outcome["confirmed"]) == (True, False)
    assert outcome["msg"] == (
        "irq:eth0: changed, and not confirmed within 30 s: timed out; the machine goes back to where it was by itself"
    )


def test_a_confirmation_that_comes_too_late_is_said(monkeypatch) -> None:
    answer = {"failed": True, "msg": "nobody confirmed the call of ... in time"}
    outcome = Bed(monkeypatch, {"unconfirmed": WAITS}, [answer]).run()
    assert "nobody confirmed the call" in outcome["msg"]
