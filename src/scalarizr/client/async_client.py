"""The asynchronous client: the same calls, awaited. Those that are made at once go over connections of their own."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from scalarizr.client.base import ATTEMPTS, CallingEnd
from scalarizr.client.errors import AuthenticationFailed, Unreachable
from scalarizr.client.exchange import Again, Received, Sent, make_call, read_answer, wire_names
from scalarizr.client.operation import OperationRecord, outcome, pauses, read_record

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AsyncOperation:
    """A running operation.

    :param client: the client that started it.
    :param operation_id: its id.
    """

    def __init__(self, client: "AsyncClient", operation_id: str) -> None:
        self._client = client
        self.id = operation_id

    async def record(self) -> OperationRecord:
        """Ask for its record."""
        return read_record(await self._client.call("operation.result", operation_id=self.id))

    async def cancel(self) -> None:
        """Ask it to stop; it cleans up after itself."""
        await self._client.call("operation.cancel", operation_id=self.id)

    async def wait(
        self, progress: Callable[[OperationRecord], object] | None = None, timeout: float | None = None
    ) -> Any:
        """Wait for its end; see `Operation.wait`."""
        async with asyncio.timeout(timeout):
            pause = pauses()
            while True:
                record = await self.record()
                if progress is not None:
                    progress(record)
                if record.finished:
                    return outcome(record)
                await asyncio.sleep(pause())


class AsyncClient(CallingEnd):
    """Calls an agent: `await AsyncClient("http://10.0.0.7:8010", key_file="server.key").system.load_average()`.

    :param url: where the agent is.
    :param options: see `CallingEnd`: `key` or `key_file`, `key_id`, `ca`, `certificate`, `certificate_key`, `envelope`,
        `timeout`, `connect_timeout`, `connections`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._idle: list[Streams] = []
        self._turns = asyncio.Semaphore(self._connections)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            await _close(self._idle.pop())

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method; see `Client.call`. With `async_=True` gives an `AsyncOperation`."""
        params = wire_names(arguments)
        async with self._turns:
            result = await self._call(method, params)
        if params.get("async") is True and isinstance(result, str):
            return AsyncOperation(self, result)
        return result

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        deadline = time.monotonic() + self._timeout
        for attempt in range(ATTEMPTS):
            sent = make_call(self._place, self._sealer, method, params)
            received = await self._exchange(sent, deadline)
            try:
                return read_answer(self._sealer, sent, received)
            except Again as again:
                if attempt + 1 == ATTEMPTS or time.monotonic() + again.pause > deadline:
                    raise again.error from None
                await asyncio.sleep(again.pause)
            except AuthenticationFailed:
                await self.close()
                raise
        raise AssertionError("the loop returns or raises")

    async def _exchange(self, sent: Sent, deadline: float) -> Received:
        kept = self._idle.pop() if self._idle else None
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.001)):
                received = await self._exchange_once(sent, kept) if kept is not None else None
                if received is None:
                    # As in the synchronous client: the same bytes once more, which cannot happen twice.
                    received = await self._exchange_once(sent, await self._connect())
            if received is None:
                raise Unreachable(f"{self._where()} closed the connection without an answer.")
        except TimeoutError:
            raise Unreachable(f"{self._where()} did not answer in time.") from None
        except OSError as error:
            raise self._failure(error) from error
        return received

    async def _exchange_once(self, sent: Sent, streams: Streams) -> Received | None:
        """Send and receive; None where the connection was closed before any answer."""
        reader, writer = streams
        received = Received()
        whole = False
        try:
            with contextlib.suppress(*self._broken):
                writer.write(sent.data)
                while not received.complete:
                    data = await reader.read(65536)
                    if not data:
                        break
                    received.feed(data)
            whole = received.complete and received.kept
        finally:
            if whole:
                self._idle.append(streams)
            else:
                await _close(streams)
        if received.complete:
            return received
        if received.started:
            raise Unreachable(f"{self._where()} closed the connection in the middle of an answer.")
        return None

    async def _connect(self) -> Streams:
        async with asyncio.timeout(self._connect_timeout):
            return await asyncio.open_connection(self._place.host, self._place.port, ssl=self._tls)


async def _close(streams: Streams) -> None:
    _, writer = streams
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
