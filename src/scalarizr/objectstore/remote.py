"""Stores behind obstore: S3 and what speaks like it, Google Cloud Storage, Azure."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import obstore
from obstore.exceptions import GenericError
from obstore.store import AzureStore, GCSStore, S3Store

from scalarizr.errors import NotFound, OutsideFailure
from scalarizr.host.side_thread import SideThread
from scalarizr.objectstore.store import SMALL, Entry, Progress, Stored, checked_directory, checked_path, compare_sizes
from scalarizr.objectstore.upload import (
    SMALLEST_PART,
    PartDigests,
    Replayed,
    Upload,
    aside,
    part_size,
    several_at_once,
)
from scalarizr.objectstore.words import failure

AnyStore: TypeAlias = S3Store | GCSStore | AzureStore
T = TypeVar("T")

_WINDOW = 4 * 2**20
# A kept connection that the store closes in the very instant of a request is no reason to the library to try again.
_GAVE_UP_EARLY = "connection was not ready"
_ATTEMPTS = 20
_PAUSE = 0.25
_HELD = 32 * 2**20
_MD5 = re.compile(r'"?([0-9a-f]{32}(?:-[0-9]+)?)"?')


class RemoteStore:
    """A store somewhere else, over obstore.

    Requests run in threads of their own, so that the thread that waits for them can be interrupted (a cancelled
    operation). obstore repeats a request that failed: for an upload that is one part of it, never the whole.

    :param inner: obstore's object.
    :param url: the URL to show.
    :param secrets: texts that are masked in the store's words.
    :param md5_etags: its entity tags are MD5 sums where it does not encrypt with keys of its own, as those of S3.
    """

    def __init__(self, inner: AnyStore, url: str, *, secrets: Sequence[str] = (), md5_etags: bool = False) -> None:
        self._inner = inner
        self._url = url
        self._secrets = tuple(secrets)
        self._md5_etags = md5_etags

    @property
    def url(self) -> str:
        return self._url

    def put_stream(
        self, path: str, chunks: Iterable[bytes], progress: Progress | None = None, *, size_hint: int | None = None
    ) -> Stored:
        checked_path(path)
        piece = part_size(size_hint)
        digest, parts, size = hashlib.sha256(), PartDigests(piece if self._md5_etags else None), 0
        first: list[bytes] = []
        upload: Upload | None = None
        tag: str | None = None

        def tick() -> None:
            if progress is not None:
                progress(size)

        try:
            for chunk in chunks:
                digest.update(chunk)
                parts.update(chunk)
                size += len(chunk)
                if upload is not None:
                    upload.give(chunk)
                elif size <= SMALLEST_PART:
                    first.append(chunk)
                else:
                    upload = Upload(lambda source: self._put_parts(path, source, piece), tick)
                    for earlier in (*first, chunk):
                        upload.give(earlier)
                    first.clear()
                tick()
            tag = upload.end() if upload is not None else self._put_small(path, b"".join(first), tick)
            self._verify(path, Stored(size, digest.hexdigest()), tag, parts.tag())
        except BaseException as error:
            if upload is not None or tag is not None:
                self._take_back(path, upload)
            if isinstance(error, Exception):
                raise failure(error, self._url, path, self._secrets, left="Nothing was kept there") from error
            raise
        return Stored(size, digest.hexdigest())

    def _put_parts(self, path: str, source: Iterator[bytes], piece: int) -> str | None:
        """Upload what comes; from its beginning again where the library gave up too early and that is still held."""
        begun = Replayed(source, _HELD)
        for attempt in range(_ATTEMPTS):
            try:
                return obstore.put(
                    self._inner,
                    path,
                    begun.chunks(),
                    chunk_size=piece,
                    max_concurrency=several_at_once(piece),
                )["e_tag"]
            except GenericError as error:
                if _GAVE_UP_EARLY not in str(error) or not begun.whole or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE)
        raise AssertionError("unreachable")

    def _put_small(self, path: str, data: bytes, tick: Callable[[], None]) -> str | None:
        return aside(lambda: obstore.put(self._inner, path, data, use_multipart=False)["e_tag"]).result(tick=tick)

    def _verify(self, path: str, sent: Stored, tag: str | None, expected_tag: str | None) -> None:
        """See that what was sent has arrived.

        The store's entity tag tells it where it is the MD5 of what came; else everything is read back.
        """
        compare_sizes(self._url, path, sent.size, aside(lambda: obstore.head(self._inner, path)["size"]).result())
        found = _MD5.fullmatch(tag or "")
        if expected_tag is not None and found is not None and found.group(1) == expected_tag:
            return
        digest = hashlib.sha256()
        for piece in self.get_stream(path):
            digest.update(piece)
        if digest.hexdigest() != sent.sha256:
            raise OutsideFailure(
                f"{self._url}: {path} is not what was sent: its SHA-256 differs. It was deleted; try again, and have "
                "the store's disks and the way to it looked at."
            )

    def _take_back(self, path: str, upload: Upload | None) -> None:
        """Leave nothing under the path: end what is being uploaded, and delete it."""
        if upload is not None:
            upload.abandon()
        with contextlib.suppress(Exception):
            aside(lambda: obstore.delete(self._inner, path)).result(limit=5)

    def put_bytes(self, path: str, data: bytes) -> Stored:
        return self.put_stream(path, [data], size_hint=len(data))

    def get_stream(self, path: str) -> Iterator[bytes]:
        size = self.size(checked_path(path))
        if size is None:
            raise NotFound(f"There is no {path} in {self._url}.", {"path": path})
        return self._windows(path, size)

    def _windows(self, path: str, size: int) -> Iterator[bytes]:
        def window(start: int) -> SideThread[bytes]:
            end = min(start + _WINDOW, size)
            return aside(lambda: bytes(obstore.get_range(self._inner, path, start=start, end=end)))

        following = window(0) if size else None
        for start in range(0, size, _WINDOW):
            present, beyond = following, start + _WINDOW
            following = window(beyond) if beyond < size else None
            assert present is not None
            yield self._call(path, present.result)

    def get_bytes(self, path: str, limit: int = SMALL) -> bytes:
        size = self.size(checked_path(path))
        if size is None:
            raise NotFound(f"There is no {path} in {self._url}.", {"path": path})
        if size > limit:
            raise OutsideFailure(f"{self._url}: {path} has {size} bytes; at most {limit} were expected there.")
        return b"".join(self._windows(path, size))

    def size(self, path: str) -> int | None:
        try:
            return self._aside(checked_path(path), lambda: obstore.head(self._inner, path)["size"])
        except NotFound:
            return None

    def list(self, directory: str = "") -> list[Entry]:
        checked = checked_directory(directory)

        def entries() -> list[Entry]:
            found = []
            for batch in obstore.list(self._inner, prefix=checked or None):
                for item in batch:
                    found.append(Entry(str(item["path"]), item["size"], item["last_modified"].timestamp()))
            return found

        listed = self._aside(checked or "the store", entries)
        return sorted((entry for entry in listed if _below(entry.path, checked)), key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotFound):
            self._aside(checked_path(path), lambda: obstore.delete(self._inner, path))

    def delete_all(self, directory: str) -> int:
        entries = self.list(directory)
        for entry in entries:
            self._delete_found(entry.path)
        return len(entries)

    def _delete_found(self, path: str) -> None:
        with contextlib.suppress(NotFound):
            self._aside(path, lambda: obstore.delete(self._inner, path))

    def _aside(self, path: str, function: Callable[[], T]) -> T:
        return self._call(path, aside(function).result)

    def _call(self, path: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except Exception as error:
            raise failure(error, self._url, path, self._secrets, left="Nothing was changed there") from error


def _below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")
