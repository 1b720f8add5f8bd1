"""Rebooting, in a root of its own whose `systemctl` only takes a note. Nothing here can reboot this machine."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError
from scalarizr.host.processes import is_alive, wait_until


class Machine:
    """A root in which everything is this machine's but the init."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked = root / "asked"
        (root / "usr" / "bin").mkdir(parents=True)
        (root / "run" / "systemd" / "system").mkdir(parents=True)
        (root / "proc").symlink_to("/proc")
        self.let_systemctl("exit 0")

    def let_systemctl(self, end: str) -> None:
        program = self.root / "usr" / "bin" / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.asked}\n{end}\n')
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.fixture
def agent(machine: Machine, make_trial_agent: Callable[[str], RunningAgent]) -> Iterator[RunningAgent]:
    running = make_trial_agent("")
    configure(running, machine)
    yield running.start()
    pending = running.state / "reboot.lock"
    if pending.exists() and (text := pending.read_text().strip()) and is_alive(int(text)):
        os.kill(int(text), signal.SIGKILL)


def configure(agent: RunningAgent, machine: Machine, delay: str = "1 s") -> None:
    agent.write_settings(f'[system]\nreboot_delay = "{delay}"\n', f'root = "{machine.root}"')


def was_asked(machine: Machine) -> bool:
    return wait_until(machine.asked.exists, 30)


def refusal(call: Callable[..., Any], **arguments: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call(**arguments)
    return caught.value


def test_the_answer_comes_before_the_reboot(agent: RunningAgent, machine: Machine) -> None:
    with agent.client() as client:
        assert client.system.reboot() is None
        answered = time.time()
    assert was_asked(machine) and machine.asked.stat().st_mtime > answered
    assert machine.asked.read_text() == "--no-ask-password reboot\n"
    assert "reboot in 1 s" in agent.log_text()


def test_a_second_call_finds_the_first_ones_reboot(agent: RunningAgent, machine: Machine) -> None:
    with agent.client() as client:
        client.system.reboot()
        client.system.reboot()
        assert was_asked(machine)
        client.system.reboot()  # while the init is at it
    assert agent.log_text().count("is pending already") == 2 * 2, "in both logs"
    assert machine.asked.read_text().count("reboot") == 1


def test_an_agent_that_is_killed_meanwhile_changes_nothing(agent: RunningAgent, machine: Machine) -> None:
    with agent.client() as client:
        client.system.reboot()
        agent.kill()
    assert was_asked(machine)


def test_it_is_refused_while_an_operation_runs_unless_it_is_forced(agent: RunningAgent, machine: Machine) -> None:
    with agent.client() as client:
        operation = client.call("trial.work", name="a", seconds=600, async_=True)
        refused = refusal(client.system.reboot)
        assert refused.code == -32010 and refused.data["operations"] == [operation.id]
        assert "trial.work" in refused.message and "force" in refused.message
        assert not machine.asked.exists() and not (agent.state / "reboot.lock").exists()
        client.system.reboot(force=True)
        assert was_asked(machine)
        operation.cancel()
        assert wait_until(lambda: operation.record().status == "canceled", 60)


def test_an_init_that_refuses_is_logged_and_may_be_asked_again(agent: RunningAgent, machine: Machine) -> None:
    machine.let_systemctl("echo 'not now' >&2; exit 1")
    with agent.client() as client:
        client.system.reboot()
        assert wait_until(lambda: "not now" in agent.log_text(), 30)
        machine.let_systemctl("exit 0")
        asked = machine.asked.stat().st_mtime_ns

        def is_asked_again() -> bool:
            client.system.reboot()
            return machine.asked.stat().st_mtime_ns > asked

        assert wait_until(is_asked_again, 30)


def test_a_host_without_an_init_says_so(agent: RunningAgent, machine: Machine) -> None:
    (machine.root / "run" / "systemd" / "system").rmdir()
    with agent.client() as client:
        refused = refusal(client.system.reboot)
        assert refused.code == -32013 and "container" in refused.message
        assert refusal(client.system.reboot, force=True).code == -32013
    assert not machine.asked.exists() and not (agent.state / "reboot.lock").exists()
