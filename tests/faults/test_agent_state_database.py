"""The operations' database damaged, emptied, gone, locked, unreadable: the agent starts, says so, and goes on."""

import errno
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fault_injection import READ, WRITE, Faults, agent_with_faults
from running_agent import RunningAgent
from scalarizr.client import AgentError, Operation
from scalarizr.host.processes import is_alive, wait_until

FAILED_OUTSIDE, INTERRUPTED = -32018, -32015


def database(agent: RunningAgent) -> Path:
    return agent.state / "operations" / "operations.db"


def at_work(agent: RunningAgent, name: str) -> tuple[str, int]:
    """Start an operation that works until it is told; gives its id and its worker."""
    with agent.client(timeout=60) as client:
        operation = client.call("trial.work", name=name, until_told=True, async_=True)
        assert wait_until(lambda: bool(operation.record().progress), 60)
        with sqlite3.connect(database(agent)) as records:
            (pid,) = records.execute("SELECT pid FROM operations WHERE id = ?", (operation.id,)).fetchone()
        records.close()
        return operation.id, pid


def let_end(agent: RunningAgent, name: str) -> None:
    (agent.state / "work" / f"{name}.enough").touch()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(pid), 60)


def left(agent: RunningAgent) -> list[str]:
    return sorted(path.name for path in (agent.state / "work").glob("*.leftover"))


def record(agent: RunningAgent, identity: str) -> Any:
    with agent.client(timeout=60) as client:
        return Operation(client, identity).record()


def spoil_table(file: Path, table: str) -> None:
    """Write garbage over the first page of a table, once all is in the file itself."""
    with sqlite3.connect(file) as records:
        assert records.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        (page,) = records.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = records.execute("PRAGMA page_size").fetchone()
    records.close()
    with open(file, "r+b") as pages:
        pages.seek((page - 1) * size)
        pages.write(b"\xa5" * size)


def without_log(file: Path) -> None:
    for ending in ("-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)


def cut(file: Path) -> None:
    without_log(file)
    os.truncate(file, file.stat().st_size // 2)


def fill_with_garbage(file: Path) -> None:
    without_log(file)
    file.write_bytes(b"garbage" * 10_000)


def empty(file: Path) -> None:
    without_log(file)
    os.truncate(file, 0)


def remove(file: Path) -> None:
    without_log(file)
    file.unlink()


@pytest.mark.parametrize(
    "damage",
    [fill_with_garbage, empty, pytest.param(cut, marks=pytest.mark.long), pytest.param(remove, marks=pytest.mark.long)],
)
def test_records_that_are_lost_are_named_and_a_new_database_is_begun(
    trial_agent: RunningAgent, damage: Callable[[Path], None]
) -> None:
    identity, worker = at_work(trial_agent, "a")
    trial_agent.kill()
    kill(worker)
    file = database(trial_agent)
    with sqlite3.connect(file) as records:
        records.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    records.close()
    damage(file)
    trial_agent.start()
    log = trial_agent.log_text()
    assert f"{file} {'is gone' if damage is remove else 'was damaged'}" in log
    assert f"lost, with whatever they had yet to undo: {identity}" in log
    assert len(list(file.parent.glob("operations.db.damaged-*[0-9]"))) == (damage is not remove)
    with trial_agent.client(timeout=60) as client:
        assert client.call("operation.list") == []
        assert not list(file.parent.glob("*.lock"))
        assert client.call("trial.work", name="b")["name"] == "b"
    assert file.stat().st_mode & 0o777 == 0o600
    trial_agent.stop()
    trial_agent.start()
    assert trial_agent.log_text().count("a new one is begun") == 2  # in both logs, once


def test_what_a_damaged_database_still_says_of_pending_undoing_is_done(trial_agent: RunningAgent) -> None:
    identity, worker = at_work(trial_agent, "a")
    trial_agent.kill()
    kill(worker)
    assert left(trial_agent) == ["a.leftover"]
    spoil_table(database(trial_agent), "lines")
    trial_agent.start()
    assert f"with what was not settled yet: {identity}" in trial_agent.log_text()
    found = record(trial_agent, identity)
    assert found.status == "failed" and "interrupted" in found.error
    assert wait_until(lambda: left(trial_agent) == [], 60)


def test_a_worker_that_lives_finds_the_new_database(trial_agent: RunningAgent) -> None:
    identity, worker = at_work(trial_agent, "a")
    trial_agent.kill()
    spoil_table(database(trial_agent), "lines")
    trial_agent.start()
    assert record(trial_agent, identity).status == "in-progress"
    let_end(trial_agent, "a")
    assert wait_until(lambda: not is_alive(worker), 60)
    found = record(trial_agent, identity)
    assert found.status == "completed" and found.result["name"] == "a"
    assert left(trial_agent) == []


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_no_file_is_left_alone_and_operations_are_refused_in_words(
    trial_agent: RunningAgent, kind: str
) -> None:
    with trial_agent.client(timeout=60) as client:
        client.call("trial.work", name="a")
    trial_agent.stop()
    file = database(trial_agent)
    aside = file.with_name("aside")
    file.rename(aside)
    without_log(file)
    file.mkdir() if kind == "directory" else file.symlink_to("/etc/hostname")
    trial_agent.start()
    with trial_agent.client(timeout=60) as client:
        assert len(client.call("system.load_average")) == 3
        with pytest.raises(AgentError) as caught:
            client.call("trial.work", name="b")
        assert caught.value.code == FAILED_OUTSIDE and f"{file} cannot be opened" in caught.value.message
        assert "looked for again later" in trial_agent.log_text()
        file.rmdir() if kind == "directory" else file.unlink()
        aside.rename(file)
        assert client.call("trial.work", name="b")["name"] == "b"
        assert [one["name"] for one in client.call("operation.list")] == ["trial.work"] * 2


@pytest.mark.parametrize("kind", [WRITE, pytest.param(READ, marks=pytest.mark.long)])
def test_a_disk_that_fails_refuses_operations_and_throws_no_record_away(tmp_path: Path, kind: int) -> None:
    faults = Faults(tmp_path / "faults")
    with agent_with_faults(tmp_path, faults) as agent, agent.client(timeout=60) as client:
        client.call("trial.work", name="a")
        agent.stop()
        agent.start()
        with faults.failing(kind, with_errno=errno.EIO, on="operations.db"), pytest.raises(AgentError) as caught:
            client.call("trial.work", name="b")
        # The agent may have what it reads in memory; the worker that has not then dies, and says why.
        assert caught.value.code in (FAILED_OUTSIDE, INTERRUPTED)
        agent.wait_for_log("disk I/O error")
        assert len(client.call("system.load_average")) == 3
        assert client.call("trial.work", name="c")["name"] == "c"
        # The agent that starts on such a disk starts.
        agent.stop()
        with faults.failing(kind, with_errno=errno.EIO, on="operations.db"):
            agent.start()
            assert "looked for again later" in agent.log_text()
        assert {"completed"} <= {one["status"] for one in client.call("operation.list")} <= {"completed", "failed"}
    assert not list(database(agent).parent.glob("*.damaged-*"))


@pytest.mark.long
def test_a_locked_database_is_waited_for_within_a_limit(trial_agent: RunningAgent) -> None:
    identity, worker = at_work(trial_agent, "a")
    holder = sqlite3.connect(database(trial_agent), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with trial_agent.client(timeout=120) as client:
        with pytest.raises(AgentError) as caught:
            client.call("trial.work", name="b")
        assert caught.value.code == FAILED_OUTSIDE and "database is locked" in caught.value.message
        assert len(client.call("system.load_average")) == 3
        assert record(trial_agent, identity).status == "in-progress"
        trial_agent.kill()
        trial_agent.start()
        assert "looked for again later" in trial_agent.log_text()
        holder.execute("ROLLBACK")
        holder.close()
        trial_agent.wait_for_log(f"operation id={identity} pid={worker} found at work")
        Operation(client, identity).cancel()
        assert wait_until(lambda: record(trial_agent, identity).status == "canceled", 60)
    assert wait_until(lambda: left(trial_agent) == [], 60)


@pytest.mark.long
def test_a_worker_that_was_stopped_while_it_held_the_records_can_be_cancelled(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent('[operations]\ncancel_timeout = "1 s"').start()
    identity, worker = at_work(agent, "a")
    # The lock is this process's: what the worker would have held when it was stopped.
    holder = sqlite3.connect(database(agent), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    os.kill(worker, signal.SIGSTOP)
    with agent.client(timeout=120) as client:
        Operation(client, identity).cancel()
        assert wait_until(lambda: not is_alive(worker), 60)
        holder.execute("ROLLBACK")
        holder.close()
        assert wait_until(lambda: record(agent, identity).finished, 90)
        assert record(agent, identity).status == "canceled"
    assert wait_until(lambda: left(agent) == [], 60)
