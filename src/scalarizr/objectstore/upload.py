"""An upload in a thread of its own, fed from another: neither knows how fast the other is, both can be stopped."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from scalarizr.host.side_thread import SideThread

T = TypeVar("T")

_MOST_PARTS = 9_000  # of the 10,000 that S3 takes: a size is only known about
SMALLEST_PART = 8 * 2**20
_LARGEST_PART = 512 * 2**20
_UNKNOWN_SIZE = 150 * 10**9
_AT_ONCE = 4
_IN_FLIGHT = 48 * 2**20
_TICK = 0.2


def part_size(size_hint: int | None) -> int:
    """Give the size of an upload's parts, in bytes: the smallest with which an object of that size fits."""
    needed = -(-(size_hint if size_hint is not None else _UNKNOWN_SIZE) // _MOST_PARTS)
    return min(max(SMALLEST_PART, -(-needed // 2**20) * 2**20), _LARGEST_PART)


def several_at_once(piece: int) -> int:
    """Give how many parts are sent at once: few where they are large, since each is in memory until it is there."""
    return max(1, min(_AT_ONCE, _IN_FLIGHT // piece))


def aside(work: Callable[[], T], bell: threading.Event | None = None) -> SideThread[T]:
    """Begin a call of a store: whoever waits for its result can be interrupted, and need not wait to its end.

    :param bell: is set when it has ended.
    """
    thread = SideThread(work, "store", may_be_left=True, bell=bell)
    thread.start()
    return thread


class Upload:
    """One upload under way.

    :param put: uploads what an iterator gives; called in the upload's own thread.
    :param tick: called while a slow store is waited for; what it raises ends the waiting.
    """

    def __init__(self, put: Callable[[Iterator[bytes]], str | None], tick: Callable[[], None]) -> None:
        self._tick = tick
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._thread = aside(lambda: put(iter(self._chunks.get, None)))

    def give(self, chunk: bytes) -> None:
        """Hand over more; waits while the store is slower than what comes.

        :raises Exception: the one that ended the upload.
        """
        if chunk:
            self._give(chunk)

    def _give(self, chunk: bytes | None) -> None:
        while True:
            if self._thread.ended:
                self._thread.result()
            try:
                self._chunks.put(chunk, timeout=_TICK)
            except queue.Full:
                self._tick()
            else:
                return

    def end(self) -> str | None:
        """Say that this was all, and wait until it is there.

        :return: the object's entity tag.
        :raises Exception: the one that ended the upload.
        """
        self._give(None)
        return self._thread.result(tick=self._tick)

    def abandon(self, limit: float = 5.0) -> None:
        """End it as if this were all: whoever abandons it deletes the object then.

        One that is broken off would leave its parts behind, unseen and paid for; one that is ended leaves an object.
        """
        deadline = time.monotonic() + limit
        while not self._thread.ended and time.monotonic() < deadline:
            try:
                self._chunks.put(None, timeout=_TICK)
            except queue.Full:
                continue
            else:
                break
        try:
            self._thread.result(limit=max(deadline - time.monotonic(), 0.1))
        except Exception:  # noqa: BLE001  it is given up either way
            return


class Replayed:
    """Chunks whose beginning is held, so that it can be given once more.

    :param source: where they come from.
    :param most: bytes that are held; beyond them nothing is.
    :ivar whole: everything that was taken so far is held.
    """

    def __init__(self, source: Iterator[bytes], most: int) -> None:
        self._source = source
        self._most = most
        self._held: list[bytes] = []
        self._size = 0
        self.whole = True

    def chunks(self) -> Iterator[bytes]:
        """Give what is held, then what comes."""
        yield from tuple(self._held)
        for chunk in self._source:
            if self.whole:
                self._size += len(chunk)
                self._held.append(chunk)
                if self._size > self._most:
                    self.whole = False
                    self._held.clear()
            yield chunk


class PartDigests:
    """The entity tag that S3 gives: the MD5 of an object, or of its parts' MD5 sums where it came in parts.

    :param piece: the parts' size in bytes; None: no tag is wanted.
    """

    def __init__(self, piece: int | None) -> None:
        self._piece = piece
        self._room = piece or 0
        self._part = hashlib.md5(usedforsecurity=False)
        self._finished: list[bytes] = []

    def update(self, chunk: bytes) -> None:
        if self._piece is None:
            return
        view = memoryview(chunk)
        while view:
            if not self._room:
                self._finished.append(self._part.digest())
                self._part, self._room = hashlib.md5(usedforsecurity=False), self._piece
            self._part.update(view[: self._room])
            taken = min(len(view), self._room)
            self._room -= taken
            view = view[taken:]

    def tag(self) -> str | None:
        if self._piece is None:
            return None
        if not self._finished:
            return self._part.hexdigest()
        parts = [*self._finished, self._part.digest()]
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
