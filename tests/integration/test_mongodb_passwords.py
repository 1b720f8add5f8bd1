"""The password of the agent's user at a real server: set, proved, kept; and each state in which it cannot be."""

import contextlib
import json
import os
import signal
import socket
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring_package import Package, without_systemd
from private_mongodb import (
    FIRST_PASSWORD,
    FIRST_USER,
    HAS_MONGOD,
    PrivateMongoDB,
    needs_mongod,
    needs_mongodb,
    rewritten,
)
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

WRONG = "planted-wrong-password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMongoDB]:
    made = PrivateMongoDB(tmp_path_factory.mktemp("mongodb"))
    yield made.start()
    made.stop()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    made = RunningAgent(tmp_path)
    yield made
    made.__exit__()


def start(agent: RunningAgent, uri: str | None, user: str = "scalr") -> RunningAgent:
    """Start the agent, or start it anew, with other settings."""
    if agent.process is not None:
        agent.stop()
    agent.write_settings("[mongodb]\n" + (f'uri = "{uri}"\n' if uri else "") + f'user = "{user}"\n')
    return agent.start()


def reset(agent: RunningAgent) -> str:
    with agent.client() as client:
        password = client.call("mongodb.reset_password")
    assert isinstance(password, str)
    return password


def refusal(agent: RunningAgent) -> AgentError:
    with agent.client() as client, pytest.raises(AgentError) as caught:
        client.call("mongodb.reset_password")
    said = f"{caught.value} {caught.value.data}"
    for text in (said, agent.log_text()):
        assert "planted" not in text and "@127.0.0.1" not in text
    return caught.value


def kept(agent: RunningAgent) -> list[str]:
    path = agent.etc / "private.d" / "mongodb.json"
    if not path.exists():
        return []
    assert path.stat().st_mode & 0o777 == 0o600
    return list(json.loads(path.read_text())["passwords"])


@needs_mongodb
def test_a_password_is_set_proved_and_changed_and_the_old_one_is_refused(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user)
    first = reset(agent)
    assert len(first) == 20 and set(first) <= set(string.ascii_letters + string.digits)
    assert server.takes("scalr", first) and server.takes("scalr", first, authMechanism="SCRAM-SHA-256")
    second = reset(agent)
    assert second != first and server.takes("scalr", second) and not server.takes("scalr", first)
    assert server.mechanisms("scalr", second) == ["SCRAM-SHA-256"]
    assert kept(agent) == [second]
    with agent.client() as client:
        records = json.dumps(client.call("operation.list")) + json.dumps(client.call("change.list"))
    everything = agent.log_text() + records
    assert "mongodb.reset_password" in everything
    for secret in (first, second, FIRST_PASSWORD):
        assert secret not in everything
    if HAS_MONGOD:
        with server.client("scalr", second) as client:
            roles = client.admin.command("usersInfo", "scalr")["users"][0]["roles"]
        assert roles == [{"role": "root", "db": "admin"}]


@needs_mongodb
@without_systemd
def test_a_monitoring_agent_that_runs_is_told_the_new_password(
    server: PrivateMongoDB, agent: RunningAgent, tmp_path: Path
) -> None:
    package = Package(tmp_path)
    agent.write_settings(f'{package.setting()}uri = "{server.uri_of_first_user}"\nuser = "watcher"\n')
    agent.start()
    try:
        with agent.client() as client:
            keys = {"api_key": "planted-key", "secret_key": "planted-secret"}
            assert client.call("mongodb.enable_mms", **keys)["status"] == "Ok"
            first = package.started_again(1)
            assert (first["user"], first["password"]) == (FIRST_USER, FIRST_PASSWORD)
            password = client.call("mongodb.reset_password")
            second = package.started_again(2)
            assert (second["user"], second["password"]) == ("watcher", password)
            assert second["api_key"] == "planted-key" and package.running() == [second["pid"]]
            assert client.call("mongodb.disable_mms")["status"] == "Ok"
            client.call("mongodb.reset_password")
        assert package.running() == [] and password not in agent.log_text()
    finally:
        package.end()


@needs_mongodb
def test_without_credentials_in_the_settings_the_password_of_the_last_call_is_used(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user, user="without-credentials")
    first = reset(agent)
    start(agent, server.uri, user="without-credentials")
    second = reset(agent)
    assert server.takes("without-credentials", second) and not server.takes("without-credentials", first)


@needs_mongodb
def test_the_users_own_credentials_in_the_settings_may_be_older_than_the_last_call(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user, user="own")
    first = reset(agent)
    start(agent, f"mongodb://own:{first}@127.0.0.1:{server.port}/", user="own")
    assert server.takes("own", reset(agent)) and server.takes("own", reset(agent))


@needs_mongodb
def test_wrong_credentials_in_the_settings_do_not_hide_right_ones_that_are_kept(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user, user="kept")
    reset(agent)
    start(agent, f"mongodb://{FIRST_USER}:{WRONG}@127.0.0.1:{server.port}/", user="kept")
    assert server.takes("kept", reset(agent))


@needs_mongodb
def test_when_all_credentials_are_wrong_each_is_named_and_nothing_changes(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user, user="wronged")
    password = reset(agent)
    path = agent.etc / "private.d" / "mongodb.json"
    path.write_text(json.dumps({"user": "wronged", "passwords": [WRONG]}))
    start(agent, f"mongodb://{FIRST_USER}:{WRONG}@127.0.0.1:{server.port}/", user="wronged")
    error = refusal(agent)
    assert (
        error.code == -32017 and f"the login of {FIRST_USER}" in error.message and "login of wronged" in error.message
    )
    assert "Nothing was changed" in error.message and "[mongodb] uri" in error.message
    assert kept(agent) == [WRONG] and server.takes("wronged", password)


@needs_mongodb
def test_a_server_with_users_takes_nothing_from_nobody(server: PrivateMongoDB, agent: RunningAgent) -> None:
    start(agent, server.uri, user="nobody-known")
    error = refusal(agent)
    assert error.code == -32017 and "it has users already, and no credentials for it are known" in error.message


@needs_mongod
def test_a_server_without_users_takes_its_first_one_from_its_own_host(tmp_path: Path, agent: RunningAgent) -> None:
    server = PrivateMongoDB(tmp_path / "mongodb", first_user=False).start()
    try:
        start(agent, server.uri)
        first = reset(agent)
        assert server.takes("scalr", first)
        assert server.takes("scalr", reset(agent)) and not server.takes("scalr", first)
    finally:
        server.stop()


@needs_mongodb
def test_after_a_crash_in_between_either_password_is_the_right_one(server: PrivateMongoDB, agent: RunningAgent) -> None:
    start(agent, server.uri_of_first_user, user="crashed")
    password = reset(agent)
    path = agent.etc / "private.d" / "mongodb.json"
    # What a kill leaves between keeping a new password and the server's taking it.
    path.write_text(json.dumps({"user": "crashed", "passwords": [WRONG, password]}))
    start(agent, server.uri, user="crashed")
    again = reset(agent)
    assert server.takes("crashed", again) and kept(agent) == [again]


@needs_mongodb
def test_when_the_answer_is_lost_the_next_call_finds_out_which_password_it_is(
    server: PrivateMongoDB, agent: RunningAgent
) -> None:
    start(agent, server.uri_of_first_user, user="lost")
    old = reset(agent)
    for words in (b"updateUser", b"getParameter"):
        with rewritten(server.port, {}, lost=words) as port:
            start(agent, server.uri.replace(str(server.port), str(port)), user="lost")
            error = refusal(agent)
            assert f"closed the connection while it was told {words.decode()}" in error.message
            assert "Whether it was done is not known; call again." in error.message
    assert len(kept(agent)) == 2 and old in kept(agent)
    assert [server.takes("lost", password) for password in kept(agent)] == [True, False]
    start(agent, server.uri, user="lost")
    again = reset(agent)
    assert server.takes("lost", again) and kept(agent) == [again]


@needs_mongodb
def test_a_password_that_no_login_has_proved_is_not_given_out(server: PrivateMongoDB, agent: RunningAgent) -> None:
    with rewritten(server.port, {}, lost=b"n=unproved,") as port:
        start(agent, server.uri_of_first_user.replace(str(server.port), str(port)), user="unproved")
        error = refusal(agent)
    assert error.code == -32018 and "was set, but no login has proved it" in error.message
    (password,) = kept(agent)
    assert server.takes("unproved", password) and password not in error.message + agent.log_text()
    start(agent, server.uri, user="unproved")
    assert server.takes("unproved", reset(agent)) and not server.takes("unproved", password)


@needs_mongodb
def test_a_server_that_offers_only_sha_1_gets_a_user_of_sha_1(server: PrivateMongoDB, agent: RunningAgent) -> None:
    # To its clients this server offers SHA-1 and something that nobody knows.
    with rewritten(server.port, {b"SCRAM-SHA-256": b"SCRAM-SHA-999"}) as port:
        start(agent, server.uri_of_first_user.replace(str(server.port), str(port)), user="older")
        password = reset(agent)
    assert server.mechanisms("older", password) == ["SCRAM-SHA-1"]
    assert server.takes("older", password, authMechanism="SCRAM-SHA-1")


@needs_mongodb
def test_a_server_that_offers_neither_is_told_so(server: PrivateMongoDB, agent: RunningAgent) -> None:
    with rewritten(server.port, {b"authenticationMechanisms\0": b"authenticationMechanismz\0"}) as port:
        start(agent, server.uri_of_first_user.replace(str(server.port), str(port)), user="neither")
        assert "lets nobody log in with a password" in refusal(agent).message
    assert kept(agent) == []


@needs_mongodb
@pytest.mark.skipif(HAS_MONGOD, reason="LEFT OUT: only FerretDB's answers are the length that is rewritten here")
def test_from_a_secondary_the_way_leads_to_the_primary(tmp_path: Path, agent: RunningAgent) -> None:
    server = PrivateMongoDB(tmp_path / "mongodb")
    # The name of the set becomes the name of its primary, on the way.
    server.replica_set = f"127.0.0.1:{server.port}"
    server.start()
    try:
        secondary = {
            b"\x08isWritablePrimary\0\x01": b"\x08isWritablePrimary\0\x00",
            b"\x08ismaster\0\x01": b"\x08ismaster\0\x00",
            b"\x02setName\0": b"\x02primary\0",
        }
        with rewritten(server.port, secondary) as port:
            start(agent, server.uri_of_first_user.replace(str(server.port), str(port)))
            assert server.takes("scalr", reset(agent))
    finally:
        server.stop()


@needs_mongodb
@pytest.mark.skipif(HAS_MONGOD, reason="LEFT OUT: only FerretDB's answers are the length that is rewritten here")
def test_a_set_without_a_primary_and_a_server_that_only_reads_have_their_own_sentences(
    tmp_path: Path, agent: RunningAgent
) -> None:
    server = PrivateMongoDB(tmp_path / "mongodb", replica_set="rs0").start()
    not_primary = {
        b"\x08isWritablePrimary\0\x01": b"\x08isWritablePrimary\0\x00",
        b"\x08ismaster\0\x01": b"\x08ismaster\0\x00",
    }
    cases = [
        ({**not_primary, b"\x08readOnly\0\x00": b"\x08isAdmins\0\x00"}, "it starts, or recovers"),
        ({**not_primary, b"\x08readOnly\0\x00": b"\x08readOnly\0\x01"}, "is read-only"),
    ]
    try:
        for replaced, words in cases:
            with rewritten(server.port, replaced) as port:
                start(agent, server.uri_of_first_user.replace(str(server.port), str(port)))
                error = refusal(agent)
                assert error.code == -32018 and words in error.message and "Nothing was changed" in error.message
        assert kept(agent) == []
    finally:
        server.stop()


@needs_mongod
def test_a_replica_set_is_followed_to_its_primary(tmp_path: Path, agent: RunningAgent) -> None:
    members = [PrivateMongoDB(tmp_path / str(number), replica_set="rs0").start() for number in range(3)]
    try:
        start(agent, members[0].uri)
        assert "never initiated" in refusal(agent).message
        hosts = [{"_id": number, "host": f"127.0.0.1:{member.port}"} for number, member in enumerate(members)]
        with members[0].client() as client:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": hosts})

        def hello(member: PrivateMongoDB) -> dict[str, object]:
            with member.client() as client:
                return dict(client.admin.command("hello"))

        from scalarizr.host.processes import wait_until

        assert wait_until(lambda: any(hello(member).get("isWritablePrimary") for member in members), 60)
        primary = next(member for member in members if hello(member).get("isWritablePrimary"))
        start(agent, primary.uri)
        first = reset(agent)
        secondary = next(member for member in members if member is not primary)
        start(agent, secondary.uri)
        second = reset(agent)
        assert primary.takes("scalr", second) and not primary.takes("scalr", first)
        for member in members:
            if member is not secondary:
                member.stop()
        assert wait_until(lambda: "primary" not in hello(secondary), 60)
        assert "has no primary now" in refusal(agent).message
    finally:
        for member in members:
            member.stop()


def test_a_server_that_is_down_is_told_of_at_once(agent: RunningAgent) -> None:
    port = free_port()
    start(agent, f"mongodb://scalr:{WRONG}@127.0.0.1:{port}/")
    error = refusal(agent)
    assert error.code == -32018 and f"No MongoDB server answers at 127.0.0.1:{port}" in error.message
    assert "Nothing was changed" in error.message and kept(agent) == []


@needs_mongodb
def test_a_server_that_hangs_is_told_of_within_its_limit(tmp_path: Path, agent: RunningAgent) -> None:
    server = PrivateMongoDB(tmp_path / "mongodb").start()
    try:
        start(agent, server.uri_of_first_user)
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        error = refusal(agent)
        assert error.code == -32016 and "took the connection, but did not answer within 5 s" in error.message
        os.kill(server.process.pid, signal.SIGCONT)
        assert server.takes("scalr", reset(agent))
    finally:
        server.stop()


def test_what_is_no_mongodb_server_is_told_of(agent: RunningAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        start(agent, f"mongodb://127.0.0.1:{listening.getsockname()[1]}/")
        error = refusal(agent)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert error.code == -32018 and "is no MongoDB server" in error.message


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"mongodb://scalr:{WRONG}@@host/", "percent-encoded"),
        (f"mongodb://scalr:{WRONG}@127.0.0.1:notaport/", "is no connection string"),
        (f"http://scalr:{WRONG}@127.0.0.1/", "has to begin with"),
        (f"mongodb+srv://scalr:{WRONG}@example.com/", "has to begin with"),
    ],
)
def test_a_connection_string_that_cannot_be_used_is_not_shown(agent: RunningAgent, uri: str, words: str) -> None:
    start(agent, uri)
    error = refusal(agent)
    assert words in error.message and "Nothing was changed" in error.message
