"""What every object store can do here, whatever is behind it: `opening.open_store` gives one."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from scalarizr.errors import InvalidParameter, OutsideFailure

Progress = Callable[[int], None]

# The largest object that is read into memory: manifests, never data.
SMALL = 8 * 2**20

_SEGMENT = re.compile(r"[A-Za-z0-9_=+@,][A-Za-z0-9_=+@,.-]{0,199}", re.ASCII)


class Stored(NamedTuple):
    """What was put into a store.

    :ivar size: bytes.
    :ivar sha256: of them, in hex.
    """

    size: int
    sha256: str


class Entry(msgspec.Struct, frozen=True):
    """One object of a store.

    :param path: within the store.
    :param size: bytes.
    :param modified: Unix time of its last writing.
    """

    path: str
    size: int
    modified: float


class Store(Protocol):
    """A place for objects: named by paths such as `backups/a/manifest.json`, written whole, never changed in place.

    A path is made of segments of letters, digits and `_=+@,.-` between slashes; a segment does not begin with a dot or
    a dash. All methods may be called from several threads. What a broken connection, a store that answers 5xx or not
    at all makes fail is tried again, with back-off, for as long as the store was opened to be patient.
    """

    @property
    def url(self) -> str:
        """The store's URL, to be shown: there is no secret in it."""

    def put_stream(
        self, path: str, chunks: Iterable[bytes], progress: Progress | None = None, *, size_hint: int | None = None
    ) -> Stored:
        """Write an object of any size from a stream, in bounded memory.

        The object appears whole at the end, or not at all: where `chunks` raises, the store fails or the caller's
        thread is interrupted, nothing is left under `path`. Its arrival is verified before this returns.

        :param path: where; an object that is there is replaced, and may be gone after a failure.
        :param chunks: the bytes, in pieces of about 1 MiB; consumed in the calling thread.
        :param progress: called with the number of bytes handed over so far, also again and again while a slow store is
            waited for; what it raises ends the upload.
        :param size_hint: about how many bytes will come, from which the size of an upload's parts follows: stores take
            10,000 parts. Without it, objects of more than about 150 GB do not fit into S3.
        :raises ScalarizrError: what the store said, without secrets.
        """

    def put_bytes(self, path: str, data: bytes) -> Stored:
        """Write a small object: at once, or not at all. One that is there is replaced, or stays after a failure."""

    def get_stream(self, path: str) -> Iterator[bytes]:
        """Read an object in pieces of at most a few MiB. A connection that breaks is taken up where it broke.

        :raises NotFound: there is none; raised here, not at the first piece.
        """

    def get_bytes(self, path: str, limit: int = SMALL) -> bytes:
        """Read a small object.

        :raises NotFound: there is none.
        :raises OutsideFailure: it has more than `limit` bytes.
        """

    def size(self, path: str) -> int | None:
        """Give an object's size in bytes; None where there is none."""

    def list(self, directory: str = "") -> "list[Entry]":
        """List the objects below a directory, sorted by path; the whole store where none is given."""

    def delete(self, path: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""

    def delete_all(self, directory: str) -> int:
        """Delete everything below a directory, what an interrupted upload left there too.

        :return: how many objects there were.
        """


def checked_path(path: str) -> str:
    """Give a path back that is one.

    :raises InvalidParameter: it is none.
    """
    if len(path) <= 900 and path and all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        return path
    raise InvalidParameter("path", path[:100], "a path within the store, such as `backups/a/manifest.json`")


def checked_directory(directory: str) -> str:
    """The same for a directory; an empty one is the whole store."""
    return checked_path(directory.rstrip("/")) if directory else ""


def compare_sizes(url: str, path: str, sent: int, there: int | None) -> None:
    """See that what arrived is as long as what was sent.

    :raises OutsideFailure: it is not.
    """
    if sent != there:
        found = "nothing" if there is None else f"{there} bytes"
        raise OutsideFailure(
            f"{url}: {path} did not arrive whole: {sent} bytes were sent, and the store has {found}. Try again."
        )
