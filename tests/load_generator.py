"""Requests without pause against a web server, from a process of its own, and what became of every one of them.

Anything but the whole right answer is a failure, with one exception: a server may close a connection between two
requests, and a client that had no byte of its answer yet asks again on another one (RFC 9112, section 9.3.1). How
often that was so, and how it showed, is counted.
"""

import hashlib
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import msgspec

PATIENCE = 60.0
_PIECE = 1 << 15


@cache
def body_of(size: int) -> bytes:
    """Give the body that a page of a size has: every piece of it is unlike every other."""
    return hashlib.shake_128(b"load").digest(size)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What some clients ask for.

    :param path: the page; its body is `body_of(size)`.
    :param keep: many requests over one connection, else a new one for each.
    :param threads: how many clients.
    :param reading_pause: seconds before each piece of the answer is taken, so that the answer is long on its way.
    :param thinking_pause: seconds between the requests of one connection, so that it is idle now and then.
    """

    port: int
    host: str
    path: str
    size: int
    tls: bool = False
    keep: bool = False
    threads: int = 1
    reading_pause: float = 0
    thinking_pause: float = 0

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{'https' if self.tls else 'http'} {'kept' if self.keep else 'new'} {self.path}"


class Order(msgspec.Struct, frozen=True):
    """A whole load, and its bounds."""

    targets: tuple[Target, ...]
    seconds: float
    requests: int


class Report(msgspec.Struct, kw_only=True):
    """What became of the requests.

    :param seconds: how long the load lasted.
    :param requests: sent, repetitions included.
    :param answers: whole and right ones, by target.
    :param connections: that came about.
    :param found_closed: kept connections that were closed before the next request was sent.
    :param asked_again: requests sent while the server closed the kept connection, which had no byte of an answer, by
        how it showed: `closed` or `reset`.
    :param failures: everything else, by kind.
    :param examples: the first failures, with the second that each came in.
    :param slowest: seconds from the beginning of a connection or request to the first byte of the answer, at most.
    """

    seconds: float
    requests: int
    answers: dict[str, int]
    connections: int
    found_closed: int
    asked_again: dict[str, int]
    failures: dict[str, int]
    examples: list[str]
    slowest: float

    def __str__(self) -> str:
        def listed(counts: dict[str, int]) -> str:
            return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"

        return (
            f"{self.requests} requests in {self.seconds:.1f} s over {self.connections} connections; right answers: "
            f"{listed(self.answers)}; slowest first byte: {self.slowest:.2f} s; kept connections found closed: "
            f"{self.found_closed}; asked again: {listed(self.asked_again)}; failures: {listed(self.failures)} "
            f"{self.examples or ''}".rstrip()
        )


class Dropped(Exception):
    """An exchange that came to no right answer.

    :param kind: what was seen.
    :param untouched: the end came before any byte of the answer.
    """

    def __init__(self, kind: str, *, untouched: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.untouched = untouched


class Connection:
    """One connection of one client.

    :raises Dropped: it did not come about.
    """

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        self.used = False
        self.first_byte_at = 0.0
        self._target = target
        self._came = b""
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        if target.reading_pause:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        try:
            self._socket.connect(("127.0.0.1", target.port))
            if target.tls:
                self._socket = context.wrap_socket(self._socket, server_hostname=target.host)
        except OSError as error:
            self._socket.close()
            raise Dropped(f"no connection: {_seen(error)}") from error

    def was_closed(self) -> bool:
        """Tell whether the server closed it while nothing was asked.

        :raises Dropped: it sent something instead.
        """
        self._socket.setblocking(False)
        try:
            came = self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        if came:
            raise Dropped("an answer to nothing")
        return True

    def ask(self) -> bool:
        """Send a request and take its answer.

        :return: whether it takes another request.
        :raises Dropped: there was no whole right answer.
        """
        target, self._came, self.first_byte_at = self._target, b"", 0.0
        wish = "keep-alive" if target.keep else "close"
        text = f"GET {target.path} HTTP/1.1\r\nHost: {target.host}\r\nConnection: {wish}\r\n\r\n"
        try:
            self._socket.sendall(text.encode())
        except OSError as error:
            raise Dropped(_seen(error), untouched=True) from error
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = lines[0].split()[1]
        if status != "200":
            raise Dropped(f"status {status}")
        chunked = headers.get("transfer-encoding") == "chunked"
        body = self._chunks() if chunked else self._exactly(int(headers["content-length"]))
        if body != body_of(target.size):
            raise Dropped(f"another body of {len(body)} bytes")
        self.used = True
        return target.keep and headers.get("connection", "").lower() != "close"

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")
        return bytes(body)

    def _until(self, end: bytes) -> bytes:
        while end not in self._came:
            self._came += self._receive()
        found, _, self._came = self._came.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        pieces = bytearray(self._came)
        while len(pieces) < size:
            time.sleep(self._target.reading_pause)
            pieces += self._receive()
        self._came = bytes(pieces[size:])
        return bytes(pieces[:size])

    def _receive(self) -> bytes:
        try:
            came = self._socket.recv(_PIECE)
        except OSError as error:
            raise self._ended(_seen(error)) from error
        if not came:
            raise self._ended("closed")
        self.first_byte_at = self.first_byte_at or time.monotonic()
        return came

    def _ended(self, seen: str) -> Dropped:
        return Dropped(f"cut off: {seen}") if self.first_byte_at else Dropped(seen, untouched=True)


def _seen(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ssl.SSLEOFError):
        return "closed"
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)


class Clients:
    """All clients of a load, and what they have seen."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._context = ssl._create_unverified_context()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._over = threading.Event()
        self._counts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._examples: list[str] = []
        self._slowest = 0.0

    def run(self) -> Report:
        """Ask until standard input ends or a bound is reached; says when every target has answered, or one failed."""
        targets = [target for target in self._order.targets for _ in range(target.threads)]
        threads = [threading.Thread(target=self._client, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        said = False
        while not self._over.is_set() and time.monotonic() - self._began < self._order.seconds:
            if not said and (self._failures or len(self._answers) == len({target.name for target in targets})):
                print("begun", flush=True)
                said = True
            if select.select([sys.stdin], [], [], 0.02)[0]:
                break
        self._over.set()
        for thread in threads:
            thread.join()
        return Report(
            seconds=time.monotonic() - self._began,
            requests=self._counts["requests"],
            answers=dict(self._answers),
            connections=self._counts["connections"],
            found_closed=self._counts["found closed"],
            asked_again=dict(self._again),
            failures=dict(self._failures),
            examples=self._examples,
            slowest=self._slowest,
        )

    def _client(self, target: Target) -> None:
        connection: Connection | None = None
        while not self._over.is_set():
            try:
                connection = self._exchange(target, connection)
            except Exception as error:
                # An answer that cannot be read is as bad as none.
                self._fail(target, error.kind if isinstance(error, Dropped) else f"{type(error).__name__}: {error}")
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _exchange(self, target: Target, connection: Connection | None) -> Connection | None:
        """Make one exchange, on this connection or on a new one; gives the connection for the next."""
        if connection is not None:
            time.sleep(target.thinking_pause)
            if connection.was_closed():
                connection.close()
                self._count("found closed")
                connection = None
        began = time.monotonic()
        if connection is None:
            connection = Connection(target, self._context)
            self._count("connections")
        self._count("requests")
        try:
            goes_on = connection.ask()
        except Dropped as drop:
            connection.close()
            if not (connection.used and drop.untouched and drop.kind in ("closed", "reset")):
                raise
            with self._lock:
                self._again[drop.kind] += 1
            return None
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._answers[target.name] += 1
            self._slowest = max(self._slowest, connection.first_byte_at - began)
        if not goes_on:
            connection.close()
            return None
        return connection

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1
            if self._counts["requests"] >= self._order.requests:
                self._over.set()

    def _fail(self, target: Target, kind: str) -> None:
        with self._lock:
            self._failures[kind] += 1
            if len(self._examples) < 10:
                self._examples.append(f"{time.monotonic() - self._began:.2f} s, {target.name}: {kind}")
        time.sleep(0.01)  # where nobody listens, a few hundred failures a second say it all


class Load:
    """A load that runs; `report` is there once it is over."""

    report: Report


@contextmanager
def load(targets: Sequence[Target], *, seconds: float = 600, requests: int = 2_000_000) -> Iterator[Load]:
    """Ask as long as the body lasts, at most so many seconds and requests."""
    order = msgspec.json.encode(Order(tuple(targets), seconds, requests)).decode()
    process = subprocess.Popen([sys.executable, __file__, order], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running = Load()
    try:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        yield running
        printed, _ = process.communicate(timeout=PATIENCE + 40)
        running.report = msgspec.json.decode(printed, type=Report)
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    os.nice(10)  # the servers and the agent come first
    print(msgspec.json.encode(Clients(msgspec.json.decode(sys.argv[1], type=Order)).run()).decode())
