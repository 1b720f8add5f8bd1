"""What `scalarizr doctor` looks at where the agent speaks TLS: certificate, key, the clients' issuers, and the port."""

import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scalarizr.cli.checks import Finding
from scalarizr.settings.address import read_address
from scalarizr.settings.model import Settings

if TYPE_CHECKING:
    from scalarizr.server.tls_files import ReadTls

_SOON = 14 * 86400
_PATIENCE = 5.0


def check_tls(settings: Settings) -> Iterator[Finding]:
    """TLS: the files can be served with, hold for a while yet, and are what the running agent serves with."""
    if settings.tls.listen is None:
        yield Finding("tls", "ok", "off: [tls] listen is not set")
        return
    from scalarizr.server.tls_files import BadTlsFiles, TlsFiles, read_tls

    given = settings.tls
    assert given.certificate is not None and given.key is not None  # settings.load
    try:
        read = read_tls(TlsFiles(given.certificate, given.key, given.client_ca))
    except BadTlsFiles as error:
        yield Finding("tls", "fail", f"[tls] {error.setting}: {error}. The agent keeps what it has, or does not start.")
        return
    yield _dates(read, f"{given.certificate} ({read.subject})")
    expires = read.client_ca_expires
    if expires is not None and expires <= time.time() + _SOON:
        yield Finding(
            "tls", "warn", f"{given.client_ca}: an issuer in it {_expiry(expires)}: put its successor beside it."
        )
    for address in [given.listen] if isinstance(given.listen, str) else given.listen or []:
        yield _served(address, read)


def _dates(read: "ReadTls", called: str) -> Finding:
    now = time.time()
    problem = read.problem_at(now)
    if problem is not None:
        return Finding("tls", "fail", f"{called} {problem}: clients refuse it. Put another one in its place.")
    if read.expires <= now + _SOON:
        return Finding("tls", "warn", f"{called} {_expiry(read.expires)}: put its successor in its place.")
    return Finding("tls", "ok", f"{called}, {_expiry(read.expires)}")


def _expiry(moment: float) -> str:
    from scalarizr.server.tls_files import date_of

    return f"{'has expired' if moment <= time.time() else 'expires'} on {date_of(moment)}"


def _served(address: str, read: "ReadTls") -> Finding:
    """Look whether what listens there shows this certificate; who asks for a client's shows its own before that."""
    import ssl

    host, port = read_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    looking.check_hostname = False
    looking.verify_mode = ssl.CERT_NONE  # whatever it shows is compared, and nothing is sent
    looking.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with socket.create_connection((host, port), _PATIENCE) as plain, looking.wrap_socket(plain) as spoken:
            shown = spoken.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        return Finding("tls", "fail", f"{address}: what answers does not speak TLS 1.3: {error.reason}.")
    except ConnectionRefusedError:
        return Finding("tls", "warn", f"{address} is free: no agent listens for TLS; `scalarizr serve` starts it.")
    except OSError as error:
        return Finding("tls", "fail", f"{address}: no handshake: {error.strerror or error}.")
    if shown != read.der:
        return Finding(
            "tls", "fail", f"{address}: another certificate is shown there: `kill -HUP` the agent, and see its log."
        )
    return Finding("tls", "ok", f"the agent shows this certificate on {address}")
