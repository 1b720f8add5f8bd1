"""What a virtual host asks of the TLS library, and asking the one that is on this host."""

import ctypes.util
from pathlib import Path

import pytest

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.tls_trial import Step, refused, steps_of

PEM = b"-----BEGIN CERTIFICATE-----\n"


def asked(text: str, files: dict[str, bytes] | None = None) -> list[list[tuple[str, str, int]]]:
    contexts = steps_of(f"<VirtualHost *:443>\n{text}\n</VirtualHost>\n", (files or {}).get, Conditions())
    return [[(step.what, step.value, step.line) for step in steps] for steps in contexts]


def test_settings_come_before_certificates_and_the_last_of_a_kind_counts() -> None:
    text = (
        "SSLCertificateFile c\nSSLCertificateKeyFile k\nSSLEngine on\nSSLCipherSuite LOW\nSSLCipherSuite HIGH\n"
        "SSLCipherSuite TLSv1.3 TLS_AES_128_GCM_SHA256\nSSLOpenSSLConfCmd Curves P-256"
    )
    assert asked(text, {"c": PEM, "k": PEM}) == [
        [
            ("ciphers", "HIGH:!aNULL:!eNULL:!EXP", 5),
            ("ciphersuites", "TLS_AES_128_GCM_SHA256", 6),
            ("Curves", "P-256", 7),
            ("certificate", PEM.decode(), 1),
            ("key", PEM.decode(), 2),
        ]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "SSLCipherSuite HIGH",
        "SSLEngine on\nSSLEngine off\nSSLCipherSuite HIGH",
        "SSLEngine on\n<IfDefine X>\nSSLCipherSuite HIGH\n</IfDefine>",
        "SSLEngine on\n<Location />\nSSLCipherSuite HIGH\n</Location>",
        'SSLEngine on\n<If "true">\nSSLCipherSuite HIGH\n</If>',
        "SSLEngine on\nSSLCipherSuite ${CIPHERS}",
        "SSLEngine on\nSSLCertificateFile encrypted",
        "SSLEngine on\nSSLCertificateFile binary",
        "SSLEngine on\nSSLOpenSSLConfCmd DHParameters file",
    ],
)
def test_what_does_not_count_or_cannot_be_told_is_not_asked(text: str) -> None:
    files = {"encrypted": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "binary": b"\x30\x82", "file": PEM}
    assert not any(asked(text, files))


def test_a_host_s_connections_to_its_backends_are_asked_for_as_well() -> None:
    assert asked("SSLProxyEngine on\nSSLProxyCipherSuite HIGH") == [[("ciphers", "HIGH:!aNULL:!eNULL:!EXP", 2)]]


def server_root(directory: Path, linked: str) -> Path:
    (directory / "modules").mkdir()
    (directory / "modules" / "mod_ssl.so").write_bytes(b"\x7fELF\0" + linked.encode() + b"\0libc.so.6\0")
    return directory


def test_the_library_names_the_first_step_that_it_refuses(tmp_path: Path) -> None:
    library = ctypes.util.find_library("ssl")
    if library is None:
        pytest.skip("LEFT OUT: there is no OpenSSL library")
    root = server_root(tmp_path, library)
    good, bad = (
        Step("ciphers", "HIGH", 1, "SSLCipherSuite HIGH"),
        Step("ciphers", "garbage", 2, "SSLCipherSuite garbage"),
    )
    assert refused([[good], [good]], root) is None
    found = refused([[good], [good, bad]], root)
    assert found is not None and found.step is bad and found.reason == "no cipher match"


def test_without_a_library_of_that_name_nothing_is_said(tmp_path: Path) -> None:
    root = server_root(tmp_path, "libssl.so.999")
    assert refused([[Step("ciphers", "garbage", 1, "SSLCipherSuite garbage")]], root) is None
