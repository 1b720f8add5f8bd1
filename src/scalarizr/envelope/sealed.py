"""The sealed envelope: a compact JWE (RFC 7516) with `dir` and A256GCM, nothing negotiated (WIRE.md).

Written on AES-GCM itself, because a JOSE library costs more memory than the whole rest of the agent's wire; tests hold
it against two such libraries.
"""

import binascii
import os
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag

from scalarizr.envelope.key import ServerKey

ALGORITHMS = {"alg": "dir", "enc": "A256GCM", "typ": "scalarizr"}
_TO_URL = bytes.maketrans(b"+/", b"-_")
# The letters and the padding of ordinary base64 have no place here: they become something that never decodes.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING = (b"", b"", b"==", b"=")
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
# Names that would change how the token is read, or demand something of who reads it: none is supported.
_REFUSED_NAMES = frozenset(("crit", "zip", "b64", "epk", "apu", "apv", "p2s", "p2c"))
_decode_header = msgspec.json.Decoder(dict[str, Any]).decode


class Unopened(Exception):
    """It is no token that this key opens. Nothing more is said of it: it may be an attacker's."""


def new_id() -> str:
    """Make a `jti`: 16 random bytes, base64url."""
    return _encode(os.urandom(16)).decode()


def read_id(text: object) -> bytes | None:
    """Decode a `jti`; None unless it is the canonical base64url of 16 bytes."""
    if not isinstance(text, str) or len(text) != 22 or not text.isascii():
        return None
    try:
        return _decode(text.encode())
    except Unopened:
        return None


def seal(key: ServerKey, text: bytes, header: dict[str, Any], *, iv: bytes | None = None) -> bytes:
    """Encrypt into a token.

    :param header: the protected header's own names; `alg`, `enc` and `typ` are put before them.
    :param iv: 12 bytes, for reproducing golden messages; random when None, as it must be.
    """
    protected = _encode(msgspec.json.encode(ALGORITHMS | header))
    iv = os.urandom(12) if iv is None else iv
    data = key.aes_gcm.encrypt(iv, text, protected)
    return b".".join((protected, b"", _encode(iv), _encode(data[:-16]), _encode(data[-16:])))


class Token(NamedTuple):
    """A token taken apart; nothing of it is authenticated yet.

    :ivar header: its protected header.
    :ivar protected: the same as it came.
    :ivar nonce: 12 bytes.
    :ivar data: ciphertext and tag.
    """

    header: dict[str, Any]
    protected: bytes
    nonce: bytes
    data: bytes

    @property
    def key_id(self) -> str | None:
        """The id of the key that it names (`kid`); None where it names none.

        :raises Unopened: `kid` is no text.
        """
        identity = self.header.get("kid")
        if not isinstance(identity, str) and (identity is not None or "kid" in self.header):
            raise Unopened
        return identity


def read_token(token: bytes) -> Token:
    """Take a token apart.

    :raises Unopened: it is none, or demands what is not supported.
    """
    parts = token.strip(b" \t\r\n").split(b".")
    if len(parts) != 5:
        raise Unopened
    protected, encrypted_key, iv, ciphertext, tag = parts
    header = _read_header(protected)
    if encrypted_key or not header.items() >= ALGORITHMS.items() or not _REFUSED_NAMES.isdisjoint(header):
        raise Unopened
    nonce, mac = _decode(iv), _decode(tag)
    if len(nonce) != 12 or len(mac) != 16:
        raise Unopened
    return Token(header, protected, nonce, _decode(ciphertext) + mac)


def decrypt(key: ServerKey, token: Token) -> bytes:
    """Verify and decrypt what `read_token` took apart.

    :return: the text; the token's header is authentic then.
    :raises Unopened: the key does not open it.
    """
    try:
        return key.aes_gcm.decrypt(token.nonce, token.data, token.protected)
    except InvalidTag:
        raise Unopened from None


def open_token(key: ServerKey, token: bytes) -> tuple[dict[str, Any], bytes]:
    """Verify and decrypt a token.

    :return: the protected header, authenticated, and the text.
    :raises Unopened: whatever is wrong with it.
    """
    taken_apart = read_token(token)
    return taken_apart.header, decrypt(key, taken_apart)


def _read_header(protected: bytes) -> dict[str, Any]:
    if len(protected) > 4096:
        raise Unopened
    try:
        return _decode_header(_decode(protected))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unopened from None


def _encode(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)


def _decode(text: bytes) -> bytes:
    remainder = len(text) & 3
    # Only the canonical spelling: unused bits of the last character are zero (RFC 4648, section 3.5).
    if remainder and text[-1] not in _LAST[remainder]:
        raise Unopened
    try:
        return binascii.a2b_base64(text.translate(_FROM_URL) + _PADDING[remainder], strict_mode=True)
    except binascii.Error:
        raise Unopened from None
