# ruff: noqa: S608  every statement is put together from constants of this module; values are always bound
"""The operations' records, in SQLite: durable before anything happens, shared by the agent and its workers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scalarizr.errors import Busy, OutsideFailure
from scalarizr.host.files import make_private_directory
from scalarizr.operations.record import FINISHED, INTERRUPTED, Progress, Record, Status, UndoStep

if TYPE_CHECKING:
    import sqlite3

KEPT_LINES = 1000
_LONGEST_LINE = 4096
_UNFINISHED = "status IN ('new', 'in-progress')"
# What the records may take on the disk; beyond it the oldest finished ones go first.
_KEPT_BYTES = 256 * 2**20


class Store:
    """The records. Thread-safe; several processes may have it open.

    :param path: the database file; made 0600 when first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lines_added = 0
        self._guard = threading.RLock()

    def exists(self) -> bool:
        """Tell whether there ever was an operation here."""
        return self.path.exists()

    def close(self) -> None:
        """Close the database."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def create(self, identity: str, name: str, resource: str, params: dict[str, Any]) -> None:
        """Record a new operation, durably.

        :raises Busy: one of the same name is not finished on the same resource; the facts carry its id.
        :raises OutsideFailure: it cannot be recorded, so it must not be started.
        """
        import sqlite3

        with self._write() as connection:
            try:
                connection.execute(
                    "INSERT INTO operations (id, name, resource, params, status, created_at) "
                    "VALUES (?, ?, ?, ?, 'new', ?)",
                    (identity, name, resource, msgspec.json.encode(params).decode(), time.time()),
                )
            except sqlite3.IntegrityError:
                row = connection.execute(
                    f"SELECT id FROM operations WHERE name = ? AND resource = ? AND ({_UNFINISHED} OR cleaning = 1)",
                    (name, resource),
                ).fetchone()
                first = row[0] if row else ""
                raise Busy(
                    f"{name} is at work on {resource} already, as operation {first}. Nothing was started; wait for it "
                    "or cancel it.",
                    {"operation_id": first, "resource": resource},
                ) from None

    def begin(self, identity: str, pid: int) -> bool:
        """Take an operation up: once, and only where nobody cancelled it.

        :return: whether it is to be done.
        """
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE operations SET status = 'in-progress', pid = ?, started_at = ? "
                "WHERE id = ? AND status = 'new' AND cancel = 0",
                (pid, time.time(), identity),
            ).rowcount
        return changed == 1

    def finish(
        self,
        identity: str,
        status: Status,
        *,
        result: Any = None,
        error: str | None = None,
        error_code: int | None = None,
        error_facts: dict[str, Any] | None = None,
        cleaning: bool = False,
    ) -> bool:
        """Record an operation's end. The first end recorded counts.

        With its completion the steps that would undo it are forgotten, in one transaction: whoever kills the worker
        finds either all of it or nothing.

        :param cleaning: what it left has still to be undone: its resource stays taken.
        :return: whether this was the first.
        """
        text = msgspec.json.encode(result).decode() if result is not None else None
        facts = msgspec.json.encode(error_facts).decode() if error_facts else None
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE operations SET status = ?, result = ?, error = ?, error_code = ?, error_facts = ?, "
                f"cleaning = ?, finished_at = ? WHERE id = ? AND {_UNFINISHED}",
                (status, text, error, error_code, facts, int(cleaning), time.time(), identity),
            ).rowcount
            if changed == 1 and status == "completed":
                connection.execute("DELETE FROM undo_steps WHERE operation = ?", (identity,))
        return bool(changed == 1)

    def finish_interrupted(self, identity: str, how: str = "died") -> bool:
        """Record the end of an operation whose worker is dead.

        :param how: what became of the worker, in words.
        :return: whether it left something to be undone.
        """
        left = bool(self.undo_steps(identity))
        if self.cancel_requested(identity):
            self.finish(identity, "canceled", error="The operation was cancelled.", cleaning=left)
        else:
            self.finish(
                identity,
                "failed",
                error=f"The operation was interrupted: its worker process {how}"
                + (". What it had begun is being undone." if left else " before its end."),
                error_code=INTERRUPTED,
                cleaning=left,
            )
        return left

    def end_cleaning(self, identity: str) -> None:
        """Let go of the resource of an operation whose leftovers were undone."""
        with self._write() as connection:
            connection.execute("UPDATE operations SET cleaning = 0 WHERE id = ?", (identity,))

    def request_cancel(self, identity: str) -> None:
        """Note that somebody wants an operation to stop."""
        with self._write() as connection:
            connection.execute(f"UPDATE operations SET cancel = 1 WHERE id = ? AND {_UNFINISHED}", (identity,))

    def cancel_requested(self, identity: str) -> bool:
        """Tell whether somebody wants an operation to stop."""
        row = self._one("SELECT cancel FROM operations WHERE id = ?", (identity,))
        return bool(row and row[0])

    def set_progress(self, identity: str, progress: Progress) -> None:
        """Note how far an operation is; not worth waiting for the disk."""
        text = msgspec.json.encode(progress).decode()
        with self._write(durable=False) as connection:
            connection.execute("UPDATE operations SET progress = ? WHERE id = ?", (text, identity))

    def add_line(self, identity: str, line: str) -> None:
        """Add a log line; the newest 1,000 are kept."""
        line = line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"
        with self._write(durable=False) as connection:
            connection.execute("INSERT INTO lines (operation, line) VALUES (?, ?)", (identity, line))
            self._lines_added += 1  # by this process, which works on one operation
            if self._lines_added % 100 == 0:
                connection.execute(
                    "DELETE FROM lines WHERE operation = ? AND number <= (SELECT number FROM lines WHERE operation = ? "
                    f"ORDER BY number DESC LIMIT 1 OFFSET {KEPT_LINES})",
                    (identity, identity),
                )

    def add_undo_step(self, identity: str, function: str, arguments: dict[str, Any]) -> int:
        """Record, durably, what undoes a step that is about to be taken.

        :return: its number.
        """
        with self._write() as connection:
            (number,) = connection.execute(
                "SELECT COALESCE(MAX(number), 0) + 1 FROM undo_steps WHERE operation = ?", (identity,)
            ).fetchone()
            connection.execute(
                "INSERT INTO undo_steps VALUES (?, ?, ?, ?)",
                (identity, number, function, msgspec.json.encode(arguments).decode()),
            )
        return int(number)

    def forget_undo_step(self, identity: str, number: int) -> None:
        """Forget a step that was undone, or need not be."""
        with self._write() as connection:
            connection.execute("DELETE FROM undo_steps WHERE operation = ? AND number = ?", (identity, number))

    def undo_steps(self, identity: str) -> list[UndoStep]:
        """Give the steps to be undone, the last one first."""
        rows = self._all(
            "SELECT number, function, arguments FROM undo_steps WHERE operation = ? ORDER BY number DESC",
            (identity,),
        )
        return [UndoStep(number, function, msgspec.json.decode(arguments)) for number, function, arguments in rows]

    def get(self, identity: str) -> Record | None:
        """Give one record, or None."""
        rows = self._records("WHERE id = ?", (identity,), 1)
        return rows[0] if rows else None

    def newest(self, status: str | None, names: Collection[str], limit: int) -> list[Record]:
        """Give records of these methods, newest first."""
        where = f"WHERE name IN ({', '.join('?' * len(names))})" + (" AND status = ?" if status is not None else "")
        return self._records(where, (*names, *([status] if status is not None else ())), limit)

    def names(self) -> list[str]:
        """Give the methods that there are records of."""
        return [row[0] for row in self._all("SELECT DISTINCT name FROM operations", ())]

    def unfinished_names(self) -> list[str]:
        """Give the methods of the operations that are not finished."""
        return [row[0] for row in self._all(f"SELECT DISTINCT name FROM operations WHERE {_UNFINISHED}", ())]

    def unfinished(self) -> list[tuple[str, int | None]]:
        """Give id and pid of each operation that is not finished."""
        return [(row[0], row[1]) for row in self._all(f"SELECT id, pid FROM operations WHERE {_UNFINISHED}", ())]

    def uncleaned(self) -> list[str]:
        """Give the operations that left something to be undone."""
        return [row[0] for row in self._all("SELECT id FROM operations WHERE cleaning = 1", ())]

    def pid_of(self, identity: str) -> int | None:
        """Give the process of an operation, once it has said so itself."""
        row = self._one("SELECT pid FROM operations WHERE id = ?", (identity,))
        return row[0] if row else None

    def prune(self, older_than: float, most_bytes: int = _KEPT_BYTES) -> list[str]:
        """Delete finished records: old ones, and the oldest where all together take too much.

        :param older_than: Unix time.
        :param most_bytes: what the records may take.
        :return: the ids.
        """
        ended = f"NOT {_UNFINISHED} AND cleaning = 0"
        gone: list[str] = []
        with self._write() as connection:
            rows = connection.execute(
                f"SELECT id FROM operations WHERE {ended} AND finished_at < ?", (older_than,)
            ).fetchall()
            while rows or self._bytes_used(connection) > most_bytes:
                if not rows:
                    rows = connection.execute(
                        f"SELECT id FROM operations WHERE {ended} ORDER BY number LIMIT 10"
                    ).fetchall()
                if not rows:
                    break
                for statement in (
                    "DELETE FROM lines WHERE operation = ?",
                    "DELETE FROM undo_steps WHERE operation = ?",
                    "DELETE FROM operations WHERE id = ?",
                ):
                    connection.executemany(statement, rows)
                gone += [identity for (identity,) in rows]
                rows = []
        return gone

    @staticmethod
    def _bytes_used(connection: sqlite3.Connection) -> int:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _records(self, where: str, values: tuple[Any, ...], limit: int) -> list[Record]:
        rows = self._all(
            "SELECT id, name, status, result, error, error_code, progress, started_at, finished_at FROM operations "
            f"{where} ORDER BY number DESC LIMIT ?",
            (*values, limit),
        )
        return [self._record(*row) for row in rows]

    def _record(
        self,
        identity: str,
        name: str,
        status: Status,
        result: str | None,
        error: str | None,
        error_code: int | None,
        progress: str | None,
        started_at: float | None,
        finished_at: float | None,
    ) -> Record:
        lines = self._all(
            f"SELECT line FROM lines WHERE operation = ? ORDER BY number DESC LIMIT {KEPT_LINES}",
            (identity,),
        )
        return Record(
            id=identity,
            name=name,
            status=status,
            result=msgspec.json.decode(result) if result is not None else None,
            error=error,
            error_code=error_code,
            logs=[line for (line,) in reversed(lines)],
            progress=msgspec.json.decode(progress, type=Progress).shown() if progress else None,
            started_at=started_at,
            finished_at=finished_at,
        )

    def error_facts(self, identity: str) -> dict[str, Any]:
        """Give what an operation's error says for programs."""
        row = self._one("SELECT error_facts FROM operations WHERE id = ?", (identity,))
        facts: dict[str, Any] = msgspec.json.decode(row[0]) if row and row[0] else {}
        return facts

    def _one(self, statement: str, values: tuple[Any, ...]) -> Any:
        rows = self._all(statement, values)
        return rows[0] if rows else None

    def _all(self, statement: str, values: tuple[Any, ...]) -> Any:
        import sqlite3

        with self._guard:
            try:
                return self._open().execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise OutsideFailure(f"{self.path} cannot be read: {error}.{_advice(error)}") from error

    @contextlib.contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One write transaction; a `durable` one is on the disk when the block ends."""
        import sqlite3

        with self._guard:
            try:
                connection = self._open()
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise OutsideFailure(
                    f"The operation cannot be recorded in {self.path}: {error}. Nothing was started.{_advice(error)}"
                ) from error

    def _open(self) -> sqlite3.Connection:
        """Give the connection: to the file that is there now, should another process have put one in its place."""
        from scalarizr.operations import database

        if self._connection is not None and self._identity_on_disk() != self._identity:
            self.close()
        if self._connection is None:
            make_private_directory(self.path.parent)
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                self._identity = self._identity_on_disk()
            except OSError as error:
                raise OutsideFailure(f"{self.path} cannot be opened: {error.strerror}.") from error
            self._connection = database.connect(self.path)
        return self._connection

    def _identity_on_disk(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def check(self) -> str | None:
        """Look whether the database is whole; where it is not, put it aside for a new one.

        :return: what was done, for the log; None where all is well.
        :raises OutsideFailure: it cannot be used at present.
        """
        import sqlite3

        from scalarizr.operations import database

        with self._guard:
            try:
                if self._was_emptied():
                    fault: str | None = "it is empty"
                else:
                    try:
                        fault = database.find_fault(self._open())
                    except sqlite3.OperationalError:
                        raise
                    except sqlite3.DatabaseError as error:
                        fault = str(error)
                if fault is None:
                    return None
                self.close()
                return database.begin_anew(self.path, fault)
            except (sqlite3.Error, OSError) as error:
                raise OutsideFailure(f"{self.path} cannot be used now: {error}.") from error

    def _was_emptied(self) -> bool:
        # A file without a byte is a database to SQLite. Where operations were, it is what is left of one.
        return not (self.path.exists() and self.path.stat().st_size) and self.has_traces()

    def has_traces(self) -> bool:
        """Tell whether something is left of operations, their records being there or not."""
        return any(self.path.parent.glob("*.lock"))


def _advice(error: sqlite3.Error) -> str:
    import sqlite3

    if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError):
        return ""
    return " Start the agent again: it puts a damaged file aside and begins a new one."


def is_finished(record: Record) -> bool:
    """Tell whether nothing more will happen to an operation."""
    return record.status in FINISHED
