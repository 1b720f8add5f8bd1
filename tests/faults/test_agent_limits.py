"""An agent that gets no descriptor, no process, no thread or no memory any more, and then gets them again."""

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fault_injection import ACCEPT, FORK, THREAD, Faults, agent_with_faults
from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError
from scalarizr.host.processes import wait_until

FAILED_OUTSIDE = -32018


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def agent(tmp_path: Path, faults: Faults) -> Iterator[RunningAgent]:
    faults.heal()
    with agent_with_faults(tmp_path, faults) as running:
        yield running
        faults.heal()


def error_of(call: Callable[[], Any]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call()
    return caught.value


def answers_health(agent: RunningAgent) -> bool:
    with socket.create_connection(("127.0.0.1", agent.port), 60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b" 200 " in connection.recv(1000)


def descriptors(agent: RunningAgent) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{agent.pid()}/fd")]


def left_of_operations(agent: RunningAgent) -> set[str]:
    work = agent.state / "work"
    return {path.name for path in work.iterdir()} if work.exists() else set()


# Descriptors


def test_without_descriptors_kept_connections_are_served_and_new_ones_wait(agent: RunningAgent) -> None:
    with agent.client(timeout=60) as kept:
        assert kept.call("trial.sleep", seconds=0, text="x") == "x"
        limit = max(descriptors(agent)) + 1
        before = resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE)
        resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE, (limit, before[1]))
        with socket.create_connection(("127.0.0.1", agent.port), 60) as waiting:
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            agent.wait_for_log("no more connections can be taken")
            for _ in range(20):
                assert kept.call("trial.sleep", seconds=0, text="x") == "x"
            resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE, before)
            waiting.settimeout(60)
            assert b" 200 " in waiting.recv(1000)
        assert answers_health(agent)


def test_the_lack_of_descriptors_is_logged_once_and_looked_at_once_a_second(
    agent: RunningAgent, faults: Faults
) -> None:
    tried, began = faults.count(ACCEPT), time.monotonic()
    faults.fail(ACCEPT, with_errno=errno.EMFILE)
    with socket.create_connection(("127.0.0.1", agent.port), 60) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert wait_until(lambda: faults.count(ACCEPT) - tried >= 3, 60)
        assert faults.count(ACCEPT) - tried <= time.monotonic() - began + 2
        faults.heal()
        waiting.settimeout(60)
        assert b" 200 " in waiting.recv(1000)
    assert agent.log_text().count("no more connections can be taken: Too many open files") == 2  # in both logs
    assert "Traceback" not in agent.log_text()


def test_an_operation_without_descriptors_is_refused_in_words_and_leaves_nothing(agent: RunningAgent) -> None:
    with agent.client(timeout=60) as client:
        assert client.call("trial.work", name="before")["name"] == "before"
        usual = resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE)
        held = max(descriptors(agent)) + 1
        free = held - len(descriptors(agent))
        # With each number of descriptors it fails at another step.
        for more in range(8):
            resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE, (held - free + more, usual[1]))
            try:
                result = client.call("trial.work", name=f"with-{more}")
                assert result["name"] == f"with-{more}"
            except AgentError as error:
                assert error.code == FAILED_OUTSIDE and "Too many open files" in error.message, error.message
            resource.prlimit(agent.pid(), resource.RLIMIT_NOFILE, usual)
            assert wait_until(lambda: not client.call("operation.has_in_progress"), 60)
        done = {name.partition(".")[0] for name in left_of_operations(agent) if name.endswith(".done")}
        assert not [name for name in left_of_operations(agent) if name.endswith(".leftover")]
        assert client.call("trial.work", name="with-0")["name"] == "with-0"
        assert "before" in done
        assert "internal error" not in agent.log_text()
    assert wait_until(lambda: len(descriptors(agent)) <= held + 3, 60)


# Processes and threads


def test_an_operation_that_cannot_be_started_says_so_and_leaves_nothing(agent: RunningAgent, faults: Faults) -> None:
    with agent.client(timeout=60) as client:
        with faults.failing(FORK, with_errno=errno.EAGAIN):
            error = error_of(lambda: client.call("trial.work", name="a"))
            assert error.code == FAILED_OUTSIDE
            assert error.message == ("A worker cannot be started: Resource temporarily unavailable. Nothing was done.")
            operation = client.call("trial.work", name="b", async_=True)
            assert wait_until(lambda: operation.record().finished, 60)
            record = operation.record()
            assert record.status == "failed" and "cannot be started" in (record.error or "")
            assert len(client.call("system.load_average")) == 3
        assert left_of_operations(agent) == set()
        for name in ("a", "b"):
            assert client.call("trial.work", name=name)["name"] == name


@pytest.mark.root
@pytest.mark.nginx
@pytest.mark.parametrize("started", range(2))
def test_a_change_whose_programs_cannot_be_started_changes_nothing(
    tmp_path: Path, faults: Faults, started: int
) -> None:
    nginx = PrivateNginx(tmp_path)
    port = free_port()
    faults.heal()
    try:
        with agent_with_faults(tmp_path, faults, nginx.settings) as agent, agent.client(timeout=60) as client:
            proxy: dict[str, Any] = {"port": port, "backends": [{"host": "10.0.0.1"}]}
            client.call("nginx.make_proxy", hostname="one.example.com", **proxy)
            files = nginx.files()
            with faults.failing(FORK, with_errno=errno.EAGAIN, after=started):
                call = {"hostname": "two.example.com", **proxy, "_confirm_within": 3600}
                error = error_of(lambda: client.call("nginx.make_proxy", **call))
                assert error.code == FAILED_OUTSIDE and "Resource temporarily unavailable" in error.message
            assert nginx.files() == files and nginx.is_valid()
            assert [change["status"] for change in client.call("change.list")] == ["applied"]
            assert "internal error" not in agent.log_text()
            client.call("nginx.make_proxy", hostname="two.example.com", **proxy)
    finally:
        faults.heal()
        nginx.stop()


def test_a_call_for_which_no_thread_can_be_started_is_refused_and_never_made(
    agent: RunningAgent, faults: Faults
) -> None:
    def made() -> list[str]:
        commands = agent.state / "commands"
        return commands.read_text().splitlines() if commands.exists() else []

    with agent.client(timeout=60) as client:
        with faults.failing(THREAD, with_errno=errno.EAGAIN):
            error = error_of(lambda: client.call("trial.command", note="first"))
            assert error.code == FAILED_OUTSIDE and "Nothing was done" in error.message
            error = error_of(lambda: client.call("trial.work", name="a"))
            assert error.code == FAILED_OUTSIDE and "Nothing was" in error.message
        assert client.call("trial.command", note="second") == "second"
        assert made() == ["begin second", "end second"]
        assert client.call("trial.work", name="a")["name"] == "a"
    assert "internal error" not in agent.log_text()
