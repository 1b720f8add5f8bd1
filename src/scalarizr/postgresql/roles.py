"""The agent's own role and its password: made or changed without the server ever seeing the password."""

import logging
from typing import Any

from scalarizr.errors import NotConfigured, Refused
from scalarizr.postgresql.connection import Server, identifier, literal
from scalarizr.postgresql.login import try_login
from scalarizr.postgresql.passwords import ITERATIONS, check_password, scram_verifier
from scalarizr.postgresql.refusals import ConnectionLost, name_of
from scalarizr.secret import Secret, new_password

_LONGEST_NAME = 63  # bytes; a longer name would silently become another (PostgreSQL, "Identifiers and Key Words")
_FACTS_LIMIT = 5.0
_MOST_HOSTS = 8
_FACTS = """
SELECT json_build_object(
    'standby', pg_is_in_recovery(),
    'read_only', current_setting('transaction_read_only') = 'on',
    'exists', EXISTS (SELECT FROM pg_roles WHERE rolname = {role}),
    'expired', EXISTS (SELECT FROM pg_roles WHERE rolname = {role} AND rolvaliduntil <= now()),
    'iterations', current_setting('scram_iterations', true),
    'listen', current_setting('listen_addresses'),
    'port', current_setting('port')::int);
"""
_EVERYWHERE = {"*": ["127.0.0.1", "::1"], "0.0.0.0": ["127.0.0.1"], "::": ["::1"], "localhost": ["localhost"]}  # noqa: S104


def reset_password(server: Server, role: str, given: Secret | None, log: logging.Logger) -> Secret:
    """Set a role's password; the role is created as a login superuser where it is missing.

    The server is sent a SCRAM-SHA-256 verifier. A role that may not log in, or whose password has expired, may again.

    :param server: of the cluster.
    :param role: its name, as it is.
    :param given: the password; a new one is made when None.
    :param log: is warned where no login can prove the password.
    :return: the password.
    :raises InvalidParameter: the given password cannot be one.
    :raises NotConfigured: the role's name cannot be one.
    :raises Refused: the server is a standby, or takes no changes.
    :raises OutsideFailure: the server cannot be asked, or refuses; nothing was changed.
    """
    password = new_password() if given is None else check_password(given, "new_password")
    if not 0 < len(role.encode()) <= _LONGEST_NAME or "\0" in role:
        raise NotConfigured(
            f"[postgresql] master_role must be a name of 1 to {_LONGEST_NAME} bytes. Nothing was changed."
        )
    facts = server.ask(_FACTS.format(role=literal(role)), timeout=_FACTS_LIMIT)
    _refuse_without_writes(server, facts)
    verifier = scram_verifier(password, iterations=int(facts["iterations"] or ITERATIONS))
    if facts["exists"]:
        expiry = " VALID UNTIL 'infinity'" if facts["expired"] else ""
        statement = f"ALTER ROLE {identifier(role)} LOGIN PASSWORD '{verifier}'{expiry};"
    else:
        statement = f"CREATE ROLE {identifier(role)} LOGIN SUPERUSER PASSWORD '{verifier}';"
    try:
        server.ask(statement, unlogged=True, secrets=[verifier, password.reveal()])
    except ConnectionLost as lost:
        lost.say_further("Whether the password was changed is not known: set it again once the server is back.")
        raise
    _prove(facts, server, role, password, log)
    return password


def _refuse_without_writes(server: Server, facts: dict[str, Any]) -> None:
    if facts["standby"]:
        raise Refused(
            f"{name_of(server.cluster)} is a standby: its roles are those of its primary. Nothing was changed. Reset "
            "the password there; it arrives here by replication."
        )
    if facts["read_only"]:
        raise Refused(
            f"{name_of(server.cluster)} is read-only: default_transaction_read_only is on. Nothing was changed. Turn "
            "it off and try again."
        )


def _prove(facts: dict[str, Any], server: Server, role: str, password: Secret, log: logging.Logger) -> None:
    """Log in with it over TCP, else over the Unix socket; where neither lets a password in, say so."""
    directory, port = server.cluster.address()
    listed = [address.strip() for address in facts["listen"].split(",") if address.strip()]
    hosts = [host for address in listed for host in _EVERYWHERE.get(address, [address])]
    outcome = try_login(
        [*list(dict.fromkeys(hosts))[:_MOST_HOSTS], str(directory)], facts["port"] or port, role, password
    )
    if outcome.proved_at is None:
        log.warning(
            "postgresql: the password of %r was set, and no login with it was possible here, so that nothing proves "
            "it; pg_hba.conf was left as it is. Tried: %s",
            role,
            "; ".join(outcome.failures) or "nothing: the server listens nowhere",
        )
    else:
        log.info("postgresql: the password of %r was set and proved by a login at %s", role, outcome.proved_at)
