"""Why a server does not do what it was asked: one sentence for each reason, whatever language the server speaks.

The reason is told by SQLSTATE (PostgreSQL, Appendix A), by the server's lock file and by the disk, never by the words
of a message, which a server may have been set to write in any language. A refusal before authentication has its
SQLSTATE only in the protocol ("Message Formats"), so a connection's first message is sent and its answer read here.
"""

import os
import re
import socket
import struct
from pathlib import Path

from scalarizr.errors import UNCHANGED, OutsideFailure, Refused, ScalarizrError, TimedOut
from scalarizr.postgresql.cluster import Cluster
from scalarizr.secret import MASK

_PROTOCOL = 3 << 16
_LONGEST_ANSWER = 1 << 16
_PROBE_LIMIT = 1.0
_IN_WORDS = re.compile(r"(password\s*=\s*)(?:'(?:[^'\\]|\\.|'')*'|[^\s'\"]+)", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(postgres(?:ql)?://[^\s:/@]*:)[^\s@]+@", re.IGNORECASE)
_SEGMENT = 16 << 20  # of the server's log (WAL): one more has to find room, or the server stops


class ConnectionLost(OutsideFailure):
    """The server broke the connection off in the middle of a statement, which may have been done or not."""


def of_connection(cluster: Cluster, user: str) -> ScalarizrError | None:
    """Tell why the server takes no connection at all; None where it would: then it is about who asks, or for what."""
    directory, port = cluster.address()
    path = directory / f".s.PGSQL.{port}"
    try:
        state, words = _first_answer(path, user)
    except TimeoutError:
        return hangs(cluster, _PROBE_LIMIT)
    except OSError:
        return _without_socket(cluster, path)
    if state == "57P03":
        return _not_ready(cluster, words)
    if state == "53300":
        return OutsideFailure(
            f"{name_of(cluster)} has no connection left: all that max_connections allows are taken. {UNCHANGED} End "
            "some (pg_stat_activity shows who holds them), or raise max_connections and restart it.",
            {"sqlstate": state},
        )
    # 28…: an account of another name asks here, of whom nothing was promised; else the server speaks for itself.
    if state and not state.startswith("28") and state != "3D000":
        return OutsideFailure(f"{name_of(cluster)} refuses connections: {words} {UNCHANGED}", {"sqlstate": state})
    return None


def _without_socket(cluster: Cluster, path: Path) -> ScalarizrError:
    pid = cluster.pid()
    if pid is not None and cluster.state() in ("starting", "stopping"):
        return _not_ready(cluster, "")
    if pid is not None:
        return OutsideFailure(
            f"{name_of(cluster)} runs (process {pid}) and does not listen on the socket {path}. {UNCHANGED} Set "
            "[postgresql] socket_dir and port to those of its unix_socket_directories and port."
        )
    full = full_disk(cluster)
    then = f"{full} Make room, then start it" if full else "Start it"
    return OutsideFailure(
        f"{name_of(cluster)} does not run: nothing listens on the socket {path}. {UNCHANGED} {then} "
        "(postgresql.start_service); why it ended stands in its log."
    )


def _not_ready(cluster: Cluster, words: str) -> ScalarizrError:
    doing = {
        "starting": "is starting, or recovers after a crash: it takes connections once it has replayed its log (WAL)",
        "stopping": "is shutting down",
        "standby": "is a standby that takes no connections (hot_standby is off)",
    }.get(cluster.state(), "takes no connections at present")
    own = f" ({words})" if words else ""
    return OutsideFailure(f"{name_of(cluster)} {doing}{own}. {UNCHANGED} Try again later.", {"state": cluster.state()})


def hangs(cluster: Cluster, seconds: float) -> TimedOut:
    """The server did not answer in time."""
    return TimedOut(
        f"{name_of(cluster)} does not answer: nothing came within {seconds:g} s. {UNCHANGED} Its process may be "
        "stopped, or its disk hang; look at it (process state, kernel log) before it is restarted.",
        {"limit": float(seconds)},
    )


def not_let_in(cluster: Cluster, user: str, words: str) -> OutsideFailure:
    """The server runs, and refuses the account, in its own words alone."""
    full = full_disk(cluster)
    if full:
        return OutsideFailure(
            f"{name_of(cluster)} refuses: {sentence(words)} {full} {UNCHANGED} Make room and try again."
        )
    return OutsideFailure(
        f"{name_of(cluster)} does not let the account {user} in over its Unix socket: {sentence(words)} {UNCHANGED} "
        f'Where the account lacks a right: pg_hba.conf needs the line "local all {user} peer" before others that '
        f"match, and there has to be a role {user} that is a superuser; [postgresql] os_user names the account."
    )


def broken_off(cluster: Cluster) -> ConnectionLost:
    """The connection ended in the middle of a statement."""
    words = f"{name_of(cluster)} broke the connection off: it stopped or crashed meanwhile; its log says why."
    return ConnectionLost(f"{words} {full_disk(cluster)}".rstrip())


def of_statement(cluster: Cluster, state: str, words: str, timeout: float) -> ScalarizrError:
    """A statement failed.

    :param state: its SQLSTATE.
    :param words: the server's own, without anything secret.
    :param timeout: seconds that it had.
    """
    name, facts = name_of(cluster), {"sqlstate": state}
    if state.startswith(("57P", "08")):
        return broken_off(cluster)
    if state == "25006":
        return Refused(
            f"{name} takes no changes at present: {sentence(words)} {UNCHANGED} On a standby, ask its primary; else "
            "turn default_transaction_read_only off.",
            facts,
        )
    if state == "57014":
        return TimedOut(
            f"{name} did not finish a statement within {timeout - 1:g} s and gave it up: {sentence(words)} {UNCHANGED} "
            "A lock may be held by somebody else (pg_locks, pg_stat_activity).",
            facts,
        )
    if state == "53100":
        return OutsideFailure(
            f"{name} has no room left on its disk: {sentence(words)} {UNCHANGED} Make room and try again.", facts
        )
    if state == "53300":
        return OutsideFailure(f"{name} has no connection left: {sentence(words)} {UNCHANGED} Try again later.", facts)
    if state == "42501":
        return OutsideFailure(
            f"{name} does not allow it: {sentence(words)} {UNCHANGED} The role of [postgresql] os_user must be a "
            "superuser.",
            facts,
        )
    return OutsideFailure(f"{name} refused: {sentence(words)} {UNCHANGED}", facts)


def full_disk(cluster: Cluster) -> str:
    """Say that a file system of the cluster is full; empty where none is."""
    for path in (cluster.data_dir, cluster.data_dir / "pg_wal"):
        try:
            room = os.statvfs(path)
        except OSError:
            continue
        left = room.f_bavail * room.f_frsize
        if left < _SEGMENT:
            return f"The file system of {path} is full: {left / 1e6:.1f} MB are left."
    return ""


def _first_answer(path: Path, user: str) -> tuple[str, str]:
    """Open a connection and read what the server says first.

    :return: SQLSTATE and words of its refusal; both empty where it goes on to ask who is there.
    :raises OSError: nobody listens; TimeoutError: nobody answers.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PROBE_LIMIT)
        try:
            connection.connect(str(path))
        except BlockingIOError as error:  # a queue of connections that nobody takes (connect(2), EAGAIN)
            raise TimeoutError from error
        options = b"\0".join((b"user", user.encode(), b"database", b"postgres", b"", b""))
        connection.sendall(struct.pack("!II", len(options) + 8, _PROTOCOL) + options)
        with connection.makefile("rb") as answer:
            head = answer.read(5)
            if len(head) < 5 or head[:1] != b"E":
                return "", ""
            body = answer.read(min(struct.unpack("!I", head[1:])[0] - 4, _LONGEST_ANSWER))
    fields = {chr(field[0]): field[1:].decode("utf-8", "replace") for field in body.split(b"\0") if field}
    return fields.get("C", ""), fields.get("M", "")[:300]


def name_of(cluster: Cluster) -> str:
    """Name a server in a message."""
    return f"PostgreSQL {cluster.version} in {cluster.data_dir}"


def sentence(words: str) -> str:
    """End words of others as a sentence, without passwords of connection strings in them."""
    words = _IN_ADDRESS.sub(rf"\1{MASK}@", _IN_WORDS.sub(rf"\1{MASK}", words)).strip()
    return words if not words or words[-1] in ".!?…" else f"{words}."
