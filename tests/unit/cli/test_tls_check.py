"""What `scalarizr doctor` finds where the agent speaks TLS, each finding seen."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificate_authority import Authority, Pair
from free_ports import free_port
from scalarizr.cli.tls_check import check_tls
from scalarizr.settings.load import load_settings


def found(directory: Path, pair: Pair, port: int, client_ca: Path | None = None) -> list[tuple[str, str]]:
    """Look, and give what is found of the files, then of the port."""
    issuers = "" if client_ca is None else f'client_ca = "{client_ca}"\n'
    (directory / "scalarizr.toml").write_text(
        f'[tls]\nlisten = "127.0.0.1:{port}"\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n{issuers}'
    )
    return [(finding.verdict, finding.words) for finding in check_tls(load_settings(directory))]


@contextlib.contextmanager
def showing(pair: Pair | None) -> Iterator[int]:
    """Listen, and show a certificate to one client, or close its connection; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                if pair is not None:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(*pair)
                    with context.wrap_socket(connection, server_side=True) as spoken:
                        spoken.recv(1)
                else:
                    connection.recv(1)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(60)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_without_tls_nothing_is_looked_at(tmp_path: Path) -> None:
    assert [finding.verdict for finding in check_tls(load_settings(tmp_path))] == ["ok"]


def test_what_is_well(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("agent")
    with showing(pair) as port:
        (files, words), (shown, where) = found(tmp_path, pair, port, authority.ca)
    assert files == shown == "ok" and where == f"the agent shows this certificate on 127.0.0.1:{port}"
    assert words.startswith(f"{pair.certificate} (O=Fleet,CN=agent), expires on 20")


def test_files_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("agent")
    os.chmod(pair.key, 0o644)
    ((verdict, words),) = found(tmp_path, pair, free_port())
    assert verdict == "fail" and words.startswith(f"[tls] key: {pair.key}: others may read") and "chmod 600" in words


def test_a_certificate_that_has_expired_will_soon_or_holds_later(tmp_path: Path, authority: Authority) -> None:
    for name, begins, days, verdict, words in (
        ("expired", -9, -1, "fail", "expired on 20"),
        ("soon", -1, 5, "warn", "put its successor in its place"),
        ("later", 5, 60, "fail", "holds from 20"),
    ):
        (first, *_rest) = found(tmp_path, authority.issue(name, begins=begins, days=days), free_port())
        assert first[0] == verdict and words in first[1] and name in first[1]


def test_an_issuer_of_clients_that_expires_soon(tmp_path: Path, authority: Authority) -> None:
    soon = Authority(tmp_path, "Soon", days=5).ca
    _, (verdict, words), _ = found(tmp_path, authority.issue("agent"), free_port(), soon)
    assert verdict == "warn" and words.startswith(f"{soon}: an issuer in it expires on 20")


def test_a_port_that_nobody_listens_on(tmp_path: Path, authority: Authority) -> None:
    _, (verdict, words) = found(tmp_path, authority.issue("agent"), free_port())
    assert verdict == "warn" and "is free: no agent listens for TLS" in words


def test_another_certificate_is_shown_than_the_files_hold(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("agent")
    with showing(authority.issue("older")) as port:
        _, (verdict, words) = found(tmp_path, pair, port)
    assert verdict == "fail" and "another certificate is shown there: `kill -HUP` the agent" in words


def test_what_answers_does_not_speak_tls(tmp_path: Path, authority: Authority) -> None:
    with showing(None) as port:
        _, (verdict, words) = found(tmp_path, authority.issue("agent"), port)
    assert verdict == "fail" and "does not speak TLS 1.3" in words
