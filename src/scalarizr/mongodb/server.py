"""Reaching the server: a connection that ends with its block, and a sentence for each state in which there is none."""

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scalarizr.errors import UNCHANGED, OutsideFailure, PermissionRefused, ScalarizrError, TimedOut
from scalarizr.host.numerals import numeral
from scalarizr.mongodb.place import Address, Login, Place
from scalarizr.secret import without

if TYPE_CHECKING:
    from pymongo import MongoClient

# Seconds to a connection and to the answer of a command.
_CONNECT = 5.0
_ANSWER = 10.0
# Wrong user or password; or a user who has none of the kind that was tried.
_LOGIN_REFUSED = (18, 334)
BAD_VALUE = 2
UNAUTHORIZED = 13
USER_NOT_FOUND = 11
NOT_IMPLEMENTED = 238

# What the server's own codes mean to whoever asked (its file error_codes.yml).
_STATES: dict[int, str] = {
    91: "is shutting down",
    189: "is no longer the primary of its replica set",
    10107: "is not the primary of its replica set",
    11600: "is shutting down",
    11602: "has just changed its state in the replica set",
    13435: "is not the primary of its replica set",
    13436: "is neither primary nor secondary yet: it starts, or recovers",
    14031: "has no disk space left",
    262: "took too long over it",
}


class Server:
    """A connection to one server.

    :param address: where it is.
    :param client: the connection.
    :param hello: what it says of itself (the command `hello`).
    """

    def __init__(self, address: Address, client: "MongoClient[dict[str, Any]]", hello: Mapping[str, Any]) -> None:
        self.address = address
        self.hello = hello
        self._client = client

    def command(self, document: Mapping[str, Any], secrets: Sequence[str] = ()) -> dict[str, Any]:
        """Run a command in the database `admin`.

        :param secrets: texts in it that no error may show.
        :raises CommandFailed: the server refused it.
        :raises OutsideFailure: it went away meanwhile.
        :raises TimedOut: it did not answer; whether it did what it was told is not known.
        """
        from pymongo.errors import OperationFailure, PyMongoError

        name = next(iter(document))
        try:
            return self._client.admin.command(dict(document))
        except OperationFailure as failure:
            raise CommandFailed(self.address, name, failure.code or 0, failure.details or {}, secrets) from None
        except PyMongoError as failure:
            raise _unreachable(self.address, self._client, failure, f"while it was told {name}") from None


class CommandFailed(OutsideFailure):
    """The server refused a command.

    :ivar number: the server's code.
    """

    def __init__(
        self, address: Address, name: str, number: int, details: Mapping[str, Any], secrets: Sequence[str]
    ) -> None:
        self.number = number
        words = without(str(details.get("errmsg", "")), secrets)[:300].rstrip(".")
        state = _STATES.get(number)
        said = f"{state} and refused {name}" if state else f"refused {name}"
        super().__init__(
            f"The MongoDB server at {address} {said}: {words or 'it did not say why'}.",
            {"server": str(address), "command": name, "code": number, "code_name": str(details.get("codeName", ""))},
        )


class LoginRefused(PermissionRefused):
    """The server does not take these credentials."""

    def __init__(self, address: Address, user: str) -> None:
        super().__init__(
            f"The MongoDB server at {address} refused the login of {user}: user or password is wrong.",
            {"server": str(address), "user": user},
        )


@contextlib.contextmanager
def connected(address: Address, tls: Mapping[str, Any], login: Login | None = None) -> Iterator[Server]:
    """Be connected to one server while the block runs.

    :param tls: options about TLS, as in a connection string.
    :param login: who logs in; None: nobody.
    :raises LoginRefused: the server does not take the credentials.
    :raises OutsideFailure: it is down, cannot be reached, or is no MongoDB server that can be spoken to.
    :raises TimedOut: it does not answer.
    """
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure, PyMongoError

    _knock(address)
    options: dict[str, Any] = dict(tls)
    if login is not None:
        options.update(username=login.user, password=login.password.reveal(), authSource=login.database)
        if login.mechanism is not None:
            options["authMechanism"] = login.mechanism
    try:
        client: MongoClient[dict[str, Any]] = MongoClient(
            address.host,
            address.port,
            directConnection=True,
            serverSelectionTimeoutMS=_CONNECT * 1000,
            connectTimeoutMS=_CONNECT * 1000,
            socketTimeoutMS=_ANSWER * 1000,
            heartbeatFrequencyMS=3_600_000,
            serverMonitoringMode="poll",
            maxPoolSize=1,
            retryReads=False,
            retryWrites=False,
            appname="scalarizr",
            **options,
        )
    except (PyMongoError, ValueError, OSError):
        # The words may hold what stands in the connection string.
        raise OutsideFailure(
            f"The options for TLS or login in the setting [mongodb] uri cannot be used. {UNCHANGED} Correct them.",
            {"setting": "[mongodb] uri"},
        ) from None
    with client:
        try:
            hello = client.admin.command("hello")
        except OperationFailure as failure:
            if login is not None and failure.code in _LOGIN_REFUSED:
                raise LoginRefused(address, login.user) from None
            raise CommandFailed(address, "hello", failure.code or 0, failure.details or {}, ()) from None
        except PyMongoError as failure:
            raise _unreachable(address, client, failure, "") from None
        yield Server(address, client, hello)


@contextlib.contextmanager
def primary_found(place: Place, login: Login | None = None) -> Iterator[Server]:
    """Be connected, while the block runs, to the server that takes changes: that of the setting, or its primary.

    :raises ScalarizrError: none can be reached, or none takes changes; the first one's trouble is told.
    """
    trouble: ScalarizrError | None = None
    for address in place.addresses:
        try:
            primary = _primary_of(address, place.tls)
        except LoginRefused:
            raise
        except ScalarizrError as failure:
            trouble = trouble or failure
            continue
        with connected(primary, place.tls, login) as server:
            _refuse_unwritable(server)
            yield server
        return
    assert trouble is not None
    raise trouble


def _primary_of(address: Address, tls: Mapping[str, Any]) -> Address:
    with connected(address, tls) as server:
        named = server.hello.get("primary")
        if is_writable(server.hello) or not isinstance(named, str) or named == str(address):
            _refuse_unwritable(server)
            return address
    host, _, last = named.rpartition(":")
    port = numeral(last)
    return Address(host.strip("[]"), port) if host and port is not None else Address(named)


def is_writable(hello: Mapping[str, Any]) -> bool:
    """Tell whether a server takes changes: alone, a primary, or a router of a cluster."""
    return bool(hello.get("isWritablePrimary", hello.get("ismaster"))) and not hello.get("readOnly")


def state_of(hello: Mapping[str, Any]) -> str:
    """Say in words why a server takes no changes, and what to do about it."""
    if hello.get("arbiterOnly"):
        return "is an arbiter, which has no users. Name a member with data in [mongodb] uri"
    if hello.get("readOnly"):
        return "is read-only. Start it for writing"
    if hello.get("isreplicaset") and not hello.get("setName"):
        return "belongs to a replica set that was never initiated. Initiate it (rs.initiate)"
    if hello.get("secondary"):
        return "is a secondary, and its replica set has no primary now. Try again once one is elected"
    if hello.get("setName"):
        return "is neither primary nor secondary yet: it starts, or recovers. Try again once it is ready"
    return "takes no changes now. Try again once it does"


def _refuse_unwritable(server: Server) -> None:
    if not is_writable(server.hello):
        raise OutsideFailure(
            f"{UNCHANGED} The MongoDB server at {server.address} {state_of(server.hello)}.",
            {"server": str(server.address)},
        )


def _knock(address: Address) -> None:
    """Find out at once, and not after the driver's patience, that nobody is there."""
    start = "Start mongod, or correct the setting [mongodb] uri."
    try:
        if address.port is None:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_CONNECT)
                probe.connect(address.host)
        else:
            socket.create_connection((address.host, address.port), _CONNECT).close()
    except TimeoutError:
        raise TimedOut(
            f"No connection to the MongoDB server at {address} within {_CONNECT:.0f} s: its host is down, or a "
            f"firewall drops what is sent to it. {UNCHANGED} {start}",
            {"server": str(address), "limit": _CONNECT},
        ) from None
    except socket.gaierror as failure:
        raise OutsideFailure(
            f"The host name of the MongoDB server {address} cannot be resolved: {failure.strerror}. {UNCHANGED} "
            "Correct the setting [mongodb] uri.",
            {"server": str(address)},
        ) from None
    except OSError as failure:
        raise OutsideFailure(
            f"No MongoDB server answers at {address}: {failure.strerror or failure}. {UNCHANGED} {start}",
            {"server": str(address)},
        ) from None


def _unreachable(
    address: Address, client: "MongoClient[dict[str, Any]]", failure: Exception, moment: str
) -> ScalarizrError:
    """Say what the driver's failure means; its own words are long, and about the driver."""
    from ssl import SSLError

    from pymongo.errors import ConfigurationError, NetworkTimeout, ServerSelectionTimeoutError

    facts: dict[str, Any] = {"server": str(address)}
    where = f"The MongoDB server at {address}"
    told = f" {moment}" if moment else ""
    after = "Whether it was done is not known; call again." if moment else UNCHANGED
    if isinstance(failure, ConfigurationError):
        return OutsideFailure(
            f"{where} speaks an older or newer protocol than this agent does, or does not offer the login that "
            f"[mongodb] uri asks for. {after} MongoDB 4.4 and later are supported.",
            facts,
        )
    cause: BaseException | None = failure
    if isinstance(failure, ServerSelectionTimeoutError):
        known = client.topology_description.server_descriptions().values()
        cause = next((description.error for description in known), None)
    root = cause.__cause__ or cause if cause is not None else None
    if isinstance(root, SSLError):
        return OutsideFailure(
            f"{where} and this agent do not agree on TLS. {after} Correct the TLS options of [mongodb] uri.", facts
        )
    if cause is None or isinstance(cause, NetworkTimeout) or isinstance(root, TimeoutError):
        limit = _ANSWER if moment else _CONNECT
        return TimedOut(
            f"{where} took the connection, but did not answer{told} within {limit:.0f} s: it hangs, or is overloaded. "
            f"{after} Look into its log.",
            {**facts, "limit": limit},
        )
    return OutsideFailure(
        f"{where} closed the connection{told}: it starts or stops just now, speaks TLS only, is out of connections, or "
        f"is no MongoDB server. {after} Look into its log.",
        facts,
    )
