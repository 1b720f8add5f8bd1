"""The maintenance switch: queries are answered, what changes something is refused in words, whatever is restarted."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError
from scalarizr.envelope.key import ServerKey
from scalarizr.host.telling import have_settings_read
from wire import ask, sealed_request


def switch(agent: RunningAgent, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scalarizr", "--etc", str(agent.etc), "maintenance", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def refused(agent: RunningAgent, method: str, **params: Any) -> AgentError:
    with agent.client(timeout=60) as client, pytest.raises(AgentError) as caught:
        client.call(method, **params)
    return caught.value


CHANGING: list[tuple[str, dict[str, Any]]] = [
    ("trial.command", {"note": "in maintenance"}),
    ("trial.work", {"name": "in-maintenance"}),
    ("trial.work", {"name": "in-maintenance", "async": True}),
    ("system.set_hostname", {"hostname": "x.example.com", "_dry_run": True}),
    ("system.set_hostname", {"hostname": "x.example.com", "_confirm_within": 60}),
    ("sysinfo.call_auth_shutdown_hook", {}),
    ("change.revert", {"id": "x"}),
    ("change.confirm", {"id": "x"}),
    ("operation.cancel", {"operation_id": "x"}),
]


def test_queries_are_answered_and_commands_are_refused_in_words(trial_agent: RunningAgent) -> None:
    assert switch(trial_agent, "on", "--reason", "the disk is changed").returncode == 0
    for method, params in CHANGING:
        error = refused(trial_agent, method, **params)
        assert error.code == -32014 and error.data["maintenance"] is True
        assert "is in maintenance since" in error.message and "(the disk is changed)" in error.message
        assert error.message.endswith("until `scalarizr maintenance off`. Nothing was changed.")
    with trial_agent.client() as client:
        assert len(client.call("system.load_average")) == 3
        assert client.call("trial.sleep", seconds=0, text="x") == "x"
        assert client.call("operation.list") == client.call("change.list") == []
        assert client.call("rpc.describe", name="trial.command")["x-kind"] == "command"
    assert not (trial_agent.state / "commands").exists() and not (trial_agent.state / "work").exists()
    assert switch(trial_agent, "off").returncode == 0
    with trial_agent.client(timeout=60) as client:
        client.call("trial.command", note="afterwards")
    assert "end afterwards" in (trial_agent.state / "commands").read_text()


def test_in_a_batch_each_call_is_looked_at(trial_agent: RunningAgent) -> None:
    assert switch(trial_agent, "on").returncode == 0
    key = ServerKey.from_file(trial_agent.key_file)
    batch = [
        {"jsonrpc": "2.0", "method": "trial.command", "params": {}, "id": 1},
        {"jsonrpc": "2.0", "method": "trial.command", "params": {}},
        {"jsonrpc": "2.0", "method": "system.load_average", "id": 2},
    ]
    answers = ask(trial_agent.port, sealed_request(key, "/", json.dumps(batch))).opened(key)
    assert [answer.get("error", {}).get("code") for answer in answers] == [-32014, None]
    assert not (trial_agent.state / "commands").exists()


def restart(agent: RunningAgent) -> None:
    agent.stop()
    agent.start()


def kill_and_start(agent: RunningAgent) -> None:
    agent.kill()
    agent.start()


def read_again(agent: RunningAgent) -> None:
    have_settings_read(agent.state, patience=60)


@pytest.mark.parametrize("what", [restart, kill_and_start, read_again])
def test_it_stays_on_until_it_is_switched_off(trial_agent: RunningAgent, what: Callable[[RunningAgent], None]) -> None:
    assert switch(trial_agent, "on").returncode == 0
    what(trial_agent)
    assert refused(trial_agent, "trial.command").code == -32014
    assert switch(trial_agent, "off").returncode == 0
    what(trial_agent)
    with trial_agent.client(timeout=60) as client:
        client.call("trial.command", note="afterwards")


def test_what_runs_already_goes_on(trial_agent: RunningAgent) -> None:
    with trial_agent.client(timeout=60) as client:
        begun = client.call("trial.work", name="before", until_told=True, async_=True)
        assert switch(trial_agent, "on").returncode == 0
        (trial_agent.state / "work").mkdir(exist_ok=True)
        (trial_agent.state / "work" / "before.enough").touch()
        begun.wait(timeout=60)
    assert (trial_agent.state / "work" / "before.done").exists()


def test_it_can_be_asked_for_and_the_reason_be_changed(trial_agent: RunningAgent) -> None:
    assert json.loads(switch(trial_agent, "status").stdout) == {"on": False}
    switch(trial_agent, "on", "--reason", "one")
    switch(trial_agent, "on", "--reason", "two")
    told = json.loads(switch(trial_agent).stdout)
    assert told["on"] is True and told["reason"] == "two" and told["since"] > 1_700_000_000
    assert "(two)" in refused(trial_agent, "trial.command").message
    assert switch(trial_agent, "off").returncode == switch(trial_agent, "off").returncode == 0


def test_it_is_switched_without_an_agent_for_its_next_start(trial_agent: RunningAgent) -> None:
    trial_agent.stop()
    finished = switch(trial_agent, "on")
    assert finished.returncode == 0 and "it is in force from its next start" in finished.stderr
    trial_agent.start()
    assert refused(trial_agent, "trial.command").code == -32014


def test_a_switch_that_cannot_be_read_counts_as_on(trial_agent: RunningAgent) -> None:
    trial_agent.stop()
    (trial_agent.state / "maintenance").write_text("garbage")
    trial_agent.start()
    assert refused(trial_agent, "trial.command").code == -32014


def test_where_no_agent_ever_ran_nothing_is_switched(tmp_path: Path) -> None:
    (tmp_path / "scalarizr.toml").write_text(f'[paths]\nstate = "{tmp_path}/state"\n')
    command = [sys.executable, "-m", "scalarizr", "--etc", str(tmp_path), "maintenance", "on"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 2 and f"{tmp_path}/state is not there" in finished.stderr
    assert not (tmp_path / "state").exists()
