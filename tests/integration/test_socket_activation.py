"""An agent whose sockets outlive it: restarted under load, leaving when there is nothing to do, watched over."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activated_agent import ActivatedAgent, Activator
from running_agent import RunningAgent, free_port
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.replay import ReplayStores, Seen, open_store, save_store
from scalarizr.host.files import write_file
from scalarizr.host.processes import wait_until
from unbroken_calls import Callers
from wire import founding_request, sealed_request

QUESTION: dict[str, Any] = {"method": "load_average", "params": {}, "id": 1}


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(120)
        yield made


def read_answer(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return answer


def ask(agent: RunningAgent, request: bytes) -> tuple[int, bytes]:
    """Send a request once, whatever happens; gives the status and the body."""
    with socket.create_connection(("127.0.0.1", agent.port), 120) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        head, _, body = read_answer(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def ended(agent: RunningAgent) -> bool:
    return agent.process is not None and agent.process.poll() is not None


@pytest.mark.parametrize("restarts", [6, pytest.param(20, marks=pytest.mark.long)])
def test_restarts_under_load_break_no_call(restarts: int, tmp_path: Path) -> None:
    # A thread that the computer leaves alone for long between connecting and asking is not what this is about.
    with ActivatedAgent(tmp_path, '[api]\nhead_timeout = "60 s"\n') as agent:
        with Callers(agent.port, agent.key_file, 4) as callers:
            for _ in range(restarts):
                enough = callers.calls + 20
                agent.restart()
                assert wait_until(lambda: callers.calls >= enough or callers.broken, 120)  # noqa: B023
        assert callers.broken == [] and callers.calls >= 20 * restarts


def test_who_has_connected_and_not_asked_yet_is_answered_by_the_agent_that_stops(
    tmp_path: Path, notify: socket.socket
) -> None:
    agent = ActivatedAgent(tmp_path / "agent", '[api]\nhead_timeout = "5 min"\n')
    agent.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with agent, socket.create_connection(("127.0.0.1", agent.port), 120) as early:
        assert notify.recv(100) == b"READY=1"
        key = ServerKey.from_file(agent.key_file)
        assert ask(agent, sealed_request(key, "/system", QUESTION))[0] == 200  # who came first was accepted first
        assert agent.process is not None
        agent.process.send_signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"
        with socket.create_connection(("127.0.0.1", agent.port), 120) as late:
            late.sendall(sealed_request(key, "/system", QUESTION))
            early.sendall(sealed_request(key, "/system", QUESTION))
            assert read_answer(early).startswith(b"HTTP/1.1 200 OK\r\n")
            assert agent.process.wait(120) == 0
            # Who came when it stopped already has lost nothing: the next one answers.
            agent.process.stdout.close()  # type: ignore[union-attr]
            agent.start(wait=False)
            assert late.recv(15) == b"HTTP/1.1 200 OK"


def test_an_idle_agent_leaves_and_the_next_connection_brings_it_back(tmp_path: Path) -> None:
    agent = ActivatedAgent(tmp_path, '[api]\nidle_exit = "1 s"\nidle_timeout = "60 s"\n')
    key = ServerKey.from_file(agent.key_file)
    old = founding_request(key, "/system", QUESTION)
    other = sealed_request(key, "/system", QUESTION)
    with agent.listening, Activator(agent) as activator:
        assert ask(agent, old)[0] == 200 and ask(agent, other)[0] == 200
        assert wait_until(lambda: ended(agent), 120) and agent.process is not None
        before = activator.starts
        assert agent.process.returncode == 0 and before >= 1
        assert ((agent.state / "replay").stat().st_mode & 0o777) == 0o600
        # What it had accepted it does not accept again, and what is new it does.
        for message in (old, other):
            assert ask(agent, message) == (400, b"This request was seen before\n")
        assert ask(agent, founding_request(key, "/system", {**QUESTION, "id": 2}))[0] == 200
        assert activator.starts > before
        assert wait_until(lambda: ended(agent), 120)
    log = (agent.logs / "scalarizr.log").read_text()
    assert log.count("there is nothing to do: leaving until the next connection") == activator.starts >= 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), open(disk / "fill", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        write_file(disk / "more", b"x")


@pytest.mark.root
def test_on_a_full_disk_too_a_run_that_does_not_end_well_is_known_by_the_next_start(small_disk: Path) -> None:
    path, now = small_disk / "replay", 1_800_000_000
    stores = ReplayStores(300, 1000)
    stores.accept("default", b"x" * 16, now, now)
    save_store(stores, path)
    fill(small_disk)
    assert len(open_store(path, 300, 1000, lambda: now)) == 1 and path.read_bytes() == b""
    with pytest.raises(Seen, match="not newer"):
        open_store(path, 300, 1000, lambda: now).accept("default", b"y" * 16, now, now)


@pytest.mark.root
def test_an_agent_that_has_left_comes_back_on_a_disk_that_is_full_by_then(small_disk: Path) -> None:
    agent = ActivatedAgent(small_disk, '[api]\nidle_exit = "1 s"\n')
    message = sealed_request(ServerKey.from_file(agent.key_file), "/system", QUESTION)
    with agent.listening, Activator(agent) as activator:
        assert ask(agent, message)[0] == 200
        assert wait_until(lambda: ended(agent), 120)
        fill(small_disk)
        assert ask(agent, message) == (400, b"This request was seen before\n")
        assert ask(agent, sealed_request(ServerKey.from_file(agent.key_file), "/system", QUESTION))[0] == 200
        assert wait_until(lambda: ended(agent), 120) and activator.starts >= 2


def test_it_stays_while_somebody_is_connected_or_something_runs(tmp_path: Path) -> None:
    agent = ActivatedAgent(tmp_path, '[api]\nidle_exit = "1 s"\nidle_timeout = "1 h"\n')
    script = f"#!/bin/sh\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.1; done\n"
    with agent.listening, Activator(agent) as activator:
        with agent.client() as client:
            client.call("system.load_average")  # which keeps its connection
            assert not wait_until(lambda: ended(agent), 2)
            operation = client.call("system.execute_scripts", scripts=[{"name": "a", "body": script}], async_=True).id
        assert not wait_until(lambda: ended(agent), 2)
        (tmp_path / "go").touch()
        assert wait_until(lambda: ended(agent), 120) and activator.starts == 1
        with agent.client() as client:
            assert client.call("operation.result", operation_id=operation)["status"] == "completed"
        assert activator.starts == 2
        assert wait_until(lambda: ended(agent), 120)


def test_without_a_socket_that_outlives_it_the_agent_stays_and_says_so(tmp_path: Path) -> None:
    with RunningAgent(tmp_path, '[api]\nidle_exit = "1 s"\n') as agent:
        agent.wait_for_log("idle_exit is not in force: after leaving nobody would listen on 127.0.0.1:")
        assert not wait_until(lambda: ended(agent), 2)


def test_idle_exit_is_put_in_force_by_a_reload(tmp_path: Path) -> None:
    with ActivatedAgent(tmp_path) as agent:
        agent.write_settings('[api]\nidle_exit = "1 s"\n')
        os.kill(agent.pid(), signal.SIGHUP)
        agent.wait_for_log("changed=api.idle_exit")
        assert wait_until(lambda: ended(agent), 120)


def test_nobody_reaches_the_agent_by_a_socket_that_the_settings_do_not_name(tmp_path: Path) -> None:
    agent = ActivatedAgent(tmp_path, '[api]\nidle_exit = "1 s"\n')
    stray, agent.port = agent.port, free_port()
    agent.url = f"http://127.0.0.1:{agent.port}"
    with agent:
        with agent.client() as client:
            assert len(client.call("system.load_average")) == 3
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", stray), 60)
        log = agent.wait_for_log(f"closed 127.0.0.1:{stray} of test.socket, which no `listen` of the settings names")
        assert f"idle_exit is not in force: after leaving nobody would listen on 127.0.0.1:{agent.port}" in log


def test_what_is_no_listening_socket_stops_the_start_in_words(tmp_path: Path) -> None:
    agent = ActivatedAgent(tmp_path)
    agent.listening.close()
    with socket.socket() as deaf:
        agent.listening = deaf
        agent.start(wait=False)
        assert agent.process is not None and agent.process.stdout is not None
        words = agent.process.stdout.read().decode()
        assert agent._reap() == 1
    assert "descriptor 3, passed by test.socket, is no TCP socket that listens" in words


def test_signs_of_life_go_to_systemd_and_one_that_is_ended_for_its_silence_says_where_it_was(
    tmp_path: Path, notify: socket.socket
) -> None:
    agent = ActivatedAgent(tmp_path / "agent")
    agent.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "500000"}
    agent.start()
    try:
        assert [notify.recv(100) for _ in range(4)] == [b"READY=1"] + 3 * [b"WATCHDOG=1"]
        for number in (signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT):
            os.kill(agent.pid(), number)
        assert agent.process is not None and agent.process.stdout is not None
        words = agent.process.stdout.read().decode()
        assert "Fatal Python error: Aborted" in words and "run_forever" in words
        assert agent._reap() == -signal.SIGABRT
    finally:
        agent.listening.close()


def test_systemd_s_own_activator_starts_it(tmp_path: Path) -> None:
    program = "/usr/bin/systemd-socket-activate"
    if not os.access(program, os.X_OK):
        pytest.skip(f"LEFT OUT: there is no {program}; the small virtual machine has systemd itself")
    agent = RunningAgent(tmp_path)
    address = f"127.0.0.1:{agent.port}"
    command = [program, f"--listen={address}", *agent.command, "--etc", str(agent.etc), "--listen", address]
    agent.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with socket.create_server(("127.0.0.1", 0)):
        try:
            agent.wait_until_it_answers()
            with agent.client() as client:
                assert len(client.call("system.load_average")) == 3
        finally:
            assert agent.stop() == 0
