"""Why a handshake failed: a word to count it by, and words for the log."""

import ssl
from typing import NamedTuple

from scalarizr.server.tls_files import told

PLAIN_HTTP = "plain-http"
_REASONS = {
    "HTTP_REQUEST": (PLAIN_HTTP, "plain HTTP on the port of TLS"),
    "HTTPS_PROXY_REQUEST": (PLAIN_HTTP, "plain HTTP on the port of TLS"),
    "WRONG_VERSION_NUMBER": ("version", "neither TLS 1.2 nor 1.3, or no TLS at all"),
    "UNSUPPORTED_PROTOCOL": ("version", "offers neither TLS 1.2 nor 1.3"),
    "VERSION_TOO_LOW": ("version", "offers neither TLS 1.2 nor 1.3"),
    "NO_SHARED_CIPHER": ("cipher", "offers no cipher that is accepted"),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ("no-certificate", "shows no certificate, and one is required"),
}


class HandshakeRefusal(NamedTuple):
    """A handshake that failed.

    :ivar reason: a word: `plain-http`, `version`, `cipher`, `no-certificate`, `certificate`, `distrusted`, `timeout`,
        `unfinished`, `other`.
    :ivar words: what it was, for people.
    """

    reason: str
    words: str


TIMED_OUT = HandshakeRefusal("timeout", "the handshake took too long")
UNFINISHED = HandshakeRefusal("unfinished", "the client left in the middle of the handshake")


def refusal_of(error: ssl.SSLError) -> HandshakeRefusal:
    """Make sense of OpenSSL's error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeRefusal("certificate", f"the client's certificate is refused: {error.verify_message}")
    reason = error.reason or ""
    if reason in _REASONS:
        return HandshakeRefusal(*_REASONS[reason])
    if "ALERT" in reason:
        return HandshakeRefusal("distrusted", f"the client refuses this server: {told(error)}")
    return HandshakeRefusal("other", told(error))
