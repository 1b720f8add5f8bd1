"""Changes that hold only if they are confirmed, whatever happens to the agent or the server meanwhile."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateNginx, fetch
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError
from worker_processes import processes_with

pytestmark = [pytest.mark.root, pytest.mark.nginx]


class Setup:
    """An agent and an nginx that answers `old`, with a change to `new` that waits for its confirmation."""

    def __init__(self, directory: Path) -> None:
        self.nginx = PrivateNginx(directory)
        self.agent = RunningAgent(directory, self.nginx.settings).start()
        self.api: Any = self.agent.client(timeout=60)
        self.port = free_port()
        self.call("old")
        began = time.monotonic()
        self.call("older")
        self.call("old")
        # A test has to get through its first calls in that time, however slow this machine is.
        self.within = max(5, math.ceil(6 * (time.monotonic() - began)))
        self.old = self.nginx.files()
        asked = time.time()
        made = self.call("new", _confirm_within=self.within)
        answered = time.time()
        assert made["result"] is None and self.serves() == "new"
        self.confirm_by = made["confirm_by"]
        assert asked <= self.confirm_by - self.within <= answered
        self.id = made["change_id"]

    def proxy(self, answer: str) -> dict[str, Any]:
        return {
            "hostname": "www.example.com",
            "port": self.port,
            "backends": [{"host": "10.0.0.1"}],
            "templates": [{"content": f"return 200 {answer};", "location": "/which"}],
        }

    def call(self, answer: str, **more: object) -> Any:
        return self.api.nginx.make_proxy(**self.proxy(answer), **more)

    def serves(self) -> str:
        return fetch(self.port, "www.example.com", "/which")[1]

    @property
    def record(self) -> Path:
        return self.agent.state / "changes" / "history" / self.id / "record.json"

    def status(self) -> str:
        return str(json.loads(self.record.read_bytes())["status"])

    def guard(self) -> int:
        """Give the pid of the change's guard."""
        found = next(processes_with(self.id, str(self.agent.etc)), None)
        assert found is not None, "there is no guard"
        return found

    def wait_until_it_is_over(self) -> None:
        deadline = time.monotonic() + self.within + 60
        while self.status() == "waiting" and time.monotonic() < deadline:
            time.sleep(0.05)

    def wait_until_it_would_be_over(self) -> None:
        time.sleep(max(self.confirm_by - time.time(), 0) + 0.5)

    def expect_taken_back(self) -> None:
        assert self.status() == "reverted"
        assert self.nginx.files() == self.old and self.serves() == "old"

    def close(self) -> None:
        self.api.close()
        if self.agent.process is not None and self.agent.process.returncode is None:
            self.agent.stop()
        self.nginx.stop()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.close()


def test_killed_and_not_started_again_its_guard_takes_the_change_back(setup: Setup) -> None:
    setup.agent.kill()
    setup.wait_until_it_is_over()
    assert time.time() - setup.confirm_by < 30
    setup.expect_taken_back()


def test_where_the_guard_is_killed_the_agent_takes_it_back(setup: Setup) -> None:
    os.kill(setup.guard(), signal.SIGKILL)
    setup.wait_until_it_is_over()
    setup.expect_taken_back()
    assert setup.api.change.list()[0]["status"] == "reverted"
    assert "was not confirmed and is taken back" in setup.agent.log_text()


@pytest.mark.parametrize("killed", ["guard", "agent"])
def test_the_change_of_an_operation_is_taken_back_as_well(setup: Setup, killed: str) -> None:
    setup.api.change.revert(id=setup.id)
    arguments = {"proxies": [setup.proxy("newer")], "_confirm_within": setup.within}
    operation = setup.api.nginx.reconfigure(**arguments, async_=True)
    made = operation.wait()
    setup.id = made["change_id"]
    assert setup.serves() == "newer" and setup.status() == "waiting" and made["confirm_by"] > time.time()
    os.kill(setup.guard(), signal.SIGKILL) if killed == "guard" else setup.agent.kill()
    setup.wait_until_it_is_over()
    setup.expect_taken_back()


def test_where_both_were_killed_the_next_start_takes_it_back(setup: Setup) -> None:
    os.kill(setup.guard(), signal.SIGKILL)
    setup.agent.kill()
    setup.wait_until_it_would_be_over()
    assert setup.status() == "waiting" and setup.serves() == "new"
    setup.agent.start()
    setup.expect_taken_back()


def test_started_again_in_time_the_agent_lets_it_wait_and_be_confirmed(setup: Setup) -> None:
    setup.api.change.revert(id=setup.id)
    began = time.monotonic()
    setup.agent.kill()
    setup.agent.start()
    made = setup.call("new", _confirm_within=max(5, math.ceil(4 * (time.monotonic() - began))))
    setup.id, setup.confirm_by = made["change_id"], made["confirm_by"]
    setup.agent.kill()
    setup.agent.start()
    shown = setup.api.change.show(id=setup.id)
    assert shown["status"] == "waiting" and shown["confirm_by"] > time.time()
    assert setup.api.change.confirm(id=setup.id)["status"] == "applied"
    setup.wait_until_it_would_be_over()
    assert setup.status() == "applied" and setup.serves() == "new"
    with pytest.raises(AssertionError):
        setup.guard()
    with pytest.raises(AgentError, match="waits for nothing"):
        setup.api.change.confirm(id=setup.id)


def test_another_change_of_the_service_is_refused_while_it_waits(setup: Setup) -> None:
    with pytest.raises(AgentError, match=f"The change {setup.id}.*waits.*Nothing was changed") as caught:
        setup.call("newer")
    assert caught.value.data["id"] == setup.id and setup.serves() == "new"
    setup.api.change.revert(id=setup.id)
    setup.expect_taken_back()
    assert setup.call("newer") is None and setup.serves() == "newer"


def edit_record(setup: Setup, **confirmation: object) -> None:
    record = json.loads(setup.record.read_bytes())
    record["confirmation"].update(confirmation)
    setup.record.write_text(json.dumps(record, separators=(",", ":")))


def boot_guard(setup: Setup) -> None:
    """Do what the unit for booting does."""
    subprocess.run([sys.executable, "-m", "scalarizr.guard", str(setup.agent.etc)], check=True, timeout=90)


def test_a_reboot_ends_the_wait_before_the_services_start(setup: Setup) -> None:
    os.kill(setup.guard(), signal.SIGKILL)
    setup.agent.kill()
    boot_guard(setup)
    assert setup.status() == "waiting", "the same boot: it may still be confirmed"
    setup.nginx.stop()
    deadline = time.monotonic() + 60
    while setup.nginx.master() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    edit_record(setup, boot="another boot")
    boot_guard(setup)
    assert setup.status() == "reverted" and setup.nginx.files() == setup.old and setup.nginx.master() is None


@pytest.mark.parametrize("shift", [-100_000, 100_000])
def test_a_clock_that_is_set_moves_no_deadline(setup: Setup, shift: int) -> None:
    # As found where the clock was set by that much meanwhile: the deadline by wall clock is long gone, or far away.
    edit_record(setup, by=setup.confirm_by + shift)
    boot_guard(setup)
    assert setup.status() == "waiting"
    setup.wait_until_it_is_over()
    setup.expect_taken_back()


def test_what_a_person_edited_since_is_left_and_reported(setup: Setup) -> None:
    edited = setup.nginx.proxies.read_text() + "# a person's words\n"
    setup.nginx.proxies.write_text(edited)
    setup.wait_until_it_is_over()
    assert setup.status() == "conflict" and setup.nginx.proxies.read_text() == edited
    assert setup.nginx.is_valid() and setup.serves() == "new"
    assert str(setup.nginx.proxies) in setup.agent.log_text()
    assert setup.api.nginx.add_server(backend=hashlib.sha1(b"www.example.com").hexdigest(), server="10.0.0.7") is None


def test_the_same_call_again_tells_the_change_that_waits(setup: Setup) -> None:
    again = setup.call("new", _confirm_within=600)
    assert again["change_id"] == setup.id and again["confirm_by"] == setup.confirm_by, "its own time, not a new one"
    setup.wait_until_it_is_over()
    setup.expect_taken_back()


def test_a_call_that_changes_nothing_waits_for_nothing(setup: Setup) -> None:
    setup.api.change.confirm(id=setup.id)
    assert setup.call("new", _confirm_within=5) == {"result": None, "change_id": None, "confirm_by": None}


@pytest.mark.parametrize("seconds", [4, 3601, "soon", True])
def test_a_time_that_cannot_be_is_refused(setup: Setup, seconds: object) -> None:
    with pytest.raises(AgentError) as caught:
        setup.call("newer", _confirm_within=seconds)
    assert "_confirm_within" in str(caught.value.data)
    assert setup.serves() == "new"
