"""The form in which the targets of the wire take their input: one byte that says how, head lines, and a body."""

import base64
import hashlib
import hmac

from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.keyring import Keyring, NamedKey
from scalarizr.settings.key_rules import KeyRules

NOW = 1_340_184_043
SKEW = 300.0
ADDRESS = "10.0.0.1"
UNVERIFIED = "Signature doesn't match"

_RAW = {
    "default": bytes(range(40, 80)),
    "reader": bytes(range(100, 140)),
    "elsewhere": bytes(range(150, 190)),
    "gone": bytes(range(200, 240)),
    "rotated": bytes(range(7, 47)),
}
PREVIOUS = bytes(range(60, 100))
_RULES = {
    "default": KeyRules(),
    "reader": KeyRules(allow=("read-only",), sources=("10.0.0.0/8",)),
    "elsewhere": KeyRules(allow=("read-only",), sources=("192.0.2.0/24",)),
    "gone": KeyRules(allow=("*",), expires=NOW - 1.0),
    "rotated": KeyRules(allow=("*",), previous_until=NOW + 60.0),
}
ACCEPTED = {"default": (_RAW["default"],), "reader": (_RAW["reader"],), "rotated": (_RAW["rotated"], PREVIOUS)}


def keyring() -> Keyring:
    """Make a ring of keys of every kind: open, bound to a network, expired, rotated."""
    return Keyring(
        [
            NamedKey(name, _RULES[name], ServerKey(_RAW[name]), ServerKey(PREVIOUS) if name == "rotated" else None)
            for name in _RAW
        ]
    )


def raw_key(name: str) -> bytes:
    """Give the bytes of a key."""
    return _RAW[name]


def founding_signature(raw: bytes, body: bytes, date: bytes) -> bytes:
    """Sign as the founding document says, with nothing of the product."""
    return base64.b64encode(hmac.new(raw, body + date, hashlib.sha1).digest())


def sealing_key(raw: bytes) -> bytes:
    """Derive the key of the sealed envelope as RFC 5869 says, with nothing of the product."""
    extracted = hmac.new(bytes(32), raw, hashlib.sha256).digest()
    return hmac.new(extracted, b"scalarizr jwe A256GCM\x01", hashlib.sha256).digest()


def split(data: bytes) -> tuple[int, dict[bytes, bytes | None], bytes]:
    """Take an input apart.

    :return: the byte that says how; headers by lower-case name, None for one that came twice; the body.
    """
    how = data[0] if data else 0
    head, _, body = data[1:].partition(b"\n\n")
    headers: dict[bytes, bytes | None] = {}
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            name = name.strip().lower()
            headers[name] = None if name in headers else value.strip(b" \t")
    return how, headers, body


def join(how: int, headers: dict[str, str], body: bytes) -> bytes:
    """Make an input."""
    head = "\n".join(f"{name}: {value}" for name, value in headers.items())
    return bytes([how]) + head.encode() + b"\n\n" + body
