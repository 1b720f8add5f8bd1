"""The user that the agent keeps in the database `admin`: made or given a new password, which a login proves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scalarizr.errors import UNCHANGED, OutsideFailure, PermissionRefused, ScalarizrError
from scalarizr.mongodb.passwords import KeptPasswords
from scalarizr.mongodb.place import Address, Login, Place, read_place
from scalarizr.mongodb.server import (
    BAD_VALUE,
    NOT_IMPLEMENTED,
    UNAUTHORIZED,
    USER_NOT_FOUND,
    CommandFailed,
    LoginRefused,
    Server,
    connected,
    primary_found,
)
from scalarizr.secret import Secret, new_password

_SHA_256, _SHA_1 = "SCRAM-SHA-256", "SCRAM-SHA-1"
_MOST_KEPT = 8
_ROLES: list[Any] = [{"role": "root", "db": "admin"}]


def reset_password(place: Place, user: str, kept: KeptPasswords) -> Secret:
    """Give the user a new password; make the user, with the role root, where there is none.

    The credentials are those of the setting, else the passwords that were kept, else none: a server without users
    takes its first one from its own host (the localhost exception), and one without access control takes any.

    :param place: where the server is.
    :param user: its name in the database `admin`.
    :param kept: where the new password is kept.
    :return: the password; a login with it has worked.
    :raises ScalarizrError: the server is in no state to do it, or does not take the credentials.
    """
    refused: list[str] = []
    address = place.addresses[0]
    for login in _logins(place, user, kept):
        try:
            with primary_found(place, login) as server:
                return _reset(server, place, user, kept, login)
        except LoginRefused as refusal:
            refused.append(f"it refused the login of {refusal.facts['user']}, whose password is another one there")
        except _NotAllowed as refusal:
            address = refusal.address
            if login is not None:
                refused.append(f"{login.user} may not make users or change their passwords")
    # The last one was nobody's, which nobody refuses: it was not allowed.
    raise _no_credentials(address, refused)


def login_of(uri: str | None, user: str, kept: KeptPasswords) -> Login | None:
    """Give the credentials that a monitoring agent should use: the user's, else those of the setting, else none.

    The server is not asked: it may be down, and the monitoring agent has to be there when it comes back.

    :raises NotConfigured: the setting cannot be used.
    """
    passwords = kept.all()
    return Login(user, passwords[0]) if passwords else read_place(uri).login


def offered_mechanisms(server: Server) -> list[str]:
    """Give the mechanisms that the server lets users log in with, the best first, of those that this agent knows."""
    try:
        answer = server.command({"getParameter": 1, "authenticationMechanisms": 1})
    except CommandFailed:
        # Not everybody may ask. Every server that the driver speaks with knows both, unless it was told otherwise.
        return [_SHA_256, _SHA_1]
    offered = answer.get("authenticationMechanisms", ())
    return [mechanism for mechanism in (_SHA_256, _SHA_1) if mechanism in offered]


class _NotAllowed(Exception):
    """Whoever is logged in, or nobody, may not change users."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self.address = address


def _logins(place: Place, user: str, kept: KeptPasswords) -> Iterator[Login | None]:
    ours = [Login(user, password) for password in kept.all()]
    given = [place.login] if place.login is not None else []
    # Of one and the same user what was kept is newer than what stands in the setting.
    both = [*ours, *given] if given and given[0].user == user else [*given, *ours]
    yield from both
    yield None


def _reset(server: Server, place: Place, user: str, kept: KeptPasswords, login: Login | None) -> Secret:
    offered = offered_mechanisms(server)
    if not offered:
        raise OutsideFailure(
            f"The MongoDB server at {server.address} lets nobody log in with a password that it keeps itself. "
            f"{UNCHANGED} Add {_SHA_256} to its authenticationMechanisms.",
            {"server": str(server.address)},
        )
    password, before = new_password(), kept.all()
    if login is not None and login.user == user:
        # What was just proved to be in force comes first, and is the last to be forgotten.
        before = [login.password, *(one for one in before if one != login.password)]
    kept.keep([password, *before][:_MOST_KEPT])
    try:
        mechanism = _set_by_the_best(server, user, password, offered)
    except (CommandFailed, _NotAllowed):
        kept.keep(before)  # the server has said that it did not
        raise
    try:
        with connected(server.address, place.tls, Login(user, password, mechanism=mechanism)):
            pass
    except ScalarizrError as failure:
        # An error of its own kind: it is no credentials of the settings that were refused here.
        raise OutsideFailure(
            f"The password of {user} was set, but no login has proved it: {failure.message} Call again.",
            {"server": str(server.address), "user": user},
        ) from None
    kept.keep([password])
    return password


def _set_by_the_best(server: Server, user: str, password: Secret, mechanisms: Sequence[str]) -> str:
    for mechanism in mechanisms:
        try:
            _set_password(server, user, password, mechanism)
        except CommandFailed as failure:
            # Where it could not be asked what it offers, it says so by refusing.
            if failure.number != BAD_VALUE or mechanism == mechanisms[-1]:
                raise
        else:
            return mechanism
    raise AssertionError("the last one is set, or refused")


def _set_password(server: Server, user: str, password: Secret, mechanism: str) -> None:
    told = {"pwd": password.reveal(), "mechanisms": [mechanism]}
    try:
        _run(server, {"updateUser": user, **told}, password)
    except CommandFailed as failure:
        # Before there is a first user nobody may update one, though anybody on the host may make one.
        if failure.number not in (USER_NOT_FOUND, UNAUTHORIZED):
            raise
    else:
        return
    try:
        _create(server, {"createUser": user, **told}, password)
    except CommandFailed as failure:
        if failure.number == UNAUTHORIZED:
            raise _NotAllowed(server.address) from None
        raise


def _create(server: Server, document: Mapping[str, Any], password: Secret) -> None:
    try:
        _run(server, {**document, "roles": _ROLES}, password)
    except CommandFailed as failure:
        # FerretDB knows no roles: there every user may do everything.
        if failure.number != NOT_IMPLEMENTED:
            raise
        _run(server, {**document, "roles": []}, password)


def _run(server: Server, document: Mapping[str, Any], password: Secret) -> None:
    secrets: Sequence[str] = (password.reveal(),)
    try:
        server.command(document, secrets)
    except CommandFailed as failure:
        failure.say_further(f"{UNCHANGED} Put it right, and call again.")
        raise


def _no_credentials(address: Address, refused: Sequence[str]) -> PermissionRefused:
    if refused:
        why = "; ".join(dict.fromkeys(refused))
    elif address.is_local:
        why = "it has users already, and no credentials for it are known"
    else:
        why = "no credentials for it are known, and only from its own host it takes a first user without any"
    return PermissionRefused(
        f"The MongoDB server at {address} does not let this agent change users: {why}. {UNCHANGED} Put the user name "
        "and password of an administrator into the setting [mongodb] uri.",
        {"server": str(address)},
    )
