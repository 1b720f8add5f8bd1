"""Data bundles and growing: a real cluster on a loop volume of the agent's own, restored into a running server."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest

from cluster_on_a_volume import Setup, cluster_on_a_volume
from private_postgresql import PrivateCluster, as_postgres, programs
from scalarizr.client import AgentError
from scalarizr.host.processes import wait_until

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with cluster_on_a_volume() as made:
        yield made


@dataclasses.dataclass
class Writer:
    """Commits one row after the other, and remembers the last one that the server acknowledged."""

    cluster: PrivateCluster
    acknowledged: int = 0
    failure: Exception | None = None

    def __enter__(self) -> "Writer":
        self.cluster.psql(
            "CREATE TABLE rows (n int PRIMARY KEY, filler text); CREATE ROLE writer LOGIN PASSWORD 'w';"
            "GRANT ALL ON rows TO writer"
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self._write()
        except Exception as failure:
            self.failure = failure

    def wait_for(self, rows: int) -> None:
        assert wait_until(lambda: self.acknowledged >= rows or self.failure is not None, 60) and self.failure is None

    def _write(self) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.cluster.port, user="writer", password="w", dbname="postgres", autocommit=True
        ) as connection:
            while not self._end.is_set():
                connection.execute("INSERT INTO rows VALUES (%s, repeat('x', 200))", (self.acknowledged + 1,))
                self.acknowledged += 1

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()
        assert self.failure is None, self.failure


def test_a_bundle_taken_while_others_write_holds_every_row_that_was_committed_before(setup: Setup) -> None:
    pgbench = [programs() / "pgbench", "-h", setup.cluster.socket_dir, "-p", str(setup.cluster.port)]
    as_postgres(*pgbench, "-i", "-s", "2", "-q", "postgres")
    load = threading.Thread(target=lambda: as_postgres(*pgbench, "-c", "2", "-T", "4", "-n", "postgres", check=False))
    load.start()
    try:
        with Writer(setup.cluster) as writer:
            writer.wait_for(50)
            before = writer.acknowledged
            operation = setup.api.postgresql.create_databundle(async_=True)
            bundle = operation.wait()
            after = writer.acknowledged
    finally:
        load.join()
    record = operation.record()
    assert any("checkpoint" in line for line in record.logs) and record.progress["percent"] == 100
    assert set(bundle) == {"snapshot", "used_size", "wal_start", "wal_stop"}
    assert 0.03 < bundle["used_size"] < 0.4
    newer = f"SELECT '{bundle['wal_stop']}'::pg_lsn > '{bundle['wal_start']}'::pg_lsn"
    assert setup.cluster.psql(newer) == "t"
    with setup.restored(bundle["snapshot"]) as server:
        kept = int(server.psql("SELECT max(n) FROM rows"))
        assert server.psql("SELECT count(*) FROM rows") == str(kept)
        assert before <= kept <= after
        # pgbench's own invariant: what was added to accounts, branches and tellers is the same.
        sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(bbalance) FROM pgbench_branches)"
        assert server.psql(sums) == "0"
        assert (
            server.psql("SELECT sum(abalance) - (SELECT sum(delta) FROM pgbench_history) FROM pgbench_accounts") == "0"
        )
        as_postgres(
            programs() / "pg_amcheck", "--all", "--install-missing", "--heapallindexed",
            "-h", server.socket_dir, "-p", str(server.port),
        )  # fmt: skip
        server.stop()
        as_postgres(programs() / "pg_checksums", "--check", "-D", server.data_dir)


def test_a_part_of_the_cluster_elsewhere_is_refused_by_its_path(setup: Setup) -> None:
    elsewhere = setup.cluster.home / "elsewhere"
    elsewhere.mkdir()
    shutil.chown(elsewhere, "postgres", "postgres")
    setup.cluster.psql(f"CREATE TABLESPACE far LOCATION '{elsewhere}'")
    with pytest.raises(AgentError, match="more than one file system") as caught:
        setup.api.postgresql.create_databundle(async_=False)
    assert caught.value.code == -32014 and f"a tablespace in {elsewhere}" in caught.value.message
    setup.cluster.psql("DROP TABLESPACE far")
    near = setup.mpoint / "near"
    near.mkdir()
    shutil.chown(near, "postgres", "postgres")
    setup.cluster.psql(f"CREATE TABLESPACE near LOCATION '{near}'")
    assert setup.api.postgresql.create_databundle(async_=False)["snapshot"]["id"]
    setup.cluster.stop()
    subprocess.run(["mv", setup.cluster.data_dir / "pg_wal", elsewhere / "wal"], check=True)
    (setup.cluster.data_dir / "pg_wal").symlink_to(elsewhere / "wal")
    setup.cluster.start()
    with pytest.raises(AgentError, match=f"pg_wal in {elsewhere / 'wal'}"):
        setup.api.postgresql.create_databundle(async_=False)
    setup.cluster.stop()
    (setup.cluster.data_dir / "pg_wal").unlink()
    subprocess.run(["mv", elsewhere / "wal", setup.cluster.data_dir / "pg_wal"], check=True)
    setup.cluster.start()
    assert [s["id"] for s in setup.api.storage.list() if s["kind"] == "snapshot" and s["status"] != "present"] == []


def test_what_lies_on_no_volume_is_refused_and_the_setting_named(setup: Setup) -> None:
    with PrivateCluster() as other:
        setup.agent.stop()
        setup.set_settings(other.settings)
        setup.agent.start()
        with pytest.raises(AgentError, match=r"Set \[postgresql\] volume") as caught:
            setup.api.postgresql.create_databundle(async_=False)
        assert caught.value.code == -32019
        with pytest.raises(AgentError, match="is not the volume that holds the cluster"):
            setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.5})
        setup.agent.stop()
        name = f'volume = {{ type = "loop", id = "{setup.volume["id"]}" }}'
        setup.set_settings(f"{other.settings}{name}\n")
        setup.agent.start()
        with pytest.raises(AgentError, match="lies on another device"):
            setup.api.postgresql.create_databundle(async_=False)
    setup.agent.stop()
    setup.set_settings(f"{setup.cluster.settings}{name}\n")
    setup.agent.start()
    assert setup.api.postgresql.create_databundle(async_=False)["snapshot"]["type"] == "loop"


def test_a_server_that_is_down_is_not_bundled(setup: Setup) -> None:
    before = setup.api.storage.list()
    setup.cluster.stop()
    try:
        with pytest.raises(AgentError, match="does not run"):
            setup.api.postgresql.create_databundle(async_=False)
    finally:
        setup.cluster.start()
    assert setup.api.storage.list() == before


def test_the_volume_grows_while_the_server_serves() -> None:
    with cluster_on_a_volume("xfs") as setup:
        before, pid = os.statvfs(setup.mpoint).f_blocks, setup.cluster.pid()
        with Writer(setup.cluster) as writer:
            grown = setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.6})
            writer.wait_for(writer.acknowledged + 1)
        assert grown["size"] == 0.6 and os.statvfs(setup.mpoint).f_blocks > before * 1.3
        with pytest.raises(AgentError) as caught:
            setup.api.postgresql.grow_volume(volume=grown, growth={"size": 0.6})
        assert caught.value.code == -32602 and setup.cluster.pid() == pid


def test_the_server_is_stopped_where_the_file_system_grows_only_unmounted_and_serves_again() -> None:
    # The kernel lets ext4 grow while mounted only for who may use more than his share, which containers often may not.
    without = ["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]
    with cluster_on_a_volume("ext4", [*without, sys.executable, "-m", "scalarizr", "serve"]) as setup:
        setup.cluster.psql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        before, pid = os.statvfs(setup.mpoint).f_blocks, setup.cluster.pid()
        operation = setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.6}, async_=True)
        assert operation.wait()["size"] == 0.6 and os.statvfs(setup.mpoint).f_blocks > before * 1.3
        lines = operation.record().logs
        assert any("stopping the server" in line for line in lines) and lines[-1] == "starting the server"
        assert setup.cluster.pid() not in (None, pid) and setup.cluster.psql("SELECT count(*) FROM kept") == "1000"
        # What cannot be fulfilled stops nothing.
        pid = setup.cluster.pid()
        with pytest.raises(AgentError) as caught:
            setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.1})
        assert caught.value.code == -32602 and setup.cluster.pid() == pid
        # What fails midway ends with the server serving, too: somebody sits on the mount.
        with subprocess.Popen(["sleep", "60"], cwd=setup.mpoint) as sitting:
            with pytest.raises(AgentError, match=f"sleep \\({sitting.pid}\\)"):
                setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.7})
            sitting.kill()
        assert setup.cluster.pid() not in (None, pid) and setup.cluster.psql("SELECT count(*) FROM kept") == "1000"
