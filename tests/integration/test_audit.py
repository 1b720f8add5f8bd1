"""The audit log of a running agent: a line a command, chained, with no secret in it; and the commands that read it."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.audit.chain import files_of
from scalarizr.audit.verification import verify
from scalarizr.client import AgentError

MakeAgent = Callable[..., RunningAgent]


def lines(agent: RunningAgent) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (agent.logs / "scalarizr_audit.log").read_text().splitlines()]


def of(agent: RunningAgent, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(agent) if line.get("method") == name and "event" not in line]


def run(agent: RunningAgent, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scalarizr", "audit", *words, "--etc", str(agent.etc)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_command_leaves_one_line_and_a_query_none(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        api.trial.command(note="x")
        api.trial.types(number=2)
    (line,) = of(agent, "trial.command")
    assert line["key"] == "default" and line["address"] == "127.0.0.1" and line["envelope"] == "sealed"
    assert line["outcome"] == "ok" and line["took"] >= 0 and abs(line["time"] - time.time()) < 600
    assert line["arguments"]["note"] == "x"
    assert of(agent, "trial.types") == []
    assert oct((agent.logs / "scalarizr_audit.log").stat().st_mode & 0o777) == "0o600"


def test_bad_input_has_a_line_whatever_was_called(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        for method, params in (("trial.command", {"seconds": "x"}), ("trial.nothing", {}), ("nowhere.at_all", {})):
            with pytest.raises(AgentError):
                api.call(method, **params)
    errors = [(line["method"], line["error"], line["outcome"]) for line in lines(agent) if "error" in line]
    assert errors == [
        ("trial.command", -32602, "refused"),
        ("trial.nothing", -32601, "refused"),
        ("nowhere.at_all", -32099, "refused"),
    ]


def test_messages_that_nobody_signed_become_one_line_a_minute(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=60)
        connection.request("POST", "/system", b"garbage", {"Content-Type": "application/jose"})
        assert connection.getresponse().status == 400
        connection.close()
    refused = [line for line in lines(agent) if line.get("event") == "refused"]
    assert len(refused) == 1 and refused[0]["address"] == "127.0.0.1"


def test_an_operation_has_a_line_when_it_starts_and_one_when_it_ends(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        operation = api.call("trial.work", name="w", secret="a-secret-of-mine", async_=True)
        operation.wait()
    (started,) = of(agent, "trial.work")
    assert started["outcome"] == "started" and started["operation_id"] == operation.id
    (ended,) = [line for line in lines(agent) if line.get("event") == "operation"]
    assert ended["operation_id"] == operation.id and ended["outcome"] == "completed"


def test_no_secret_is_in_it(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        access = {"key_id": "k", "key": "a-cloud-key-of-mine"}
        api.call("trial.work", name="w", secret="a-secret-of-mine", _platform_access_data=access)
    text = (agent.logs / "scalarizr_audit.log").read_text()
    assert "a-secret-of-mine" not in text and "a-cloud-key-of-mine" not in text
    assert of(agent, "trial.work")[0]["arguments"]["secret"] == "******"


def test_the_chain_goes_on_over_restarts_and_kills(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    for ending in (agent.stop, agent.kill, agent.stop):
        with agent.client() as api:
            api.trial.command(note="x")
        ending()
        agent.start()
    found = verify(files_of(agent.logs / "scalarizr_audit.log"))
    assert found.findings == [] and len(of(agent, "trial.command")) == 3
    assert not [line for line in lines(agent) if line.get("event") == "gap"]
    # After a kill messages of the same second are refused, and made anew by the client.
    events = [line["event"] for line in lines(agent) if line.get("event", "refused") != "refused"]
    assert events == ["started", "stopped", "started", "started", "stopped", "started"]


def test_verify_says_that_all_is_well_and_finds_what_is_not(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        for _ in range(3):
            api.trial.command(note="x")
    well = run(agent, "verify", "--json")
    said = json.loads(well.stdout)
    assert well.returncode == 0 and said["ok"] and said["last"] == 4
    assert run(agent, "verify", "--head", said["head"]).returncode == 0
    unknown = run(agent, "verify", "--head", "0" * 63 + "1")
    assert unknown.returncode == 1 and "No line of the log has the head" in json.loads(unknown.stdout)["findings"][0]
    assert run(agent, "verify", "--head", "garbage").returncode == 2
    path = agent.logs / "scalarizr_audit.log"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([whole[0], whole[1].replace(b"default", b"someone"), *whole[2:]]))
    altered = run(agent, "verify")
    assert altered.returncode == 1 and "line 3" in json.loads(altered.stdout)["findings"][0]
    path.write_bytes(b"".join(whole[:-1]))
    cut = run(agent, "verify")
    assert cut.returncode == 1 and "tail" in json.loads(cut.stdout)["findings"][0]


def test_the_last_commands_are_listed(make_trial_agent: MakeAgent) -> None:
    agent = make_trial_agent("").start()
    with agent.client() as api:
        api.trial.command(note="x")
    listed = json.loads(run(agent, "list", "--last", "1").stdout)
    assert [line["method"] for line in listed] == ["trial.command"]


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with RunningAgent(tmp_path, "[logs]\naudit = false\n") as agent:
        assert not (agent.logs / "scalarizr_audit.log").exists()


def test_the_change_that_a_command_made_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "hostname").write_text("old\n")
    with RunningAgent(tmp_path, paths=f'root = "{root}"') as agent, agent.client() as api:
        api.call("system.set_hostname", hostname="new.example.com")
        newest = api.call("change.list", limit=1)[0]
        assert of(agent, "system.set_hostname")[0]["change_id"] == newest["id"]
