"""Talking to the local server: `psql`, run as the account that owns the cluster, over the Unix socket.

Peer authentication asks the kernel who opened the socket, so a process of that account has to. The server's own `psql`
is that process: it starts in some milliseconds, can be killed where the server hangs, leaves no connection and no
memory behind in the agent, and reads the statements (with what is secret in them) from its standard input.
"""

import contextlib
import os
import pwd
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import TimedOut
from scalarizr.host.run import Finished, run
from scalarizr.postgresql import refusals
from scalarizr.postgresql.cluster import Cluster
from scalarizr.secret import without

_CONNECTED = b"connected\n"
# `postgres` may have been dropped; `template1` cannot be.
_DATABASES = ("postgres", "template1")
_ERROR = re.compile(r"^(?:ERROR|FATAL|PANIC):\s+(?P<state>[0-9A-Z]{5}): (?P<words>.*)$", re.MULTILINE)
# What keeps a session's statements out of the server's log and statistics, where the server has such settings.
_UNLOGGED = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track": "none",
    "auto_explain.log_min_duration": "-1",
    "pgaudit.log": "none",
}


class Server:
    """The server of a cluster, asked over its Unix socket; every call is a connection of its own.

    :param cluster: whose server.
    :param os_user: the account that owns the cluster, whose name the superuser bears.
    """

    def __init__(self, cluster: Cluster, os_user: str) -> None:
        self.cluster = cluster
        self.os_user = os_user

    def ask(self, sql: str, *, timeout: float = 15.0, unlogged: bool = False, secrets: Sequence[str] = ()) -> Any:
        """Run statements, each in a transaction of its own where they open none, up to the first that fails.

        :param sql: the statements; one of them selects a single JSON text, or none does.
        :param timeout: seconds for all of it; the server gives up a second earlier.
        :param unlogged: keep the statements out of the server's log and statistics views.
        :param secrets: texts that are masked in an error.
        :return: the JSON text's value; None where there is none.
        :raises OutsideFailure: the server does not run, refuses the connection or a statement; in a sentence of its own
            for each reason.
        :raises Refused: the server takes no changes.
        :raises TimedOut: the server does not answer, or a statement takes too long.
        """
        said = ""
        for database in _DATABASES:
            done = self._psql(database, _silence() + sql if unlogged else sql, timeout)
            if done.stdout.startswith(_CONNECTED):
                return self._answer(done, timeout, secrets)
            said = said or done.last_words(300)
            # Tells why, where the server itself says so; what is left may be the database that is not there.
            refused = refusals.of_connection(self.cluster, self.os_user)
            if refused is not None:
                raise refused
        raise refusals.not_let_in(self.cluster, self.os_user, without(said, secrets))

    def _psql(self, database: str, sql: str, timeout: float) -> Finished:
        directory, port = self.cluster.address()
        limit = max(int((timeout - 1) * 1000), 500)
        options = {
            "statement_timeout": limit,
            "lc_messages": "C",
            # Nobody's own functions stand in for the system's.
            "search_path": "pg_catalog,pg_temp",
            # A standby that does not answer holds up nothing here.
            "synchronous_commit": "local",
        }
        environment = {
            "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": "scalarizr",
            "HOME": _home(self.os_user),
        }
        words = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"]
        place = ["-h", str(directory), "-p", str(port), "-U", self.os_user, "-d", database]
        try:
            return run(
                [self._program(), *words, *place],
                timeout=timeout,
                input=b"\\echo " + _CONNECTED + sql.encode(),
                output_limit=1 << 24,
                environment=environment,
                user=self.os_user,
            )
        except TimedOut:
            raise refusals.hangs(self.cluster, timeout) from None

    def _program(self) -> Path:
        # Debian's /usr/bin/psql is a script that looks for this one, and takes three times as long.
        own = self.cluster.program("psql")
        return own if own.exists() else Path("psql")

    def _answer(self, done: Finished, timeout: float, secrets: Sequence[str]) -> Any:
        if done.returncode == 0:
            text = done.stdout[len(_CONNECTED) :].strip()
            return msgspec.json.decode(text) if text else None
        said = done.stderr.decode("utf-8", "replace")
        error = _ERROR.search(said)
        # Of the statement that psql quotes below the error nothing is told: it may hold what is secret.
        if error is None:
            raise refusals.broken_off(self.cluster)
        raise refusals.of_statement(self.cluster, error["state"], without(error["words"], secrets)[:300], timeout)


def _silence() -> str:
    """Give the statement that turns off what would write the next ones down."""
    wanted = ", ".join(f"({literal(name)}, {literal(value)})" for name, value in _UNLOGGED.items())
    return (
        f"DO $$ BEGIN PERFORM set_config(s.name, v.value, false) FROM (VALUES {wanted}) AS v (name, value) "
        "JOIN pg_settings AS s ON s.name = v.name; END $$;\n"
    )


def literal(text: str) -> str:
    """Write a text as an SQL string, whatever standard_conforming_strings is."""
    quoted = text.replace("'", "''")
    return f"E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{quoted}'"


def identifier(name: str) -> str:
    """Write a name as a quoted SQL identifier."""
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def _home(user: str) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(user).pw_dir
    return os.path.join("/", "nonexistent")
