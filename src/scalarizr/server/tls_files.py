"""Certificate, key and the clients' issuers, read into what OpenSSL serves with; what is wrong is said in words.

Imported only where TLS is on: `ssl` costs 3 MB of memory.
"""

import contextlib
import os
import ssl
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# What is left of TLS 1.2 keeps past traffic secret where a key is stolen later, and is authenticated as a whole; those
# of TLS 1.3 all do, and are not chosen here.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_OPTIONS = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
# X509_VERIFY_PARAM_set_flags(3): dates are looked at by us, who can name them.
_NO_CHECK_TIME = 0x200000
_FLIGHTS = 8
_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}
_ESCAPED = str.maketrans({char: f"\\{char}" for char in ',+"\\<>;='})
_LONGEST_SUBJECT = 256


class BadTlsFiles(Exception):
    """The files cannot be served with; the text names the one and says why, and shows nothing of what is in it.

    :ivar setting: which of `certificate`, `key`, `client_ca` names the file.
    """

    def __init__(self, setting: str, words: str) -> None:
        super().__init__(words)
        self.setting = setting


class TlsFiles(NamedTuple):
    """What a listener serves TLS with.

    :ivar certificate: PEM of the server's certificate, then of its issuers'.
    :ivar key: PEM of its private key.
    :ivar client_ca: PEM of who issues the clients' certificates; None: clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None


class ReadTls(NamedTuple):
    """Files that were read and found to work.

    :ivar context: accepts connections with them.
    :ivar der: the certificate as clients get it.
    :ivar subject: of the certificate.
    :ivar begins: Unix time from which it holds.
    :ivar expires: Unix time up to which it does.
    :ivar client_ca_expires: Unix time at which the first of the clients' issuers expires; None without any.
    """

    context: ssl.SSLContext
    der: bytes
    subject: str
    begins: float
    expires: float
    client_ca_expires: float | None

    def problem_at(self, now: float) -> str | None:
        """Say why clients do not accept the certificate at a moment; None where they do."""
        if now >= self.expires:
            return f"expired on {date_of(self.expires)}"
        return f"holds from {date_of(self.begins)} on" if now < self.begins else None


def read_tls(files: TlsFiles) -> ReadTls:
    """Read the files, and make a handshake with them in memory, which shows what clients will find.

    Dates are the caller's to look at.

    :raises BadTlsFiles: one cannot be read or used, the key is not the certificate's, or others may read it.
    """
    _refuse_unreadable("certificate", files.certificate)
    _refuse_exposed(files.key)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    _trust("certificate", files.certificate, trusting)
    context = _serving(files)
    try:
        client = _shaken_hands(context, trusting)
    except ssl.SSLCertVerificationError as error:
        raise BadTlsFiles(
            "certificate", f"{files.certificate}: clients refuse this certificate: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        raise BadTlsFiles("certificate", f"{files.certificate}: no handshake succeeds: {told(error)}") from None
    issuers_expire = None
    if files.client_ca is not None:
        issuers_expire = _ask_for_certificates(context, files.client_ca)
    seen: Any = client.getpeercert()
    return ReadTls(
        context,
        client.getpeercert(binary_form=True) or b"",
        subject_of(seen),
        ssl.cert_time_to_seconds(seen["notBefore"]),
        ssl.cert_time_to_seconds(seen["notAfter"]),
        issuers_expire,
    )


def subject_of(certificate: Any) -> str:
    """Give the subject of a certificate as `ssl` describes it, in one line (RFC 4514), cut where it is very long."""
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    return ",".join(f"{_SHORT_NAMES.get(name, name)}={str(value).translate(_ESCAPED)}" for name, value in pairs)[
        :_LONGEST_SUBJECT
    ]


def told(error: ssl.SSLError) -> str:
    """Give OpenSSL's words for an error."""
    return (error.reason or str(error)).lower().replace("_", " ")


def date_of(moment: float) -> str:
    """Write a Unix time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _serving(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= _OPTIONS
    # Connections are kept; whoever makes a new one shows anew who he is.
    context.num_tickets = 0
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except _Encrypted:
        raise BadTlsFiles(
            "key", f"{files.key}: is encrypted with a passphrase, which an agent that starts alone cannot ask for"
        ) from None
    except ssl.SSLError as error:
        raise _unusable(files, error) from None
    except OSError as error:  # it was there a moment ago
        raise BadTlsFiles("key", f"{files.key}: cannot be read: {error.strerror}") from None
    return context


def _unusable(files: TlsFiles, error: ssl.SSLError) -> BadTlsFiles:
    # The last of them: a key of another kind, which is looked for a certificate of its own.
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return BadTlsFiles("key", f"{files.key}: is not the key of the first certificate in {files.certificate}")
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_MD_TOO_WEAK"):
        return BadTlsFiles("certificate", f"{files.certificate}: is too weak for today's TLS: {told(error)}")
    return BadTlsFiles("key", f"{files.key}: holds no private key that can be read (PEM)")


def _ask_for_certificates(context: ssl.SSLContext, issuers: Path) -> float | None:
    _refuse_unreadable("client_ca", issuers)
    # A file may also name the very certificates of the clients.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _trust("client_ca", issuers, context)
    context.verify_mode = ssl.CERT_REQUIRED
    return min((ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()), default=None)


def _trust(setting: str, path: Path, context: ssl.SSLContext) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise BadTlsFiles(setting, f"{path}: holds no certificate that can be read (PEM)") from None
    except OSError as error:
        raise BadTlsFiles(setting, f"{path}: cannot be read: {error.strerror}") from None


def _refuse_unreadable(setting: str, path: Path) -> os.stat_result:
    # OpenSSL's own error does not say which of the files it was.
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except OSError as error:
        raise BadTlsFiles(setting, f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadTlsFiles(setting, f"{path}: is no file")
    return status


def _refuse_exposed(path: Path) -> None:
    status = _refuse_unreadable("key", path)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise BadTlsFiles("key", f"{path}: others may read or write it (mode {mode:04o}): chmod 600 it")
    if status.st_uid not in (0, os.geteuid()):
        raise BadTlsFiles("key", f"{path}: belongs to user {status.st_uid}, who may read it: chown it to root")


class _Encrypted(Exception):
    """A key asks for its passphrase."""


def _no_passphrase() -> NoReturn:
    # Without this, OpenSSL would ask on the terminal.
    raise _Encrypted


def _shaken_hands(context: ssl.SSLContext, trusting: ssl.SSLContext) -> ssl.SSLObject:
    """Let a client in memory connect; gives the client."""
    asked, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(answered, asked)
    server = context.wrap_bio(asked, answered, server_side=True)
    for _ in range(_FLIGHTS):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return client
