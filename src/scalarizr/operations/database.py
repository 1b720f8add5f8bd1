# ruff: noqa: S608  every statement is put together from constants of this module; values are always bound
"""The file of the operations' records: its schema and versions, and what becomes of one that is damaged.

A schema only ever grows: tables and columns are added, never taken away or given another meaning. So the agent before
reads and writes what this one made, and a server may go back by a version. What one day cannot be added in that way
raises `least_reader`, and an agent older than that leaves the file alone and says so.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scalarizr.errors import OutsideFailure
from scalarizr.host.locks import try_lock
from scalarizr.operations.worker_files import WorkerFiles

VERSION = 3
_LEAST_READER = 1
# Seconds that somebody else's transaction is waited for.
PATIENCE = 20.0
_WAL_LEFT = 16 * 2**20
_KEPT_DAMAGED = 3
_NAMED = 20
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS operations (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, resource TEXT NOT NULL,
        params TEXT NOT NULL, status TEXT NOT NULL, result TEXT, error TEXT, error_code INTEGER, progress TEXT,
        pid INTEGER, cancel INTEGER NOT NULL DEFAULT 0, cleaning INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL, started_at REAL, finished_at REAL, error_facts TEXT)
    """,
    """
    CREATE UNIQUE INDEX IF NOT EXISTS one_at_a_time ON operations (name, resource)
        WHERE status IN ('new', 'in-progress') OR cleaning = 1
    """,
    """
    CREATE TABLE IF NOT EXISTS lines (
        number INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, line TEXT NOT NULL)
    """,
    "CREATE INDEX IF NOT EXISTS lines_of ON lines (operation)",
    """
    CREATE TABLE IF NOT EXISTS undo_steps (
        operation TEXT NOT NULL, number INTEGER NOT NULL, function TEXT NOT NULL, arguments TEXT NOT NULL,
        PRIMARY KEY (operation, number))
    """,
    "CREATE TABLE IF NOT EXISTS compatibility (least_reader INTEGER NOT NULL)",
    f"INSERT INTO compatibility VALUES ({_LEAST_READER})",
)
# What brings a file of that version to the next one.
_STEPS: dict[int, Sequence[str]] = {0: _SCHEMA, 1: (), 2: _SCHEMA[-2:]}
# The columns that came after version 1. Agents of version 1 and 2 may have been cut off with them added or not.
_ADDED_COLUMNS = {"error_facts": "TEXT"}
_COLUMNS = "id, name, resource, params, status, progress, pid, cancel, cleaning, created_at, started_at"
_NOT_SETTLED = "(status IN ('new', 'in-progress') OR cleaning = 1)"


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, which is made or brought up to date where that is due.

    :raises sqlite3.Error: it cannot be used.
    :raises OutsideFailure: it is of an agent so new that this one cannot read it.
    """
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LEFT}")
        version = _version(connection)
        if version < VERSION:
            _bring_up_to_date(connection)
        elif version > VERSION:
            _refuse_what_is_too_new(connection, path, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Take all the steps that are due, or none; another process may have taken them meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        while version < VERSION:
            for statement in _STEPS[version]:
                connection.execute(statement)
            version = version + 1 if version else VERSION
        there = {row[1] for row in connection.execute("PRAGMA table_info(operations)")}
        for name, kind in _ADDED_COLUMNS.items():
            if name not in there:
                connection.execute(f"ALTER TABLE operations ADD COLUMN {name} {kind}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_what_is_too_new(connection: sqlite3.Connection, path: Path, version: int) -> None:
    (least,) = connection.execute("SELECT max(least_reader) FROM compatibility").fetchone()
    if least is not None and least > VERSION:
        raise OutsideFailure(
            f"{path} was written by a newer scalarizr: it has version {version} and can be read from {least} on, this "
            f"one knows {VERSION}. It was left as it is: install the newer one again, or move the file away."
        )


def find_fault(connection: sqlite3.Connection) -> str | None:
    """Look whether the file is whole.

    :return: what is wrong, in words; None where all is well.
    :raises sqlite3.OperationalError: it is full, locked or unreadable: no reason to throw records away.
    """
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else str(verdict)


def begin_anew(path: Path, fault: str) -> str:
    """Put a damaged file aside, and a new one in its place with what can be read of what is not settled yet.

    Whoever has the old one open finds the new one at its next look.

    :param fault: what is wrong with the old one.
    :return: what was done, for the log.
    :raises OSError, sqlite3.Error: it cannot be done; the old one is where it was.
    """
    known = {file.name.removesuffix(".lock") for file in path.parent.glob("*.lock")}
    is_there = path.exists()
    rows, steps, lost = _salvaged(path, known) if is_there else ([], [], sorted(known))
    new = path.with_name(f".{path.name}.new")
    _unlink(new)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = connect(new)
    try:
        connection.execute("BEGIN IMMEDIATE")
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        connection.executemany(f"INSERT OR IGNORE INTO operations ({_COLUMNS}) VALUES ({marks})", rows)
        connection.executemany("INSERT OR IGNORE INTO undo_steps VALUES (?, ?, ?, ?)", steps)
        connection.execute("COMMIT")
    finally:
        connection.close()  # which leaves no log of its own beside it
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 10**6}")
    # The log first: with the new file it would be taken for that one's.
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{path}-wal", f"{aside}-wal")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}-shm")
    if is_there:
        os.link(path, aside)
    os.rename(new, path)
    _forget_older(path)
    _forget_locks(path.parent, lost)
    words = f"{path} was damaged ({fault}); kept as {aside.name}" if is_there else f"{path} is gone"
    words += "; a new one is begun"
    if rows:
        words += f", with what was not settled yet: {_named(row[0] for row in rows)}"
    if lost:
        words += f"; lost, with whatever they had yet to undo: {_named(lost)}"
    return words


def _salvaged(path: Path, known: set[str]) -> tuple[list[Any], list[Any], list[str]]:
    """Read what is not settled: first all at once, then, for what lies on good pages, one by one.

    :param known: the ids of which there is a lock, those of settled ones among them.
    :return: operations, their undo steps, and the ids of those of which nothing can be read.
    """
    rows: dict[str, Any] = {}
    steps: list[Any] = []
    read: set[str] = set()
    broken: set[str] = set()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
    with contextlib.closing(connection):
        with contextlib.suppress(sqlite3.Error):
            for row in connection.execute(f"SELECT {_COLUMNS} FROM operations WHERE {_NOT_SETTLED}"):
                rows[row[0]] = row
        for identity in known:
            try:
                found = connection.execute(
                    f"SELECT {_COLUMNS}, {_NOT_SETTLED} FROM operations WHERE id = ?", (identity,)
                ).fetchone()
            except sqlite3.Error:
                continue
            if found is not None:
                read.add(identity)
                if found[-1]:
                    rows[identity] = found[:-1]
        for identity in rows:
            try:
                steps += connection.execute("SELECT * FROM undo_steps WHERE operation = ?", (identity,)).fetchall()
            except sqlite3.Error:
                broken.add(identity)
    return list(rows.values()), steps, sorted((known - read - rows.keys()) | broken)


def _forget_older(path: Path) -> None:
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"))
    for old in kept[:-_KEPT_DAMAGED]:
        _unlink(old)
        _unlink(Path(f"{old}-wal"))


def _forget_locks(directory: Path, lost: Iterable[str]) -> None:
    """Remove the files of operations that nobody knows any more, unless a worker is still at one."""
    for identity in lost:
        lock = try_lock(directory / f"{identity}.lock")
        if lock is not None:
            WorkerFiles(directory).forget([identity])
            os.close(lock)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _named(identities: Iterable[str]) -> str:
    names = list(identities)
    return ", ".join(names[:_NAMED]) + (f", … ({len(names)} in all)" if len(names) > _NAMED else "")
