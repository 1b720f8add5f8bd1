"""The journal of changes and other state damaged on the disk: the agent starts, says so, and keeps what it can."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from running_agent import RunningAgent
from scalarizr.client import AuthenticationFailed, Client
from scalarizr.host.processes import wait_until

pytestmark = [pytest.mark.root, pytest.mark.nginx]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[AgentWithNginx]:
    made = AgentWithNginx(tmp_path)
    yield made
    made.close()


def records(setup: AgentWithNginx) -> list[Path]:
    """The records of the history, oldest first."""
    return sorted((setup.agent.state / "changes" / "history").glob("*/record.json"))


def test_records_that_cannot_be_read_are_put_aside_and_named(setup: AgentWithNginx) -> None:
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        setup.api.nginx.make_proxy(**setup.proxy("one.example.com", host))
    first, second, third = records(setup)[-3:]
    setup.agent.kill()
    first.write_bytes(b"\0" * 300)
    second.write_bytes(second.read_bytes()[:-20])
    pending = setup.agent.state / "changes" / "pending"
    cut_off = pending / "0123456789abcdef01234"
    cut_off.mkdir()
    (cut_off / "record.json").write_bytes(b'{"id": ')
    (pending / ".0123456789abcdef01235").mkdir()
    (pending / ".0123456789abcdef01235" / "record.json").write_bytes(b"")
    setup.agent.start()
    damaged = setup.agent.state / "changes" / "damaged"
    names = {f"history-{first.parent.name}", f"history-{second.parent.name}", f"pending-{cut_off.name}"}
    assert {path.name for path in damaged.iterdir()} == names and not list(pending.iterdir())
    for name in names:
        assert f"kept as {damaged / name}" in setup.agent.log_text()
    assert setup.statuses() == ["nginx.make_proxy applied"]
    setup.api.change.revert(id=third.parent.name)
    assert "10.0.0.2" in setup.nginx.upstreams.read_text()
    setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.4"))


def test_what_cannot_be_taken_back_because_it_is_damaged_is_named_and_nothing_is_guessed(setup: AgentWithNginx) -> None:
    setup.api.nginx.make_proxy(**setup.proxy("one.example.com", "10.0.0.1"))
    made = setup.api.nginx.make_proxy(**setup.proxy("one.example.com", "10.0.0.2"), _confirm_within=3600)
    files = setup.nginx.files()
    setup.agent.kill()
    (record,) = [path for path in records(setup) if path.parent.name == made["change_id"]]
    text = json.loads(record.read_bytes())
    text["confirmation"]["boot"] = "a boot before this one"
    record.write_text(json.dumps(text))
    kept = setup.agent.state / "changes" / "objects" / text["files"][0]["old"]["digest"]
    kept.write_bytes(kept.read_bytes()[:-5] + b"\xa5" * 5)
    setup.agent.start()
    assert f"{kept}: what is kept there is damaged" in setup.agent.log_text()
    assert f"remove {record.parent}" in setup.agent.log_text()
    assert setup.nginx.files() == files
    assert "waits for its confirmation" in refusal(
        setup.api.nginx.make_proxy, **setup.proxy("two.example.com", "10.0.0.3")
    )
    (record.parent / "record.json").unlink()
    record.parent.rmdir()
    setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.3"))


def test_a_damaged_record_of_opened_ports_is_put_aside_and_said(setup: AgentWithNginx) -> None:
    setup.api.nginx.make_proxy(**setup.proxy("one.example.com", "10.0.0.1"))
    setup.agent.stop()
    (setup.agent.state / "firewall.json").write_bytes(b'{"80": ')
    setup.agent.start()
    setup.agent.wait_for_log("firewall.json was damaged")
    assert (setup.agent.state / "firewall.json.damaged").read_bytes() == b'{"80": '
    setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.2"))


GARBAGE = {
    "nothing": b"",
    "a number too long": b"9" * 5000 + b" " + b"0" * 64 + b"\n",
    "the beginning of the real one": b"scalarizr replay 2\n" + b"\xff" * 5,
    "lengths that lead nowhere": b"scalarizr replay 1\n" + b"\xff" * 64,
}


def test_whatever_stands_in_the_other_files_of_the_state_the_agent_starts(tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path)
    agent.start()
    agent.stop()
    for garbage in GARBAGE.values():
        for name in ("replay", "audit-head", "reloaded", "lock"):
            (agent.state / name).write_bytes(garbage)
        agent.start()
        with agent.client(timeout=60) as client:
            # What was accepted before is unknown: nothing up to the present second is believed.
            assert wait_until(lambda client=client: accepts(client), 60)
        agent.stop()
    assert "Traceback" not in agent.log_text()


def accepts(client: Client) -> bool:
    try:
        return len(client.call("system.load_average")) == 3
    except AuthenticationFailed:
        return False
