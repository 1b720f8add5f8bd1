"""Certificates that templates name: what a real Apache died of at its reload is found beforehand, and nothing else.

Each case was tried on the Apache of Debian 12: its configuration test took all of them.
"""

import datetime
import textwrap

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.named_certificates import mistake_in

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
CONDITIONS = Conditions(frozenset({"ssl_module"}))


def pair(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=9)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, until)
    return made.sign(key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    found: dict[str, bytes] = {"text": b"hello\n"}
    for name in ("a", "b"):
        certificate, key = pair(f"{name}.example.com")
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        found[f"{name}.crt"] = certificate.public_bytes(PEM)
        found[f"{name}.der"] = certificate.public_bytes(DER)
        found[f"{name}.key"] = key.private_bytes(PEM, form, plain)
        found[f"{name}.derkey"] = key.private_bytes(DER, form, plain)
        locked = serialization.BestAvailableEncryption(b"swordfish")
        found[f"{name}.locked"] = key.private_bytes(PEM, form, locked)
    found["both"] = found["a.crt"] + found["a.key"]
    found["issuer-first"] = found["b.crt"] + found["a.crt"]
    found["other-key-first"] = found["b.key"] + found["a.key"]
    found["broken"] = b"-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"
    return found


def told(files: dict[str, bytes], lines: str, **more: object) -> tuple[int, str] | None:
    inner = textwrap.indent(textwrap.dedent(lines).strip(), "    ")
    text = f"<VirtualHost *:443>\n    ServerName a.example.com\n{inner}\n</VirtualHost>\n"
    more = {"has_certificate_elsewhere": lambda: False, "gets_passphrases": lambda: False, **more}
    return mistake_in(text, files.get, more.pop("conditions", CONDITIONS), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lines, line, words",
    [
        ("SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key", 4, "b.key is not the key of"),
        ("sslengine On\nsslcertificatefile a.crt\nsslcertificatekeyfile b.key", 4, "b.key is not the key of"),
        ("SSLCertificateKeyFile a.key\nSSLCertificateFile text\nSSLEngine on", 3, "text holds no certificate"),
        ("SSLEngine on\nSSLCertificateFile broken\nSSLCertificateKeyFile a.key", 3, "that cannot be read"),
        ("SSLEngine on\nSSLCertificateFile a.der\nSSLCertificateKeyFile a.key", 3, "a.der holds no certificate"),
        ("SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile text", 4, "text holds no private key"),
        ("SSLEngine on\nSSLCertificateFile a.crt", 3, "holds no private key that can be read, and no file is named"),
        ("SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.locked", 4, "is encrypted"),
        ("SSLEngine on\nSSLCertificateFile issuer-first\nSSLCertificateKeyFile a.key", 4, "is not the key of"),
        ("SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile other-key-first", 4, "is not the key of"),
        (
            "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateFile b.crt\n"
            "SSLCertificateKeyFile b.key\nSSLCertificateKeyFile a.key",
            5,
            "b.key is not the key of SSLCertificateFile a.crt",
        ),
        ("SSLEngine on", 2, "there is no SSLCertificateFile"),
        ("SSLEngine on\nSSLCertificateKeyFile a.key", 2, "there is no SSLCertificateFile"),
        ("SSLEngine on\nSSLCertificateFile both\nSSLCACertificateFile text", 4, "text holds no certificate"),
        ("SSLEngine on\nSSLCertificateFile both\nSSLCARevocationFile text", 4, "no list of revoked certificates"),
        (
            "SSLEngine on\n<IfModule mod_ssl.c>\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key\n</IfModule>",
            5,
            "is not the key of",
        ),
    ],
)
def test_what_apache_dies_of_is_told_with_its_line(files: dict[str, bytes], lines: str, line: int, words: str) -> None:
    found = told(files, lines)
    assert found is not None and found[0] == line and words in found[1]


@pytest.mark.parametrize(
    "lines",
    [
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.key",
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.derkey",
        "SSLEngine on\nSSLCertificateFile both",
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile both",
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateFile b.crt\n"
        "SSLCertificateKeyFile a.key\nSSLCertificateKeyFile b.key",
        "SSLEngine off\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key",
        "SSLEngine optional\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key",
        "SSLEngine on\nSSLEngine off\nSSLCertificateFile text",
        "SSLCertificateFile a.crt\nSSLCertificateKeyFile b.key",
        # What cannot be told from outside.
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile pkcs11:object=x",
        "SSLEngine on\nSSLCertificateFile ${CERT}\nSSLCertificateKeyFile b.key",
        "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile not-there",
        "SSLEngine on\n<IfDefine TRIAL>\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key\n</IfDefine>\n"
        "SSLCertificateFile both",
        "SSLEngine on\nUse Certificates",
    ],
)
def test_what_apache_takes_is_left_alone(files: dict[str, bytes], lines: str) -> None:
    assert told(files, lines) is None


def test_a_certificate_of_the_whole_server_and_a_program_for_passphrases_count(files: dict[str, bytes]) -> None:
    assert told(files, "SSLEngine on", has_certificate_elsewhere=lambda: True) is None
    assert told(files, "SSLEngine on", conditions=Conditions(frozenset({"ssl_module", "md_module"}))) is None
    locked = "SSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.locked"
    assert told(files, locked, gets_passphrases=lambda: True) is None


def test_what_nothing_is_known_of_is_judged_by_its_pairs_alone(files: dict[str, bytes]) -> None:
    assert told(files, "SSLEngine on", conditions=None) is None
    mixed = "SSLEngine on\n<IfModule ssl_module>\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key\n</IfModule>"
    assert told(files, mixed, conditions=None) is not None


def test_the_other_hosts_of_a_text_are_looked_at_too(files: dict[str, bytes]) -> None:
    text = (
        "<VirtualHost *:80>\nServerName a.example.com\n</VirtualHost>\n"
        "<VirtualHost *:443>\nSSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile b.key\n</VirtualHost>\n"
    )
    assert mistake_in(text, files.get, CONDITIONS) == (
        6,
        "SSLCertificateKeyFile b.key is not the key of SSLCertificateFile a.crt",
    )
