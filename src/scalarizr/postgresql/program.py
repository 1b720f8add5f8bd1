"""The server of a cluster as a service: started, stopped, reloaded until that is really so."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from scalarizr.errors import OutsideFailure, ScalarizrError, TimedOut
from scalarizr.host import processes
from scalarizr.host.run import run
from scalarizr.postgresql.cluster import Cluster
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.refusals import full_disk, name_of, sentence
from scalarizr.services.log_tail import LogTail
from scalarizr.services.status import Status
from scalarizr.services.supervision import Direct, Manager, Supervisor, find_supervisor

_START_LIMIT = 90.0
_STOP_LIMIT = 300.0
_LOCK_FILE_LIMIT = 5.0
_RELOAD_LIMIT = 20.0
# What the server writes of its own start before it writes to its log; Red Hat's name for it.
_START_LOG = "pgstartup.log"
# What every start writes, whatever comes of it.
_IDLE_WORDS = re.compile(
    r"LOG:\s+(?:starting PostgreSQL|listening on|database system (?:was|is)|redo |redirecting|invalid record|"
    r"all server processes|checkpoint )|waiting for server|stopped waiting|Examine the log output"
)
# Entries that the server would not take; one that only waits for a restart is none (context "postmaster").
_INVALID = """
SELECT coalesce(json_agg(line), '[]') FROM (
    SELECT format('%s, line %s: %s%s', f.sourcefile, f.sourceline, f.name || ': ', f.error) AS line
    FROM pg_file_settings AS f LEFT JOIN pg_settings AS s ON s.name = f.name
    WHERE f.error IS NOT NULL AND s.context IS DISTINCT FROM 'postmaster'
    UNION ALL
    SELECT format('pg_hba.conf, line %s: %s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL
) AS invalid;
"""
_LOADED = "SELECT to_json(extract(epoch FROM pg_conf_load_time()));"


class PostgresqlProgram:
    """The server.

    :param cluster: whose.
    :param server: how it is asked.
    :param manager: of the settings.
    """

    def __init__(self, cluster: Cluster, server: Server, manager: Manager) -> None:
        self._cluster = cluster
        self._server = server
        self._manager: Manager = manager

    def status(self) -> Status:
        """Tell its state."""
        if self._cluster.pid() is not None:
            return Status.RUNNING
        return Status.DEAD_WITH_PID_FILE if self._cluster.pid_file.exists() else Status.NOT_RUNNING

    @cached_property
    def _supervisor(self) -> Supervisor:
        if self._cluster.layout == "debian":
            direct = Direct(self._start_command(), self._stop_directly)
        else:
            direct = _AsOwner(self._start_command(), self._stop_directly, self._server.os_user)
        if self._cluster.layout == "private" and self._manager == "auto":
            return direct
        return find_supervisor(self._manager, self._cluster.unit or "postgresql", direct)

    def _start_command(self) -> list[str | os.PathLike[str]]:
        cluster = self._cluster
        if cluster.layout == "debian":
            # Becomes the owner by itself, and knows where Debian keeps the configuration and the log.
            return ["pg_ctlcluster", "--skip-systemctl-redirect", cluster.version, cluster.name, "start"]
        log = cluster.data_dir / _START_LOG
        limit = f"{_START_LIMIT:.0f}"
        return [cluster.program("pg_ctl"), "-D", cluster.data_dir, "-s", "-w", "-t", limit, "-l", log, "start"]

    def start(self) -> None:
        """Start it; returns when it takes connections.

        :raises OutsideFailure: it does not run; with its own words.
        :raises TimedOut: it runs, and is not ready in time: it replays its log.
        """
        cluster = self._cluster
        if cluster.pid() is None:
            self._reaped()
            logs = [LogTail(path) for path in self._logs()]
            try:
                self._supervisor.start()
            except OutsideFailure as failure:
                # One that replays its log for longer than its starter waits is none that did not start.
                if cluster.pid() is None:
                    raise self._not_started(logs, failure.message) from failure
            began = time.monotonic()

            def is_over() -> bool:
                if cluster.pid() is not None:
                    return _takes_connections(cluster)
                # It writes its lock file before all else: where that names nobody for so long, it is gone.
                return time.monotonic() - began > _LOCK_FILE_LIMIT

            processes.wait_until(is_over, _START_LIMIT)
            if cluster.pid() is None:
                raise self._not_started(logs, "")
        elif cluster.state() == "starting":
            processes.wait_until(lambda: cluster.state() != "starting", _START_LIMIT)
        if not _takes_connections(cluster):
            raise TimedOut(
                f"{name_of(cluster)} runs, and takes no connections yet after {_START_LIMIT:.0f} s: it replays its log "
                "(WAL) and will be ready after that. It was left to it.",
                {"limit": _START_LIMIT},
            )

    def _reaped(self) -> None:
        """Wait for the end of a process that died: while its number is taken, a new server refuses to start."""
        pid = processes.read_pid_file(self._cluster.pid_file)
        if pid is not None and not processes.is_alive(pid):
            processes.wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10)

    def _logs(self) -> list[Path]:
        cluster = self._cluster
        if cluster.layout == "debian":
            return [Path("/var/log/postgresql") / f"postgresql-{cluster.version}-{cluster.name}.log"]
        return [cluster.data_dir / _START_LOG]

    def _not_started(self, logs: list[LogTail], words: str) -> OutsideFailure:
        lines = [line for log in logs for line in log.new_lines() if line.strip() and not _IDLE_WORDS.search(line)]
        told = " ".join(dict.fromkeys(_without_prefix(line) for line in lines[-6:])) or words
        full = full_disk(self._cluster)
        return OutsideFailure(
            f"{name_of(self._cluster)} did not start. {full} {sentence(told)}".replace("  ", " ").strip()
        )

    def stop(self) -> None:
        """Stop it: its clients are cut off, nothing is lost; returns when it is gone.

        :raises OutsideFailure: it still runs.
        """
        pid = self._cluster.pid()
        if pid is None:
            return
        self._supervisor.stop()
        if not processes.wait_until(lambda: not processes.is_alive(pid), _STOP_LIMIT):
            raise OutsideFailure(
                f"{name_of(self._cluster)} (process {pid}) was told to stop and still runs after {_STOP_LIMIT:.0f} s: "
                "it writes its last checkpoint, or hangs. It was left to it."
            )

    def _stop_directly(self) -> None:
        pid = self._cluster.pid()
        if pid is not None:
            # A fast shutdown (PostgreSQL, "Shutting Down the Server").
            os.kill(pid, signal.SIGINT)

    def restart(self) -> None:
        """Stop and start it.

        :raises OutsideFailure: its configuration is not valid: it was left running; or it did not start.
        """
        self._refuse_invalid("restarted")
        self.stop()
        self.start()

    def _refuse_invalid(self, done: str) -> None:
        cluster = self._cluster
        tested = run(
            [cluster.program("postgres"), "-D", cluster.data_dir, "-C", "port", f"--config-file={cluster.config_file}"],
            timeout=20,
            user=self._server.os_user,
        )
        if tested.returncode != 0:
            words = " ".join(_without_prefix(line) for line in tested.last_words().splitlines())
            raise OutsideFailure(
                f"{name_of(cluster)} was not {done}: its configuration is not valid: {sentence(words)} "
                "It was left as it is."
            )

    def reload(self) -> None:
        """Let it load its configuration; no connection is touched. A stopped one is started.

        :raises OutsideFailure: it would not take it all; with the lines that are wrong. It goes on with the old one.
        """
        if self._cluster.pid() is None:
            self.start()
            return
        try:
            invalid = self._server.ask(_INVALID)
            before = float(self._server.ask(_LOADED))
        except ScalarizrError as failure:
            failure.begin_with("The configuration was not reloaded. ")
            raise
        if invalid:
            lines = " ".join(sentence(line) for line in invalid[:5])
            raise OutsideFailure(
                f"{name_of(self._cluster)} was not reloaded: its configuration is not valid: {lines} "
                "It goes on with the old one."
            )
        self._server.ask("SELECT to_json(pg_reload_conf());")
        if not processes.wait_until(lambda: float(self._server.ask(_LOADED)) > before, _RELOAD_LIMIT):
            raise OutsideFailure(
                f"{name_of(self._cluster)} was told to load its configuration and has not within {_RELOAD_LIMIT:.0f} "
                "s; its log may say why. It goes on with the old one."
            )


class _AsOwner(Direct):
    """pg_ctl, run as the account that owns the cluster: it refuses root."""

    def __init__(self, command: Sequence[str | os.PathLike[str]], stop: Callable[[], None], user: str) -> None:
        super().__init__(command, stop)
        self._user = user

    def start(self) -> None:
        done = run(self._command, timeout=_START_LIMIT + 10, user=self._user, leaves_daemon=True)
        if done.returncode != 0:
            raise OutsideFailure(done.last_words())


def _takes_connections(cluster: Cluster) -> bool:
    return cluster.state() in ("ready", "standby")


def _without_prefix(line: str) -> str:
    """Give a line of the server's log without what stands before its level: time, process."""
    found = [line.find(mark) for mark in ("FATAL:", "PANIC:", "ERROR:", "LOG:", "HINT:", "DETAIL:") if mark in line]
    return " ".join(line[min(found) :].split()) if found else " ".join(line.split())
