"""Real PostgreSQL clusters in private directories, on free ports, run as `postgres`: for tests that run as root.

    with PrivateCluster() as primary:              # initdb, started
        primary.psql("CREATE TABLE t (n int)")
        with primary.standby() as standby:         # pg_basebackup -R, started
            primary.wait_for_replay(standby)
            assert standby.psql("SELECT count(*) FROM t") == "0"

Made by `initdb` with `peer` on the Unix socket and `scram-sha-256` on loopback TCP, without fsync. A cluster is cheap
(about a second); one for a whole module is made in a module-scoped fixture.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from running_agent import free_port
from scalarizr.host.processes import children_of, is_alive, wait_until

USER = "postgres"
_FAST = "fsync = off\nfull_page_writes = on\nshared_buffers = 16MB\nmax_wal_size = 128MB\nmin_wal_size = 32MB\n"


def programs() -> Path:
    """The directory of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent


def as_postgres(
    *command: str | os.PathLike[str],
    check: bool = True,
    text: str | None = None,
    timeout: float = 100,
    environment: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program as `postgres`."""
    done = subprocess.run(
        [os.fspath(word) for word in command],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        user=USER,
        group=pwd.getpwnam(USER).pw_gid,
        extra_groups=[],
        cwd="/",
        timeout=timeout,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **(environment or {})},
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} failed: {done.stdout}{done.stderr}")
    return done


class PrivateCluster:
    """A cluster of its own; made when entered (or by `make`), started, and taken away at the end.

    :param directory: where its files go, on a file system of the test's, perhaps; must be reachable for `postgres`, so
        nothing below pytest's own `tmp_path`. None: a directory of its own in /tmp, which is removed at the end.
    :param settings: further lines of postgresql.conf.
    :param started: start it when entered.
    :param bindir: the directory of its version's initdb, pg_ctl and postgres; the newest that is installed when None.
    :param environment: variables of the server, such as where it finds its locales.
    :ivar home: the private directory: socket, log; short, since a socket's path is.
    :ivar data_dir: the data directory.
    :ivar socket_dir: the directory of the Unix socket.
    :ivar port: its port, on loopback too.
    :ivar log: the server's log.
    """

    def __init__(
        self,
        directory: Path | None = None,
        settings: str = "",
        *,
        started: bool = True,
        bindir: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.home.chmod(0o755)
        os.chown(self.home, *_owner())
        self.data_dir = (directory or self.home) / "data"
        self.socket_dir = self.home
        self.log = self.home / "log"
        self.port = free_port()
        self.bindir = bindir or programs()
        self._extra = settings
        self._started = started
        self._environment = environment

    def __enter__(self) -> "PrivateCluster":
        try:
            self.make()
            if self._started:
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def make(self) -> None:
        """Make its files, once."""
        _directory_of_postgres(self.data_dir.parent)
        words = ("--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums")
        auth = ("--auth-local=peer", "--auth-host=scram-sha-256")
        as_postgres(self.bindir / "initdb", "-D", self.data_dir, *words, *auth, environment=self._environment)
        self.configure(f"{_FAST}{self._place()}{self._extra}")

    def _place(self) -> str:
        return f"port = {self.port}\nunix_socket_directories = '{self.socket_dir}'\nlisten_addresses = '127.0.0.1'\n"

    def configure(self, lines: str) -> None:
        """Add lines to postgresql.conf; the last one counts. Takes effect at the next start or `reload`."""
        with open(self.data_dir / "postgresql.conf", "a") as file:
            file.write(f"\n{lines}\n")

    @property
    def settings(self) -> str:
        """The agent's settings for it, in TOML."""
        return f'[postgresql]\ndata_dir = "{self.data_dir}"\n'

    def control(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run pg_ctl."""
        command = (self.bindir / "pg_ctl", "-D", self.data_dir, "-t", "60", *words)
        return as_postgres(*command, check=check, environment=self._environment)

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        # Its output goes to a file: a pipe would be held open by the server for as long as it lives.
        done = self.control("-w", "-l", str(self.log), "start", check=False)
        if done.returncode != 0:
            said = self.log.read_text() if self.log.exists() else ""
            raise AssertionError(f"PostgreSQL did not start: {done.stdout}{done.stderr}{said[-3000:]}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it, where it runs; `immediate` is a crash without a signal that cannot be caught."""
        if self.pid() is not None:
            self.control("-w", "-m", mode, "stop")

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """Let it load its configuration; returns when new connections see that, or are not let in any more."""
        loaded = "SELECT pg_conf_load_time()"
        before = self.psql(loaded, check=False)
        self.control("reload")
        assert wait_until(lambda: self.psql(loaded, check=False) != before, 60)

    def promote(self) -> None:
        self.control("-w", "promote")

    def kill(self) -> None:
        """Kill all of its processes at once (SIGKILL), as a power cut would; its files stay as they are."""
        self.signal(signal.SIGKILL)
        pid = self._pid_in_file()
        # A new server refuses to start while process 1 has not reaped the old one yet.
        assert pid is None or wait_until(lambda: not Path(f"/proc/{pid}").exists(), 60)

    def signal(self, number: int) -> None:
        """Send a signal to the server and all of its children: SIGSTOP makes it hang, SIGCONT go on."""
        pid = self.pid()
        if pid is not None:
            for process in (pid, *children_of(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def pid(self) -> int | None:
        """The postmaster's process id; None where it does not run."""
        pid = self._pid_in_file()
        return pid if pid is not None and is_alive(pid) else None

    def _pid_in_file(self) -> int | None:
        try:
            return int((self.data_dir / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None

    def psql(self, sql: str, database: str = "postgres", *, check: bool = True) -> str:
        """Run statements as the superuser over the Unix socket; gives the rows, `|` between columns, stripped.

        :param check: False: give what it said on error, too, and raise nothing.
        """
        words = ("-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket_dir), "-p", str(self.port), "-d", database)
        done = as_postgres(programs() / "psql", *words, text=sql, check=check)
        return (done.stdout if check else done.stdout + done.stderr).strip()

    def standby(
        self, directory: Path | None = None, settings: str = "", *, name: str = "standby", started: bool = True
    ) -> "Standby":
        """Give a streaming standby of this cluster (or of a standby: cascaded); made when entered."""
        return Standby(self, directory, settings, name=name, started=started)

    def wait_for_replay(self, standby: "PrivateCluster", seconds: float = 90) -> None:
        """Wait until a standby has replayed all that is written here now."""
        deadline = time.monotonic() + seconds
        target = self.psql(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
        )
        while standby.psql(f"SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn", check=False) != "t":
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.05)

    def close(self) -> None:
        """End it and take its files away."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.signal(signal.SIGCONT)
            self.stop("immediate")
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)


class Standby(PrivateCluster):
    """A streaming standby, cloned by `pg_basebackup -R` from a server that runs.

    :param source: the server that it follows.
    :param name: its `application_name`.
    """

    def __init__(
        self,
        source: PrivateCluster,
        directory: Path | None = None,
        settings: str = "",
        *,
        name: str = "standby",
        started: bool = True,
    ) -> None:
        super().__init__(directory, settings, started=started)
        self.source = source
        self.name = name

    def make(self) -> None:
        _directory_of_postgres(self.data_dir.parent)
        place = f"host={self.source.socket_dir} port={self.source.port} application_name='{self.name}'"
        options = ("--no-sync", "-c", "fast", "-X", "stream", "-R", "-d", place)
        as_postgres(programs() / "pg_basebackup", "-D", self.data_dir, *options)
        self.configure(f"{self._place()}wal_receiver_status_interval = 1s\nwal_retrieve_retry_interval = 200ms\n")
        self.configure(self._extra)

    def follow(self, place: str) -> None:
        """Give it another `primary_conninfo`, in force from its next start."""
        quoted = place.replace("'", "''")
        with open(self.data_dir / "postgresql.auto.conf", "a") as file:
            file.write(f"primary_conninfo = '{quoted}'\n")


def _directory_of_postgres(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, *_owner())


def _owner() -> tuple[int, int]:
    account = pwd.getpwnam(USER)
    return account.pw_uid, account.pw_gid
