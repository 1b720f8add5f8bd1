"""Certificates for tests: an issuer of one's own, and what it issues for servers and clients."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path

    @property
    def der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(Encoding.DER)

    def put_into(self, other: "Pair") -> None:
        """Take the place of another pair, as a renewal does: each file at once, one after the other."""
        for new, old in zip(self, other, strict=True):
            staged = old.with_name(f"{old.name}.new")
            staged.write_bytes(new.read_bytes())
            staged.chmod(0o600)
            staged.rename(old)


class Authority:
    """An issuer; its own certificate is the file `ca`."""

    def __init__(
        self, directory: Path, name: str = "Test CA", issuer: "Authority | None" = None, days: float = 90
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca = directory / f"{name.replace(' ', '-')}.pem"
        self._key: Key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        builder = _builder(self.name, issuer.name if issuer else self.name, self._key, -1, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.ca.write_bytes(builder.sign(issuer._key if issuer else self._key, SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        use: x509.ObjectIdentifier = SERVER,
        begins: float = -1,
        days: float = 60,
        weak: bool = False,
        passphrase: bytes | None = None,
    ) -> Pair:
        """Issue a certificate.

        :param begins: days from now at which it begins to hold; `days` those at which it expires.
        :param weak: with a key that is too short for today.
        """
        key: Key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
        names = [_host(host) for host in hosts]
        certificate = (
            _builder(_name(name), self.name, key, begins, days)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, SHA256())
        )
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        locked: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pair.key.touch(0o600)
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        return pair


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Fleet"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, begins: float, days: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days))
    )
