"""A crowd around one agent, in a process of its own: honest clients on kept connections, stalled ones and hostile ones.

The honest ones make a fixed number of calls each, at a modest rate; the crowd goes when they are done. A stalled client
whose connection is closed comes again at once. Every address is a loopback one: 127.0.0.1 and the 254 behind it.
"""

import asyncio
import os
import random
import resource
import select
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.client.errors import ClientError
from scalarizr.client.exchange import Again, Place, Received, Sent, make_call, read_answer
from scalarizr.client.sealing import Sealer, make_sealer
from scalarizr.envelope.key import ServerKey

PATIENCE = 120.0
_HONEST_FROM, _STALLED_FROM, _HOSTILE_FROM = 2, 20, 200
_CONNECTING_AT_ONCE = 200
_ATTEMPTS = 3


class Order(msgspec.Struct):
    """What the crowd does.

    :param honest: clients that keep their connection.
    :param calls: that each of them makes.
    :param pause: seconds between two calls of a client, on average.
    :param stalled: clients that begin something and do not end it.
    :param come_again: whether a stalled client whose connection was closed opens another.
    :param hostile: hostile messages for each honest call.
    :param seconds: after which it all ends, done or not.
    """

    port: int
    key_file: str
    honest: int = 1000
    calls: int = 20
    pause: float = 2.0
    stalled: int = 5000
    come_again: bool = True
    hostile: float = 0.1
    seconds: float = 1500.0
    seed: int = 0


class Report(msgspec.Struct):
    """What the crowd saw.

    :param answered: honest calls with a right answer.
    :param failed: honest calls without one, by what was seen.
    :param again: honest calls that were sent a second time, by why; with the right answer in the end.
    :param p50: seconds from the first byte that an honest call sends to the last byte of its answer.
    :param hostile: hostile messages, by kind and by what became of them.
    :param stalled_at_once: stalled connections open at once, at most.
    :param stalled_opened: stalled connections opened in all.
    """

    seconds: float
    answered: int
    failed: dict[str, int]
    again: dict[str, int]
    p50: float
    p99: float
    slowest: float
    hostile: dict[str, int]
    stalled_at_once: int
    stalled_opened: int

    def __str__(self) -> str:
        return (
            f"{self.answered} honest calls answered in {self.seconds:.0f} s, p50 {self.p50 * 1000:.1f} ms, "
            f"p99 {self.p99 * 1000:.1f} ms, slowest {self.slowest:.2f} s; failed: {self.failed or 'none'}; "
            f"sent again: {self.again or 'none'}; hostile: {self.hostile}; stalled at once: {self.stalled_at_once}, "
            f"opened in all: {self.stalled_opened}"
        )


class _Crowd:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.key = ServerKey.from_file(Path(order.key_file))
        self.place = Place("127.0.0.1", order.port, False)
        self.chance = random.Random(order.seed)
        self.connecting = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self.latencies: list[float] = []
        self.failed: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.hostile: Counter[str] = Counter()
        self.heard: list[bytes] = []
        self.stalled = self.most_stalled = self.opened = 0
        self.all_stalled = asyncio.Event()

    async def run(self) -> Report:
        """Come, wait until the stalled ones are there, make the calls, go."""
        began = time.monotonic()
        async with asyncio.timeout(self.order.seconds):
            honest = [_Honest(self, number) for number in range(self.order.honest)]
            await asyncio.gather(*(one.call() for one in honest))
            print("begun", flush=True)
            stalled = [asyncio.create_task(self._stalled(number)) for number in range(self.order.stalled)]
            if stalled:
                await self.all_stalled.wait()
            await asyncio.gather(*(one.run() for one in honest))
            print("done", flush=True)
            for task in stalled:
                task.cancel()
            await asyncio.gather(*stalled, return_exceptions=True)
            for one in honest:
                one.close()
        ordered = sorted(self.latencies)
        return Report(
            seconds=time.monotonic() - began,
            answered=len(ordered),
            failed=dict(self.failed),
            again=dict(self.again),
            p50=statistics.median(ordered),
            p99=ordered[len(ordered) * 99 // 100],
            slowest=ordered[-1],
            hostile=dict(self.hostile),
            stalled_at_once=self.most_stalled,
            stalled_opened=self.opened,
        )

    async def connect(self, first: int, number: int, spread: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from one of so many addresses."""
        source = (f"127.0.0.{first + number % spread}", 0)
        async with self.connecting:
            return await asyncio.open_connection("127.0.0.1", self.order.port, local_addr=source)

    async def _stalled(self, number: int) -> None:
        begun = _BEGUN[number % len(_BEGUN)]
        while True:
            try:
                reader, writer = await self.connect(_STALLED_FROM, number, 170)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            self.opened += 1
            self.stalled += 1
            self.most_stalled = max(self.stalled, self.most_stalled)
            # Those that are turned away at the door count as having come.
            if self.opened >= self.order.stalled:
                self.all_stalled.set()
            try:
                writer.write(begun)
                while await reader.read(4096):
                    continue
            except OSError:
                pass
            finally:
                self.stalled -= 1
                writer.close()
            if not self.order.come_again:
                return

    async def attack(self, number: int) -> None:
        """Send one hostile message; counts what became of it."""
        kind, data = _attack(self, number)
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await self.connect(_HOSTILE_FROM, number, 50)
                try:
                    writer.write(data)
                    writer.write_eof()
                    answer = b""
                    while more := await reader.read(65536):
                        answer += more
                finally:
                    writer.close()
        except TimeoutError:
            seen = "no end in time"
        except OSError:
            seen = "reset"
        else:
            statuses = {line.split()[1].decode() for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")}
            seen = "+".join(sorted(statuses)) or "closed"
        self.hostile[f"{kind}: {seen}"] += 1


class _Honest:
    """One client that keeps its connection, as the product's own does."""

    def __init__(self, crowd: _Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._sealer: Sealer = make_sealer(crowd.key, "founding" if number % 2 else "sealed")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Make the calls."""
        chance = random.Random(self._crowd.order.seed + self._number)
        for _ in range(self._crowd.order.calls):
            await asyncio.sleep(chance.uniform(0, 2 * self._crowd.order.pause))
            if chance.random() < self._crowd.order.hostile:
                await asyncio.gather(self.call(), self._crowd.attack(chance.randrange(1 << 30)))
            else:
                await self.call()

    async def call(self) -> None:
        """Make one call and take note of how it went."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._answered()
        except TimeoutError:
            self._crowd.failed["no answer in time"] += 1
        except (OSError, ClientError) as error:
            self._crowd.failed[f"{type(error).__name__}: {error}"[:200]] += 1
        else:
            self._crowd.latencies.append(time.perf_counter() - began)

    async def _answered(self) -> None:
        # One call in four waits for a disk, as far as the agent knows.
        method, params = (
            ("system.statvfs", {"mpoints": ["/"]}) if self._number % 4 == 0 else ("system.load_average", {})
        )
        for attempt in range(_ATTEMPTS):
            sent = make_call(self._crowd.place, self._sealer, method, params)
            received = await self._exchanged(sent)
            try:
                result: Any = read_answer(self._sealer, sent, received)
            except Again as again:
                if attempt + 1 == _ATTEMPTS:
                    raise again.error from None
                self._crowd.again["503"] += 1
                await asyncio.sleep(again.pause)
                continue
            if not result:
                raise ClientError(f"a wrong answer: {result!r}")
            if len(self._crowd.heard) < 1000:
                self._crowd.heard.append(sent.data)
            return

    async def _exchanged(self, sent: Sent) -> Received:
        used = self._streams is not None
        received = await self._exchanged_once(sent)
        if received is None and used:
            # A kept connection may have been closed while the call was on its way: the same bytes once more.
            self._crowd.again["kept connection closed"] += 1
            received = await self._exchanged_once(sent)
        if received is None:
            raise ClientError("closed without an answer")
        return received

    async def _exchanged_once(self, sent: Sent) -> Received | None:
        if self._streams is None:
            self._streams = await self._crowd.connect(_HONEST_FROM, self._number, 10)
        reader, writer = self._streams
        received = Received()
        try:
            writer.write(sent.data)
            while not received.complete:
                data = await reader.read(65536)
                if not data:
                    break
                received.feed(data)
        except ConnectionError:
            pass
        if not received.complete or not received.kept:
            self.close()
        if received.started and not received.complete:
            raise ClientError("closed in the middle of an answer")
        return received if received.complete else None

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


_BEGUN = (
    b"",
    b"POST /system HTTP/1.1\r\nHost: x\r\nX-Signature: AAAA",
    b"POST /system HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"A" * 2048,
    b"POST /system HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nAAAAA\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
)


def _attack(crowd: _Crowd, number: int) -> tuple[str, bytes]:
    chance = random.Random(number)
    head = b"POST /system HTTP/1.1\r\nHost: x\r\n"
    body = b"QUFBQUFBQUE="
    whole = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    signed = b"Date: Wed 20 Jun 2012 09:20:43 UTC\r\nX-Signature: " + b"A" * 27 + b"=\r\n"
    two_ends = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("garbage", lambda: chance.randbytes(chance.randrange(1, 2000))),
        ("bad signature", lambda: head + signed + whole),
        ("bad token", lambda: head + b"Content-Type: application/jose\r\n" + whole),
        ("replay", lambda: chance.choice(crowd.heard)),
        ("giant head", lambda: head + b"X: " + b"a" * 40_000 + b"\r\n\r\n"),
        ("giant body", lambda: head + b"Content-Length: 99999999999\r\n\r\n"),
        ("pipelined", lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + b"\0\xff\r\n\r\n"),
        ("smuggling", lambda: head + two_ends + head + whole),
    ]
    kind, make = kinds[number % len(kinds)]
    return kind, make()


class Gathered:
    """A crowd that is there; `report` comes once it is done."""

    report: Report

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def wait(self, meanwhile: Callable[[], None], each: float = 0.5) -> Report:
        """Wait until it is done, doing something again and again."""
        assert self._process.stdout is not None
        printed = b""
        while True:
            if select.select([self._process.stdout], [], [], each)[0]:
                more = os.read(self._process.stdout.fileno(), 65536)
                if not more:
                    break
                printed += more
            meanwhile()
        assert self._process.wait(PATIENCE) == 0, printed[-2000:]
        self.report = msgspec.json.decode(printed.rpartition(b"done\n")[2], type=Report)
        return self.report


@contextmanager
def crowd(order: Order) -> Iterator[Gathered]:
    """Let a crowd come; the body begins when every honest client has made its first call."""
    process = subprocess.Popen(
        [sys.executable, __file__, msgspec.json.encode(order).decode()], stdout=subprocess.PIPE, bufsize=0
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        yield Gathered(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def raise_own_limit(needed: int) -> None:
    """Let this process, and what it starts, open so many files; as far as root's hard limit goes."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


if __name__ == "__main__":
    os.nice(10)  # the agent comes first
    order = msgspec.json.decode(sys.argv[1], type=Order)
    raise_own_limit(order.honest + order.stalled + 2000)
    print(msgspec.json.encode(asyncio.run(_Crowd(order).run())).decode(), flush=True)
