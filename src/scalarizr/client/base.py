"""What both clients are made of: where the agent is, the key, the limits, and namespaces as attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalarizr.client.errors import ClientError, Unreachable
from scalarizr.client.exchange import read_url
from scalarizr.client.sealing import make_sealer
from scalarizr.envelope.key import ServerKey, WeakKey

if TYPE_CHECKING:
    import ssl

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
    :param ca: for https, a file of the issuers that are believed, or of the agent's very certificate, in PEM; the
        system's issuers when not given. Certificate and name are always verified.
    :param certificate: for https, a file of the client's certificate in PEM, for an agent that asks for one.
    :param certificate_key: the file of its key; in the same one when not given.
    :param envelope: `sealed`, or `founding` for an agent that knows nothing better; never tried one after the other,
        since whoever sits in between could make the better one fail.
    :param timeout: seconds for a whole call.
    :param connect_timeout: seconds for a connection.
    :param connections: how many calls may be under way at once; further ones wait.
    :raises ClientError: the key cannot be read or used.
    :raises CertificateUnusable: the same of a certificate.
    :raises ValueError: the URL, the envelope or the id is none; or certificates are given for http.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_file: str | Path | None = None,
        key_id: str | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        certificate_key: str | Path | None = None,
        envelope: str = "sealed",
        timeout: float = 150.0,
        connect_timeout: float = 5.0,
        connections: int = 16,
    ) -> None:
        self._place = read_url(url)
        self._sealer = make_sealer(load_key(key, key_file), envelope, key_id)
        self._tls: ssl.SSLContext | None = None
        self._broken: tuple[type[OSError], ...] = (BrokenPipeError, ConnectionResetError)
        if self._place.tls:
            from scalarizr.client.tls import BROKEN, make_context

            self._tls, self._broken = make_context(ca, certificate, certificate_key), BROKEN
        elif ca or certificate or certificate_key:
            raise ValueError(f"{url!r} does not begin with https, so nobody would look at certificates")
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._connections = connections

    def __getattr__(self, namespace: str) -> Namespace:
        if namespace.startswith("_"):
            raise AttributeError(namespace)
        return Namespace(self, namespace)

    def _failure(self, error: OSError) -> ClientError:
        if self._tls is None:
            return Unreachable(f"{self._where()} cannot be reached: {error.strerror or error}.")
        from scalarizr.client.tls import failure_of

        return failure_of(self._where(), error)

    def _where(self) -> str:
        return f"The agent at {self._place.host}:{self._place.port}"
