"""The key file replaced, emptied, unreadable, gone while the agent runs: the old key stays until a good one comes."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fault_injection import OPEN, READ, Faults, agent_with_faults
from running_agent import RunningAgent
from scalarizr.client import AuthenticationFailed, Client
from scalarizr.envelope.key import make_key_text
from scalarizr.host.telling import have_settings_read


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, faults: Faults) -> Iterator[RunningAgent]:
    with agent_with_faults(tmp_path_factory.mktemp("agent"), faults) as running:
        yield running


def read_again(agent: RunningAgent) -> list[str]:
    word = have_settings_read(agent.state, patience=60)
    assert word is not None
    return word.problems


def calls_with(agent: RunningAgent, key: bytes) -> bool:
    with Client(agent.url, key=key.decode(), timeout=60) as client:
        try:
            return len(client.call("system.load_average")) == 3
        except AuthenticationFailed:
            return False


def put(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def replace_by_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def replace_by_link_to_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("/nowhere/at/all")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda file: file.unlink(), "No such file or directory"),
    "empty": (lambda file: put(file, b""), "the key has 0 bytes"),
    "cut": (lambda file: put(file, make_key_text()[:20] + b"\n"), "the key has 15 bytes"),
    "garbage": (lambda file: put(file, b"\xff\x00" * 40), "not base64"),
    "enormous": (lambda file: put(file, b"\x80" * 10_000_000), "not base64"),
    "a directory": (replace_by_directory, "directory"),
    "a pipe": (replace_by_pipe, "no regular file"),
    "a link to nowhere": (replace_by_link_to_nowhere, "No such file or directory"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_key_that_cannot_be_used_leaves_the_old_one_in_force(agent: RunningAgent, damage: str) -> None:
    file, text = agent.key_file, agent.key_file.read_bytes()
    change, words = DAMAGES[damage]
    change(file)
    try:
        (problem,) = read_again(agent)
        assert str(file) in problem and words in problem
        assert calls_with(agent, text)
        assert f"not re-read, the old ones stay in force: {problem}" in agent.log_text()
        assert text.decode().strip() not in agent.log_text()
    finally:
        file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
        put(file, text)
        file.chmod(0o600)
    assert read_again(agent) == []
    assert calls_with(agent, text)


@pytest.mark.parametrize(("kind", "number"), [(OPEN, errno.EACCES), (OPEN, errno.EMFILE), (READ, errno.EIO)])
def test_a_key_that_cannot_be_read_leaves_the_old_one_in_force(
    agent: RunningAgent, faults: Faults, kind: int, number: int
) -> None:
    old = agent.key_file.read_bytes()
    with faults.failing(kind, with_errno=number, on="private.d/keys/default"):
        (problem,) = read_again(agent)
        assert str(agent.key_file) in problem and os.strerror(number) in problem
        assert calls_with(agent, old)
    assert read_again(agent) == []


def test_another_key_is_in_force_from_the_moment_that_it_is_read(agent: RunningAgent) -> None:
    old = agent.key_file.read_bytes()
    put(agent.key_file, make_key_text())
    new = agent.key_file.read_bytes()
    assert calls_with(agent, old) and not calls_with(agent, new)
    assert read_again(agent) == []
    assert calls_with(agent, new) and not calls_with(agent, old)


@pytest.mark.parametrize("damage", ["gone", "empty", "a directory", "a pipe"])
def test_an_agent_does_not_start_with_a_key_that_cannot_be_used(tmp_path: Path, damage: str) -> None:
    agent = RunningAgent(tmp_path)
    change, words = DAMAGES[damage]
    change(agent.key_file)
    agent.start(wait=False)
    assert agent.process is not None
    said = agent.process.communicate(timeout=60)[0].decode()
    assert agent.process.returncode == 1
    assert str(agent.key_file) in said and words in said and "Traceback" not in said
    assert not (agent.state / "lock").exists()
