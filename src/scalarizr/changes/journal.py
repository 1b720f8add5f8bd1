"""The journal: what a change is about to do, durable before it does it; and the bounded history of what was done.

A change has a directory of its own. Under `pending/` it is not finished: the next start undoes it, or tidies up behind
it where its record says that it was applied. Renamed to `history/` it is. What files held is kept compressed under
`objects/`, by its hash, once for all the changes that need it for going back; it is never shown where it is secret.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from scalarizr.changes.live_file import FileState
from scalarizr.host.files import fsync_directory, make_private_directory, write_file
from scalarizr.host.locks import locked

if TYPE_CHECKING:
    from scalarizr.changes.prepared import Prepared

_RECORD = "record.json"
_SMALL = 1 << 14  # of a record that is kept in memory
_TIME_DIGITS = 13  # of an id: milliseconds
_ID = re.compile("[0-9a-f]{21}")

Status = Literal["applying", "applied", "waiting", "reverted", "conflict", "failed"]


class KeptState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a name held: as `FileState`, with the hash of the content in place of it."""

    digest: str | None
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    attributes: dict[str, bytes] = {}
    target: str | None = None


class JournaledFile(msgspec.Struct, frozen=True):
    """One file of a change.

    :param path: the live name.
    :param old: what it was.
    :param new: what it becomes.
    :param in_place: it is rewritten, not renamed over.
    :param secret: its content is never shown.
    """

    path: str
    old: KeptState
    new: KeptState
    in_place: bool = False
    secret: bool = False


class PlannedFile(msgspec.Struct, frozen=True):
    """The same with the contents at hand."""

    path: Path
    old: FileState
    new: FileState
    in_place: bool = False
    secret: bool = False


class Confirmation(msgspec.Struct, frozen=True):
    """Until when a change waits for its confirmation.

    :param by: Unix time, for people and for a later boot.
    :param since_boot: the same in seconds since boot, which no clock that is set moves.
    :param boot: the kernel's id of this boot.
    """

    by: float
    since_boot: float
    boot: str


class Record(msgspec.Struct, frozen=True):
    """One change.

    :param id: sorts by time.
    :param time: Unix time.
    :param method: what the caller called.
    :param service: what it changed.
    :param status: `applying` while it is in the journal.
    :param files: the live files.
    :param confirmation: of one that nobody confirmed yet.
    """

    id: str
    time: float
    method: str
    service: str
    status: Status
    files: list[JournaledFile]
    confirmation: Confirmation | None = None


class Journal:
    """The journal and the history below one directory.

    :param directory: made 0700 when first needed.
    :param keep: how many finished changes are kept, those that wait for their confirmation apart.
    :ivar objects: the directory of what files held.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._kept = keep
        self._pending = directory / "pending"
        self._history = directory / "history"
        self.objects = directory / "objects"
        self._damaged = directory / "damaged"
        self._known: dict[Path, tuple[tuple[int, int, int], Record]] = {}

    def make_directories(self) -> None:
        """Make what the journal needs of directories, durably."""
        for directory in (self._directory, self._pending, self._history, self.objects):
            if not directory.is_dir():
                make_private_directory(directory)
                fsync_directory(directory.parent)

    def form(self, record: Record, files: list[PlannedFile], prepared: "Prepared | None" = None) -> Record:
        """Write a change down beside the journal, durably.

        :param prepared: what is written of it already.
        :return: the record with its files.
        :raises OSError: it was not written; nothing is left of it.
        """
        with self._alone():
            return self._form(record, files, prepared)

    def begin(self, record: Record, files: list[PlannedFile], prepared: "Prepared | None" = None) -> Record:
        """Take a change into the journal, durably, before its first live byte.

        :param record: all but its files.
        :param prepared: what is written of it already.
        :return: the record with them.
        :raises OSError: it was not written; nothing is left of it.
        """
        self.make_directories()
        formed = prepared.formed() if prepared else None
        with self._alone():
            forming = self._forming(record)
            if formed is None or not self._is_whole(formed):
                record = self._form(record, files, prepared)
            else:
                confirmation = record.confirmation
                record = msgspec.structs.replace(formed, confirmation=confirmation)
            try:
                if formed is not None and record.confirmation != formed.confirmation:
                    write_file(forming / _RECORD, msgspec.json.encode(record), mode=0o600)
                os.rename(forming, self._pending / record.id)
                fsync_directory(self._pending)
            except BaseException:
                self._drop(record)
                raise
        if prepared:
            prepared.taken()
        return record

    def formed(self) -> list[Record]:
        """Give the changes that were cut off before they were begun: something of them may lie beside live files."""
        found = []
        for place in self._pending.glob(".*") if self._pending.is_dir() else ():
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                found.append(msgspec.json.decode((place / _RECORD).read_bytes(), type=Record))
        return found

    def drop_formed(self, record: Record) -> None:
        """Remove what is written of a change that is not begun."""
        with self._alone():
            shutil.rmtree(self._forming(record), ignore_errors=True)
            self._drop_unused_objects()

    def settle(self, record: Record) -> None:
        """Give a pending change its final status: from here on it is not undone any more."""
        write_file(self._pending / record.id / _RECORD, msgspec.json.encode(record), mode=0o600)

    def finish(self, record: Record) -> None:
        """Move a change into the history: that is what ends it. Its status is `applied` where none was settled."""
        os.rename(self._pending / record.id, self._history / record.id)
        fsync_directory(self._history)
        fsync_directory(self._pending)
        with self._alone():
            self._prune()

    def forget(self, record: Record) -> None:
        """Remove a change that was undone at once and changed nothing."""
        with self._alone():
            shutil.rmtree(self._pending / record.id, ignore_errors=True)
            self._drop_unused_objects()

    def pending(self) -> list[Record]:
        """Give the changes that did not come to their end, oldest first."""
        return self._records(self._pending)

    def sweep(self) -> list[Path]:
        """Remove what never became a whole journal: nothing was changed by it; put aside what cannot be read any more.

        :return: what was put aside.
        """
        put_aside: list[Path] = []
        if self._pending.is_dir():
            with self._alone():
                for place in (*_places(self._pending), *_places(self._history)):
                    if (place / _RECORD).exists() and _decoded(place / _RECORD) is None:
                        put_aside.append(self._put_aside(place))
                for left in self._pending.glob(".*"):
                    if not (left / _RECORD).exists() or _decoded(left / _RECORD) is None:
                        shutil.rmtree(left, ignore_errors=True)
                for left in self.objects.glob(".*"):
                    left.unlink(missing_ok=True)
                for place in (*_places(self._pending), *_places(self._history)):
                    if not (place / _RECORD).exists():
                        shutil.rmtree(place, ignore_errors=True)
                self._drop_unused_objects()
        return put_aside

    def _put_aside(self, place: Path) -> Path:
        make_private_directory(self._damaged)
        aside = self._damaged / f"{place.parent.name}-{place.name}"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place, aside)
        for older in _places(self._damaged)[: -self._kept]:
            shutil.rmtree(older, ignore_errors=True)
        return aside

    def update(self, record: Record) -> None:
        """Give a finished change another status."""
        write_file(self._history / record.id / _RECORD, msgspec.json.encode(record), mode=0o600)

    def history(self) -> list[Record]:
        """Give the finished changes, newest first."""
        return [_ended(record) for record in reversed(self._records(self._history))]

    def place_of(self, record: Record) -> Path:
        """Give the file in which a finished change is recorded."""
        return self._history / record.id / _RECORD

    def pending_place(self, record: Record) -> Path:
        """Give the directory of a change that is not finished."""
        return self._pending / record.id

    def new_id(self, now: float) -> str:
        """Give a change's id, which sorts behind all that are kept, wherever the clock was set meanwhile.

        :param now: Unix time.
        """
        ids = [place.name for directory in (self._pending, self._history) for place in _places(directory)]
        newest = max((int(name[:_TIME_DIGITS], 16) for name in ids if _ID.fullmatch(name)), default=0)
        return f"{max(int(now * 1000), newest + 1):0{_TIME_DIGITS}x}{os.urandom(4).hex()}"

    def waiting(self, service: str | None = None) -> list[Record]:
        """Give the changes that wait for a confirmation, of one service or all."""
        return [
            record
            for record in self.history()
            if record.status == "waiting" and (service is None or record.service == service)
        ]

    def state(self, kept: KeptState) -> FileState:
        """Give back what a name held.

        :raises OSError: it is not kept any more, or damaged.
        """
        content = None if kept.digest is None else self._content(kept.digest)
        return FileState(content, kept.mode, kept.owner, kept.attributes, kept.target)

    def planned(self, file: JournaledFile) -> PlannedFile:
        """Give a file of a change with its contents."""
        return PlannedFile(Path(file.path), self.state(file.old), self.state(file.new), file.in_place, file.secret)

    def _records(self, directory: Path) -> list[Record]:
        """Give the records below a directory, oldest first; one without a record was being removed when it was cut off.

        One that was read before and is still the same file is not read again.
        """
        records = []
        for place in _places(directory):
            file = place / _RECORD
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                mark = status.st_ino, status.st_mtime_ns, status.st_size
                known = self._known.get(file)
                if known is None or known[0] != mark:
                    record = _decoded(file)
                    if record is None:
                        continue  # the next start puts it aside, and says so
                    known = mark, record
                    if status.st_size <= _SMALL:
                        self._known[file] = known
                records.append(known[1])
        if len(self._known) > 4 * self._kept:
            self._known.clear()
        return records

    def _alone(self) -> contextlib.AbstractContextManager[int]:
        # An object stands there before the record that names it: nobody may sweep in between.
        return locked(self._directory / "journal-lock", what="the journal of changes")

    def _forming(self, record: Record) -> Path:
        return self._pending / f".{record.id}"

    def _form(self, record: Record, files: list[PlannedFile], prepared: "Prepared | None") -> Record:
        forming = self._forming(record)
        try:
            kept = [
                JournaledFile(
                    str(file.path),
                    self._keep(file.old, prepared),
                    self._keep(file.new, prepared),
                    file.in_place,
                    file.secret,
                )
                for file in files
            ]
            fsync_directory(self.objects)
            record = msgspec.structs.replace(record, files=kept)
            forming.mkdir(mode=0o700, exist_ok=True)
            write_file(forming / _RECORD, msgspec.json.encode(record), mode=0o600)
            fsync_directory(self._pending)
        except BaseException:
            self._drop(record)
            raise
        return record

    def _is_whole(self, formed: Record) -> bool:
        """Tell whether nobody swept up what is written of a change."""
        digests = {state.digest for file in formed.files for state in (file.old, file.new)} - {None}
        places = [self._forming(formed) / _RECORD, *(self.objects / str(digest) for digest in digests)]
        return all(place.exists() for place in places)

    def _drop(self, record: Record) -> None:
        for place in (self._forming(record), self._pending / record.id):
            shutil.rmtree(place, ignore_errors=True)
        self._drop_unused_objects()

    def _keep(self, state: FileState, prepared: "Prepared | None") -> KeptState:
        digest = None
        if state.content is not None:
            digest = prepared.digest(state.content) if prepared else hashlib.sha256(state.content).hexdigest()
            place = self.objects / digest
            if not place.exists() and not (prepared and prepared.take(digest, place)):
                write_file(place, zlib.compress(state.content, 1), mode=0o600, durable_name=False)
        return KeptState(digest, state.mode, state.owner, state.attributes, state.target)

    def _content(self, digest: str) -> bytes:
        place = self.objects / digest
        try:
            content = zlib.decompress(place.read_bytes())
        except zlib.error:
            content = None
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise OSError(errno.EIO, "what is kept there is damaged", str(place))
        return content

    def _prune(self) -> None:
        records = self._records(self._history)
        for record in records[: -self._kept]:
            if record.status != "waiting":
                shutil.rmtree(self._history / record.id, ignore_errors=True)
        if len(records) > self._kept:
            self._drop_unused_objects()

    def _drop_unused_objects(self) -> None:
        used = set()
        for record in (*self._records(self._history), *self._records(self._pending), *self.formed()):
            for file in record.files:
                used |= {file.old.digest, file.new.digest}
        for place in _places(self.objects):
            if place.name not in used:
                with contextlib.suppress(OSError):
                    place.unlink()


def _places(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(place for place in directory.iterdir() if not place.name.startswith("."))


def _decoded(file: Path) -> Record | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _ended(record: Record) -> Record:
    return msgspec.structs.replace(record, status="applied") if record.status == "applying" else record
