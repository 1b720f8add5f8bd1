"""TLS spoken by hand to a real agent: which versions, whose certificates, files that change, and clients that stall."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certificate_authority import CLIENT, Authority, Pair
from conftest import with_test_methods
from free_ports import free_port
from running_agent import RunningAgent
from scalarizr.envelope.key import ServerKey
from scalarizr.host.processes import wait_until
from scalarizr.host.telling import have_settings_read
from tls_agent import HEALTH, TlsAgent, certificate_of, healthy
from wire import Answer, Connection, founding_request, sealed_request

LOAD = {"method": "load_average", "params": {}, "id": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsAgent]:
    directory = tmp_path_factory.mktemp("tls")
    made = TlsAgent(lambda settings: with_test_methods(directory / "agent", settings), directory)
    with made.agent:
        yield made


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsAgent]:
    """An agent that asks clients for a certificate."""
    directory = tmp_path_factory.mktemp("tls")
    made = TlsAgent(lambda settings: RunningAgent(directory / "agent", settings), directory, clients=True)
    with made.agent:
        yield made


MakeTls = Callable[..., TlsAgent]


@pytest.fixture
def make_tls(tmp_path: Path, make_trial_agent: Callable[[str], RunningAgent]) -> MakeTls:
    """Make an agent of the test's own, not started."""
    return lambda **options: TlsAgent(make_trial_agent, tmp_path / "tls", **options)


def key_of(served: TlsAgent) -> ServerKey:
    return ServerKey.from_file(served.agent.key_file)


def test_without_tls_the_library_is_not_even_loaded(shared_agent: RunningAgent, served: TlsAgent) -> None:
    with shared_agent.client() as client:
        client.call("system.load_average")
    mapped = {one: Path(f"/proc/{one.pid()}/maps").read_text() for one in (shared_agent, served.agent)}
    assert re.search(r"libssl|_ssl\.", mapped[served.agent])
    assert not re.search(r"libssl|_ssl\.", mapped[shared_agent])


def test_both_envelopes_are_answered_on_one_kept_connection_and_the_plain_port_beside(served: TlsAgent) -> None:
    key = key_of(served)
    with served.connect() as connection, Connection(served.agent.port) as plain:
        for number in range(3):
            call = {**LOAD, "id": number}
            answer = connection.ask(sealed_request(key, "/system", call))
            assert len(answer.opened(key)["result"]) == 3
            founding = founding_request(key, "/system", {**call, "extra": f"tls {number}"})
            assert connection.ask(founding).opened(key)["id"] == number
            assert plain.ask(sealed_request(key, "/system", call)).opened(key)["id"] == number


def test_large_bodies_and_answers_go_through_whole(served: TlsAgent) -> None:
    key = key_of(served)
    with served.connect() as connection:
        for number, text in enumerate("xyz"):
            params = {"seconds": 0, "text": text * (2 << 20)}
            answer = connection.ask(sealed_request(key, "/trial", {"method": "sleep", "params": params, "id": number}))
            assert answer.opened(key) == {"result": text * (2 << 20), "id": number}


def test_pipelined_requests_are_answered_in_order_and_the_end_is_a_clean_one(served: TlsAgent) -> None:
    key = key_of(served)
    with served.connect() as connection:
        connection.send(b"".join(sealed_request(key, "/system", {**LOAD, "id": number}) for number in range(200)))
        assert [connection.receive().opened(key)["id"] for _ in range(200)] == list(range(200))
        connection.send(HEALTH.replace(b"Host: x", b"Connection: close"))
        assert connection.receive().status == 200
        assert isinstance(connection.socket, ssl.SSLSocket)
        connection.socket.suppress_ragged_eofs = False
        assert connection.socket.recv(1) == b""  # said inside of TLS, else this raises


def test_a_client_that_says_it_is_done_gets_its_answers_still(served: TlsAgent) -> None:
    key = key_of(served)
    calls = [
        sealed_request(key, "/trial", {"method": "sleep", "params": {"seconds": 0.2, "text": text}, "id": 1})
        for text in ("one", "two")
    ]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = served.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    received = b""
    with Connection(served.port) as connection:

        def until(step: Callable[[], object]) -> None:
            while True:
                try:
                    step()
                    return
                except ssl.SSLWantReadError:
                    connection.send(outgoing.read())
                    incoming.write(connection.socket.recv(65536))

        until(tls.do_handshake)
        tls.write(b"".join(calls))
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # says that nothing more comes
        connection.send(outgoing.read())
        while data := connection.socket.recv(65536):
            incoming.write(data)
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while piece := tls.read(65536):
                received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 2 and received.count(b"Connection: close") == 1


@pytest.mark.parametrize("at_once", [1, 7])
def test_bytes_may_come_one_by_one(served: TlsAgent, at_once: int) -> None:
    key = key_of(served)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = served.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with Connection(served.port) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send() -> None:
            while data := outgoing.read(at_once):
                connection.send(data)

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                send()
                incoming.write(connection.socket.recv(65536))
        send()
        for number in range(2):
            tls.write(sealed_request(key, "/system", {**LOAD, "id": number}))
            send()
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 2:
            try:
                received += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(connection.socket.recv(65536))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_todays_versions_are_spoken(served: TlsAgent, version: ssl.TLSVersion) -> None:
    context = served.context()
    context.minimum_version = context.maximum_version = version
    with served.connect(context) as connection:
        assert healthy(connection) and isinstance(connection.socket, ssl.SSLSocket)
        assert connection.socket.version() == version.name.replace("_", ".")
        assert connection.socket.compression() is None and connection.socket.selected_alpn_protocol() is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused(served: TlsAgent, version: ssl.TLSVersion) -> None:
    context = served.context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # without which the client itself would refuse to speak them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError) as caught:
        served.connect(context)
    assert caught.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    served.agent.wait_for_log("tls: handshake refused from=127.0.0.1 reason=offers neither TLS 1.2 nor 1.3")


@pytest.mark.parametrize("cipher", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "AES128-SHA"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(served: TlsAgent, cipher: str) -> None:
    context = served.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        served.connect(context)
    served.agent.wait_for_log("reason=offers no cipher that is accepted")


def test_a_connection_cannot_be_negotiated_anew(served: TlsAgent) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-tls1_2", "-CAfile", served.authority.ca]
    finished = subprocess.run([str(word) for word in command], input="R\n", capture_output=True, text=True, timeout=60)
    assert "RENEGOTIATING" in finished.stderr and "no renegotiation" in finished.stderr


def test_no_session_is_taken_up_again(served: TlsAgent) -> None:
    context = served.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with served.connect(context) as connection:
        assert healthy(connection) and isinstance(connection.socket, ssl.SSLSocket)
        assert connection.socket.session is None or not connection.socket.session.has_ticket


def test_plain_http_on_the_port_of_tls_is_told_so(served: TlsAgent) -> None:
    with Connection(served.port) as connection:
        answer = connection.ask(HEALTH)
        assert answer.status == 400 and answer.body == b"This port speaks TLS: use https\n"
        assert connection.closed()
    served.agent.wait_for_log("tls: handshake refused from=127.0.0.1 reason=plain HTTP on the port of TLS")


@pytest.mark.parametrize("data", [b"\0" * 100, b"\x16\x03\x01" + b"\xff" * 400, b"SSH-2.0-client\r\n", b"\x80" * 3000])
def test_garbage_ends_the_connection_and_nothing_else(served: TlsAgent, data: bytes) -> None:
    with Connection(served.port) as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        while not connection.closed():
            pass
    with served.connect() as connection:
        assert healthy(connection)


def test_what_is_altered_on_its_way_ends_the_connection(served: TlsAgent) -> None:
    with served.connect() as connection:
        assert healthy(connection) and isinstance(connection.socket, ssl.SSLSocket)
        with socket.socket(fileno=connection.socket.detach()) as bare:
            bare.settimeout(60)
            bare.sendall(b"\x17\x03\x03\x00\x40" + b"\0" * 64)
            received = b""
            while True:
                try:
                    data = bare.recv(1000)
                except ConnectionResetError:
                    break
                if not data:
                    break
                received += data
    assert b"HTTP" not in received
    with served.connect() as connection:
        assert healthy(connection)


def refused_words(served: TlsAgent, context: ssl.SSLContext) -> str:
    """Connect, ask, and give why that fails: with TLS 1.3 a client learns of it after its own handshake."""
    with pytest.raises((ssl.SSLError, EOFError, ConnectionResetError)) as caught, served.connect(context) as connection:
        connection.ask(HEALTH)
    return str(caught.value)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_where_clients_need_a_certificate_only_one_of_their_issuer_does(
    asking: TlsAgent, version: ssl.TLSVersion
) -> None:
    def connecting(shown: Pair | None) -> ssl.SSLContext:
        context = asking.context(shown)
        context.minimum_version = context.maximum_version = version
        return context

    with asking.connect(connecting(asking.client("deploy"))) as connection:
        assert healthy(connection)
    of_servers = asking.authority.issue("of-servers", use=CLIENT)
    for_servers = asking.clients.issue("for-servers")
    expired = asking.client("expired", begins=-9, days=-1)
    for shown, said, logged in (
        (None, "(?i)certificate required|handshake.failure", "shows no certificate, and one is required"),
        (
            of_servers,
            "(?i)unknown ca",
            "the client's certificate is refused: self-signed certificate in certificate chain",
        ),
        (
            for_servers,
            "(?i)unsupported certificate",
            "the client's certificate is refused: unsuitable certificate purpose",
        ),
        (expired, "(?i)certificate expired", "the client's certificate is refused: certificate has expired"),
    ):
        assert re.search(said, refused_words(asking, connecting(shown)))
        asking.agent.wait_for_log(f"tls: handshake refused from=127.0.0.1 reason={logged}")


def test_log_and_audit_tell_which_certificate_a_caller_showed(asking: TlsAgent) -> None:
    key = key_of(asking)
    call = {"method": "set_hostname", "params": {"hostname": "x.example.com", "_dry_run": True}, "id": 1}
    with asking.connect(asking.context(asking.client("deploy"))) as connection:
        assert "result" in connection.ask(sealed_request(key, "/system", call)).opened(key)
    with Connection(asking.agent.port) as connection:
        connection.ask(sealed_request(key, "/system", call))
    log = asking.agent.wait_for_log('envelope=sealed certificate="O=Fleet,CN=deploy"')
    lines = [line for line in log.splitlines() if "method=system.set_hostname" in line and "from=" in line]
    assert lines and any("certificate=" not in line for line in lines)
    entries = [json.loads(line) for line in (asking.agent.logs / "scalarizr_audit.log").read_text().splitlines()]
    shown = [entry.get("certificate") for entry in entries if entry.get("method") == "system.set_hostname"]
    assert shown == ["O=Fleet,CN=deploy", None]


def test_refused_handshakes_are_counted_and_audited(make_tls: MakeTls) -> None:
    port = free_port()
    served = make_tls(settings=f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    with served.agent:
        with Connection(served.port) as connection:
            assert connection.ask(HEALTH).status == 400
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            served.connect(context)
        served.agent.wait_for_log("the client refuses this server: tlsv1 alert unknown ca")
        with Connection(port) as connection:
            page = connection.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").body.decode()
    assert 'scalarizr_tls_handshakes_refused_total{reason="plain-http"} 1' in page
    assert 'scalarizr_tls_handshakes_refused_total{reason="distrusted"} 1' in page
    entries = [json.loads(line) for line in (served.agent.logs / "scalarizr_audit.log").read_text().splitlines()]
    refused = next(entry for entry in entries if entry["event"] == "refused")
    assert refused["words"] == "plain HTTP on the port of TLS" and refused["address"] == "127.0.0.1"


def test_a_pair_that_is_replaced_is_shown_to_new_connections_while_old_ones_go_on(make_tls: MakeTls) -> None:
    served = make_tls()
    with served.agent, served.connect() as old:
        assert certificate_of(old) == served.shown() == served.pair.der
        renewed = served.authority.issue("renewed")
        renewed.put_into(served.pair)
        # Nobody tells the agent: a new connection makes it look, once a second.
        assert wait_until(lambda: served.shown() == renewed.der, 60)
        assert healthy(old)
        served.agent.wait_for_log("tls: certificate re-read subject=O=Fleet,CN=renewed expires=20")


def test_sighup_has_the_pair_read_at_once_and_takes_other_files_from_the_settings(make_tls: MakeTls) -> None:
    served = make_tls()
    with served.agent, served.connect() as old:
        renewed, elsewhere = served.authority.issue("renewed"), served.authority.issue("elsewhere")
        renewed.put_into(served.pair)
        word = have_settings_read(served.agent.state, patience=60)
        assert word is not None and word.problems == [] and served.shown() == renewed.der
        served.agent.write_settings(served.settings(elsewhere))
        word = have_settings_read(served.agent.state, patience=60)
        assert word is not None and word.problems == [] and served.shown() == elsewhere.der
        served.agent.wait_for_log("settings re-read changed=tls.certificate,tls.key needs-restart=-")
        assert healthy(old)


def mismatch(pair: Pair, authority: Authority) -> str:
    authority.issue("other").put_into(Pair(pair.certificate.with_name("aside"), pair.key))
    return "is not the key of the first certificate in"


def expired(pair: Pair, authority: Authority) -> str:
    authority.issue("expired", begins=-9, days=-1).put_into(pair)
    return "expired on 20"


def encrypted(pair: Pair, authority: Authority) -> str:
    authority.issue("encrypted", passphrase=b"secret").put_into(pair)
    return "is encrypted with a passphrase"


def gone(pair: Pair, authority: Authority) -> str:
    pair.key.unlink()
    return "cannot be read: No such file or directory"


def exposed(pair: Pair, authority: Authority) -> str:
    pair.key.chmod(0o644)
    return "others may read or write it (mode 0644): chmod 600 it"


def test_what_does_not_work_changes_nothing_and_the_log_says_why(make_tls: MakeTls) -> None:
    served = make_tls()
    first = served.pair.der
    kept = Pair(served.pair.certificate.with_name("kept.crt"), served.pair.key.with_name("kept.key"))
    for path in kept:
        path.touch()
    served.pair.put_into(kept)
    with served.agent:
        for harm in (mismatch, expired, encrypted, gone, exposed):
            words = harm(served.pair, served.authority)
            # On SIGHUP it is told to whoever asked for it, …
            told = have_settings_read(served.agent.state, patience=60)
            assert told is not None and len(told.problems) == 1 and words in told.problems[0]
            assert "scalarizr.toml, line " in told.problems[0] and "[tls] " in told.problems[0]
            assert served.shown() == first
            served.pair.key.unlink(missing_ok=True)
            kept.put_into(served.pair)
            told = have_settings_read(served.agent.state, patience=60)
            assert told is not None and told.problems == []
        # … and where nobody asked, it is noticed by the next connection, and said once.
        words = mismatch(served.pair, served.authority)

        def noticed() -> bool:
            assert served.shown() == first
            return f"tls: not re-read, the old ones stay in force: {served.agent.etc}" in served.agent.log_text()

        assert wait_until(noticed, 60)
        assert words in served.agent.log_text()


@pytest.mark.parametrize("harm", [mismatch, encrypted, gone, exposed])
def test_a_pair_that_does_not_work_stops_the_start_with_line_and_words(
    make_tls: MakeTls, harm: Callable[[Pair, Authority], str]
) -> None:
    served = make_tls()
    words = harm(served.pair, served.authority)
    agent = served.agent.start(wait=False)
    assert agent.process is not None and agent.process.stdout is not None
    said = agent.process.stdout.read().decode()
    assert agent.process.wait(60) != 0
    assert words in said and re.search(r"scalarizr\.toml, line \d+: \[tls\] (key|certificate): ", said)
    assert "PRIVATE KEY" not in said


def test_a_certificate_that_has_expired_does_not_keep_the_agent_from_starting(make_tls: MakeTls) -> None:
    served = make_tls()
    expired(served.pair, served.authority)
    with served.agent:
        served.agent.wait_for_log("tls: the certificate O=Fleet,CN=expired expired on 20")
        with served.agent.client() as client:
            assert len(client.call("system.load_average")) == 3
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            served.connect()
        # Nothing else that is read again is held up by it, while there is no better one.
        told = have_settings_read(served.agent.state, patience=60)
        assert told is not None and told.problems == []
        renewed = served.authority.issue("renewed")
        renewed.put_into(served.pair)
        have_settings_read(served.agent.state, patience=60)
        assert served.shown() == renewed.der


def hello() -> bytes:
    """Give the first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_handshake_has_the_time_of_a_head(make_tls: MakeTls) -> None:
    served = make_tls(settings='[api]\nhead_timeout = "1 s"\n')
    with served.agent:
        first = hello()
        stalled = [Connection(served.port) for _ in range(30)]
        for number, connection in enumerate(stalled):
            # From nothing at all to nearly all of it; the last one says it all, and then nothing more.
            connection.send(first if number == 29 else first[: number * 15])
        for connection in stalled:
            with connection:
                while not connection.closed():
                    pass
        log = served.agent.wait_for_log("tls: handshake refused from=127.0.0.1 reason=the handshake took too long")
        assert "left in the middle" not in log


def test_stalled_handshakes_hold_nobody_up_and_are_strangers_who_make_room(make_tls: MakeTls) -> None:
    served = make_tls(settings='[api]\nconnections = 8\nhead_timeout = "60 s"\n')
    key = ServerKey.from_file(served.agent.key_file)
    with served.agent, served.connect() as known:
        assert known.ask(sealed_request(key, "/system", LOAD)).opened(key)["id"] == 1
        stalled = [Connection(served.port).send(hello()) for _ in range(12)]
        # All come from one address, which never holds more than half: the oldest strangers are gone.
        with Connection(served.agent.port) as plain, served.connect() as fresh:
            assert healthy(plain) and healthy(fresh) and healthy(known)
            assert stalled[-1].socket.recv(1) == b"\x16"  # the youngest one is still there
        closed = 0
        for connection in stalled[:9]:
            with connection:
                while not connection.closed():
                    pass
                closed += 1
        assert closed == 9
        for connection in stalled[9:]:
            connection.socket.close()


def test_an_agent_that_stops_ends_connections_of_tls_cleanly(make_tls: MakeTls) -> None:
    served = make_tls()
    with served.agent, served.connect() as kept, Connection(served.port) as stalled:
        assert healthy(kept) and isinstance(kept.socket, ssl.SSLSocket)
        stalled.send(hello()[:50])
        assert served.agent.stop() == 0
        kept.socket.suppress_ragged_eofs = False
        assert kept.socket.recv(1) == b""
    assert "took too long" not in served.agent.log_text()


def test_an_answer_that_nobody_reads_yet_holds_nobody_up(make_tls: MakeTls) -> None:
    served = make_tls()
    key = ServerKey.from_file(served.agent.key_file)
    size = 8 << 20  # more than the kernel keeps for a socket
    with served.agent, served.connect() as reading, served.connect() as deaf:
        request = sealed_request(key, "/trial", {"method": "big", "params": {"size": size}, "id": 1})
        deaf.send(request.replace(b"Host: x", b"Connection: close"))
        assert deaf.socket.recv(9) == b"HTTP/1.1 "
        for _ in range(20):
            assert healthy(reading)
        head, _, body = b"".join(iter(lambda: deaf.socket.recv(1 << 20), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"200 OK")
        assert Answer(200, {"content-type": "application/jose"}, body).opened(key)["result"] == "x" * size
