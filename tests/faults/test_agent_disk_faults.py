"""Disks that are full, read-only or failing under a running agent: refused in words, nothing half done, well again."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_with_nginx import AgentWithNginx
from conftest import with_test_methods
from fault_injection import FSYNC, WRITE, Faults, agent_with_faults
from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Operation
from scalarizr.host.processes import wait_until

pytestmark = pytest.mark.root
FAILED_OUTSIDE = -32018


@contextmanager
def small_disk(place: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of its own, which is full soon."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True, timeout=60)


def fill(place: Path) -> None:
    """Leave no byte free: by a file that can be removed again."""
    with open(place / "filler", "ab", buffering=0) as filler:
        for piece in (b"x" * 65536, b"x" * 512, b"x"):
            try:
                while filler.write(piece) == len(piece):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC


def empty(place: Path) -> None:
    (place / "filler").unlink()


class Disk:
    """An ext4 on a file, which becomes read-only as the kernel makes one that has failed.

    :param place: where it is mounted.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._image = place.with_name(f"{place.name}.img")
        place.mkdir(parents=True, exist_ok=True)
        with open(self._image, "wb") as image:
            image.truncate(16 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True, timeout=60)
        self.mount()

    def mount(self) -> None:
        options = ["-o", "loop,errors=remount-ro"]
        subprocess.run(["mount", *options, self._image, self._place], check=True, timeout=60)

    def fail(self) -> None:
        found = subprocess.run(["findmnt", "-no", "SOURCE", self._place], check=True, capture_output=True, text=True)
        trigger = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("LEFT OUT: this kernel makes no ext4 fail on demand")
        trigger.write_text("1")

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self._place], check=True, timeout=60)


@contextmanager
def disk_below(place: Path) -> Iterator[Disk]:
    disk = Disk(place)
    try:
        yield disk
    finally:
        disk.unmount()


def error_of(call: Callable[[], Any]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call()
    return caught.value


def audit_words(agent: RunningAgent) -> tuple[int, str]:
    command = [*agent.command[:-1], "audit", "verify", "--etc", str(agent.etc)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


# Logs


def test_a_full_log_disk_stops_no_call_and_is_complained_of_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "logs") as logs:
        with RunningAgent(tmp_path) as agent, agent.client(timeout=60) as client:
            client.call("system.load_average")
            fill(logs)
            for _ in range(200):
                assert len(client.call("system.load_average")) == 3
            assert error_of(lambda: client.call("system.set_hostname", hostname="a b")).code == -32602
            empty(logs)
            for _ in range(3):
                client.call("system.load_average")
            agent.wait_for_log("call method=system.load_average")
            before = agent.log_text().count("call method=system.load_average")
            client.call("system.load_average")
            assert wait_until(lambda: agent.log_text().count("call method=system.load_average") > before, 60)
            assert error_of(lambda: client.call("system.set_hostname", hostname="a b")).code == -32602
            process = agent.process
            assert process is not None
            process.terminate()
            said = process.communicate(timeout=90)[0].decode()
        complaints = [line for line in said.splitlines() if "cannot be written" in line]
        assert sorted(line.split()[1] for line in complaints) == [
            str(logs / "scalarizr.log"),
            str(logs / "scalarizr_debug.log"),
        ]
        status, words = audit_words(agent)
        assert status == 0, words


# The state


def test_whoever_waits_for_an_operation_hears_that_its_end_cannot_be_written_down(tmp_path: Path) -> None:
    agent = with_test_methods(tmp_path)
    with small_disk(agent.state) as state, agent, ThreadPoolExecutor(1) as aside, agent.client(timeout=60) as client:
        waiting = aside.submit(lambda: error_of(lambda: client.call("trial.work", name="a", until_told=True)))
        assert wait_until((state / "work" / "a.leftover").exists, 60)
        agent.wait_for_log("params method=trial.work")
        fill(state)
        (state / "work" / "a.enough").touch()
        error = waiting.result(60)
        assert error.code == FAILED_OUTSIDE and "how cannot be written down yet" in error.message
        assert "full" in error.message and isinstance(error.data, dict)
        identity = error.data["operation_id"]
        assert Operation(client, identity).record().status == "in-progress"
        empty(state)
        assert wait_until(lambda: Operation(client, identity).record().finished, 60)
        assert wait_until(lambda: not list((state / "work").glob("*.leftover")), 60)


def test_a_state_that_becomes_read_only_refuses_what_changes_something_and_answers_all_else(tmp_path: Path) -> None:
    agent = with_test_methods(tmp_path)
    with disk_below(agent.state) as disk:
        with agent.start().client(timeout=60) as client:
            client.call("trial.work", name="a")
            operation = client.call("trial.work", name="b", until_told=True, async_=True)
            assert wait_until(lambda: bool(operation.record().progress), 60)
            disk.fail()
            error = error_of(lambda: client.call("trial.work", name="c"))
            assert error.code == FAILED_OUTSIDE and "Nothing was started" in error.message
            error = error_of(lambda: client.call("trial.command"))
            assert error.code == FAILED_OUTSIDE and "Read-only file system" in error.message
            assert len(client.call("system.load_average")) == 3
            assert {one["status"] for one in client.call("operation.list")} == {"completed", "in-progress"}
            operation.cancel()
            agent.wait_for_log(f"operation id={operation.id} cannot be settled yet")
        agent.stop()
        disk.unmount()
        disk.mount()
        with agent, agent.client(timeout=60) as client:
            assert Operation(client, operation.id).record().status == "failed"
            assert wait_until(lambda: not list((agent.state / "work").glob("*.leftover")), 60)
            assert client.call("trial.work", name="c")["name"] == "c"
            assert "internal error" not in agent.log_text()


@pytest.mark.parametrize("which", ["state", "logs"])
def test_an_agent_does_not_start_on_a_read_only_disk_and_says_which(tmp_path: Path, which: str) -> None:
    agent = RunningAgent(tmp_path)
    with disk_below(tmp_path / which) as disk:
        disk.fail()
        agent.start(wait=False)
        assert agent.process is not None
        said = agent.process.communicate(timeout=60)[0].decode()
        assert agent.process.returncode == 1
        assert f"[paths] {which}: {tmp_path / which}/" in said and "Read-only file system" in said
        assert "Traceback" not in said


# What is changed


@pytest.mark.nginx
def test_a_change_on_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "nginx") as disk:
        setup = AgentWithNginx(tmp_path)
        try:
            setup.api.nginx.make_proxy(**setup.proxy("one.example.com", "10.0.0.1"))
            files = setup.nginx.files()
            fill(disk)
            error = error_of(lambda: setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.2")))
            assert error.code == FAILED_OUTSIDE and "No space left on device" in error.message
            empty(disk)
            assert setup.nginx.files() == files
            assert setup.nginx.is_valid() and setup.statuses() == ["nginx.make_proxy applied"]
            setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.2"))
        finally:
            setup.close()


@pytest.mark.nginx
def test_a_change_on_a_disk_that_became_read_only_changes_nothing(tmp_path: Path) -> None:
    with disk_below(tmp_path / "nginx") as disk:
        setup = AgentWithNginx(tmp_path)
        try:
            setup.api.nginx.make_proxy(**setup.proxy("one.example.com", "10.0.0.1"))
            files = setup.nginx.files()
            disk.fail()
            error = error_of(lambda: setup.api.nginx.make_proxy(**setup.proxy("two.example.com", "10.0.0.2")))
            assert "Read-only file system" in error.message and "Nothing was changed" in error.message
            assert setup.nginx.files() == files and setup.statuses() == ["nginx.make_proxy applied"]
        finally:
            setup.close()


@pytest.mark.nginx
@pytest.mark.parametrize("kind", [FSYNC, pytest.param(WRITE, marks=pytest.mark.long)])
@pytest.mark.parametrize("place", ["/state/changes/", "/nginx/"])
def test_a_change_on_a_disk_that_fails_changes_nothing(tmp_path: Path, place: str, kind: int) -> None:
    faults, nginx, port = Faults(tmp_path / "faults"), PrivateNginx(tmp_path), free_port()
    call: dict[str, Any] = {"port": port, "backends": [{"host": "10.0.0.1"}]}
    try:
        with agent_with_faults(tmp_path, faults, nginx.settings) as agent, agent.client(timeout=60) as client:
            client.call("nginx.make_proxy", hostname="one.example.com", **call)
            files = nginx.files()
            with faults.failing(kind, with_errno=errno.EIO, on=place):
                error = error_of(lambda: client.call("nginx.make_proxy", hostname="two.example.com", **call))
            assert error.code == FAILED_OUTSIDE and os.strerror(errno.EIO) in error.message, error.message
            assert nginx.files() == files and nginx.is_valid()
            client.call("nginx.make_proxy", hostname="two.example.com", **call)
            assert [change["status"] for change in client.call("change.list")] == ["applied", "applied"]
            assert "internal error" not in agent.log_text()
    finally:
        nginx.stop()
