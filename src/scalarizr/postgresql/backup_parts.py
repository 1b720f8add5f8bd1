"""The parts of a backup: what the databases share and each of them, dumped and stored several at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections import deque

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.host.side_thread import SideThread
from scalarizr.objectstore.store import Store
from scalarizr.objectstore.upload import aside
from scalarizr.operations.progress import Running
from scalarizr.postgresql import backup_catalogue as catalogue
from scalarizr.postgresql.backup_catalogue import Part, Skipped
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.dump import Compression, Database, Dump, DumpFailed, name_now
from scalarizr.postgresql.lock_holders import lock_holders
from scalarizr.settings.model import Backup

_TICK = 0.25
# A dump that has said nothing for so long may be waiting for a lock.
_SUSPICIOUS = 0.75
_ASK_AGAIN = 5.0
_LIGHT = 32 * 2**20
_STOPPING = 12.0
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}", re.ASCII)
_MARK = b"A backup is being made here, or was broken off: without manifest.json it is none.\n"


class Stopped(Exception):
    """A dump was told to stop, since another failed or the operation was cancelled."""


class PartsMaking:
    """One backup being made: its dumps, several at a time, until all are done or one has failed."""

    def __init__(
        self,
        server: Server,
        store: Store,
        compression: Compression,
        identity: str,
        settings: Backup,
        running: Running,
    ) -> None:
        self.identity = identity
        self._server = server
        self._store = store
        self._compression = compression
        self._settings = settings
        self._running = running
        self._stopped = False
        self._ended = threading.Event()
        self._jobs: list[_Job] = []
        self._done = 0
        # Whose dump a name stands for: two databases with one name could not both be restored.
        self._names: dict[str, int] = {}

    def run(self, databases: list[Database]) -> tuple[list[Part], list[Skipped]]:
        """Dump what the databases share and each of them.

        :raises ScalarizrError: one failed; the others were stopped.
        """
        skipped = [
            Skipped(
                one.name, "It takes no connections (datallowconn is off), or a DROP DATABASE of it was interrupted."
            )
            for one in databases
            if not one.dumpable
        ]
        for one in skipped:
            self._running.log(f"The database {one.database!r} is left out. {one.reason}")
        waiting: deque[Database | None] = deque([*(one for one in databases if one.dumpable), None])
        count, total = len(waiting), sum(one.size for one in waiting if one is not None)
        parts: list[Part] = []
        self._store.put_bytes(catalogue.marker_path(self.identity), _MARK)
        try:
            while waiting or self._jobs:
                while waiting and len(self._jobs) < self._at_once():
                    self._start(waiting.popleft())
                if waiting and self._room_for_a_light_one(waiting[-1]):
                    self._start(waiting.pop())
                self._wait()
                for job in [job for job in self._jobs if job.thread.ended]:
                    outcome = job.thread.result()
                    self._jobs.remove(job)
                    self._done += job.size
                    if isinstance(outcome, Skipped):
                        self._running.log(f"The database {outcome.database!r} is left out. {outcome.reason}")
                        skipped.append(outcome)
                    else:
                        parts.append(outcome)
                        self._running.log(f"{_named(outcome.database)}: {outcome.dumped} bytes, {outcome.size} stored")
                self._tell(len(parts) + len(skipped), count, total)
        finally:
            self._stop()
        return parts, skipped

    def _at_once(self) -> int:
        return max(self._settings.jobs or (os.cpu_count() or 2) // 2, 1)

    def _room_for_a_light_one(self, database: Database | None) -> bool:
        """Tell whether a small one may go beside large ones: every cluster has some, which take longer to begin than
        to dump.
        """
        light = database is None or database.size < _LIGHT
        return light and self._settings.jobs is None and all(job.size >= _LIGHT for job in self._jobs)

    def _start(self, database: Database | None) -> None:
        job = _Job(database, f"scalarizr backup {self.identity[-6:]} {database.oid if database else 'roles'}")
        # A cancellation comes before or after it: there is no dump that nobody knows of.
        with self._running.uninterrupted():
            job.thread = aside(lambda: self._dump(job), self._ended)
            self._jobs.append(job)

    def _wait(self) -> None:
        self._ended.wait(_TICK)
        self._ended.clear()
        for job in self._jobs:
            self._look_for_locks(job)

    def _look_for_locks(self, job: _Job) -> None:
        dump = job.dump
        if dump is None or dump.silent_for() < _SUSPICIOUS or time.monotonic() < job.ask_at:
            return
        job.ask_at = time.monotonic() + _ASK_AGAIN
        holders = lock_holders(self._server, job.label)
        if holders and holders != job.holders:
            self._running.log(f"{_named(job.name)}: waits for a lock that is held by {holders}")
        job.holders = holders or job.holders

    def _dump(self, job: _Job) -> Part | Skipped:
        if job.database is None:
            return self._stored(job, None)
        for _attempt in range(4):
            database = job.database
            part: Part | None = None
            failed: DumpFailed | None = None
            if self._names.setdefault(database.name, database.oid) == database.oid:
                try:
                    part = self._stored(job, database)
                except DumpFailed as error:
                    self._go_on(0)
                    failed = error
            # Who has the name now may be another: databases are renamed into each other's names.
            now = self._name_now(database, failed)
            if part is not None and now in (database.name, None):
                return part
            if now is None:
                return Skipped(database.name, "It was dropped meanwhile.")
            if now == database.name and failed is not None:
                raise self._explained(failed, job)
            if part is not None:
                self._store.delete(part.path)
            if self._names.get(database.name) == database.oid:
                del self._names[database.name]
            job.database = msgspec.structs.replace(database, name=now)
        raise DumpFailed(
            f"Databases were renamed while they were backed up, {job.name!r} among them: which is which is not known. "
            "Nothing was kept; try again."
        )

    def _stored(self, job: _Job, database: Database | None) -> Part:
        job.dump = dump = Dump(self._server, database, self._compression, job.label, self._settings.lock_timeout)
        path = f"{catalogue.directory_of(self.identity)}/{_file_name(database, self._compression)}"
        with contextlib.closing(dump.chunks()) as chunks:
            stored = self._store.put_stream(path, chunks, self._go_on, size_hint=self._compression.at_most(job.size))
        return Part(path, None if database is None else database.name, stored.size, stored.sha256, dump.taken)

    def _name_now(self, database: Database, failed: DumpFailed | None) -> str | None:
        try:
            return name_now(self._server, database.oid)
        except ScalarizrError as error:
            raise failed or error from None

    def _explained(self, failed: DumpFailed, job: _Job) -> DumpFailed:
        if failed.waited_for_lock:
            holders = f"It is held by {job.holders}. " if job.holders else ""
            failed.say_further(
                f"A lock did not come within {self._settings.lock_timeout:g} s ([backup] lock_timeout). {holders}"
                "Nothing was kept; try again when that is over, or end it (pg_terminate_backend)."
            )
        else:
            failed.say_further("Nothing was kept.")
        return failed

    def _go_on(self, _size: int) -> None:
        if self._stopped:
            raise Stopped

    def _stop(self) -> None:
        """End what still runs, and wait for it: nothing may write to the store any more when it is cleaned."""
        self._stopped = True
        for job in self._jobs:
            if job.dump is not None:
                job.dump.stop()
        deadline = time.monotonic() + _STOPPING
        for job in self._jobs:
            with contextlib.suppress(Exception):
                job.thread.result(limit=max(deadline - time.monotonic(), 0.05))

    def _tell(self, ended: int, count: int, total: int) -> None:
        """Tell how far it is, in bytes of the databases: a dump has no index in it, and is smaller or larger."""
        dumped = sum(min(job.dump.taken, job.size) for job in self._jobs if job.dump is not None)
        names = ", ".join(_named(job.name) for job in self._jobs)
        step = f"{ended} of {count} dumped" + (f", now {names}" if names else "")
        self._running.progress(min(self._done + dumped, total), total, "bytes", step)


class _Job:
    """One dump, and what is known of it."""

    thread: SideThread[Part | Skipped]

    def __init__(self, database: Database | None, label: str) -> None:
        self.database = database
        self.label = label
        self.size = 0 if database is None else database.size
        self.dump: Dump | None = None
        self.ask_at = 0.0
        self.holders = ""

    @property
    def name(self) -> str | None:
        return None if self.database is None else self.database.name


def _named(database: str | None) -> str:
    return "roles and tablespaces" if database is None else f"database {database!r}"


def _file_name(database: Database | None, compression: Compression) -> str:
    """Name a part after its database; a name that is not plain gets a dot and a checksum, which no plain one has."""
    if database is None:
        return f"globals.sql{compression.suffix}"
    name = database.name
    if not _PLAIN_NAME.fullmatch(name):
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40]
        name = f"{readable if readable[:1] != '-' else '_' + readable}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name}.dump{compression.suffix}"
