"""A load generator: messages sealed beforehand, over kept connections, one at a time on each."""

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text
from scalarizr.envelope.key import ServerKey

TEXT = b'{"method": "load_average", "params": {}, "id": "%b"}'


class Measured(NamedTuple):
    """What a run gave.

    :ivar rate: answers a second.
    :ivar p50: seconds.
    :ivar p99: seconds.
    """

    rate: float
    p50: float
    p99: float


def messages(key: ServerKey, envelope: str, count: int) -> list[bytes]:
    """Seal `count` messages, no two alike."""
    now = int(time.time())
    made = []
    for _ in range(count):
        text = TEXT % os.urandom(8).hex().encode()
        if envelope == "founding":
            date = date_text(now)
            body, signature = founding.seal(key, text, date)
            headers = f"Date: {date}\r\nX-Signature: {signature}\r\n"
        else:
            body = sealed.seal(key, text, {"aud": "/system", "iat": now, "jti": sealed.new_id()})
            headers = "Content-Type: application/jose\r\n"
        head = f"POST /system HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        made.append(head.encode() + body)
    return made


class _Sender(asyncio.Protocol):
    """One connection: sends the next message when the answer to the last one has come whole."""

    def __init__(self, supply: Iterator[bytes], latencies: list[float], done: Callable[[], None]) -> None:
        self._supply, self._latencies, self._done = supply, latencies, done
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        lower = head.lower()
        place = lower.index(b"content-length: ") + 16
        end = lower.find(b"\r\n", place)
        if len(body) < int(lower[place : end if end > 0 else None]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(self._buffer[:300])
        self._latencies.append(time.perf_counter() - self._sent)
        self._buffer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()

    def _next(self) -> None:
        assert self._transport is not None
        message = next(self._supply, None)
        if message is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(message)


async def _run(port: int, supply: list[bytes], connections: int) -> Measured:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    shared = iter(supply)
    ended = [loop.create_future() for _ in range(connections)]
    started = time.perf_counter()
    for future in ended:
        await loop.create_connection(
            lambda f=future: _Sender(shared, latencies, lambda: f.set_result(None)), "127.0.0.1", port
        )
    await asyncio.gather(*ended)
    elapsed = time.perf_counter() - started
    if len(latencies) != len(supply):
        raise AssertionError(f"{len(latencies)} answers to {len(supply)} messages")
    cuts = statistics.quantiles(latencies, n=100)
    return Measured(len(supply) / elapsed, cuts[49], cuts[98])


def send(port: int, supply: list[bytes], connections: int = 16) -> Measured:
    """Send all messages, and measure."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_run(port, supply, connections))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, supply, connections))


def ask_once(port: int, message: bytes) -> None:
    """Send one message, and wait for its answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(message)
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise AssertionError("no answer")
