"""Certificate and key for TLS, read: what works, and what is refused in words; and the sections of the settings."""

import asyncio
import os
import socket
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certificate_authority import CLIENT, Authority, Pair
from scalarizr.metrics.figures import Figures
from scalarizr.metrics.page import page_of
from scalarizr.server.connection import Connection
from scalarizr.server.limits import Limits
from scalarizr.server.message import Answer, Request, plain_answer
from scalarizr.server.tls_connection import TlsConnection
from scalarizr.server.tls_files import BadTlsFiles, ReadTls, TlsFiles, read_tls, subject_of
from scalarizr.settings.load import BadSettings, load_settings
from scalarizr.settings.model import Api


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def read(pair: Pair, client_ca: Path | None = None) -> ReadTls:
    return read_tls(TlsFiles(pair.certificate, pair.key, client_ca))


def test_a_pair_is_read_with_its_subject_and_dates(authority: Authority) -> None:
    found = read(authority.issue("agent", days=60))
    assert found.subject == "O=Fleet,CN=agent" and found.problem_at(time.time()) is None
    assert 59 * 86400 < found.expires - time.time() < 61 * 86400 and found.client_ca_expires is None
    assert found.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert found.context.verify_mode == ssl.CERT_NONE


def test_where_there_are_issuers_of_clients_a_certificate_is_required(authority: Authority) -> None:
    found = read(authority.issue("agent"), authority.ca)
    assert found.context.verify_mode == ssl.CERT_REQUIRED
    assert found.client_ca_expires is not None and found.client_ca_expires > found.expires


def test_only_ciphers_with_forward_secrecy_and_authentication_are_accepted(authority: Authority) -> None:
    ciphers = read(authority.issue("agent")).context.get_ciphers()
    assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    assert all(cipher["aead"] for cipher in ciphers)
    assert all(cipher["name"].startswith(("TLS_", "ECDHE-")) for cipher in ciphers)


def test_a_chain_may_follow_the_certificate_but_not_come_before_it(authority: Authority, tmp_path: Path) -> None:
    between = Authority(tmp_path, "Intermediate", authority)
    pair = between.issue("agent")
    own, issuer = pair.certificate.read_text(), between.ca.read_text()
    pair.certificate.write_text(own + issuer)
    assert read(pair).subject == "O=Fleet,CN=agent"
    pair.certificate.write_text(issuer + own)
    with pytest.raises(BadTlsFiles, match="is not the key of the first certificate in"):
        read(pair)


def absent(pair: Pair, authority: Authority) -> None:
    pair.certificate.unlink()


def garbage(pair: Pair, authority: Authority) -> None:
    pair.certificate.write_text("garbage")


def damaged(pair: Pair, authority: Authority) -> None:
    lines = pair.certificate.read_text().splitlines()
    pair.certificate.write_text("\n".join([*lines[:2], *lines[3:]]))


def weak(pair: Pair, authority: Authority) -> None:
    authority.issue("weak", weak=True).put_into(pair)


def for_clients(pair: Pair, authority: Authority) -> None:
    authority.issue("for-clients", use=CLIENT).put_into(pair)


def key_absent(pair: Pair, authority: Authority) -> None:
    pair.key.unlink()


def key_is_a_directory(pair: Pair, authority: Authority) -> None:
    pair.key.unlink()
    pair.key.mkdir()


def key_of_another(pair: Pair, authority: Authority) -> None:
    pair.key.write_bytes(authority.issue("another").key.read_bytes())


def key_of_another_kind(pair: Pair, authority: Authority) -> None:
    pair.key.write_bytes(authority.issue("another", weak=True).key.read_bytes())


def key_encrypted(pair: Pair, authority: Authority) -> None:
    authority.issue("encrypted", passphrase=b"secret").put_into(pair)


def key_garbage(pair: Pair, authority: Authority) -> None:
    pair.key.write_text("garbage")


def key_readable_by_the_group(pair: Pair, authority: Authority) -> None:
    pair.key.chmod(0o640)


def key_readable_by_all(pair: Pair, authority: Authority) -> None:
    pair.key.chmod(0o644)


BAD: list[tuple[Callable[[Pair, Authority], None], str, str]] = [
    (absent, "certificate", "cannot be read: No such file or directory"),
    (garbage, "certificate", "holds no certificate that can be read (PEM)"),
    (damaged, "certificate", "holds no certificate that can be read (PEM)"),
    (weak, "certificate", "is too weak for today's TLS: ee key too small"),
    (for_clients, "certificate", "clients refuse this certificate: unsuitable certificate purpose"),
    (key_absent, "key", "cannot be read: No such file or directory"),
    (key_is_a_directory, "key", "cannot be read: Is a directory"),
    (key_of_another, "key", "is not the key of the first certificate in"),
    (key_of_another_kind, "key", "is not the key of the first certificate in"),
    (key_encrypted, "key", "is encrypted with a passphrase, which an agent that starts alone cannot ask for"),
    (key_garbage, "key", "holds no private key that can be read (PEM)"),
    (key_readable_by_the_group, "key", "others may read or write it (mode 0640): chmod 600 it"),
    (key_readable_by_all, "key", "others may read or write it (mode 0644): chmod 600 it"),
]


@pytest.mark.parametrize(("harm", "setting", "words"), BAD)
def test_what_does_not_work_is_refused_in_words(
    tmp_path: Path, harm: Callable[[Pair, Authority], None], setting: str, words: str
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("agent")
    secret = pair.key.read_text().splitlines()[1]
    harm(pair, authority)
    with pytest.raises(BadTlsFiles) as caught:
        read(pair)
    assert caught.value.setting == setting and words in str(caught.value)
    assert str(caught.value).startswith(str(getattr(pair, setting))) and secret not in str(caught.value)


@pytest.mark.root
def test_a_key_that_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("agent")
    os.chown(pair.key, 12345, 0)
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    with pytest.raises(BadTlsFiles, match="belongs to user 12345, who may read it: chown it to root"):
        read(pair)


@pytest.mark.parametrize("content", [None, "", "garbage"])
def test_issuers_of_clients_that_are_none_are_refused(tmp_path: Path, content: str | None) -> None:
    issuers = tmp_path / "clients.pem"
    if content is not None:
        issuers.write_text(content)
    with pytest.raises(BadTlsFiles) as caught:
        read(Authority(tmp_path).issue("agent"), issuers)
    assert caught.value.setting == "client_ca" and str(issuers) in str(caught.value)


def test_dates_are_told_and_left_to_who_asks(authority: Authority) -> None:
    now = time.time()
    expired, later = read(authority.issue("expired", begins=-9, days=-1)), read(authority.issue("later", begins=5))
    assert (expired.problem_at(now) or "").startswith("expired on 20")
    assert (later.problem_at(now) or "").endswith("on") and "holds from" in (later.problem_at(now) or "")
    assert later.problem_at(now + 6 * 86400) is None


def test_a_subject_cannot_pretend_to_be_more_than_it_is() -> None:
    forged = {"subject": ((("commonName", 'x,O=Fleet"'),), (("organizationName", "Other" * 100),))}
    shown = subject_of(forged)
    assert shown.startswith('CN=x\\,O\\=Fleet\\",O=Other') and len(shown) <= 256
    assert subject_of({}) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('listen = "127.0.0.1:1"', "line 2: [tls] lacks certificate and key: TLS needs listen, certificate and key."),
        ('certificate = "a"\nkey = "b"', "[tls] lacks listen"),
        ('client_ca = "a"', "[tls] lacks listen and certificate and key"),
        ('listen = "nowhere"\ncertificate = "a"\nkey = "b"', "[tls] listen: got 'nowhere', expected an address"),
        ('listen = "127.0.0.1:1"\ncertificate = 5\nkey = "b"', "[tls] certificate: got 5, expected a path"),
    ],
)
def test_settings_that_are_half_of_tls_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "scalarizr.toml").write_text(f"\n[tls]\n{text}\n")
    with pytest.raises(BadSettings) as caught:
        load_settings(tmp_path)
    assert words in str(caught.value)


def test_paths_of_tls_are_below_the_configuration_directory(tmp_path: Path) -> None:
    (tmp_path / "scalarizr.toml").write_text('[tls]\nlisten = "127.0.0.1:1"\ncertificate = "tls/a"\nkey = "/b"\n')
    given = load_settings(tmp_path).tls
    assert given.certificate == tmp_path / "tls" / "a" and given.key == Path("/b") and given.client_ca is None


def test_refused_handshakes_are_on_the_page_of_the_figures() -> None:
    figures = Figures()
    for reason in ("version", "version", "no-certificate"):
        figures.count_handshake(reason)
    page = page_of(figures, "1", 0, 0, {}).decode()
    assert 'scalarizr_tls_handshakes_refused_total{reason="version"} 2' in page
    assert 'scalarizr_tls_handshakes_refused_total{reason="no-certificate"} 1' in page


def spoken_over(context: ssl.SSLContext, answer: Callable[[Request], Answer], refused: list[str]) -> TlsConnection:
    """Give what speaks to a client; nobody looks after its deadlines."""
    connection = Connection(Limits(Api()), answer)
    return TlsConnection(connection, lambda: context, lambda _address, refusal: refused.append(refusal.reason))


def test_who_is_refused_may_go_on_sending_while_he_reads_why(authority: Authority) -> None:
    context = read(authority.issue("agent")).context
    refused: list[str] = []

    async def speak(data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(
            lambda: spoken_over(context, lambda _request: plain_answer(200, "never"), refused), there
        )
        with here:
            await loop.sock_sendall(here, data)
            said = b""
            while piece := await loop.sock_recv(here, 65536):
                said += piece
            # It is dropped, and its sender not cut off.
            await loop.sock_sendall(here, b"x" * (1 << 20))
            assert not transport.is_closing()
        transport.abort()
        await asyncio.sleep(0)
        return said

    assert b"This port speaks TLS: use https" in asyncio.run(
        speak(b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n")
    )
    assert asyncio.run(speak(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")).startswith(b"\x15\x03")  # an alert
    assert refused == ["plain-http", "other"]


def test_who_does_not_read_answers_gets_no_further_ones(authority: Authority) -> None:
    context = read(authority.issue("agent")).context
    asked: list[str] = []
    large = "x" * (1 << 20)  # more than the kernel keeps for a pair of sockets

    def answer(request: Request) -> Answer:
        asked.append(request.target)
        return plain_answer(200, large)

    async def speak() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)
        await loop.connect_accepted_socket(lambda: spoken_over(context, answer, []), there)
        believing = ssl.create_default_context(cafile=authority.ca)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = believing.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with here:

            async def more() -> None:
                await loop.sock_sendall(here, outgoing.read())
                incoming.write(await loop.sock_recv(here, 1 << 20))

            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await more()
            tls.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)))
            await loop.sock_sendall(here, outgoing.read())
            while not asked:
                await asyncio.sleep(0)
            at_first = len(asked)
            received = 0
            while received < 20 * len(large):
                try:
                    received += len(tls.read(1 << 20))
                except ssl.SSLWantReadError:
                    await more()
            return at_first, len(asked)

    assert asyncio.run(speak()) == (1, 20)
    assert asked == [f"/{number}" for number in range(20)]
