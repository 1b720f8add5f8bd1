"""What this agent made and what became of it: one small file a volume or snapshot, replaced as a whole.

A record is there before the thing that it records, so that nothing is ever made that nobody knows of.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.files import fsync_directory, make_private_directory, write_file
from scalarizr.host.locks import locked

State = Literal["making", "present", "detached", "destroyed"]
# Of what is gone, so many records are kept, for `storage.list` and for calls that come again.
_KEPT_OF_GONE = 500


class Record(msgspec.Struct, kw_only=True, frozen=True):
    """One volume or snapshot.

    :param key: names it before it has an id: a hash of the caller's token, else random.
    :param kind: what it is.
    :param type: its type.
    :param state: `making` until it is whole.
    :param id: its id, once known.
    :param ours: whether this agent made it, and may delete it.
    :param data: its dict, as the API shows it.
    :param parent: the key of the volume or snapshot that it is a part of.
    :param attempt: names the call that is at work on it: whoever undoes another call's leftovers leaves it alone.
    :param formatted: a file system was found or made on it: it is not wiped any more.
    :param attached: the present call attached it.
    :param mounted: where the present call mounted it.
    :param in_fstab: where the present call entered it in fstab.
    :param private: what its type has to remember of it and does not show.
    :param made_at: Unix seconds.
    :param changed_at: Unix seconds.
    """

    key: str
    kind: Literal["volume", "snapshot"]
    type: str
    state: State
    id: str | None = None
    ours: bool = False
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    parent: str = ""
    attempt: str = ""
    formatted: bool = False
    attached: bool = False
    mounted: str | None = None
    in_fstab: str | None = None
    private: dict[str, Any] = msgspec.field(default_factory=dict)
    made_at: float = 0.0
    changed_at: float = 0.0


def key_of_token(token: str) -> str:
    """Give the key of a volume that a caller names with a token of his own."""
    return hashlib.sha256(b"client token " + token.encode()).hexdigest()[:32]


def new_key() -> str:
    """Give the key of something that nobody else names."""
    return uuid.uuid4().hex


class Records:
    """The records below one directory.

    :param directory: made 0700 when first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> list[Record]:
        """Give every record, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                if name.endswith(".json") and not name.startswith(".") and (record := self.find(name[:-5])) is not None:
                    found.append(record)
        return sorted(found, key=lambda record: (record.made_at, record.key))

    def find(self, key: str) -> Record | None:
        """Give the record of a key.

        :raises OutsideFailure: it cannot be read: what it says is not guessed.
        """
        path = self._path(key)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise OutsideFailure(
                f"The record {path} cannot be read: {error}. Nothing was changed; mend it, or move it away if the "
                "volume that it tells of is gone."
            ) from error

    def of_id(self, kind: Literal["volume", "snapshot"], identity: str) -> Record | None:
        """Give the newest record of an id."""
        return next((record for record in reversed(self.all()) if record.kind == kind and record.id == identity), None)

    def put(self, record: Record, **changes: Any) -> Record:
        """Write a record, with changes, durably.

        :return: the record as written.
        :raises OutsideFailure: it cannot be written.
        """
        now = time.time()
        changed = msgspec.structs.replace(record, **changes, changed_at=now, made_at=record.made_at or now)
        make_private_directory(self._directory)
        try:
            write_file(self._path(record.key), msgspec.json.encode(changed), mode=0o600)
        except OSError as error:
            raise OutsideFailure(
                f"What is done with the volume cannot be recorded in {self._directory}: {error.strerror}."
            ) from error
        return changed

    def forget(self, record: Record) -> None:
        """Remove a record of something that does not exist."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(record.key))
            fsync_directory(self._directory)

    def prune(self) -> None:
        """Remove the oldest records of what is gone, beyond a bounded number."""
        gone = [record for record in self.all() if record.state == "destroyed"]
        for record in sorted(gone, key=lambda record: record.changed_at)[:-_KEPT_OF_GONE]:
            self.forget(record)

    @contextlib.contextmanager
    def held(self, key: str, what: str) -> Iterator[None]:
        """Hold a volume or snapshot, in all processes, while something is done with it.

        :raises Busy: somebody else holds it for longer than 30 s.
        """
        place = self._directory / "locks"
        make_private_directory(self._directory)
        make_private_directory(place)
        with locked(place / hashlib.sha256(key.encode()).hexdigest()[:32], what=what, inherited=True):
            yield

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"


def records_of(state: Path) -> Records:
    """Give the records of an agent by its state directory."""
    return Records(state / "storage")
