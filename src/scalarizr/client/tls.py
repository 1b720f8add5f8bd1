"""TLS as a client speaks it: whom it believes, what it shows of itself, and what its failures mean.

Imported only for https: `ssl` costs 3 MB of memory and 20 ms.
"""

import ssl
from pathlib import Path
from typing import NoReturn

from scalarizr.client.errors import AuthenticationFailed, CertificateUnusable, ClientError, Unreachable

# What a connection that was closed meanwhile looks like, beside what it does without TLS.
BROKEN = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_WANTED = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE")
_REFUSED = ("CERTIFICATE", "UNKNOWN_CA")


def make_context(
    ca: str | Path | None, certificate: str | Path | None, certificate_key: str | Path | None
) -> ssl.SSLContext:
    """Make what connections are made with: TLS 1.2 or 1.3, the agent's certificate and name verified.

    :param ca: PEM of the issuers that are believed, or of the agent's very certificate; None: those of the system.
    :param certificate: PEM of the client's certificate, followed by its issuers', for an agent that asks for one.
    :param certificate_key: PEM of its key; None: it is in the same file.
    :raises CertificateUnusable: a file cannot be read or used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        # Not beside those of the system: who names an issuer means this one.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise CertificateUnusable(f"{ca}: holds no certificate that can be read (PEM).") from None
        except OSError as error:
            raise CertificateUnusable(f"{ca}: cannot be read: {error.strerror}.") from error
    if certificate is not None:
        _show(context, certificate, certificate_key)
    return context


def failure_of(where: str, error: OSError) -> ClientError:
    """Say what the failure of a connection with TLS means.

    :param where: the agent, at the beginning of a sentence.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationFailed(
            f"{where} shows a certificate that is not believed: {error.verify_message.rstrip('.')}. Nothing was sent."
        )
    if not isinstance(error, ssl.SSLError):
        return Unreachable(f"{where} cannot be reached: {error.strerror or error}.")
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return Unreachable(f"{where} does not speak TLS there: use http, or the port of TLS.")
    if reason == _WANTED:
        return AuthenticationFailed(f"{where} accepts no client without a certificate that it knows the issuer of.")
    if "ALERT" in reason and any(word in reason for word in _REFUSED):
        return AuthenticationFailed(f"{where} refuses this client's certificate ({_told(error)}).")
    return Unreachable(f"{where} cannot be spoken to by TLS: {_told(error)}.")


def _show(context: ssl.SSLContext, certificate: str | Path, key: str | Path | None) -> None:
    for path in (certificate, key or certificate):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise CertificateUnusable(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise CertificateUnusable(
            f"{key or certificate}: the key is encrypted with a passphrase, which is not asked for."
        ) from None
    except ssl.SSLError as error:
        raise CertificateUnusable(f"{certificate}: cannot be used with its key: {_told(error)}.") from None


class _Encrypted(Exception):
    """A key asks for its passphrase."""


def _no_passphrase() -> NoReturn:
    raise _Encrypted


def _told(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
