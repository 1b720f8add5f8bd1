"""Passwords of a real PostgreSQL, through a real agent: they work, and nobody ever sees them."""

import dataclasses
import os
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from private_postgresql import PrivateCluster
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

LOUD = """\
log_statement = all
log_min_duration_statement = 0
log_min_messages = debug1
shared_preload_libraries = 'pg_stat_statements, auto_explain'
pg_stat_statements.track_utility = on
auto_explain.log_min_duration = 0
"""


@dataclasses.dataclass
class Setup:
    """A cluster that writes all it is told into its log, with an agent."""

    cluster: PrivateCluster
    agent: RunningAgent
    api: Client

    def login(self, password: str, role: str = "scalr_master") -> str:
        """Log in over TCP; gives who that is, and whether a superuser."""
        with psycopg.connect(
            host="127.0.0.1", port=self.cluster.port, user=role, password=password, dbname="postgres"
        ) as connection:
            row = connection.execute("SELECT session_user, current_setting('is_superuser')").fetchone()
            assert row is not None
            return f"{row[0]} {row[1]}"

    def is_refused(self, password: str, role: str = "scalr_master") -> bool:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            self.login(password, role)
        return True


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with PrivateCluster(settings=LOUD) as cluster:
        cluster.psql("CREATE EXTENSION pg_stat_statements")
        with RunningAgent(tmp_path_factory.mktemp("agent"), cluster.settings) as agent, agent.client() as api:
            yield Setup(cluster, agent, api)


def with_role(setup: Setup, role: str) -> None:
    """Let the agent look after another role."""
    setup.agent.stop()
    setup.agent.write_settings(f"{setup.cluster.settings}master_role = '''{role}'''\n")
    setup.agent.start()


def test_the_role_is_made_and_the_password_logs_in_over_tcp(setup: Setup) -> None:
    password = setup.api.postgresql.reset_password()
    assert len(password) == 20 and set(password) <= set(string.ascii_letters + string.digits)
    assert setup.login(password) == "scalr_master on"


def test_a_new_password_works_and_the_old_one_is_refused(setup: Setup) -> None:
    old = setup.api.postgresql.reset_password()
    new = setup.api.postgresql.reset_password()
    assert new != old and setup.is_refused(old) and setup.login(new)
    assert "proved by a login at 127.0.0.1" in setup.agent.log_text()


@pytest.mark.parametrize(
    "password",
    [
        'it\'s "quoted" \\ $$ ; -- :x %s {}',
        " spaces  at both ends ",
        "пароль-ß-\U0001f511-e\u0301",
        "\u00aa\u2168 soft\u00adhyphen\u00a0",
        "line\nfeed\tand\x01control",
        "x" * 1000,
        "я" * 1000,
        "SCRAM-SHA-256$4096:not$a:verifier",
        "md5" + "0" * 32,
    ],
)
def test_a_given_password_is_taken_as_it_is(setup: Setup, password: str) -> None:
    assert setup.api.postgresql.reset_password(new_password=password) == password
    assert setup.login(password)


@pytest.mark.parametrize("password", ["", "a\0b", "x" * 1025])
def test_what_cannot_be_a_password_is_refused_and_the_old_one_stays(setup: Setup, password: str) -> None:
    old = setup.api.postgresql.reset_password()
    with pytest.raises(AgentError) as caught:
        setup.api.postgresql.reset_password(new_password=password)
    assert caught.value.code == -32602 and "xxxx" not in f"{caught.value} {caught.value.data}"
    assert setup.login(old)


def test_no_log_view_or_process_ever_shows_a_password(setup: Setup) -> None:
    given = "planted-Password-7261"
    setup.api.postgresql.reset_password(new_password=given)
    made = setup.api.postgresql.reset_password()
    server_log = setup.cluster.log.read_text()
    statistics = setup.cluster.psql(
        "SELECT query FROM pg_stat_statements UNION ALL SELECT query FROM pg_stat_activity WHERE query <> ''"
    )
    assert "pg_is_in_recovery" in server_log and "pg_is_in_recovery" in statistics, "they do hold what else was asked"
    state = "".join(path.read_text(errors="replace") for path in setup.agent.state.rglob("*") if path.is_file())
    for where in (server_log, statistics, setup.agent.log_text(), state):
        assert given not in where and made not in where
    # Not what the server stores of it either: who reads a log could try passwords on it.
    verifier = setup.cluster.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scalr_master'")
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    assert "SCRAM-SHA-256$" not in server_log and "SCRAM-SHA-256$" not in statistics


def test_the_agent_does_not_keep_what_a_login_takes(setup: Setup) -> None:
    setup.api.postgresql.reset_password()
    loaded = Path(f"/proc/{setup.agent.pid()}/maps").read_text()
    assert "msgspec" in loaded and "psycopg" not in loaded and "libpq" not in loaded


def test_no_command_line_shows_a_password_while_it_is_set(setup: Setup) -> None:
    given = "planted-Password-9313"
    # A lock holds the statement up, so that whoever is at work on it can be looked at.
    with psycopg.connect(host="127.0.0.1", port=setup.cluster.port, user="scalr_master", dbname="postgres",
                         password=setup.api.postgresql.reset_password()) as holder:  # fmt: skip
        holder.execute("LOCK TABLE pg_authid IN EXCLUSIVE MODE")
        results: list[str] = []
        work = threading.Thread(target=lambda: results.append(setup.api.postgresql.reset_password(new_password=given)))
        work.start()
        try:
            seen, deadline = False, time.monotonic() + 60
            while not seen and time.monotonic() < deadline:
                told = {pid: command_and_environment(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
                assert not any(given in text for text in told.values())
                if setup.cluster.psql("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0":
                    seen = any("bin/psql" in text for text in told.values())
            assert seen
        finally:
            holder.rollback()
            work.join()
    assert results == [given] and setup.login(given)


def command_and_environment(pid: int) -> str:
    text = ""
    for name in ("cmdline", "environ"):
        try:
            text += Path(f"/proc/{pid}/{name}").read_text(errors="replace")
        except OSError:
            continue
    return text


@pytest.mark.parametrize("role", ["Élan \"x\"; DROP ROLE y 'z' \\", "select"])
def test_a_role_s_name_may_need_quoting(setup: Setup, role: str) -> None:
    with_role(setup, role)
    try:
        first = setup.api.postgresql.reset_password()
        assert setup.login(first, role) == f"{role} on"
        second = setup.api.postgresql.reset_password()
        assert setup.login(second, role) and setup.is_refused(first, role)
    finally:
        with_role(setup, "scalr_master")


def test_a_name_that_the_server_would_cut_off_is_refused(setup: Setup) -> None:
    with_role(setup, "я" * 32)
    try:
        with pytest.raises(AgentError, match="1 to 63 bytes"):
            setup.api.postgresql.reset_password()
    finally:
        with_role(setup, "scalr_master")


def test_a_role_that_was_locked_or_has_expired_can_log_in_again_and_stays_what_it_is(setup: Setup) -> None:
    setup.cluster.psql("CREATE ROLE modest NOLOGIN VALID UNTIL '2001-01-01'")
    with_role(setup, "modest")
    try:
        assert setup.login(setup.api.postgresql.reset_password(), "modest") == "modest off"
    finally:
        with_role(setup, "scalr_master")


def test_where_pg_hba_allows_no_password_the_log_warns_and_the_password_comes_all_the_same(setup: Setup) -> None:
    hba = setup.cluster.data_dir / "pg_hba.conf"
    before = hba.read_text()
    try:
        for rule, words in (("reject", "pg_hba.conf rejects connection"), ("trust", "did not complete authentication")):
            hba.write_text(f"local all postgres peer\nlocal all all peer\nhost all all all {rule}\n")
            setup.cluster.reload()
            logged = len(setup.agent.log_text())
            password = setup.api.postgresql.reset_password()
            said = setup.agent.log_text()[logged:]
            assert len(password) == 20 and password not in said
            assert "WARNING" in said and "nothing proves it" in said and words in said, said
    finally:
        hba.write_text(before)
        setup.cluster.reload()
    assert setup.login(password), "it is the right one all the same"


def test_a_server_that_hashes_harder_is_given_what_it_wants(setup: Setup) -> None:
    """PostgreSQL 16's scram_iterations, as a setting of its own here: 15 takes any number in a verifier."""
    from scalarizr.postgresql.passwords import scram_verifier
    from scalarizr.secret import Secret

    verifier = scram_verifier(Secret("harder"), iterations=20_000)
    setup.cluster.psql(f"CREATE ROLE harder LOGIN PASSWORD '{verifier}'")
    assert setup.login("harder", "harder") == "harder off"
