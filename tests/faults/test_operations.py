"""Operations under fire: agents and workers killed, cancelled, restarted; nothing lost, nothing run twice."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, Client, ClientError, Operation
from waiting import wait_for
from worker_processes import worker_pid


def started(client: Client, name: str, **arguments: Any) -> Operation:
    operation = client.call("trial.work", name=name, async_=True, **arguments)
    assert isinstance(operation, Operation)
    return operation


def started_or_busy(client: Client, name: str) -> Operation | None:
    try:
        return started(client, name)
    except AgentError as error:
        assert error.code == -32010  # what the last one left is just being undone
        return None


def at_work(client: Client, name: str, **arguments: Any) -> Operation:
    operation = started(client, name, **arguments)
    wait_for(lambda: operation.record().progress)
    return operation


def files(agent: RunningAgent, name: str) -> set[str]:
    return {path.suffix[1:] for path in (agent.state / "work").glob(f"{name}.*")} - {"enough"}


def let_end(agent: RunningAgent, name: str) -> None:
    """Let an operation that works until it is told come to its end."""
    (agent.state / "work" / f"{name}.enough").touch()


def runs(agent: RunningAgent, name: str) -> int:
    return len((agent.state / "work" / f"{name}.started").read_text().splitlines())


def test_an_operation_shows_progress_lines_and_its_result(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        records: list[Any] = []
        further = {"secret": "planted-secret", "_platform_access_data": {"key": "planted-2"}}
        operation = started(client, "a", seconds=1, until_told=True, **further)

        def look(record: Any) -> None:
            records.append(record)
            if record.progress:
                let_end(trial_agent, "a")

        result = operation.wait(look)
        assert result["name"] == "a" and result["secret"] == "******" and result["access"] == ["key"]
        last = records[-1]
        assert last.status == "completed" and last.logs == ["working on a with ******"]
        assert last.progress == {"done": 20, "total": 20, "unit": "steps", "step": "done", "percent": 100.0}
        assert last.trace is None and last.finished_at >= last.started_at
        assert any(record.status == "in-progress" and record.progress for record in records)
        assert files(trial_agent, "a") == {"started", "done"}


def test_without_async_the_answer_is_the_result(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        assert client.call("trial.work", name="b")["name"] == "b"
        with pytest.raises(AgentError) as caught:
            client.call("trial.work", name="b", how="refuse")
        assert caught.value.code == -32014 and "b is refused" in caught.value.message


def test_a_second_one_on_the_same_resource_is_refused_with_the_firsts_id(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        first = at_work(client, "c", until_told=True)
        with pytest.raises(AgentError) as caught:
            started(client, "c")
        assert caught.value.code == -32010 and caught.value.data["operation_id"] == first.id
        started(client, "d").wait()
        let_end(trial_agent, "c")
        first.wait()
        started(client, "c").wait()


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("refuse", -32014, "is refused"), ("bug", -32603, "log explains"), ("die", -32015, "interrupted")],
)
def test_one_that_fails_says_why_and_leaves_nothing(trial_agent: RunningAgent, how: str, code: int, words: str) -> None:
    with trial_agent.client() as client:
        operation = started(client, "e", how=how, secret="planted-secret")
        with pytest.raises(AgentError, match=words) as caught:
            operation.wait()
        assert caught.value.code == code and "planted" not in str(caught.value)
        record = operation.record()
        assert record.status == "failed" and record.error_code == code
        wait_for(lambda: files(trial_agent, "e") == {"started"})
        assert wait_for(lambda: started_or_busy(client, "e")).wait()["name"] == "e"


def test_a_cancelled_one_undoes_what_it_began(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = at_work(client, "f", until_told=True)
        operation.cancel()
        record = wait_for(lambda: (record := operation.record()).finished and record)
        assert record.status == "canceled" and files(trial_agent, "f") == {"started"}
        operation.cancel()
        assert operation.record().status == "canceled"


def test_a_cancellation_that_comes_too_late_changes_nothing(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = started(client, "g")
        operation.wait()
        operation.cancel()
        assert operation.record().status == "completed"


def test_one_that_does_not_listen_is_killed_after_the_limit(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent('[operations]\ncancel_timeout = "1 s"').start()
    with agent.client() as client:
        operation = at_work(client, "h", until_told=True, how="deaf")
        stopped = at_work(client, "i", until_told=True)
        os.kill(worker_pid(stopped), signal.SIGSTOP)
        assert stopped.record().status == "in-progress"
        for one in (operation, stopped):
            one.cancel()
        for one, name in ((operation, "h"), (stopped, "i")):
            record = wait_for(lambda one=one: (record := one.record()).finished and record)
            assert record.status == "canceled"
            wait_for(lambda name=name: files(agent, name) == {"started"})


def test_more_than_may_run_at_once_wait_their_turn(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("[operations]\nparallel = 1").start()
    with agent.client() as client:
        first = at_work(client, "j", until_told=True)
        second = started(client, "k")
        third = started(client, "l")
        assert second.record().status == "new" and client.call("operation.has_in_progress") is True
        third.cancel()
        assert third.record().status == "canceled"
        first.cancel()
        assert second.wait()["name"] == "k"
        assert client.call("operation.has_in_progress") is False
        assert [record["name"] for record in client.call("operation.list", status="canceled")] == ["trial.work"] * 2
        assert [record["id"] for record in client.call("operation.list", limit=2)] == [third.id, second.id]
        assert not (agent.state / "work" / "l.started").exists()


def test_it_goes_on_while_the_agent_is_restarted_and_is_found_again(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = at_work(client, "m", until_told=True)
    assert trial_agent.stop() == 0
    trial_agent.start()
    with trial_agent.client() as client:
        again = Operation(client, operation.id)
        assert again.record().status == "in-progress"
        let_end(trial_agent, "m")
        assert again.wait(timeout=90)["name"] == "m"
    assert runs(trial_agent, "m") == 1


def test_an_adopted_one_can_be_cancelled(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = at_work(client, "n", until_told=True)
    trial_agent.kill()
    trial_agent.start()
    with trial_agent.client() as client:
        again = Operation(client, operation.id)
        assert again.record().status == "in-progress"
        again.cancel()
        record = wait_for(lambda: (record := again.record()).finished and record)
        assert record.status == "canceled" and files(trial_agent, "n") == {"started"}


def test_what_had_not_begun_when_the_agent_stopped_is_interrupted(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent("[operations]\nparallel = 1").start()
    with agent.client() as client:
        first = at_work(client, "o", until_told=True)
        second = started(client, "p")
    agent.stop()
    agent.start()
    with agent.client() as client:
        record = Operation(client, second.id).record()
        assert (record.status, record.error_code) == ("failed", -32015) and "interrupted" in (record.error or "")
        let_end(agent, "o")
        Operation(client, first.id).wait(timeout=90)


def test_agent_and_worker_killed_together_leave_a_failed_record_and_no_leftover(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = at_work(client, "q", until_told=True)
    os.kill(worker_pid(operation), signal.SIGKILL)
    trial_agent.kill()
    trial_agent.start()
    with trial_agent.client() as client:
        record = Operation(client, operation.id).record()
        assert record.status == "failed" and "interrupted" in (record.error or "")
        wait_for(lambda: files(trial_agent, "q") == {"started"})


def test_a_worker_that_died_is_reaped(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        operation = at_work(client, "r", until_told=True)
        pid = worker_pid(operation)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: operation.record().finished)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_old_records_are_pruned(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent('[operations]\nkeep = "1 s"').start()
    with agent.client() as client:
        operation = started(client, "s")
        operation.wait()
        time.sleep(1.2)
        started(client, "t").wait()
        with pytest.raises(AgentError) as caught:
            operation.record()
        assert caught.value.code == -32011
    assert len(list((agent.state / "operations").glob("*.lock"))) == 1


def test_a_damaged_database_is_put_aside(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        worker = started(client, "u").wait()["pid"]
    # A worker that closes the database last writes every page of it once more.
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    trial_agent.stop()
    database = trial_agent.state / "operations" / "operations.db"
    database.write_bytes(b"garbage" * 10_000)
    trial_agent.start()
    with trial_agent.client() as client:
        assert client.call("operation.list") == []
        assert started(client, "v").wait()["name"] == "v"
    assert "was damaged" in trial_agent.log_text()
    assert list(database.parent.glob("operations.db.damaged-*"))


@pytest.mark.root
def test_a_full_disk_refuses_the_operation(tmp_path: Path) -> None:
    import subprocess

    from conftest import with_test_methods

    agent = with_test_methods(tmp_path)
    agent.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", agent.state], check=True)
    try:
        with agent, agent.client() as client:
            started(client, "w").wait()
            try:
                with open(agent.state / "filler", "wb", buffering=0) as filler:
                    while filler.write(b"x" * 4096):
                        pass
            except OSError:
                pass
            with pytest.raises(AgentError) as caught:
                started(client, "x")
            assert caught.value.code == -32018 and "Nothing was started" in caught.value.message
            assert not (agent.state / "work" / "x.started").exists()
            assert len(client.call("system.load_average")) == 3
            (agent.state / "filler").unlink()
            started(client, "x").wait()
    finally:
        subprocess.run(["umount", "-l", agent.state], check=True)


def storm(agent: RunningAgent, seed: int, rounds: int) -> None:
    """Kill agents and workers at random instants while operations are started; then look at every record."""
    rng = random.Random(seed)
    print(f"seed={seed}")
    known: dict[str, str] = {}
    for number in range(rounds):
        operations = []
        with agent.client(timeout=10) as client:
            for part in range(2):
                name = f"s{number}-{part}"
                try:
                    operation = started(client, name, seconds=rng.uniform(0, 0.6))
                except ClientError:
                    continue
                known[operation.id] = name
                operations.append(operation)
        time.sleep(rng.uniform(0, 0.6))
        if rng.random() < 0.7 and operations:
            try:
                os.kill(worker_pid(rng.choice(operations)), signal.SIGKILL)
            except (AssertionError, ProcessLookupError):
                pass
        killer = threading.Timer(rng.uniform(0, 0.05), agent.kill)
        killer.start()
        try:
            with agent.client(timeout=10) as client:
                name = f"s{number}-late"
                known[started(client, name, seconds=0.1).id] = name
        except ClientError:
            pass
        killer.join()
        agent.start()
    with agent.client() as client:
        for identity, name in known.items():
            record = wait_for(lambda identity=identity: (r := Operation(client, identity).record()).finished and r)
            assert record.status in ("completed", "failed"), record
            if record.status == "completed":
                assert files(agent, name) == {"started", "done"}
            else:
                assert record.error_code == -32015, record
                wait_for(lambda name=name: "leftover" not in files(agent, name))
            if (agent.state / "work" / f"{name}.started").exists():
                assert runs(agent, name) == 1
        assert client.call("operation.has_in_progress") is False
    assert len(known) >= rounds


def test_kills_at_random_instants_lose_nothing(trial_agent: RunningAgent) -> None:
    storm(trial_agent, random.randrange(1 << 32), 8)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_hundreds_of_kills_lose_nothing(trial_agent: RunningAgent) -> None:
    storm(trial_agent, random.randrange(1 << 32), 150)
