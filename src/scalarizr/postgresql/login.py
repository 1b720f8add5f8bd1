"""A login with a password, tried in a process of its own: this module, run, with the job on its standard input.

What it takes (a client library, the password in its memory) goes when it ends. Only SCRAM is spoken, which proves the
password without telling it to whoever listens there.
"""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.host.run import run
from scalarizr.secret import Secret, without

_CONNECT_LIMIT = 4
_REQUIRE_AUTH_SINCE = 160000


class Job(msgspec.Struct):
    """Who logs in, and where.

    :param hosts: addresses, or directories of sockets, one after the other until one lets it in.
    :param port: the server's.
    :param user: the role.
    :param password: in plain.
    """

    hosts: list[str]
    port: int
    user: str
    password: str


class Outcome(msgspec.Struct):
    """How it went.

    :param proved_at: where the login succeeded; None: nowhere.
    :param failures: what each place that was tried before said.
    """

    proved_at: str | None
    failures: list[str]


def try_login(hosts: Sequence[str], port: int, user: str, password: Secret) -> Outcome:
    """Log in with a password, really, by SCRAM.

    :param hosts: where to try.
    :return: where it succeeded, and what the others said, without the password.
    """
    job = Job(list(hosts), port, user, password.reveal())
    try:
        done = run(
            [sys.executable, "-I", "-m", "scalarizr.postgresql.login"],
            timeout=5.0 + _CONNECT_LIMIT * len(job.hosts),
            input=msgspec.json.encode(job),
        )
    except ScalarizrError as failure:
        return Outcome(None, [failure.message])
    if done.returncode != 0:
        return Outcome(None, [f"the login could not be tried: {without(done.last_words(200), [job.password])}"])
    return msgspec.json.decode(done.stdout, type=Outcome)


def _try(job: Job) -> Outcome:
    import psycopg

    failures: list[str] = []
    options: dict[str, Any] = {}
    if psycopg.pq.version() >= _REQUIRE_AUTH_SINCE:
        options["require_auth"] = "scram-sha-256"
    for host in job.hosts:
        try:
            with psycopg.connect(
                host=host,
                port=job.port,
                user=job.user,
                password=job.password,
                dbname="postgres",
                connect_timeout=_CONNECT_LIMIT,
                application_name="scalarizr",
                gssencmode="disable",
                **options,
            ) as connection:
                if options or connection.pgconn.used_password:
                    return Outcome(host, failures)
                failures.append(f"{host} lets this role in without a password")
        except psycopg.Error as error:
            words = without(" ".join(str(error).split()), [job.password])
            failures.append(f"{host}: {words[:300]}")
    return Outcome(None, failures)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_try(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))))
