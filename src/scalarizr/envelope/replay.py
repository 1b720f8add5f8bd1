"""Accepting each message once: what was seen, and the floor below which nothing is believed any more (WIRE.md, 4).

What is remembered is 64 bits of a MAC or of a hashed `jti`, in one small open-addressing table a second: 8 to 32 bytes
a message instead of the hundred that a Python set takes.
"""

import contextlib
import errno
import os
import struct
import threading
from array import array
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from scalarizr.host.files import write_file
from scalarizr.settings.key_id import DEFAULT

_MAGIC = b"scalarizr replay 1\n"
# The same for several keys: each store behind its key's id, both with their lengths before them.
_MAGIC_OF_SEVERAL = b"scalarizr replay 2\n"
_RUNNING = b"scalarizr replay: the agent runs, or did not stop cleanly\n"
_LEAST_SLOTS = 4
_WORDS_BEHIND = "This request is not newer than what this server remembers; sign it again with the present time"
_WORDS_SET_BACK = (
    "This server's clock was ahead and has been set back: it believes nothing until it is past that time again. Where "
    "the clock is right now, stop the agent, remove the file replay from its state directory, and start it"
)


class Seen(Exception):
    """The message was accepted before, or may have been; the text says which."""


class _Second:
    """The messages of one second: 64-bit numbers, zero standing for an empty slot."""

    __slots__ = ("count", "slots")

    def __init__(self) -> None:
        self.slots = array("Q", bytes(8 * _LEAST_SLOTS))
        self.count = 0

    def add(self, number: int) -> bool:
        """Put a number in; False where it was there."""
        slots = self.slots
        mask = len(slots) - 1
        place = number & mask
        while slots[place]:
            if slots[place] == number:
                return False
            place = (place + 1) & mask
        slots[place] = number
        self.count += 1
        if self.count * 4 > len(slots) * 3:
            self._double()
        return True

    def _double(self) -> None:
        old = self.slots
        self.slots = slots = array("Q", bytes(16 * len(old)))
        mask = len(slots) - 1
        for number in old:
            if number:
                place = number & mask
                while slots[place]:
                    place = (place + 1) & mask
                slots[place] = number


class ReplayStore:
    """What was accepted lately of one key. Thread-safe.

    :param skew: seconds that a message's date may be off, either way.
    :param capacity: messages remembered at most; beyond it the floor rises.
    :param floor: the second at and below which nothing is accepted; None: there is none yet.
    """

    def __init__(self, skew: float, capacity: int, floor: int | None = None) -> None:
        self.floor = floor
        self.skew = skew
        self.capacity = capacity
        self._seconds: dict[int, _Second] = {}
        self._oldest = 0
        self._count = 0
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def accept(self, identity: bytes, date: int, now: float) -> None:
        """Accept a message whose signature and date hold.

        :param identity: its decoded MAC or `jti`.
        :param date: the second that it carries.
        :param now: this server's clock.
        :raises Seen: it was accepted before, or its date is at or below the floor.
        """
        with self._guard:
            self.accept_guarded(identity, date, now)

    def accept_guarded(self, identity: bytes, date: int, now: float) -> None:
        """Do what `accept` does, for whoever sees to it that nobody else does meanwhile."""
        # A MAC is random already; a jti is whatever its client chose.
        head = identity[:8] if len(identity) == 20 else blake2b(identity, digest_size=8).digest()
        number = int.from_bytes(head, "little") or 1
        if self._seconds and self._oldest < now - self.skew:
            self._forget_before(now - self.skew)
        if self.floor is not None and date <= self.floor:
            raise Seen(_WORDS_BEHIND if self.floor <= now + self.skew else _WORDS_SET_BACK)
        second = self._seconds.get(date)
        if second is None:
            second = self._seconds[date] = _Second()
            self._oldest = min(self._seconds)
        if not second.add(number):
            raise Seen("This request was seen before")
        self._count += 1
        while self._count > self.capacity:
            self._forget(self._oldest)

    def forget_before(self, limit: float) -> None:
        """Forget all that was dated before a Unix time; nothing so old is accepted afterwards."""
        with self._guard:
            self._forget_before(limit)

    def forget_oldest(self) -> None:
        """Forget the messages of the oldest second, and accept none of it or before any more."""
        with self._guard:
            self._forget(self._oldest)

    def _forget_before(self, limit: float) -> None:
        while self._seconds and self._oldest < limit:
            self._forget(self._oldest)

    def _forget(self, date: int) -> None:
        self._count -= self._seconds.pop(date).count
        self.floor = date if self.floor is None else max(self.floor, date)
        self._oldest = min(self._seconds, default=0)

    def to_bytes(self) -> bytes:
        """Write the store and its floor down."""
        with self._guard:
            parts = [_MAGIC, struct.pack("<q", -1 if self.floor is None else self.floor)]
            for date, second in self._seconds.items():
                numbers = array("Q", (number for number in second.slots if number))
                parts += [struct.pack("<qI", date, len(numbers)), numbers.tobytes()]
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Read what `to_bytes` wrote.

        :raises ValueError: it is something else.
        """
        if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + 8:
            raise ValueError("not a replay store")
        place = len(_MAGIC)
        (floor,) = struct.unpack_from("<q", data, place)
        place += 8
        self.floor = None if floor < 0 else floor
        while place < len(data):
            if len(data) < place + 12:
                raise ValueError("a replay store that was cut off")
            date, count = struct.unpack_from("<qI", data, place)
            place += 12
            if len(data) < place + 8 * count:
                raise ValueError("a replay store that was cut off")
            second = self._seconds.setdefault(date, _Second())
            for number in array("Q", data[place : place + 8 * count]):
                self._count += second.add(number)
            place += 8 * count
        self._oldest = min(self._seconds, default=0)


class ReplayStores:
    """What was accepted lately, of each key by itself: what one key's holder sends never makes another's be refused.

    :param skew: seconds that a message's date may be off, either way.
    :param capacity: messages remembered at most, of all keys together; beyond it the floor of the one with the most
        rises.
    :param floor: the floor of every store that is not known yet.
    """

    def __init__(self, skew: float, capacity: int, floor: int | None = None) -> None:
        self.skew = skew
        self.capacity = capacity
        self._floor = floor
        self._stores: dict[str, ReplayStore] = {}
        # Since the last count, and how many more there may be before the next one.
        self._accepted = self._room = 0
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._stores.values()))

    def bound(self, skew: float, capacity: int) -> None:
        """Put other bounds in force; see the class."""
        with self._guard:
            self.skew = skew
            self.capacity = capacity
            self._accepted = self._room = 0
            for store in self._stores.values():
                store.skew = skew
                store.capacity = capacity

    def of(self, key: str) -> ReplayStore:
        """Give the store of a key."""
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = ReplayStore(self.skew, self.capacity, self._floor)
        return store

    def accept(self, key: str, identity: bytes, date: int, now: float) -> None:
        """Accept a message of a key; see `ReplayStore.accept`.

        :raises Seen: it was accepted before, or its date is at or below the floor.
        """
        with self._guard:
            store = self._stores.get(key)
            if store is None:
                store = self.of(key)
            store.accept_guarded(identity, date, now)
            self._accepted += 1
            if self._accepted > self._room:
                self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Forget where there are too many, and note how many more there may be before it is looked at again."""
        stores = self._stores.values()
        if len(self) > self.capacity:
            for store in stores:
                store.forget_before(now - self.skew)
        while len(self) > self.capacity:
            max(stores, key=len).forget_oldest()
        self._accepted, self._room = 0, self.capacity - len(self)

    def to_bytes(self) -> bytes:
        """Write all stores down; where there is only one key, in the form that older agents read, too."""
        with self._guard:
            if set(self._stores) <= {DEFAULT}:
                return self.of(DEFAULT).to_bytes()
            parts = [_MAGIC_OF_SEVERAL]
            for key, store in self._stores.items():
                name, data = key.encode(), store.to_bytes()
                parts += [struct.pack("<BQ", len(name), len(data)), name, data]
            return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Read what `to_bytes` wrote.

        :raises ValueError: it is something else.
        """
        if not data.startswith(_MAGIC_OF_SEVERAL):
            self.of(DEFAULT).restore(data)
        else:
            place = len(_MAGIC_OF_SEVERAL)
            while place < len(data):
                if len(data) < place + 9:
                    raise ValueError("a replay store that was cut off")
                name_length, length = struct.unpack_from("<BQ", data, place)
                place += 9
                name = data[place : place + name_length].decode("ascii")
                place += name_length
                if len(data) < place + length:
                    raise ValueError("a replay store that was cut off")
                self.of(name).restore(data[place : place + length])
                place += length


def open_store(path: Path, skew: float, capacity: int, clock: Callable[[], float]) -> ReplayStores:
    """Take up the stores of the last run, and mark them as in use.

    Where the last run did not end cleanly, what it had accepted is unknown: nothing up to the present second is
    accepted then. A server that never ran before starts without a floor.

    :raises OSError: they cannot be read or written.
    """
    stores = ReplayStores(skew, capacity)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        pass
    else:
        try:
            stores.restore(data)
        except ValueError:
            stores = ReplayStores(skew, capacity, floor=int(clock()))
    try:
        write_file(path, _RUNNING, mode=0o600)
    except OSError as error:
        # An agent that left while there was room has to come back where there is none. An empty file says the same.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        _empty(path)
    return stores


def _empty(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def can_be_saved(stores: ReplayStores, path: Path) -> bool:
    """Tell whether the stores could be kept now; what is there of them stays as it is."""
    trial = path.with_name(f"{path.name}.trial")
    try:
        write_file(trial, stores.to_bytes(), mode=0o600)
        trial.unlink()
    except OSError:
        return False
    return True


def save_store(stores: ReplayStores, path: Path) -> None:
    """Keep the stores for the next start, after the last message was accepted."""
    with contextlib.suppress(OSError):  # without it the next start has a floor: stricter, never looser
        write_file(path, stores.to_bytes(), mode=0o600)
