"""Checking a certificate with its key and chain before a web server gets them.

The web servers themselves look at them only when they load them: one that does not fit its key would end an Apache that
is reloaded.
"""

from __future__ import annotations

import datetime
import logging
import re
from typing import TYPE_CHECKING

import msgspec

from scalarizr.environment.source import Certificate
from scalarizr.errors import Refused
from scalarizr.secret import Secret

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "DSA PRIVATE KEY")
_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_SOON = datetime.timedelta(days=14)


class CheckedCertificate(msgspec.Struct, frozen=True):
    """A certificate that a web server can use.

    :param certificate: PEM of the server's own.
    :param chain: PEM of its issuers, in order; None without any.
    :param key: PEM.
    """

    certificate: str
    chain: str | None
    key: Secret

    @property
    def full_chain(self) -> str:
        """The certificate and its chain in one text."""
        return self.certificate + (self.chain or "")


def check_certificate(given: Certificate, log: logging.Logger) -> CheckedCertificate:
    """Check that key and certificate belong together, and put the chain in order.

    :param given: as the environment has it.
    :param log: gets a warning about one that is expired, or will be within two weeks.
    :return: the certificate with its chain in the order that TLS asks for (RFC 5246, section 7.4.2).
    :raises Refused: says what is wrong with which part; nothing was changed.
    """
    from cryptography.hazmat.primitives import serialization

    called = f"The certificate {given.id}" if given.id is not None else "The default certificate"
    key = _key(given, called)
    own = _certificates(given.certificate, called, "")
    if not own:
        raise _refusal(called, "holds no certificate (a PEM block CERTIFICATE)")
    more = _certificates(given.chain or "", called, " chain")
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    leaf = next((one for one in own + more if _public_bytes(one) == public), None)
    if leaf is None:
        raise _refusal(called, f"does not match its key: the key is not the one of {_name(own[0])}")
    chain = _ordered(leaf, [one for one in own + more if one != leaf], called)
    _warn_of_expiry(leaf, called, log)
    return CheckedCertificate(_pem([leaf]), _pem(chain) if chain else None, Secret(given.key.reveal().strip() + "\n"))


def problem_of_certificate(content: bytes) -> str | None:
    """Say what is wrong with a file that a web server shall read its certificate from; None: nothing that shows."""
    from cryptography.x509 import load_pem_x509_certificate

    block = _first(content, _CERTIFICATES)
    if block is None:
        return "holds no certificate (a PEM block CERTIFICATE)"
    if block[1] == "TRUSTED CERTIFICATE":
        return None  # OpenSSL's own form, which it alone reads
    try:
        load_pem_x509_certificate(block[0].encode())
    except ValueError:
        return "holds a certificate that cannot be read"
    return None


def problem_of_key(content: bytes) -> str | None:
    """Say what is wrong with a file that a web server shall read its private key from; None: nothing that shows."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        _private_key(content)
    except TypeError:
        return "is encrypted with a passphrase, which a server that starts alone cannot ask for"
    except ValueError:
        return "holds no private key that can be read"
    except UnsupportedAlgorithm:
        pass
    return None


def belong_together(certificate: bytes, key: bytes) -> bool:
    """Tell whether a private key is that of a certificate, as far as both can be read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509 import load_pem_x509_certificate

    block = _first(certificate, _CERTIFICATES)
    if block is None or block[1] == "TRUSTED CERTIFICATE":
        return True
    try:
        own = _public_bytes(load_pem_x509_certificate(block[0].encode()))
        public = _private_key(key).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return own == public.public_bytes(serialization.Encoding.DER, form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return True


def _private_key(content: bytes) -> PrivateKeyTypes:
    """Read the first private key of a file, as OpenSSL does: PEM, or DER.

    :raises TypeError: it is encrypted.
    :raises ValueError: there is none that can be read.
    """
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    block = _first(content, _KEYS)
    return load_der_private_key(content, None) if block is None else load_pem_private_key(block[0].encode(), None)


def _first(content: bytes, kinds: tuple[str, ...]) -> re.Match[str] | None:
    blocks = _PEM.finditer(content.decode("ascii", "replace"))
    return next((block for block in blocks if block[1] in kinds), None)


def _key(given: Certificate, called: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = given.key.reveal()
    if "ENCRYPTED" in text:
        raise _refusal(
            called, "has a key that is encrypted with a passphrase; a server that starts alone cannot ask for it"
        )
    blocks = [match for match in _PEM.finditer(text) if match[1] in _KEYS]
    if len(blocks) != 1:
        raise _refusal(called, f"has a key file with {len(blocks)} private keys; exactly one PEM block is expected")
    try:
        return load_pem_private_key(blocks[0][0].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _refusal(called, "has a key that cannot be read") from None


def _certificates(text: str, called: str, part: str) -> list[x509.Certificate]:
    from cryptography.x509 import load_pem_x509_certificate

    found: list[x509.Certificate] = []
    for number, match in enumerate(_PEM.finditer(text), 1):
        if match[1] in _KEYS:
            continue  # a key in the same file is not copied along
        if match[1] not in _CERTIFICATES:
            continue
        try:
            one = load_pem_x509_certificate(match[0].encode())
            one.public_key()
        except ValueError:
            raise _refusal(called, f"has a block {number} in its{part} file that is no certificate") from None
        if one not in found:
            found.append(one)
    return found


def _ordered(leaf: x509.Certificate, others: list[x509.Certificate], called: str) -> list[x509.Certificate]:
    chain: list[x509.Certificate] = []
    current, left = leaf, list(others)
    while left and current.issuer != current.subject:
        issuer = next((one for one in left if one.subject == current.issuer and _issued(current, one)), None)
        if issuer is None:
            break
        left.remove(issuer)
        chain.append(issuer)
        current = issuer
    if left:
        raise _refusal(
            called,
            f"has a chain that does not hold together: {_name(left[0])} did not issue {_name(current)}"
            + ("" if current == leaf else f", the last one that belongs to {_name(leaf)}"),
        )
    return chain


def _issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _warn_of_expiry(leaf: x509.Certificate, called: str, log: logging.Logger) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if leaf.not_valid_after_utc < now:
        log.warning("%s (%s) expired on %s", called, _name(leaf), leaf.not_valid_after_utc.date())
    elif leaf.not_valid_after_utc < now + _SOON:
        log.warning("%s (%s) expires on %s", called, _name(leaf), leaf.not_valid_after_utc.date())
    if leaf.not_valid_before_utc > now:
        log.warning("%s (%s) is not valid before %s", called, _name(leaf), leaf.not_valid_before_utc)


def _name(one: x509.Certificate) -> str:
    return one.subject.rfc4514_string() or "a certificate without a subject"


def _public_bytes(one: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return one.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificates: list[x509.Certificate]) -> str:
    from cryptography.hazmat.primitives import serialization

    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def _refusal(called: str, problem: str) -> Refused:
    return Refused(f"{called} {problem}. Nothing was changed.", {"parameter": "ssl_certificate_id"})
