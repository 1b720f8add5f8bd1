"""The journal: what a change is about to do, durable before it does it; and the bounded history of what was done.

A change has a directory of its own. Under `pending/` it is not finished: the next start undoes it. Renamed to
`history/` it is. The contents beside the record are what going back needs; they are never shown.
"""

import os
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from scalarizr.changes.live_file import FileState
from scalarizr.host.files import fsync_directory, make_private_directory, write_file

KEPT = 64
_RECORD = "record.json"


class JournaledFile(msgspec.Struct, frozen=True):
    """One file of a change.

    :param path: the live file.
    :param old: what it was.
    :param new: what it becomes.
    :param in_place: it is rewritten, not renamed over.
    :param secret: its content is never shown.
    """

    path: str
    old: FileState
    new: FileState
    in_place: bool = False
    secret: bool = False


class Record(msgspec.Struct, frozen=True):
    """One change.

    :param id: sorts by time.
    :param time: Unix time.
    :param method: what the caller called.
    :param service: what it changed.
    :param status: `applying` while it is in the journal.
    :param files: the live files.
    """

    id: str
    time: float
    method: str
    service: str
    status: Literal["applying", "applied", "reverted", "conflict", "failed"]
    files: list[JournaledFile]


class Journal:
    """The journal and the history below one directory.

    :param directory: made 0700 when first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._pending = directory / "pending"
        self._history = directory / "history"

    def begin(self, record: Record) -> None:
        """Write a change down, durably, before its first live byte.

        :raises OSError: it was not written; nothing is left of it.
        """
        for directory in (self._pending.parent, self._pending, self._history):
            make_private_directory(directory)
        forming = self._pending / f".{record.id}"
        try:
            forming.mkdir(mode=0o700)
            write_file(forming / _RECORD, msgspec.json.encode(record), mode=0o600)
            os.rename(forming, self._pending / record.id)
        except BaseException:
            shutil.rmtree(forming, ignore_errors=True)
            raise
        fsync_directory(self._pending)

    def finish(self, record: Record) -> None:
        """Move a change into the history, under its final status. The rename is what makes it final."""
        place = self._pending / record.id
        write_file(place / _RECORD, msgspec.json.encode(record), mode=0o600)
        os.rename(place, self._history / record.id)
        fsync_directory(self._history)
        fsync_directory(self._pending)
        for old in sorted(self._history.iterdir())[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def forget(self, record: Record) -> None:
        """Remove a change that was undone at once and changed nothing."""
        shutil.rmtree(self._pending / record.id, ignore_errors=True)

    def pending(self) -> list[Record]:
        """Give the changes that did not come to their end, oldest first; what never was a whole journal is removed."""
        if not self._pending.is_dir():
            return []
        records = []
        for place in sorted(self._pending.iterdir()):
            if place.name.startswith("."):
                shutil.rmtree(place, ignore_errors=True)
            else:
                records.append(_read(place))
        return records

    def update(self, record: Record) -> None:
        """Give a finished change another status."""
        write_file(self._history / record.id / _RECORD, msgspec.json.encode(record), mode=0o600)

    def history(self) -> list[Record]:
        """Give the finished changes, newest first."""
        if not self._history.is_dir():
            return []
        return [_read(place) for place in sorted(self._history.iterdir(), reverse=True)]


def _read(place: Path) -> Record:
    with open(place / _RECORD, "rb") as file:
        return msgspec.json.decode(file.read(), type=Record)
