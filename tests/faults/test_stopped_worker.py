"""Workers that are stopped, or killed because memory ran out: known for what they are, and in nobody's way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, Operation
from scalarizr.host.processes import wait_until
from scalarizr.operations.record import Job
from scalarizr.operations.worker_process import start_worker
from worker_processes import worker_pid

_MEMORY = Path("/sys/fs/cgroup/memory")


@contextmanager
def memory_group(name: str, limit: int) -> Iterator[Path]:
    """A control group that may use so much memory."""
    group = _MEMORY / name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"LEFT OUT: there is no memory control group to be had: {error}")
    try:
        yield group
    finally:
        assert wait_until(lambda: not (group / "cgroup.procs").read_text(), 60)
        group.rmdir()


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_worker_that_is_stopped_before_it_listens_holds_nobody_up(tmp_path: Path) -> None:
    stops_itself = [sys.executable, "-c", "import os, sys; os.kill(os.getpid(), 19); sys.stdin.read()"]
    job = Job(params={"text": "x" * 5_000_000}, shown_params={})
    worker = start_worker(stops_itself, "a", "do", job, tmp_path / "db", tmp_path / "a.lock", tmp_path / "a.stderr")
    try:
        assert wait_until(lambda: is_stopped(worker.pid), 60)
        os.kill(worker.pid, signal.SIGCONT)
        assert worker.process.wait(60) == 0
    finally:
        if worker.process.returncode is None:
            worker.process.kill()
            worker.process.wait()
        os.close(worker.pidfd)


def test_a_stopped_worker_is_alive_slows_nobody_and_goes_on(trial_agent: RunningAgent) -> None:
    with trial_agent.client(timeout=60) as client:
        operation = client.call("trial.work", name="a", until_told=True, async_=True)
        assert wait_until(lambda: bool(operation.record().progress), 60)
        pid = worker_pid(operation)
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: is_stopped(pid), 60)
        (trial_agent.state / "work" / "a.enough").touch()
        assert operation.record().status == "in-progress" and client.call("operation.has_in_progress") is True
        with pytest.raises(AgentError) as caught:
            client.call("trial.work", name="a")
        assert caught.value.code == -32010
        assert client.call("trial.work", name="b")["name"] == "b"
        assert len(client.call("system.load_average")) == 3
        # The lock tells, and no answer of the process: the next agent finds it alive, too.
        trial_agent.kill()
        trial_agent.start()
        trial_agent.wait_for_log(f"operation id={operation.id} pid={pid} found at work")
        again = Operation(client, operation.id)
        assert again.record().status == "in-progress" and is_stopped(pid)
        os.kill(pid, signal.SIGCONT)
        assert again.wait(timeout=60)["pid"] == pid


@pytest.mark.root
def test_a_worker_for_which_memory_ran_out_says_so_and_what_it_began_is_undone(tmp_path: Path) -> None:
    program = Path(__file__).with_name("greedy_program.py")
    agent = RunningAgent(tmp_path, command=[sys.executable, str(program)])
    with memory_group(f"scalarizr-test-{os.getpid()}", 64 * 2**20) as group, agent, agent.client(timeout=60) as client:
        operation = client.call("greedy.eat", size=500 * 2**20, async_=True)
        assert wait_until(lambda: bool(operation.record().progress), 60)
        (group / "cgroup.procs").write_text(str(worker_pid(operation)))
        (agent.state / "eat").touch()
        assert wait_until(lambda: operation.record().finished, 60)
        record = operation.record()
        assert (record.status, record.error_code) == ("failed", -32015)
        assert record.error == (
            "The operation was interrupted: its worker process was killed by SIGKILL, as the kernel does where memory "
            "runs out. What it had begun is being undone."
        )
        assert wait_until(lambda: not (agent.state / "half-eaten").exists(), 60)
        assert len(client.call("system.load_average")) == 3


def test_the_control_group_really_kills(tmp_path: Path) -> None:
    """That the test above tests something: the same without an agent."""
    if os.geteuid() != 0:
        pytest.skip("LEFT OUT: needs root")
    with memory_group(f"scalarizr-trial-{os.getpid()}", 64 * 2**20) as group:
        eats = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); len(bytes(1) * (500 << 20))"
        done = subprocess.run([sys.executable, "-c", eats], cwd=tmp_path, timeout=60)
        assert done.returncode == -signal.SIGKILL
