"""The server's key: reading it, refusing a weak one, and what each envelope derives from it."""

import binascii
import functools
import hashlib
import hmac
import os
import stat
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hmac import HMAC

SHORTEST = 32
MADE = 40
_PARITY_IGNORED = bytes(byte & 0xFE for byte in range(256))


class WeakKey(ValueError):
    """The text is no key, or one that must not be used; the message says why, without showing it."""


class ServerKey:
    """One shared key.

    :param raw: the decoded bytes, at least 32.
    :raises WeakKey: it is shorter, or its 3DES parts coincide.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) < SHORTEST:
            raise WeakKey(f"the key has {len(raw)} bytes, at least {SHORTEST} are needed")
        parts = {raw[start : start + 8].translate(_PARITY_IGNORED) for start in (0, 8, 16)}
        if len(parts) != 3:
            raise WeakKey("two of the three DES parts of the key coincide, which makes 3DES as weak as DES")
        self.raw = raw

    @classmethod
    def from_text(cls, text: str | bytes) -> "ServerKey":
        """Read base64 text, white space ignored.

        :raises WeakKey: it is not base64, or a weak key.
        """
        compact = b"".join((text.encode() if isinstance(text, str) else text).split())
        try:
            raw = binascii.a2b_base64(compact, strict_mode=True)
        except binascii.Error as error:
            raise WeakKey("the key is not base64 text") from error
        return cls(raw)

    @classmethod
    def from_file(cls, path: Path) -> "ServerKey":
        """Read a key file.

        :raises OSError: it cannot be read.
        :raises WeakKey: what it holds is no usable key.
        """
        # What is no file may be waited for without end, a pipe at its very opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise WeakKey("the key is no regular file")
            return cls.from_text(file.read(65536))

    @functools.cached_property
    def sealed(self) -> bytes:
        """The 32 bytes of the sealed envelope: HKDF-SHA256 (RFC 5869), empty salt, one block."""
        extracted = hmac.digest(b"\0" * hashlib.sha256().digest_size, self.raw, "sha256")
        return hmac.digest(extracted, b"scalarizr jwe A256GCM\x01", "sha256")

    @functools.cached_property
    def triple_des(self) -> Cipher[modes.CBC]:
        """The cipher of the founding envelope: 3DES-EDE in CBC mode, with the IV that the key brings along."""
        return Cipher(TripleDES(self.raw[:24]), modes.CBC(self.raw[-8:]))

    @functools.cached_property
    def mac(self) -> HMAC:
        """HMAC-SHA1 under the raw key, before its first byte: copied for each message."""
        return HMAC(self.raw, SHA1())  # noqa: S303  the founding format's; HMAC does not rest on collisions

    @functools.cached_property
    def aes_gcm(self) -> AESGCM:
        """The cipher of the sealed envelope."""
        return AESGCM(self.sealed)

    def __repr__(self) -> str:
        return "ServerKey(******)"


def make_key_text() -> bytes:
    """Make the text of a new key file: base64 of 40 random bytes."""
    while True:
        raw = os.urandom(MADE)
        try:
            ServerKey(raw)
        except WeakKey:  # one in 2⁵⁶ draws
            continue
        return binascii.b2a_base64(raw)
