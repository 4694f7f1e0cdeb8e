# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One engine is taken out and put back, through playbooks/gateway.yml and a real HAProxy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils import gateway_admin
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.haproxy import AdminSocket
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError, RefusedError
from rig import Engine, Gateway, Load, ask, chat, endpoint, gateway, running, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def engines():
    with running(Engine("a"), Engine("b")) as found:
        yield found


@pytest.fixture
def door(engines, tmp_path):
    a, b = engines
    with gateway(tmp_path, [endpoint(a, "m", "only-a"), endpoint(b)]) as found:
        yield found


def play(door: Gateway, *flags: str, **variables: object) -> subprocess.CompletedProcess[str]:
    known = {"socket": str(door.socket), "ansible_connection": "local", "ansible_become": False, **variables}
    command = ["ansible-playbook", "-i", "box,", "playbooks/gateway.yml", "-e", json.dumps(known), *flags]
    command += ["-e", "ansible_python_interpreter={{ ansible_playbook_python }}"]
    # The playbook is for the group of an inventory; here it is one machine.
    inventory = door.folder / "hosts"
    inventory.write_text("[workstations]\nbox\n")
    command[2] = str(inventory)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def served(door: Gateway, **headers: str) -> set[str]:
    return {ask(door.port, content=chat(), **headers).json["engine"] for _request in range(12)}


def test_the_playbook_takes_out_and_puts_back(door, engines) -> None:
    listed = play(door)
    assert "a: ready, up, 0 requests at work, 0 waiting" in listed.stdout, listed.stdout + listed.stderr
    assert "changed=0" in listed.stdout

    assert "changed=1" in play(door, "--check", backend="a", state="drain").stdout
    assert served(door) == {"a", "b"}

    done = play(door, "--diff", backend="a", state="drain")
    assert "changed=1" in done.stdout, done.stdout + done.stderr
    assert '-        "pool.a": "ready"' in done.stdout
    assert "a: drain, up" in done.stdout
    assert served(door) == {"b"}
    # The model that nobody else serves is refused and says when to come again.
    refused = ask(door.port, content=chat("only-a"))
    assert (refused.status, refused.json["error"]["code"], refused.headers["retry-after"]) == (503, "no_engine", "2")
    assert "changed=0" in play(door, backend="a", state="drain").stdout

    assert "changed=1" in play(door, backend="a", state="ready").stdout
    assert served(door) == {"a", "b"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"backend": "z", "state": "drain"}, "backend: 'z' is not one of a, b"),
        ({"backend": "a", "state": "off"}, "value of state must be one of: ready, drain, maint"),
        ({"backend": "a"}, "parameters are required together: backend, state"),
        ({"socket": "/no/such"}, "socket: /no/such: No such file or directory; is the gateway running"),
    ],
)
def test_bad_input_is_one_line(door, variables, message: str) -> None:
    done = play(door, **variables)
    assert done.returncode == 2
    assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def change(door: Gateway, name: str, state: str) -> AdminSocket:
    admin = AdminSocket(str(door.socket))
    for command in gateway_admin.commands(gateway_admin.servers(admin), name, state):
        admin.tell(command)
    return admin


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_under_load_nothing_fails_and_nothing_new_comes(door, engines, state: str) -> None:
    a, _b = engines
    for engine in engines:
        engine.told(wait_s=0.05)
    load = Load(door.port)
    load.until_more(60)
    admin = change(door, "a", state)
    gateway_admin.settle(admin, "a", 10)
    before = a.seen["requests"]
    load.until_more(60)
    assert a.seen["requests"] == before
    change(door, "a", "ready")
    until(lambda: a.seen["requests"] > before, "it works again")
    assert {reply.status for reply in load.end()} == {200}


def test_sessions_leave_a_drained_engine(door) -> None:
    at = next(iter(served(door, X_Session_Id="mine")))
    change(door, at, "drain")
    assert served(door, X_Session_Id="mine") == {"a", "b"} - {at}


def test_requests_that_do_not_end_are_named(door, engines) -> None:
    engines[0].told(wait_s=3)
    load = Load(door.port, 1, model="only-a")
    admin = AdminSocket(str(door.socket))

    def at_work() -> int:
        return gateway_admin.report(gateway_admin.servers(admin))["backends"][0]["requests"]

    until(lambda: at_work() == 1, "it works")
    change(door, "a", "drain")
    with pytest.raises(RefusedError, match="a still has 1 requests at work after 0.3 s"):
        gateway_admin.settle(admin, "a", 0.3)
    load.over.set()
    gateway_admin.settle(admin, "a", 10)
    assert {reply.status for reply in load.end()} == {200}


def test_what_is_no_gateway_is_told(tmp_path) -> None:
    with pytest.raises(RefusedError, match="No such file"):
        AdminSocket(str(tmp_path / "none")).ask("show stat")
    with pytest.raises(InputError, match="is not one of"):
        gateway_admin.commands([], "a", "drain")
