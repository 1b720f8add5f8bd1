"""What both clients are made of: where the agent is, the key, the limits, and namespaces as attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scalarizr.client.errors import ClientError
from scalarizr.client.exchange import read_url
from scalarizr.client.sealing import make_sealer
from scalarizr.envelope.key import ServerKey, WeakKey

ATTEMPTS = 3


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


class CallingEnd:
    """One end of the wire: `call` is what its two kinds add.

    :param url: where the agent is.
    :param key: the server's key, as text.
    :param key_file: or the file that holds it.
    :param key_id: the id that the server knows the key by; none for the server's one default key.
    :param envelope: `sealed`, or `founding` for an agent that knows nothing better; never tried one after the other,
        since whoever sits in between could make the better one fail.
    :param timeout: seconds for a whole call.
    :param connect_timeout: seconds for a connection.
    :param connections: how many calls may be under way at once; further ones wait.
    :raises ClientError: the key cannot be read or used.
    :raises ValueError: the URL, the envelope or the id is none.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_file: str | Path | None = None,
        key_id: str | None = None,
        envelope: str = "sealed",
        timeout: float = 150.0,
        connect_timeout: float = 5.0,
        connections: int = 16,
    ) -> None:
        self._place = read_url(url)
        self._sealer = make_sealer(load_key(key, key_file), envelope, key_id)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._connections = connections

    def __getattr__(self, namespace: str) -> Namespace:
        if namespace.startswith("_"):
            raise AttributeError(namespace)
        return Namespace(self, namespace)

    def _where(self) -> str:
        return f"The agent at {self._place.host}:{self._place.port}"
