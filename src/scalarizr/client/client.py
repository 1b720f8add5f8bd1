"""The synchronous client: kept connections, every answer verified before it is believed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scalarizr.client.base import ATTEMPTS, CallingEnd
from scalarizr.client.errors import AuthenticationFailed, Unreachable
from scalarizr.client.exchange import Again, Received, Sent, make_call, read_answer, wire_names
from scalarizr.client.operation import Operation

if TYPE_CHECKING:
    from scalarizr.api.system import SystemAPI


class Client(CallingEnd):
    """Calls an agent: `Client("http://10.0.0.7:8010", key_file="server.key").system.load_average()`.

    :param url: where the agent is.
    :param options: see `CallingEnd`: `key` or `key_file`, `key_id`, `ca`, `certificate`, `certificate_key`, `envelope`,
        `timeout`, `connect_timeout`, `connections`.
    """

    if TYPE_CHECKING:
        system: SystemAPI

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._idle: list[socket.socket] = []
        self._turns = threading.Semaphore(self._connections)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method.

        :param method: `namespace.method`.
        :param arguments: its parameters; `async_` is `async` on the wire.
        :return: the result; with `async_=True` the `Operation`.
        :raises AgentError: the agent answered with an error.
        :raises AuthenticationFailed: the agent refused the message, or its answer is not genuine.
        :raises Unreachable: no connection, or no answer in time.
        """
        params = wire_names(arguments)
        with self._turns:
            result = self._call(method, params)
        if params.get("async") is True and isinstance(result, str):
            return Operation(self, result)
        return result

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        deadline = time.monotonic() + self._timeout
        for attempt in range(ATTEMPTS):
            sent = make_call(self._place, self._sealer, method, params)
            received = self._exchange(sent, deadline)
            try:
                return read_answer(self._sealer, sent, received)
            except Again as again:
                if attempt + 1 == ATTEMPTS or time.monotonic() + again.pause > deadline:
                    raise again.error from None
                time.sleep(again.pause)
            except AuthenticationFailed:
                self.close()
                raise
        raise AssertionError("the loop returns or raises")

    def _exchange(self, sent: Sent, deadline: float) -> Received:
        try:
            kept = self._idle.pop()
        except IndexError:
            kept = None
        try:
            received = self._exchange_once(sent, kept, deadline) if kept is not None else None
            if received is None:
                # The kept connection was closed meanwhile. The same bytes once more: had the agent taken them, it
                # would refuse them now, so nothing happens twice.
                received = self._exchange_once(sent, self._connect(), deadline)
            if received is None:
                raise Unreachable(f"{self._where()} closed the connection without an answer.")
        except TimeoutError:
            raise Unreachable(f"{self._where()} did not answer in time.") from None
        except OSError as error:
            raise self._failure(error) from error
        return received

    def _exchange_once(self, sent: Sent, connection: socket.socket, deadline: float) -> Received | None:
        """Send and receive; None where the connection was closed before any answer."""
        received = Received()
        whole = False
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            # A refusal may come before everything was sent; then it is the answer that counts.
            with contextlib.suppress(*self._broken):
                connection.sendall(sent.data)
            with contextlib.suppress(*self._broken):
                while not received.complete:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError
                    connection.settimeout(left)
                    data = connection.recv(65536)
                    if not data:
                        break
                    received.feed(data)
            whole = received.complete and received.kept
        finally:
            if whole:
                self._idle.append(connection)
            else:
                connection.close()
        if received.complete:
            return received
        if received.started:
            raise Unreachable(f"{self._where()} closed the connection in the middle of an answer.")
        return None

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._place.host, self._place.port), self._connect_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_hostname=self._place.host)
        except BaseException:
            connection.close()
            raise
