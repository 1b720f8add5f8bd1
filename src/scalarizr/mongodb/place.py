"""Where the server is, as the setting `[mongodb] uri` says it: hosts, credentials, TLS. Nothing here connects."""

from collections.abc import Mapping
from typing import Any

import msgspec

from scalarizr.errors import UNCHANGED, NotConfigured
from scalarizr.secret import Secret

DEFAULT_PORT = 27017
_LOOPBACK = ("localhost", "::1")


class Login(msgspec.Struct, frozen=True):
    """Credentials of one user.

    :param user: its name.
    :param password: its password.
    :param database: the database that it is a user of.
    :param mechanism: how it logs in; None: as server and driver agree.
    """

    user: str
    password: Secret
    database: str = "admin"
    mechanism: str | None = None


class Address(msgspec.Struct, frozen=True):
    """One server.

    :param host: its name, its address, or the path of its socket.
    :param port: its port; None with a socket.
    """

    host: str
    port: int | None = DEFAULT_PORT

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether the server would take a connection to it as one from its own host."""
        return self.port is None or self.host in _LOOPBACK or self.host.startswith("127.")


class Place(msgspec.Struct, frozen=True):
    """What the setting says.

    :param addresses: servers, the nearest first.
    :param login: the credentials in it, if any.
    :param tls: the options about TLS in it.
    """

    addresses: tuple[Address, ...] = (Address("127.0.0.1"),)
    login: Login | None = None
    tls: Mapping[str, Any] = msgspec.field(default_factory=dict)


def read_place(uri: str | None) -> Place:
    """Read the setting `[mongodb] uri`; without one the server is on this host, at MongoDB's port.

    :raises NotConfigured: it cannot be used here; it is not shown, since it may hold a password.
    """
    if not uri:
        return Place()
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    if not uri.startswith("mongodb://"):
        raise _useless('It has to begin with "mongodb://" and to name the server itself, not a DNS record.')
    try:
        read = parse_uri(uri, warn=False)
    except (PyMongoError, ValueError):
        raise _useless("User name and password have to be percent-encoded in it (RFC 3986).") from None
    options = {name.lower(): value for name, value in read["options"].items()}
    return Place(
        tuple(Address(host, port) for host, port in read["nodelist"]),
        _login(read, options),
        {name: value for name, value in read["options"].items() if name.lower().startswith(("tls", "ssl"))},
    )


def _login(read: Mapping[str, Any], options: Mapping[str, Any]) -> Login | None:
    if not read["username"]:
        return None
    database = options.get("authsource") or read["database"] or "admin"
    return Login(read["username"], Secret(read["password"] or ""), database, options.get("authmechanism"))


def _useless(why: str) -> NotConfigured:
    return NotConfigured(
        f"The setting [mongodb] uri is no connection string that can be used. {UNCHANGED} {why}",
        {"setting": "[mongodb] uri"},
    )
