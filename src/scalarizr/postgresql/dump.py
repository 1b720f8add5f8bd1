"""One dump: pg_dump or pg_dumpall as the account that owns the cluster, compressed and counted as it streams by."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator

import msgspec

from scalarizr.errors import NotConfigured, OutsideFailure, TimedOut
from scalarizr.host.stream import Stream
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.refusals import name_of, sentence

_PIECE = 2**20
# What zstd's thread takes at a time, and holds a few of: at level 9 that is 32 MB in all, with its own choice 84 MB.
_AT_A_TIME = 4 * 2**20
# Until its first table a dump of a great many tables reads catalogues; nothing else takes it so long.
_STALL = 3600.0
_LONGEST_WAIT = 2**31 - 1  # milliseconds, an int of the server
_LEVELS = range(1, 20)
_LOCK_WORDS = ("statement timeout", "lock timeout")


class DumpFailed(OutsideFailure):
    """A dump did not come to its end.

    :ivar waited_for_lock: it gave up waiting for a lock.
    """

    waited_for_lock = False


class Database(msgspec.Struct, frozen=True):
    """A database as the server lists it.

    :param oid: which stays when it is renamed.
    :param name: its name now.
    :param size: bytes on disk.
    :param dumpable: it takes connections and is whole.
    """

    oid: int
    name: str
    size: int
    dumpable: bool


class Compression(msgspec.Struct, frozen=True):
    """How dumps are compressed.

    :param level: of zstd; None: not at all.
    """

    level: int | None

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Read the setting: `zstd`, `zstd:LEVEL` or `none`.

        :raises NotConfigured: it is none of these.
        """
        name, _colon, level = text.partition(":")
        if text == "none":
            return cls(None)
        if name == "zstd" and (not _colon or (level.isascii() and level.isdigit() and int(level) in _LEVELS)):
            return cls(int(level) if level else 3)
        raise NotConfigured(
            f'[backup] compression is {text[:40]!r}, not "zstd", "zstd:1" to "zstd:19", or "none". Nothing was changed.'
        )

    @property
    def suffix(self) -> str:
        return "" if self.level is None else ".zst"

    def at_most(self, size: int) -> int:
        """Give about how many bytes the dump of a database can have.

        :param size: the database's, in bytes on disk, where PostgreSQL compresses long values and keeps indexes.
        """
        return size * 4 if self.level is None else size * 5 // 4

    def apply(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Compress, into pieces of 1 MiB; zstd's own checksum of the content is in it.

        One thread of zstd's works beside the caller's, who reads, stores and counts meanwhile: no more than the
        command `zstd` takes.
        """
        if self.level is None:
            yield from pieces
            return
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(
            self.level, threads=1, job_size=_AT_A_TIME, write_checksum=True
        )
        chunker = zstandard.ZstdCompressor(compression_params=parameters).chunker(chunk_size=_PIECE)
        for piece in pieces:
            yield from chunker.compress(piece)
        yield from chunker.finish()  # type: ignore[no-untyped-call]


def list_databases(server: Server) -> list[Database]:
    """Give every database but `template0`, the largest first."""
    rows = server.ask(
        "SELECT coalesce(json_agg(d), '[]') FROM (SELECT oid::bigint AS oid, datname AS name, "
        "coalesce(pg_database_size(oid), 0) AS size, datallowconn AND datconnlimit <> -2 AS dumpable "
        "FROM pg_database WHERE datname <> 'template0' ORDER BY 3 DESC, 2) AS d;",
        timeout=120,
    )
    return msgspec.convert(rows, list[Database])


def name_now(server: Server, oid: int) -> str | None:
    """Give the name that a database has now; None where it is gone."""
    name = server.ask(f"SELECT to_json(max(datname)) FROM pg_database WHERE oid = {oid:d};")  # noqa: S608  a number
    return name if isinstance(name, str) else None


class Dump:
    """One dump under way.

    :param server: of the cluster.
    :param database: whose; None: what all have in common, the roles and tablespaces.
    :param compression: of what it gives.
    :param label: its `application_name`.
    :param lock_timeout: seconds that it waits for a lock.
    """

    def __init__(
        self, server: Server, database: Database | None, compression: Compression, label: str, lock_timeout: float
    ) -> None:
        self.database = database
        self.label = label
        self._server = server
        self._compression = compression
        self._lock_timeout = lock_timeout
        self._stream: Stream | None = None
        self._stopped = False

    @property
    def taken(self) -> int:
        """Bytes dumped so far, before compression."""
        return 0 if self._stream is None else self._stream.taken

    def silent_for(self) -> float:
        """Give for how many seconds the dump has been waited for in vain; 0 where the store is what is waited for."""
        since = None if self._stream is None else self._stream.waited_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """End it; may be called from any thread."""
        self._stopped = True
        if self._stream is not None:
            self._stream.kill()

    def chunks(self) -> Generator[bytes]:
        """Give the dump, compressed.

        :raises DumpFailed: it did not come to its end.
        """
        with contextlib.closing(self._plain()) as plain:
            yield from self._compression.apply(plain)

    def _plain(self) -> Generator[bytes]:
        directory, port = self._server.cluster.address()
        environment = {
            "PGHOST": str(directory),
            "PGPORT": str(port),
            "PGUSER": self._server.os_user,
            "PGAPPNAME": self.label,
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": "-c lc_messages=C",
            "HOME": "/nonexistent",
        }
        if self.database is not None:
            # On the command line a name with `=` in it, or one like a URL, would be taken for a connection string.
            environment["PGDATABASE"] = self.database.name
        stall = _STALL + self._lock_timeout
        with Stream(self._command(), stall=stall, environment=environment, user=self._server.os_user) as stream:
            self._stream = stream
            if self._stopped:
                stream.kill()
            try:
                yield from stream.chunks()
                ended = stream.finished()
            except TimedOut as hung:
                raise self._failed(hung.message) from hung
            if ended.returncode != 0:
                raise self._failed(ended.last_words(500))

    def _command(self) -> list[str]:
        wait = f"--lock-wait-timeout={min(max(int(self._lock_timeout * 1000), 1), _LONGEST_WAIT)}"
        if self.database is None:
            program = self._server.cluster.program("pg_dumpall")
            return [str(program), "--globals-only", "--no-password", wait]
        program = self._server.cluster.program("pg_dump")
        return [str(program), "--format=custom", "--compress=0", "--no-password", wait]

    def _failed(self, words: str) -> DumpFailed:
        what = "The dump of the roles" if self.database is None else f"The dump of the database {self.database.name!r}"
        where = name_of(self._server.cluster)
        failed = DumpFailed(f"{what} of {where} did not come to its end: {sentence(words)}")
        failed.waited_for_lock = "LOCK TABLE" in words and any(each in words for each in _LOCK_WORDS)
        return failed
