"""The clock of the day set hours forward and back while the agent runs, by whoever keeps the time."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fault_injection import Faults, agent_with_faults
from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import AuthenticationFailed
from scalarizr.envelope.key import ServerKey
from wire import ask, sealed_request

HOUR = 3600


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


@pytest.fixture
def agent(tmp_path: Path, faults: Faults) -> Iterator[RunningAgent]:
    with agent_with_faults(tmp_path, faults) as running:
        yield running


def request(agent: RunningAgent, seconds_ahead: float) -> bytes:
    """A call as a client signs it whose clock is so far ahead of the real one."""
    key = ServerKey.from_file(agent.key_file)
    call = {"jsonrpc": "2.0", "method": "system.load_average", "params": {}, "id": 1}
    return sealed_request(key, "/", call, iat=int(time.time() + seconds_ahead))


def status(agent: RunningAgent, message: bytes) -> int:
    return ask(agent.port, message).status


def test_a_message_is_accepted_once_wherever_the_clock_goes_meanwhile(agent: RunningAgent, faults: Faults) -> None:
    first = request(agent, 0)
    assert status(agent, first) == 200
    faults.set_clock(3 * HOUR)
    assert status(agent, first) == 400
    ahead = request(agent, 3 * HOUR)
    assert status(agent, ahead) == 200
    # Set right again: what was said before the leap is known, or too old to be believed.
    faults.set_clock(0)
    assert [status(agent, message) for message in (first, ahead)] == [400, 400]
    assert status(agent, request(agent, 1)) == 200
    faults.set_clock(-3 * HOUR)
    assert status(agent, first) == 400
    faults.set_clock(3 * HOUR)
    assert status(agent, ahead) == 400


def test_started_after_a_crash_by_a_clock_that_is_ahead_it_believes_nothing_older_until_its_memory_is_taken_away(
    agent: RunningAgent, faults: Faults
) -> None:
    agent.kill()
    faults.set_clock(5 * HOUR)
    agent.start()
    faults.set_clock(0)
    answer = ask(agent.port, request(agent, 1))
    assert answer.status == 400 and b"remove the file replay from its state directory" in answer.body
    agent.stop()
    (agent.state / "replay").unlink()
    agent.start()
    assert status(agent, request(agent, 1)) == 200


def test_what_was_accepted_by_a_clock_that_is_ahead_is_not_believed_again_and_it_says_what_to_do(
    agent: RunningAgent, faults: Faults
) -> None:
    accepted = []
    for hours in (2, 3, 4):
        faults.set_clock(hours * HOUR)
        accepted.append(request(agent, hours * HOUR))
        assert status(agent, accepted[-1]) == 200
    faults.set_clock(0)
    # The two oldest are forgotten: whatever is not newer might be one of them.
    answer = ask(agent.port, request(agent, 1))
    assert answer.status == 400 and b"was ahead and has been set back" in answer.body
    for hours, message in zip((2, 3, 4), accepted, strict=True):
        faults.set_clock(hours * HOUR)
        assert status(agent, message) == 400
    faults.set_clock(4 * HOUR)
    assert status(agent, request(agent, 4 * HOUR + 1)) == 200


@pytest.mark.parametrize("shift", [5 * HOUR, -5 * HOUR])
def test_a_client_whose_clock_is_right_hears_that_the_servers_is_not(
    agent: RunningAgent, faults: Faults, shift: int
) -> None:
    with agent.client(timeout=60) as client:
        assert len(client.call("system.load_average")) == 3
        faults.set_clock(shift)
        with pytest.raises(AuthenticationFailed, match="clock"):
            client.call("system.load_average")
        faults.set_clock(0)
        assert len(client.call("system.load_average")) == 3


@pytest.mark.parametrize("shift", [5 * HOUR, pytest.param(-5 * HOUR, marks=pytest.mark.long)])
def test_an_operation_goes_on_is_found_and_its_record_is_kept(agent: RunningAgent, faults: Faults, shift: int) -> None:
    with agent.client(timeout=60) as client:
        operation = client.call("trial.work", name="a", until_told=True, async_=True)
        faults.set_clock(shift)
        (agent.state / "work" / "a.enough").parent.mkdir(exist_ok=True)
        (agent.state / "work" / "a.enough").touch()
        faults.set_clock(0)
        assert operation.wait()["name"] == "a"
        faults.set_clock(shift)
    agent.stop()
    agent.start()
    faults.set_clock(0)
    with agent.client(timeout=60) as client:
        (record,) = client.call("operation.list")
        assert record["status"] == "completed"
        assert client.call("trial.work", name="a")["name"] == "a"


def confirmed_proxy(port: int, answer: str) -> dict[str, Any]:
    return {
        "hostname": "www.example.com",
        "port": port,
        "backends": [{"host": "10.0.0.1"}],
        "templates": [{"content": f"return 200 {answer};", "location": "/which"}],
    }


@pytest.mark.root
@pytest.mark.nginx
def test_the_history_stays_in_order_and_a_wait_lasts_as_long_as_was_said(tmp_path: Path, faults: Faults) -> None:
    nginx, port = PrivateNginx(tmp_path), free_port()
    try:
        with agent_with_faults(tmp_path, faults, nginx.settings + "[changes]\nkeep = 2\n") as agent:
            ids = []
            # The last one is confirmed ten hours later by the clock, and within the one that it had in the world.
            leaps = ((5 * HOUR, 0), (0, -5 * HOUR), (-5 * HOUR, 5 * HOUR))
            for number, (made, shift) in enumerate(leaps):
                faults.set_clock(made)
                call = {**confirmed_proxy(port, str(number)), "_confirm_within": HOUR}
                waiting = shifted_call(agent, made, "nginx.make_proxy", **call)["change_id"]
                faults.set_clock(shift)
                assert shifted_call(agent, shift, "change.list")[0]["status"] == "waiting"
                shifted_call(agent, shift, "change.confirm", id=waiting)
                ids.append(waiting)
            # The newest ones are kept, whatever the clock said when they were made.
            kept = [change["id"] for change in shifted_call(agent, shift, "change.list")]
            assert kept == [ids[2], ids[1]]
            shifted_call(agent, shift, "change.revert", id=ids[2])
            assert "return 200 1;" in nginx.proxies.read_text()
    finally:
        nginx.stop()


def shifted_call(agent: RunningAgent, shift: int, method: str, **params: Any) -> Any:
    """Call as a client does whose clock is off as much as the server's."""
    key = ServerKey.from_file(agent.key_file)
    call = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    answer = ask(agent.port, sealed_request(key, "/", call, iat=int(time.time() + shift))).opened(key)
    assert "error" not in answer, answer
    return answer["result"]
