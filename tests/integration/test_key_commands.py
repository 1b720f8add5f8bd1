"""Keys by the command line: made, listed, rotated and revoked, and called with."""

import json
from pathlib import Path

import pytest

from running_agent import RunningAgent
from several_keys import command, command_in, done, key_path


def test_keys_are_made_and_listed_without_being_shown(agent: RunningAgent) -> None:
    made = done(agent, "key", "add", "guest", "--read-only", "--allow", "www.make_proxy", "--from", "127.0.0.1")
    text = key_path(agent, "guest").read_text().strip()
    assert made["file"] == str(key_path(agent, "guest")) and made["id"] == "guest"
    assert made["allow"] == ["read-only", "nginx.make_proxy"] and made["from"] == ["127.0.0.1/32"]
    assert key_path(agent, "guest").stat().st_mode & 0o777 == 0o600
    assert (agent.etc / "keys.toml").stat().st_mode & 0o777 == 0o600
    listed = command(agent, "key", "list").stdout
    assert [one["id"] for one in json.loads(listed)] == ["default", "guest"]
    assert text not in listed and text not in json.dumps(made) and text not in agent.log_text()
    shown = done(agent, "key", "rotate", "guest", "--show")
    assert shown["key"] == key_path(agent, "guest").read_text().strip() != text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "guest"], 2, "Say what the key may call"),
        (["add", "a/b", "--read-only"], 2, "1 to 64 letters"),
        (["add", "default", "--read-only"], 1, "is there already"),
        (["add", "guest", "--allow", "system.unam"], 2, "expected system.uname, perhaps"),
        (["add", "guest", "--allow", "sistem.*"], 1, "--allow: got 'sistem.*', expected a namespace"),
        (["add", "guest", "--read-only", "--from", "10.0.0.1/8"], 1, "host bits set"),
        (["add", "guest", "--read-only", "--expires", "soon"], 2, "expected 2027-01-31"),
        (["add", "guest", "--read-only", "--expires", "2020-01-01"], 2, "lies in the past"),
        (["rotate", "nobody"], 1, "There is no key nobody; there are: default."),
        (["rotate", "default", "--overlap", "-1"], 2, "expected a duration"),
        (["revoke", "../default"], 1, "There is no key ../default"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_changed(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    etc = tmp_path / "etc"
    assert command_in(etc, "init").returncode == 0
    before = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()}
    finished = command_in(etc, "key", *words)
    assert finished.returncode == status and said in finished.stderr and "Traceback" not in finished.stderr
    after = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file() and path.name != "keys.lock"}
    assert before == after


def test_without_an_agent_keys_are_changed_for_its_next_start(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert command_in(etc, "init").returncode == 0
    settings = etc / "scalarizr.toml"
    settings.write_text(f'[paths]\nstate = "{tmp_path}/state"\n')
    finished = command_in(etc, "key", "add", "guest", "--allow", "*", "--expires", "90 d")
    assert finished.returncode == 0 and "it is in force from its next start" in finished.stderr


def test_the_command_line_calls_with_a_key_of_its_own(agent: RunningAgent) -> None:
    done(agent, "key", "add", "guest", "--read-only")
    url = ("--url", agent.url)
    assert len(done(agent, "call", *url, "--key-id", "guest", "system.load_average")) == 3
    refused = command(agent, "call", *url, "--key-id", "guest", "system.set_hostname", "hostname=x.example.com")
    assert refused.returncode == 1 and "This key may not call system.set_hostname" in refused.stderr
    unknown = command(agent, "call", *url, "--key-id", "other", "--key", str(agent.key_file), "system.uname")
    assert unknown.returncode == 4
    assert command(agent, "call", *url, "--key-id", "../x", "system.uname").returncode == 2
    names = {one["name"] for one in done(agent, "methods", *url, "--key-id", "guest")}
    assert "system.uname" in names and "system.set_hostname" not in names
