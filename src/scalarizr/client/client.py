"""The synchronous client: one kept connection, every answer verified before it is believed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scalarizr.client.errors import AuthenticationFailed, ClientError, Unreachable
from scalarizr.client.exchange import Again, Received, Sent, make_call, read_answer, read_url, wire_names
from scalarizr.client.operation import Operation
from scalarizr.client.sealing import make_sealer
from scalarizr.envelope.key import ServerKey, WeakKey

if TYPE_CHECKING:
    from scalarizr.api.system import SystemAPI

_ATTEMPTS = 3


def load_key(key: str | None, key_file: str | Path | None) -> ServerKey:
    """Read the key from text or from a file.

    :raises ClientError: it cannot be read or used, or not exactly one of both is given.
    """
    if (key is None) == (key_file is None):
        raise ClientError("Give either key or key_file.")
    try:
        return ServerKey.from_text(key) if key is not None else ServerKey.from_file(Path(str(key_file)))
    except WeakKey as error:
        raise ClientError(f"{key_file or 'The key'} cannot be used: {error}.") from None
    except OSError as error:
        raise ClientError(f"{key_file}: the key cannot be read: {error.strerror}.") from error


class Namespace:
    """The methods of one namespace, as attributes.

    :param client: makes the calls.
    :param name: the namespace.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(**arguments: Any) -> Any:
            return self._client.call(f"{self._name}.{method}", **arguments)

        call.__name__ = method
        return call


class Client:
    """Calls an agent: `Client("http://10.0.0.7:8010", key_file="server.key").system.load_average()`.

    :param url: where the agent is.
    :param key: the server's key, as text.
    :param key_file: or the file that holds it.
    :param envelope: `sealed`, or `founding` for an agent that knows nothing better; never tried one after the other,
        since whoever sits in between could make the better one fail.
    :param timeout: seconds for a whole call.
    :param connect_timeout: seconds for a connection.
    """

    if TYPE_CHECKING:
        system: SystemAPI

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_file: str | Path | None = None,
        envelope: str = "sealed",
        timeout: float = 150.0,
        connect_timeout: float = 5.0,
    ) -> None:
        self._place = read_url(url)
        self._sealer = make_sealer(load_key(key, key_file), envelope)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._socket: socket.socket | None = None
        self._turn = threading.Lock()

    def __getattr__(self, namespace: str) -> Namespace:
        if namespace.startswith("_"):
            raise AttributeError(namespace)
        return Namespace(self, namespace)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

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
        with self._turn:
            result = self._call(method, params)
        if params.get("async") is True and isinstance(result, str):
            return Operation(self, result)
        return result

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        deadline = time.monotonic() + self._timeout
        for attempt in range(_ATTEMPTS):
            sent = make_call(self._place, self._sealer, method, params)
            received = self._exchange(sent, deadline)
            try:
                return read_answer(self._sealer, sent, received)
            except Again as again:
                if attempt + 1 == _ATTEMPTS or time.monotonic() + again.pause > deadline:
                    raise again.error from None
                time.sleep(again.pause)
            except AuthenticationFailed:
                self.close()
                raise
        raise AssertionError("the loop returns or raises")

    def _exchange(self, sent: Sent, deadline: float) -> Received:
        reused = self._socket is not None
        try:
            received = self._exchange_once(sent, deadline)
            if received is None and reused:
                # The kept connection was closed meanwhile. The same bytes once more: had the agent taken them, it
                # would refuse them now, so nothing happens twice.
                received = self._exchange_once(sent, deadline)
            if received is None:
                raise Unreachable(f"{self._where()} closed the connection without an answer.")
        except TimeoutError:
            self.close()
            raise Unreachable(f"{self._where()} did not answer in time.") from None
        except OSError as error:
            self.close()
            raise Unreachable(f"{self._where()} cannot be reached: {error.strerror or error}.") from error
        except BaseException:
            self.close()
            raise
        return received

    def _exchange_once(self, sent: Sent, deadline: float) -> Received | None:
        """Send and receive; None where the connection was closed before any answer."""
        if self._socket is None:
            self._socket = self._connect()
        connection = self._socket
        received = Received()
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            # A refusal may come before everything was sent; then it is the answer that counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(sent.data)
            while not received.complete:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                data = connection.recv(65536)
                if not data:
                    break
                received.feed(data)
        except ConnectionResetError:
            pass
        if not received.kept:
            self.close()
        if received.complete:
            return received
        if received.started:
            raise Unreachable(f"{self._where()} closed the connection in the middle of an answer.")
        return None

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._place.host, self._place.port), self._connect_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._place.tls:
            return connection
        import ssl

        try:
            return ssl.create_default_context().wrap_socket(connection, server_hostname=self._place.host)
        except BaseException:
            connection.close()
            raise

    def _where(self) -> str:
        return f"The agent at {self._place.host}:{self._place.port}"
