"""The founding envelope: 3DES-EDE-CBC and HMAC-SHA1, as the founding document fixed it (WIRE.md).

The same IV for every message and an unsigned path are faults of that format, kept for its clients.
"""

import binascii
import hmac

from scalarizr.envelope.key import ServerKey

_BLOCK = 8
# A long message goes through the cipher piece by piece, so that other threads get their turn in between.
_PIECE = 64 * 1024
_WHITE_SPACE = b" \t\r\n\v\f"


class Malformed(ValueError):
    """The signature held, and what it covers is no message; the text says what is wrong."""


def sign(key: ServerKey, body: bytes, date: bytes) -> bytes:
    """Compute the 20 bytes of the signature: HMAC-SHA1 over the body and the date exactly as sent."""
    mac = key.mac.copy()
    if len(body) <= _PIECE:
        mac.update(body + date)
        return mac.finalize()
    view = memoryview(body)
    for start in range(0, len(body), 16 * _PIECE):
        mac.update(view[start : start + 16 * _PIECE])
    mac.update(date)
    return mac.finalize()


def read_signature(header: bytes) -> bytes | None:
    """Decode an X-Signature; None unless it is the canonical base64 of 20 bytes."""
    if len(header) != 28:
        return None
    try:
        mac = binascii.a2b_base64(header, strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    return mac if binascii.b2a_base64(mac, newline=False) == header else None


def encrypt(key: ServerKey, text: bytes) -> bytes:
    """Encrypt to base64 on one line, without a newline."""
    missing = _BLOCK - len(text) % _BLOCK
    return binascii.b2a_base64(_through(key.triple_des.encryptor(), text + bytes((missing,)) * missing), newline=False)


def decrypt(key: ServerKey, body: bytes) -> bytes:
    """Decrypt base64, white space inside ignored.

    :raises Malformed: no base64, no whole blocks, or no PKCS#7 padding. Only for bodies whose signature held.
    """
    try:
        data = binascii.a2b_base64(body.translate(None, _WHITE_SPACE), strict_mode=True)
    except binascii.Error:
        raise Malformed("The body is not base64") from None
    if not data or len(data) % _BLOCK:
        raise Malformed(f"The encrypted body has {len(data)} bytes, which is no multiple of {_BLOCK}")
    text = _through(key.triple_des.decryptor(), data)
    padding = text[-1]
    if not 1 <= padding <= _BLOCK or not text.endswith(bytes((padding,)) * padding):
        raise Malformed("The decrypted body does not end in PKCS#7 padding")
    return text[:-padding]


def seal(key: ServerKey, text: bytes, date: str) -> tuple[bytes, str]:
    """Encrypt and sign.

    :param text: the JSON text.
    :param date: what the Date header will say.
    :return: the body and the X-Signature.
    """
    body = encrypt(key, text)
    return body, binascii.b2a_base64(sign(key, body, date.encode("ascii")), newline=False).decode()


def open_body(key: ServerKey, body: bytes, date: str, signature: str) -> bytes:
    """Verify and decrypt, without looking at the date's freshness: for clients and tests.

    :raises PermissionError: the signature does not match.
    :raises Malformed: it matches, and the body is no message.
    """
    mac = read_signature(signature.encode("ascii", "replace"))
    if mac is None or not hmac.compare_digest(mac, sign(key, body, date.encode("latin-1", "replace"))):
        raise PermissionError("Signature doesn't match")
    return decrypt(key, body)


def _through(cipher: object, data: bytes) -> bytes:
    update = cipher.update  # type: ignore[attr-defined]
    if len(data) <= _PIECE:
        return update(data) + cipher.finalize()  # type: ignore[no-any-return,attr-defined]
    view = memoryview(data)
    pieces = [update(view[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
    pieces.append(cipher.finalize())  # type: ignore[attr-defined]
    return b"".join(pieces)
