"""The state of the version before, taken up; and what this version leaves, given back to the version before."""

import hashlib
import importlib.util
import json
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.changes.confirmation import boot_id
from scalarizr.client import AgentError, Operation
from scalarizr.host.processes import wait_until
from worker_processes import worker_pid

BEFORE = Path(__file__).parent.parent / "fixtures" / "state" / "version-2"
SLOW_METHODS = str(Path(__file__).parent.parent / "slow_methods.py")


class TakenUp:
    """An agent, not started, on the state that the version before left, with the nginx that it had."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        self.nginx = PrivateNginx(directory)
        for name, text in json.loads(self._text("nginx.json")).items():
            (directory / name).write_text(text)
        self.agent = RunningAgent(directory, self.nginx.settings, command=[sys.executable, SLOW_METHODS])
        self.changes = json.loads(self._text("changes.json"))
        self._restore_changes(self.agent.state / "changes")
        self.database = self.agent.state / "operations" / "operations.db"
        self.database.parent.mkdir()
        with sqlite3.connect(self.database) as records:
            records.executescript(self._text("operations.sql"))
            for (identity,) in records.execute("SELECT id FROM operations").fetchall():
                (self.database.parent / f"{identity}.lock").touch(0o600)
        records.close()
        self.leftover = self.agent.state / "work" / "left.leftover"
        self.leftover.parent.mkdir()
        self.leftover.touch()

    def _text(self, name: str) -> str:
        text = (BEFORE / name).read_text()
        return text.replace("@DIRECTORY@", str(self._directory)).replace("@PORT@", str(self._port))

    def _restore_changes(self, place: Path) -> None:
        for name in ("pending", "history", "objects"):
            (place / name).mkdir(parents=True, mode=0o700)
        # What depends on the directory has another hash in each.
        new = {}
        for digest, text in self.changes["contents"].items():
            new[digest] = hashlib.sha256(text.encode()).hexdigest()
            (place / "objects" / new[digest]).write_bytes(zlib.compress(text.encode()))
        for record in self.changes["records"]:
            for file in record["files"]:
                for state in (file["old"], file["new"]):
                    state["digest"] = new.get(state["digest"])
            if record["status"] == "waiting":
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                record["confirmation"] = {"by": time.time() + 3600, "since_boot": now + 3600, "boot": boot_id()}
            (place / "history" / record["id"]).mkdir()
            (place / "history" / record["id"] / "record.json").write_text(json.dumps(record))

    @property
    def waiting(self) -> str:
        return str(self.changes["records"][-1]["id"])

    def version(self) -> int:
        with sqlite3.connect(self.database) as records:
            (version,) = records.execute("PRAGMA user_version").fetchone()
        records.close()
        return int(version)


@pytest.fixture
def taken_up(tmp_path: Path) -> Iterator[TakenUp]:
    made = TakenUp(tmp_path)
    yield made
    if made.agent.process is not None:
        made.agent.__exit__()
    made.nginx.stop()


def store_of_the_version_before(path: Path) -> Any:
    """The records as the version before reads and writes them: by its own code."""
    found = importlib.util.spec_from_file_location("store_of_the_version_before", BEFORE / "store.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Store(path)


@pytest.mark.root
@pytest.mark.nginx
def test_operations_waiting_changes_and_history_of_the_version_before_are_taken_up(taken_up: TakenUp) -> None:
    assert taken_up.version() == 2
    with taken_up.agent.start().client(timeout=60) as client:
        operations = client.call("operation.list")
        assert [one["status"] for one in operations] == ["failed", "canceled", "failed", "completed"]
        left, _, refused, done = operations
        assert "interrupted" in left["error"] and refused["error"] == "refused is refused, says nobody."
        assert done["result"]["name"] == "done" and done["logs"] == ["working on done with no secret"]
        assert wait_until(lambda: not taken_up.leftover.exists(), 60)
        changes = client.call("change.list")
        assert [change["status"] for change in changes] == ["waiting", "applied", "applied"]
        client.call("change.confirm", id=taken_up.waiting)
        client.call("change.revert", id=taken_up.waiting)
        assert "server 10.0.0.2;" in taken_up.nginx.upstreams.read_text()
        assert client.call("trial.work", name="left")["name"] == "left"
    assert taken_up.version() == 3
    assert "a new one is begun" not in taken_up.agent.log_text()


@pytest.mark.root
@pytest.mark.nginx
def test_a_change_that_the_version_before_left_waiting_is_taken_back_after_a_reboot(taken_up: TakenUp) -> None:
    record = taken_up.agent.state / "changes" / "history" / taken_up.waiting / "record.json"
    record.write_text(record.read_text().replace(boot_id(), "11111111-1111-1111-1111-111111111111"))
    with taken_up.agent.start().client(timeout=60) as client:
        assert client.call("change.list")[0]["status"] == "reverted"
    assert "server 10.0.0.2;" in taken_up.nginx.upstreams.read_text()


def test_the_version_before_reads_and_writes_what_this_one_leaves_and_this_one_goes_on(taken_up: TakenUp) -> None:
    agent, before = taken_up.agent.start(), store_of_the_version_before(taken_up.database)
    with agent.client(timeout=60) as client:
        client.call("trial.work", name="new")
        operation = client.call("trial.work", name="cut off", until_told=True, async_=True)
        assert wait_until(lambda: bool(operation.record().progress), 60)
        worker = worker_pid(operation)
    agent.kill()
    os.kill(worker, 9)
    assert wait_until(lambda: not Path(f"/proc/{worker}").exists(), 60)

    assert before.check() is None
    names = [record.status for record in before.newest(None, before.names(), 10)]
    assert names == ["in-progress", "completed", "failed", "canceled", "failed", "completed"]
    (step,) = before.undo_steps(operation.id)
    assert step.function == "slow_methods:remove"
    before.create("0123456789abcdef", "trial.work", "in between", {"name": "in between"})
    assert before.begin("0123456789abcdef", 1)
    before.add_line("0123456789abcdef", "a line")
    assert before.finish("0123456789abcdef", "completed", result={"name": "in between"})
    assert before.finish_interrupted(operation.id) is True
    before.close()

    agent.start()
    with agent.client(timeout=60) as client:
        in_between = Operation(client, "0123456789abcdef").record()
        assert (in_between.status, in_between.result, in_between.logs) == (
            "completed",
            {"name": "in between"},
            ["a line"],
        )
        assert Operation(client, operation.id).record().status == "failed"
        assert wait_until(lambda: not list(taken_up.leftover.parent.glob("*.leftover")), 60)
    assert "a new one is begun" not in agent.log_text()


def test_a_database_of_the_next_version_is_used_where_that_says_so_and_else_left_alone(taken_up: TakenUp) -> None:
    agent = taken_up.agent.start()
    agent.stop()
    with sqlite3.connect(taken_up.database) as records:
        records.execute("ALTER TABLE operations ADD COLUMN of_the_next_version TEXT")
        records.execute("PRAGMA user_version = 4")
    records.close()
    agent.start()
    with agent.client(timeout=60) as client:
        assert client.call("trial.work", name="a")["name"] == "a"
    agent.stop()
    with sqlite3.connect(taken_up.database) as records:
        records.execute("INSERT INTO compatibility VALUES (4)")
    records.close()
    content = taken_up.database.read_bytes()
    agent.start()
    with agent.client(timeout=60) as client:
        with pytest.raises(AgentError) as caught:
            client.call("trial.work", name="b")
        assert caught.value.code == -32018 and "was written by a newer scalarizr" in caught.value.message
        assert "can be read from 4 on, this one knows 3" in agent.log_text()
        assert len(client.call("system.load_average")) == 3
    agent.stop()
    assert taken_up.database.read_bytes() == content


@pytest.mark.root
@pytest.mark.nginx
def test_records_of_changes_may_say_more_than_this_version_knows(taken_up: TakenUp) -> None:
    for record in (taken_up.agent.state / "changes" / "history").glob("*/record.json"):
        text = json.loads(record.read_bytes())
        text["of_the_next_version"] = {"anything": 1}
        for file in text["files"]:
            file["new"]["of_the_next_version"] = [1]
        record.write_text(json.dumps(text))
    with taken_up.agent.start().client(timeout=60) as client:
        client.call("change.confirm", id=taken_up.waiting)
        client.call("change.revert", id=taken_up.waiting)
        assert [change["status"] for change in client.call("change.list")] == ["reverted"] * 2 + ["applied"] * 2
