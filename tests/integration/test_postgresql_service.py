"""PostgreSQL as a service: a private cluster by pg_ctl, Debian's by pg_ctlcluster, through a real agent."""

import dataclasses
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from private_postgresql import PrivateCluster, as_postgres
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client
from scalarizr.host.processes import wait_until

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@dataclasses.dataclass
class Setup:
    """A private cluster with an agent."""

    cluster: PrivateCluster
    agent: RunningAgent
    api: Client


@pytest.fixture(scope="module")
def agent_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with (
        PrivateCluster(started=False) as cluster,
        RunningAgent(tmp_path_factory.mktemp("agent"), cluster.settings) as agent,
        agent.client(timeout=120) as api,
    ):
        yield Setup(cluster, agent, api)


@pytest.fixture
def setup(agent_of_all: Setup) -> Iterator[Setup]:
    """It runs, and its configuration is what it was before."""
    cluster = agent_of_all.cluster
    files = {path: path.read_text() for path in map(cluster.data_dir.joinpath, ("postgresql.conf", "pg_hba.conf"))}
    if cluster.pid() is None:
        cluster.start()
    yield agent_of_all
    for path, text in files.items():
        path.write_text(text)
    if cluster.pid() is not None:
        cluster.reload()


def refusal(call: object) -> str:
    with pytest.raises(AgentError) as caught:
        call()  # type: ignore[operator]
    return caught.value.message


def test_it_is_started_and_stopped_and_says_which(setup: Setup) -> None:
    api = setup.api.postgresql
    assert api.get_service_status() == 0
    for _ in range(2):
        assert api.stop_service(reason="a test") is None
        assert setup.cluster.pid() is None and api.get_service_status() == 3
    for _ in range(2):
        assert api.start_service() is None
        assert setup.cluster.psql("SELECT 1") == "1" and api.get_service_status() == 0
    assert "postgresql stop reason='a test'" in setup.agent.log_text()


def test_the_server_runs_as_its_owner_alone_and_outlives_the_agent(setup: Setup) -> None:
    api = setup.api.postgresql
    api.stop_service()
    api.start_service()
    pid = setup.cluster.pid()
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    owner = os.stat(setup.cluster.data_dir)
    assert set(fields["Uid"].split()) == {str(owner.st_uid)} and set(fields["Gid"].split()) == {str(owner.st_gid)}
    assert "0" not in fields["Groups"].split()
    setup.agent.stop()
    try:
        assert setup.cluster.pid() == pid and setup.cluster.psql("SELECT 1") == "1"
    finally:
        setup.agent.start()


def test_a_restart_is_a_new_server(setup: Setup) -> None:
    before = setup.cluster.pid()
    setup.api.postgresql.restart_service()
    assert setup.cluster.pid() not in (None, before) and setup.cluster.psql("SELECT 1") == "1"


def test_a_reload_puts_settings_in_force_and_cuts_nobody_off(setup: Setup) -> None:
    setup.cluster.psql("CREATE ROLE connected LOGIN PASSWORD 'connected'")
    place = {"host": "127.0.0.1", "port": setup.cluster.port, "user": "connected", "dbname": "postgres"}
    with psycopg.connect(**place, password="connected") as held:  # type: ignore[arg-type]
        setup.cluster.configure("work_mem = 7MB\nmax_connections = 77")
        setup.api.postgresql.reload_service()
        assert setup.cluster.psql("SHOW work_mem") == "7MB"
        assert held.execute("SELECT 1").fetchone() == (1,)
    # What takes a restart waits for one, and is no error.
    assert setup.cluster.psql("SHOW max_connections") == "100"


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("postgresql.conf", "work_mem = 'much'", "work_mem"),
        ("postgresql.conf", "no sense here at all", "postgresql.conf, line"),
        ("pg_hba.conf", "host all all nowhere-at-all/99 scram", "pg_hba.conf, line"),
    ],
)
def test_files_that_are_not_valid_are_not_loaded(setup: Setup, name: str, line: str, words: str) -> None:
    with open(setup.cluster.data_dir / name, "a") as file:
        file.write(f"\n{line}\n")
    said = refusal(setup.api.postgresql.reload_service)
    assert words in said and "It goes on with the old one" in said
    assert setup.cluster.psql("SELECT 1") == "1"


def test_a_restart_with_a_configuration_that_is_not_valid_leaves_it_running(setup: Setup) -> None:
    pid = setup.cluster.pid()
    setup.cluster.configure("shared_buffers = 'banana'")
    said = refusal(setup.api.postgresql.restart_service)
    assert "was not restarted" in said and "shared_buffers" in said and setup.cluster.pid() == pid


def test_a_reload_starts_a_stopped_one(setup: Setup) -> None:
    setup.cluster.stop()
    setup.api.postgresql.reload_service()
    assert setup.cluster.psql("SELECT 1") == "1"


def test_one_that_cannot_start_says_why_in_its_own_words(setup: Setup) -> None:
    setup.cluster.stop()
    setup.cluster.configure("shared_buffers = 'banana'")
    said = refusal(setup.api.postgresql.start_service)
    assert "did not start" in said and "shared_buffers" in said and "banana" in said
    assert setup.api.postgresql.get_service_status() == 3


def test_a_port_that_is_taken_is_named(setup: Setup) -> None:
    setup.cluster.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        setup.cluster.configure(f"port = {port}")
        said = refusal(setup.api.postgresql.start_service)
    assert "did not start" in said and "Address already in use" in said and str(port) in said


def test_one_that_was_killed_is_dead_with_a_pid_file_and_starts_again(setup: Setup) -> None:
    setup.cluster.psql("CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)")
    pid = setup.cluster.pid()
    assert pid is not None
    os.kill(pid, 9)
    assert wait_until(lambda: setup.cluster.pid() is None, 60)
    assert setup.api.postgresql.get_service_status() == 1
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), 60)
    setup.api.postgresql.start_service()
    assert setup.cluster.psql("SELECT count(*) FROM kept") == "1" and setup.api.postgresql.get_service_status() == 0


def test_commands_wait_for_each_other(setup: Setup) -> None:
    failures: list[Exception] = []

    def restart() -> None:
        try:
            with setup.agent.client(timeout=120) as api:
                api.postgresql.restart_service()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=restart) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and setup.cluster.psql("SELECT 1") == "1"


# Debian's own layout


@dataclasses.dataclass
class DebianCluster:
    """A cluster of postgresql-common's making."""

    version: str
    name: str
    data_dir: Path
    port: int


@pytest.fixture
def debian() -> Iterator[DebianCluster]:
    if shutil.which("pg_createcluster") is None:
        pytest.skip("LEFT OUT: there is no pg_createcluster")
    version = sorted(Path("/usr/lib/postgresql").iterdir(), key=lambda path: float(path.name))[-1].name
    home = Path(tempfile.mkdtemp(prefix="pg-debian-", dir="/tmp"))
    home.chmod(0o755)
    shutil.chown(home, "postgres", "postgres")
    made = DebianCluster(version, f"test{os.getpid()}", home / "data", free_port())
    command = ["pg_createcluster", version, made.name, "-d", made.data_dir, "-p", str(made.port), "-s", home]
    subprocess.run([*command, "--", "--no-sync"], check=True, capture_output=True)
    try:
        yield made
    finally:
        subprocess.run(["pg_dropcluster", "--stop", version, made.name], capture_output=True, timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def test_a_cluster_of_debian_s_layout_is_found_and_controlled(debian: DebianCluster, tmp_path: Path) -> None:
    settings = f'[postgresql]\nport = {debian.port}\nmanager = "direct"\n'
    with RunningAgent(tmp_path, settings) as agent, agent.client(timeout=120) as client:
        api = client.postgresql
        assert api.get_service_status() == 3
        assert "does not run" in api.replication_status()["master"]["error"]
        api.start_service()
        assert api.get_service_status() == 0 and api.replication_status()["master"]["status"] == "up"
        password = api.reset_password()
        with psycopg.connect(
            host="127.0.0.1", port=debian.port, user="scalr_master", password=password, dbname="postgres"
        ) as connection:
            assert connection.execute("SHOW data_directory").fetchone() == (str(debian.data_dir),)
        main = Path("/etc/postgresql") / debian.version / debian.name / "postgresql.conf"
        main.write_text(main.read_text() + "\nwork_mem = 6MB\n")
        api.reload_service()
        api.restart_service()
        shown = as_postgres(
            "psql", "-XAt", "-h", debian.data_dir.parent, "-p", str(debian.port), "-c", "SHOW work_mem"
        ).stdout
        assert shown == "6MB\n"
        main.write_text(main.read_text() + "\nwork_mem = 'much'\n")
        assert "work_mem" in refusal(api.restart_service) and api.get_service_status() == 0
        api.stop_service()
        assert api.get_service_status() == 3
        said = refusal(api.start_service)
        assert "did not start" in said and "work_mem" in said
