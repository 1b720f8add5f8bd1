"""Backups under fire: locks, databases that go, stores that fail, cancellations and kills; nothing half made stays."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_postgresql import PrivateCluster, as_postgres, programs
from private_s3 import PrivateS3, Way
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client, Operation
from waiting import wait_for
from worker_processes import worker_pid

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

MIB = 2**20


@pytest.fixture(scope="module")
def s3() -> Iterator[PrivateS3]:
    with PrivateS3() as store:
        yield store


@pytest.fixture
def way(s3: PrivateS3) -> Iterator[Way]:
    with Way(s3.port) as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """A cluster whose largest database does not compress: 16 MB of it go to the store."""
    with PrivateCluster() as running:
        running.psql("CREATE DATABASE large")
        running.psql(
            "CREATE EXTENSION pgcrypto; "
            "CREATE TABLE t AS SELECT g AS n, gen_random_bytes(1000) AS m FROM generate_series(1, 16000) g",
            "large",
        )
        yield running


@pytest.fixture
def agent(tmp_path: Path, cluster: PrivateCluster) -> Iterator[RunningAgent]:
    settings = f'{cluster.settings}[backup]\nstore = "file://{tmp_path}/store"\njobs = 1\nlock_timeout = "5 s"\n'
    with RunningAgent(tmp_path / "agent", settings) as running:
        yield running


def far_agent(directory: Path, cluster: PrivateCluster, way: Way, patience: float = 60) -> RunningAgent:
    """Make an agent whose store is behind a way that can be broken."""
    return RunningAgent(directory / "agent", far_settings(directory, cluster, way, patience))


def far_settings(directory: Path, cluster: PrivateCluster, way: Way, patience: float) -> str:
    return (
        f'{cluster.settings}[backup]\nstore = "s3://backups/{directory.name}"\nendpoint_url = "{way.endpoint_url}"\n'
        f"jobs = 1\nstore_timeout = {patience}\n[operations]\ncancel_timeout = 60\n"
    )


class Session:
    """A session of the server that holds what it was told to take, until it is closed."""

    def __init__(self, cluster: PrivateCluster, database: str, sql: str) -> None:
        command = [
            programs() / "psql",
            "-XAtq",
            "-h",
            cluster.socket_dir,
            "-p",
            str(cluster.port),
            "-d",
            database,
        ]
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user="postgres",
            cwd="/",
            text=True,
            env={"PATH": "/usr/bin:/bin", "PGAPPNAME": "the-holder"},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"SELECT pg_backend_pid();\n{sql};\nSELECT 'taken';\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())
        assert self._process.stdout.readline().strip() == "taken"

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def started(client: Client, **arguments: Any) -> Operation:
    operation = client.postgresql.create_backup(async_=True, **arguments)
    assert isinstance(operation, Operation)
    return operation


def give_it_time_for_locks(agent: RunningAgent, cluster: PrivateCluster, store: Path) -> None:
    agent.stop()
    agent.write_settings(f'{cluster.settings}[backup]\nstore = "file://{store}"\njobs = 1\nlock_timeout = 60\n')
    agent.start()


def await_its_wait_for_a_lock(operation: Operation) -> None:
    wait_for(lambda: any("waits for a lock" in line for line in operation.record().logs))


def ended(operation: Operation) -> Any:
    return wait_for(lambda: (record := operation.record()).finished and record)


def files(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def dumpers(cluster: PrivateCluster) -> list[int]:
    """The dumps that run against a cluster: its port stands in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if name in ("pg_dump", "pg_dumpall") and f"PGPORT={cluster.port}\0".encode() in environment:
                found.append(int(entry.name))
    return found


def test_a_lock_that_blocks_is_reported_with_who_holds_it(
    agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path
) -> None:
    secret = "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE /* planted-secret */"
    with agent.client(timeout=100) as client, Session(cluster, "large", secret) as holder:
        record = ended(started(client))
        assert record.status == "failed" and record.error_code == -32018
        for words in ("'large'", "LOCK TABLE", f"held by process {holder.pid}", "the-holder", "idle in transaction"):
            assert words in record.error, record.error
        assert "lock_timeout" in record.error and "planted-secret" not in record.error
        assert any("waits for a lock" in line and str(holder.pid) in line for line in record.logs)
        assert files(tmp_path / "store") == [] and client.postgresql.list_backups() == []
    assert dumpers(cluster) == []


def test_databases_that_are_dropped_and_renamed_meanwhile(
    agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path
) -> None:
    for name in ("gone", "before"):
        cluster.psql(f"CREATE DATABASE {name}")
    try:
        store = tmp_path / "store"
        give_it_time_for_locks(agent, cluster, store)
        with agent.client(timeout=100) as client:
            # The largest comes first: while it is waited for, the others are not begun.
            with Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
                operation = started(client)
                await_its_wait_for_a_lock(operation)
                cluster.psql("DROP DATABASE gone")
                cluster.psql("ALTER DATABASE before RENAME TO after")
            record = ended(operation)
            assert record.status == "completed", record.error
            assert record.result["skipped"] == [{"database": "gone", "reason": "It was dropped meanwhile."}]
            names = {part["database"] for part in record.result["parts"]}
            assert "after" in names and not names & {"gone", "before"}
            assert client.postgresql.verify_backup(manifest=record.result["manifest"], async_=False)["valid"]
        assert not [path for path in files(store) if "gone" in path.name or "before" in path.name]
    finally:
        cluster.psql("DROP DATABASE IF EXISTS after")
        cluster.psql("DROP DATABASE IF EXISTS gone")


def tables_in(part: Path) -> str:
    """Give the table of contents of a dump."""
    unpacked = subprocess.run(["zstd", "-dc", part], capture_output=True, check=True).stdout
    listed = subprocess.run([programs() / "pg_restore", "--list"], input=unpacked, capture_output=True, check=True)
    return listed.stdout.decode()


def test_databases_that_swap_their_names_are_not_taken_for_each_other(
    agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path
) -> None:
    for name in ("blue", "green"):
        cluster.psql(f"CREATE DATABASE {name}")
        cluster.psql(f"CREATE TABLE made_in_{name} (n int)", name)
    try:
        store = tmp_path / "store"
        give_it_time_for_locks(agent, cluster, store)
        with agent.client(timeout=100) as client:
            with Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
                operation = started(client)
                await_its_wait_for_a_lock(operation)
                for old, new in (("blue", "aside"), ("green", "blue"), ("aside", "green")):
                    cluster.psql(f"ALTER DATABASE {old} RENAME TO {new}")
            record = ended(operation)
            assert record.status == "completed", record.error
        paths = {part["database"]: store / part["path"] for part in record.result["parts"]}
        assert "made_in_green" in tables_in(paths["blue"]) and "made_in_blue" in tables_in(paths["green"])
    finally:
        for name in ("blue", "green", "aside"):
            cluster.psql(f"DROP DATABASE IF EXISTS {name}")


def test_a_server_that_crashes_fails_it_and_nothing_is_left(tmp_path: Path) -> None:
    with PrivateCluster() as own:
        own.psql("CREATE TABLE t (n int)")
        settings = f'{own.settings}[backup]\nstore = "file://{tmp_path}/store"\njobs = 1\nlock_timeout = 60\n'
        with RunningAgent(tmp_path / "agent", settings) as agent, agent.client(timeout=100) as client:
            holder = Session(own, "postgres", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            operation = started(client)
            await_its_wait_for_a_lock(operation)
            own.kill()
            holder.close()
            record = ended(operation)
            assert record.status == "failed" and "'postgres'" in record.error, record.error
            assert "did not come to its end" in record.error
    assert files(tmp_path / "store") == []


def test_a_cancelled_one_leaves_nothing(agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path) -> None:
    agent.stop()
    agent.write_settings(f'{cluster.settings}[backup]\nstore = "file://{tmp_path}/store"\nlock_timeout = 600\n')
    agent.start()
    with agent.client(timeout=100) as client, Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
        operation = started(client)
        await_its_wait_for_a_lock(operation)
        assert files(tmp_path / "store")
        with pytest.raises(AgentError, match="at work") as caught:
            client.postgresql.create_backup(async_=False)
        assert caught.value.code == -32010
        operation.cancel()
        record = ended(operation)
        assert record.status == "canceled" and not record.error.count("Not undone")
        assert files(tmp_path / "store") == [] and client.postgresql.list_backups() == []
    assert dumpers(cluster) == []


def test_a_cancelled_upload_leaves_nothing_in_the_store(
    tmp_path: Path, cluster: PrivateCluster, s3: PrivateS3, way: Way
) -> None:
    # Not too fast, so that it cannot come to its end while it is being told.
    way.rate, way.turns = 3 * MIB, (3 * MIB, "deaf")
    access = {"_platform_access_data": s3.access}
    with far_agent(tmp_path, cluster, way) as agent, agent.client(timeout=100) as client:
        operation = started(client, **access)
        wait_for(lambda: way.deaf)
        operation.cancel()
        way.deaf = False
        record = ended(operation)
        assert record.status == "canceled", record.error
        way.rate = None
        assert client.postgresql.list_backups(**access) == []
    assert objects(s3, tmp_path) == []
    assert dumpers(cluster) == []


def objects(s3: PrivateS3, directory: Path) -> list[str]:
    from scalarizr.objectstore.opening import open_store

    store = open_store(f"s3://{s3.bucket}/{directory.name}", s3.endpoint_url, s3.access)
    return [entry.path for entry in store.list()]


@pytest.mark.parametrize("agent_too", [False, True])
def test_a_killed_worker_leaves_nothing(
    agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path, agent_too: bool
) -> None:
    agent.stop()
    agent.write_settings(
        f'{cluster.settings}[backup]\nstore = "file://{tmp_path}/store"\nlock_timeout = 30\njobs = 2\n'
    )
    agent.start()
    with Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
        with agent.client(timeout=100) as client:
            operation = started(client)
            await_its_wait_for_a_lock(operation)
            wait_for(lambda: len(files(tmp_path / "store")) >= 3)
            worker = worker_pid(operation)
        if agent_too:
            agent.kill()
        os.kill(worker, signal.SIGKILL)
        if agent_too:
            agent.start()
        with agent.client(timeout=100) as client:
            record = ended(Operation(client, operation.id))
            assert record.status == "failed" and record.error_code == -32015
            wait_for(lambda: not files(tmp_path / "store"))
            assert client.postgresql.list_backups() == []
            if not agent_too:  # with the agent dead, too, a dump that waits for a lock ends with its wait
                wait_for(lambda: not dumpers(cluster))


def test_the_next_backup_sweeps_what_a_power_cut_left_and_not_what_is_others(
    agent: RunningAgent, tmp_path: Path
) -> None:
    directory = tmp_path / "store" / "postgresql"
    with agent.client(timeout=100) as client:
        first = client.postgresql.create_backup(async_=False)["manifest"].split("/")[1]
        time_, server, _chance = first.split("-")
        own, other = directory / f"{time_}-{server}-aaaaaa", directory / f"{time_}-0badcafe-aaaaaa"
        for left in (own, other):
            left.mkdir(mode=0o700)
            (left / "unfinished").write_text("x")
            (left / "large.dump.zst").write_text("half")
            (left / ".postgres.dump.zst.0badcafe.staged").write_text("half")
        stranger = directory / "notes.txt"
        stranger.write_text("of a person")
        assert [one["manifest"].split("/")[1] for one in client.postgresql.list_backups()] == [first]
        operation = started(client)
        record = ended(operation)
        assert any(own.name in line for line in record.logs)
        assert not own.exists() and len(files(other)) == 3 and stranger.exists()
        assert len(client.postgresql.list_backups()) == 2


def test_a_store_that_breaks_off_for_good_fails_it_and_leaves_nothing(
    tmp_path: Path, cluster: PrivateCluster, s3: PrivateS3, way: Way
) -> None:
    way.turns = (3 * MIB, "refuses")
    access = {"_platform_access_data": s3.access}
    with far_agent(tmp_path, cluster, way, patience=2) as agent, agent.client(timeout=100) as client:
        operation = started(client, **access)
        record = ended(operation)
        assert way.refuses and record.status == "failed" and record.error_code in (-32018, -32016)
        assert "failed again when tried again" in record.error and "is no backup" in record.error
        assert all(secret not in record.error for secret in s3.access.values())
        way.refuses = False
        agent.stop()
        agent.write_settings(far_settings(tmp_path, cluster, way, 60))
        agent.start()
        assert client.postgresql.list_backups(**access) == []
        # What could not be removed while the store was away goes before the next one, which succeeds.
        backup = client.postgresql.create_backup(async_=False, **access)
        kept = {part["path"] for part in backup["parts"]} | {backup["manifest"]}
        assert set(objects(s3, tmp_path)) == kept
    assert dumpers(cluster) == []


def test_a_store_that_is_torn_and_slow_and_comes_back_takes_all_of_it(
    tmp_path: Path, cluster: PrivateCluster, s3: PrivateS3, way: Way
) -> None:
    way.torn_after, way.tears_left = 2 * MIB, 2
    access = {"_platform_access_data": s3.access}
    with far_agent(tmp_path, cluster, way) as agent, agent.client(timeout=100) as client:
        operation = started(client, **access)
        wait_for(lambda: way.torn == 2)
        way.refuses = True
        way.cut()
        timer = threading.Timer(1.5, setattr, (way, "refuses", False))
        timer.start()
        record = ended(operation)
        timer.join()
        assert record.status == "completed", record.error
        assert client.postgresql.verify_backup(manifest=record.result["manifest"], async_=False, **access)["valid"]


def test_a_store_that_refuses_is_said_so_at_once(
    tmp_path: Path, cluster: PrivateCluster, s3: PrivateS3, way: Way
) -> None:
    with far_agent(tmp_path, cluster, way) as agent, agent.client(timeout=100) as client:
        for access in (s3.only_reading, {"key_id": s3.access["key_id"], "key": "planted-wrong-key"}):
            with pytest.raises(AgentError) as caught:
                client.postgresql.create_backup(async_=False, _platform_access_data=access)
            assert caught.value.code == -32017 and "refuses these credentials" in caught.value.message
            assert all(secret not in str(caught.value) + str(caught.value.data) for secret in access.values())
    assert objects(s3, tmp_path) == []


def test_a_full_disk_fails_it_and_leaves_nothing(agent: RunningAgent, cluster: PrivateCluster, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
    try:
        agent.stop()
        agent.write_settings(f'{cluster.settings}[backup]\nstore = "file://{small}"\n')
        agent.start()
        with agent.client(timeout=100) as client:
            with pytest.raises(AgentError, match="is full"):
                client.postgresql.create_backup(async_=False)
            assert files(small) == [] and client.postgresql.list_backups() == []
        assert dumpers(cluster) == []
    finally:
        agent.stop()
        subprocess.run(["umount", small], check=True)


def test_while_one_is_made_none_is_deleted(agent: RunningAgent, cluster: PrivateCluster) -> None:
    with agent.client(timeout=100) as client:
        manifest = client.postgresql.create_backup(async_=False)["manifest"]
        with Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
            operation = started(client)
            await_its_wait_for_a_lock(operation)
            # It waits, and goes on once the backup, which gives up its lock, has ended.
            client.postgresql.delete_backup(manifest=manifest)
            assert operation.record().finished
        assert client.postgresql.list_backups() == []


def test_the_dumps_run_as_the_clusters_account(cluster: PrivateCluster, agent: RunningAgent) -> None:
    agent.stop()
    with Session(cluster, "large", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
        agent.write_settings(
            f'{cluster.settings}[backup]\nstore = "file://{agent.state}/b"\nlock_timeout = 60\njobs = 1\n'
        )
        agent.start()
        with agent.client(timeout=100) as client:
            operation = started(client)
            await_its_wait_for_a_lock(operation)
            pid = next(pid for pid in dumpers(cluster) if Path(f"/proc/{pid}/comm").read_text() == "pg_dump\n")
            status = Path(f"/proc/{pid}/status").read_text()
            account = as_postgres("id", "-u").stdout.strip()
            assert f"Uid:\t{account}\t{account}" in status and "Groups:\t0" not in status
            assert b"large" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            operation.cancel()
            assert ended(operation).status == "canceled"
