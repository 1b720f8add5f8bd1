"""The life of a key while its agent runs: it expires, is rotated and revoked, and its rules go wrong."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import with_test_methods
from running_agent import RunningAgent
from several_keys import (
    NOT_ALLOWED,
    REFUSED,
    command,
    done,
    error_of,
    give_key,
    holder,
    key_of,
    key_path,
    modern,
    moment,
    raw,
    read_again,
)
from wire import Connection, ask, sealed_request


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[RunningAgent]:
    made = with_test_methods(tmp_path)
    yield made
    made.__exit__()


def test_a_key_that_expires_is_refused_on_a_kept_connection(own_agent: RunningAgent) -> None:
    give_key(own_agent, "short", "*", lines=f"expires = {moment(time.time() + 3600)}")
    own_agent.start()
    key = key_of(own_agent, "short")
    with Connection(own_agent.port) as kept:
        assert "result" in kept.ask(raw(own_agent, key, "short")).opened(key)
        rules = own_agent.etc / "keys.toml"
        ends = int(time.time()) + 2
        rules.write_text(f'[short]\nallow = ["*"]\nexpires = {moment(ends)}\n')
        assert read_again(own_agent) == []
        while time.time() < ends:
            time.sleep(0.05)
        answer = kept.ask(raw(own_agent, key, "short"))
        assert (answer.status, answer.body) == (400, REFUSED)


def test_a_revoked_key_is_refused_at_once_on_a_kept_connection(agent: RunningAgent) -> None:
    done(agent, "key", "add", "guest", "--allow", "system.*")
    key = key_of(agent, "guest")
    with Connection(agent.port) as kept:
        assert "result" in kept.ask(raw(agent, key, "guest")).opened(key)
        assert "is revoked" in done(agent, "key", "revoke", "guest")
        answer = kept.ask(raw(agent, key, "guest"))
        assert (answer.status, answer.body) == (400, REFUSED)
    assert not key_path(agent, "guest").exists() and "guest" not in (agent.etc / "keys.toml").read_text()


def test_what_waits_in_a_batch_is_refused_once_the_key_is_revoked(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "trial.*")
    own_agent.start()
    key = key_of(own_agent, "guest")
    batch = [
        {**modern("trial.hold", gate="batch"), "id": 1},
        {**modern("trial.command", note="after the end"), "id": 2},
    ]
    answers: list[Any] = []

    def send() -> None:
        answers.extend(ask(own_agent.port, sealed_request(key, "/", json.dumps(batch), kid="guest")).opened(key))

    sender = threading.Thread(target=send)
    sender.start()
    deadline = time.monotonic() + 60
    while not list(own_agent.state.glob("batch.*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (own_agent.etc / "keys.toml").write_text("")
    assert read_again(own_agent) == []
    (own_agent.state / "batch.open").touch()
    sender.join(60)
    assert answers[0]["result"] is True and answers[1]["error"]["code"] == NOT_ALLOWED
    assert not (own_agent.state / "commands").exists()


def test_old_and_new_are_accepted_until_the_overlap_ends(agent: RunningAgent) -> None:
    done(agent, "key", "add", "guest", "--read-only")
    old = key_of(agent, "guest")
    assert done(agent, "key", "rotate", "guest")["state"] == "both"
    new = key_of(agent, "guest")
    assert old.raw != new.raw
    for key in (old, new):
        assert "result" in ask(agent.port, raw(agent, key, "guest")).opened(key)
    finished = command(agent, "key", "rotate", "guest")
    assert finished.returncode == 1 and "a key has one at most. Nothing was changed" in finished.stderr
    # The end of the overlap, by the clock, with no further word from anybody.
    rules = agent.etc / "keys.toml"
    ends = int(time.time()) + 2
    line = next(line for line in rules.read_text().splitlines() if line.startswith("previous_until"))
    rules.write_text(rules.read_text().replace(line, f"previous_until = {moment(ends)}"))
    assert read_again(agent) == []
    while time.time() < ends:
        time.sleep(0.05)
    answer = ask(agent.port, raw(agent, old, "guest"))
    assert (answer.status, answer.body) == (400, REFUSED)
    assert "result" in ask(agent.port, raw(agent, new, "guest")).opened(new)


def test_a_rotation_without_overlap_ends_both_old_keys(agent: RunningAgent) -> None:
    done(agent, "key", "add", "guest", "--read-only")
    first = key_of(agent, "guest")
    done(agent, "key", "rotate", "guest", "--overlap", "1 h")
    second = key_of(agent, "guest")
    done(agent, "key", "rotate", "guest", "--overlap", "0")
    third = key_of(agent, "guest")
    for key, status in ((first, 400), (second, 400), (third, 200)):
        assert ask(agent.port, raw(agent, key, "guest")).status == status
    assert not (key_path(agent, "guest.previous")).exists()


def test_the_default_key_is_rotated_and_revoked_like_any_other(agent: RunningAgent) -> None:
    old = key_of(agent)
    done(agent, "key", "rotate", "default")
    new = key_of(agent)
    for key in (old, new):
        assert "result" in ask(agent.port, sealed_request(key, "/system", modern("load_average"))).opened(key)
    done(agent, "key", "add", "admin", "--allow", "*")
    done(agent, "key", "revoke", "default")
    for key in (old, new):
        answer = ask(agent.port, sealed_request(key, "/system", modern("load_average")))
        assert (answer.status, answer.body) == (400, REFUSED)
    with holder(agent, "admin") as admin:
        assert admin.call("system.load_average")
    agent.stop()
    agent.start()
    with holder(agent, "admin") as admin:
        assert admin.call("system.load_average"), "an agent without a default key starts"


def test_rules_that_are_wrong_change_nothing_and_do_not_stop_what_runs(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "trial.sleep")
    own_agent.start()
    (own_agent.etc / "keys.toml").write_text('[guest]\nallow = ["tryal.*"]\n')
    (problem,) = read_again(own_agent)
    assert "keys.toml, line 2: [guest] allow: got 'tryal.*'" in problem and "trial, perhaps" in problem
    with holder(own_agent, "guest") as guest:
        assert guest.call("trial.sleep", seconds=0, text="x") == "x"
        assert error_of(lambda: guest.call("trial.command")).code == NOT_ALLOWED


def test_wrong_settings_do_not_keep_a_key_from_being_revoked(agent: RunningAgent) -> None:
    done(agent, "key", "add", "guest", "--allow", "*")
    key = key_of(agent, "guest")
    settings = agent.etc / "scalarizr.toml"
    right = settings.read_text()
    (agent.etc / "keys.toml").write_text("")
    settings.write_text(f"{right}\n[nonsense]\n")
    assert "[nonsense] is no section" in read_again(agent)[0]
    assert ask(agent.port, raw(agent, key, "guest")).status == 400


def test_rules_that_are_wrong_stop_the_start(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "system.uname")
    key_path(own_agent, "guest").unlink()
    own_agent.start(wait=False)
    assert own_agent.process is not None and own_agent.process.stdout is not None
    said = own_agent.process.stdout.read().decode()
    assert own_agent.process.wait(60) == 1 and "guest: the key cannot be read: No such file" in said


def test_a_restart_keeps_what_every_key_has_sent(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "system.*")
    own_agent.start()
    requests = [raw(own_agent, key_of(own_agent, identity), identity) for identity in ("default", "guest")]
    assert [ask(own_agent.port, request).status for request in requests] == [200, 200]
    own_agent.stop()
    own_agent.start()
    answers = [ask(own_agent.port, request) for request in requests]
    assert [(answer.status, answer.body) for answer in answers] == [(400, b"This request was seen before\n")] * 2
