"""Other versions of PostgreSQL than Debian's: passwords, replication, service, and what a data bundle asks.

Runs where `POSTGRESQL_BINDIRS` names directories with `initdb`, `pg_ctl` and `postgres` of other versions, by colon
(readable by everybody); left out, loudly, elsewhere.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from private_postgresql import PrivateCluster
from scalarizr.errors import OutsideFailure, Refused
from scalarizr.host.processes import wait_until
from scalarizr.postgresql import databundle
from scalarizr.postgresql.cluster import find_cluster
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.program import PostgresqlProgram
from scalarizr.postgresql.replication import replication_status
from scalarizr.postgresql.roles import reset_password
from scalarizr.secret import Secret
from scalarizr.settings.model import Postgresql

BINDIRS = [Path(path) for path in os.environ.get("POSTGRESQL_BINDIRS", "").split(":") if path]
LOG = logging.getLogger("versions")
pytestmark = [
    pytest.mark.long,
    pytest.mark.root,
    pytest.mark.postgresql,
    pytest.mark.skipif(not BINDIRS, reason="LEFT OUT: POSTGRESQL_BINDIRS names no other version"),
]


def server_of(cluster: PrivateCluster) -> Server:
    found = find_cluster(Postgresql(data_dir=cluster.data_dir))
    return Server(msgspec.structs.replace(found, programs=cluster.bindir), "postgres")


@pytest.fixture(params=BINDIRS, ids=str)
def cluster(request: pytest.FixtureRequest) -> Iterator[PrivateCluster]:
    with PrivateCluster(settings="log_statement = all\n", bindir=request.param) as made:
        yield made


def copy_as_standby(primary: PrivateCluster) -> PrivateCluster:
    """A standby made of a stopped primary's files: pg_basebackup is of one version."""
    standby = PrivateCluster(bindir=primary.bindir, started=False)
    primary.stop()
    subprocess.run(["cp", "-a", primary.data_dir, standby.data_dir], check=True)
    primary.start()
    place = f"host={primary.socket_dir} port={primary.port} application_name=copy"
    standby.configure(standby._place())
    if int((primary.data_dir / "PG_VERSION").read_text()) < 12:
        mark = standby.data_dir / "recovery.conf"
        mark.write_text(f"standby_mode = on\nprimary_conninfo = '{place}'\n")
    else:
        mark = standby.data_dir / "standby.signal"
        mark.touch()
        standby.configure(f"primary_conninfo = '{place}'")
    shutil.chown(mark, "postgres", "postgres")
    return standby


def test_a_password_is_set_and_seen_by_nobody(cluster: PrivateCluster) -> None:
    server = server_of(cluster)
    for given in (None, Secret("пароль ' \" x")):
        password = reset_password(server, 'scalr "master"', given, LOG).reveal()
        with psycopg.connect(
            host="127.0.0.1", port=cluster.port, user='scalr "master"', password=password, dbname="postgres"
        ) as connection:
            assert connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("on",)
        said = cluster.log.read_text()
        assert "pg_is_in_recovery" in said and password not in said and "SCRAM-SHA-256$" not in said
    if int(server.cluster.version) >= 16:
        cluster.psql("ALTER SYSTEM SET scram_iterations = 10000")
        cluster.reload()
        assert wait_until(lambda: cluster.psql("SHOW scram_iterations") == "10000", 10)
        reset_password(server, "scalr_master", None, LOG)
        stored = cluster.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scalr_master'")
        assert stored.startswith("SCRAM-SHA-256$10000:")


def test_replication_is_told_from_both_sides(cluster: PrivateCluster) -> None:
    primary = server_of(cluster)
    assert replication_status(primary) == {"master": {"status": "up", "replicas": []}}
    made = copy_as_standby(cluster)
    try:
        made.start()
        standby = server_of(made)
        assert wait_until(lambda: replication_status(standby)["slave"]["status"] == "up", 20)
        assert wait_until(lambda: replication_status(standby)["slave"]["xlog_delay"] == 0, 20)
        (replica,) = replication_status(primary)["master"]["replicas"]
        assert (replica["application_name"], replica["state"]) == ("copy", "streaming")
        for server in (primary, standby):
            assert server.ask(databundle._TABLESPACES) == [] and server.ask(databundle._CHECKPOINT)
            assert server.ask(databundle._WRITTEN)
        with pytest.raises(Refused, match="is a standby"):
            reset_password(standby, "scalr_master", None, LOG)
        cluster.stop()
        assert wait_until(lambda: replication_status(standby)["slave"]["status"] == "down", 20)
        assert "No WAL receiver runs" in replication_status(standby)["slave"]["error"]
    finally:
        made.close()


def test_the_service_is_controlled(cluster: PrivateCluster) -> None:
    server = server_of(cluster)
    program = PostgresqlProgram(server.cluster, server, "auto")
    good = (cluster.data_dir / "postgresql.conf").read_text()
    cluster.configure("work_mem = 7MB")
    program.reload()
    assert cluster.psql("SHOW work_mem") == "7MB"
    cluster.configure("work_mem = 'much'")
    for action in (program.reload, program.restart):
        with pytest.raises(OutsideFailure, match="work_mem"):
            action()
    program.stop()
    assert program.status() == 3
    with pytest.raises(OutsideFailure, match=r"did not start.*work_mem"):
        program.start()
    (cluster.data_dir / "postgresql.conf").write_text(good)
    program.start()
    cluster.kill()
    assert "does not run" in replication_status(server)["master"]["error"]
    program.start()
    assert program.status() == 0 and cluster.psql("SELECT 1") == "1"
