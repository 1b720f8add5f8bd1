"""What the agent keeps is bounded, whatever is asked of it and however often it is killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx
from conftest import with_test_methods
from running_agent import RunningAgent
from scalarizr.host.processes import wait_until
from scalarizr.operations.store import KEPT_LINES, Store

PIECE = 2**16


def bytes_below(directory: Path, pattern: str = "**/*") -> int:
    return sum(path.stat().st_size for path in directory.glob(pattern) if path.is_file())


def test_the_oldest_records_go_where_all_take_too_much(tmp_path: Path) -> None:
    store = Store(tmp_path / "operations" / "operations.db")
    store.create("working", "a.b", "working", {"text": "x" * PIECE})
    store.create("uncleaned", "a.b", "uncleaned", {"text": "x" * PIECE})
    store.finish("uncleaned", "failed", cleaning=True)
    sizes = []
    for number in range(60):
        identity = f"{number:02}"
        store.create(identity, "a.b", identity, {"text": "x" * PIECE})
        store.finish(identity, "completed", result="y" * PIECE)
        store.prune(0, most_bytes=30 * PIECE)
        sizes.append(bytes_below(tmp_path))
    left = [record.id for record in store.newest(None, ["a.b"], 100)]
    assert left[0] == "59" and {"working", "uncleaned"} <= set(left) and "00" not in left
    # One record more than the bound, and what SQLite holds back to be written into the file.
    assert max(sizes[40:]) <= max(sizes[:40])
    store.close()
    assert bytes_below(tmp_path) <= 33 * PIECE


def test_of_each_operation_the_newest_lines_are_kept_whoever_else_writes_some(tmp_path: Path) -> None:
    path = tmp_path / "operations.db"
    workers = {identity: Store(path) for identity in ("a", "b")}
    for identity, store in workers.items():
        store.create(identity, "a.b", identity, {})
    for number in range(1500):
        for identity, store in workers.items():
            store.add_line(identity, f"line {number}")
    for identity, store in workers.items():
        ((count,),) = store._all("SELECT count(*) FROM lines WHERE operation = ?", (identity,))
        assert KEPT_LINES <= count <= KEPT_LINES + 100
        record = store.get(identity)
        assert record is not None and record.logs[-1] == "line 1499" and len(record.logs) == KEPT_LINES
        store.close()


def test_of_damaged_databases_three_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "operations.db"
    for _ in range(6):
        store = Store(path)
        store.create("a", "a.b", "", {})
        store.finish("a", "completed")
        store.close()
        path.write_bytes(b"garbage" * 1000)
        assert "was damaged" in (store.check() or "")
        store.close()
    assert len(list(tmp_path.glob("operations.db.damaged-*"))) == 3


def test_logs_and_audit_log_stay_within_what_the_settings_say(tmp_path: Path) -> None:
    settings = '[logs]\nmax_size = "32 KiB"\nkeep = 2\naudit_size = "32 KiB"\naudit_keep = 2\n'
    agent = with_test_methods(tmp_path, settings)
    with agent, agent.client(timeout=60) as client:
        for number in range(700):
            client.call("trial.command", note=f"{number} {'x' * 200}")
        assert (agent.logs / "scalarizr_debug.log.2").exists() and (agent.logs / "scalarizr_audit.log.2").exists()
        for name in ("scalarizr.log", "scalarizr_debug.log", "scalarizr_audit.log"):
            files = list(agent.logs.glob(f"{name}*"))
            assert len(files) <= 3
            # A file is rotated by the line that makes it too large.
            assert bytes_below(agent.logs, f"{name}*") <= 3 * (32 * 1024 + 4096)
    command = [sys.executable, "-m", "scalarizr", "audit", "verify", "--etc", str(agent.etc)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.mark.root
@pytest.mark.nginx
def test_the_history_of_changes_keeps_so_many_and_the_contents_that_these_need(tmp_path: Path) -> None:
    setup = AgentWithNginx(tmp_path, "[changes]\nkeep = 3\n")
    try:
        changes = setup.agent.state / "changes"
        counts = []
        for number in range(12):
            setup.api.nginx.make_proxy(**setup.proxy("one.example.com", f"10.0.0.{number + 1}"))
            history, objects = (len(list((changes / name).iterdir())) for name in ("history", "objects"))
            counts.append((history, objects))
            assert not list((changes / "pending").iterdir())
        assert counts[-1] == counts[6] == counts[7] and counts[-1][0] == 3
    finally:
        setup.close()


def test_what_kills_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    agent.start()
    agent.kill()
    storage = agent.state / "storage"
    storage.mkdir()
    left = [agent.state / f".replay.{gone.pid}.0123abcd.new", storage / f".a.json.{gone.pid}.0123abcd.new"]
    with subprocess.Popen(["sleep", "100"]) as alive:
        others = [agent.state / f".replay.{alive.pid}.0123abcd.new", agent.state / ".replay.new"]
        for path in (*left, *others):
            path.write_bytes(b"half")
        with agent:
            assert [path.exists() for path in left] == [False, False]
            assert [path.exists() for path in others] == [True, True]
        alive.kill()


def test_records_files_and_locks_of_old_operations_go(tmp_path: Path) -> None:
    agent = with_test_methods(tmp_path, '[operations]\nkeep = "1 s"\n')
    with agent, agent.client(timeout=60) as client:
        for number in range(5):
            client.call("trial.work", name=f"old-{number}")
        place = agent.state / "operations"
        ended = time.monotonic()
        assert wait_until(lambda: time.monotonic() - ended > 1.1, 60)
        client.call("trial.work", name="new")
        assert len(client.call("operation.list")) == 1
        assert len(list(place.glob("*.lock"))) == 1 and len(list(place.glob("*.stderr"))) <= 1
