"""The sealed envelope: what opens was sealed with an accepted key, for this path, now, and is opened only once."""

import base64
import json
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fuzz.messages import ACCEPTED, ADDRESS, NOW, SKEW, UNVERIFIED, join, keyring, raw_key, sealing_key, split
from scalarizr.envelope import sealed
from scalarizr.envelope.envelopes import Envelopes, RefusedMessage
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.replay import ReplayStores

LONGEST = 1024
WORDS = (
    b'"alg":"dir"',
    b'"enc":"A256GCM"',
    b'"typ":"scalarizr"',
    b'"aud":"/system"',
    b'"iat":1340184043',
    b'"jti":"AAECAwQFBgcICQoLDA0ODw"',
    b'"kid":"reader"',
    b'"kid":"rotated"',
    b'"crit":["x"]',
    b'"zip":"DEF"',
    b"application/jose",
    b"x-key-id: ",
    b".",
    b"..",
    b"==",
    b"1e9",
)
_RING = keyring()
_NAMES = ("default", "reader", "rotated", "gone", "elsewhere")
_CIPHERS = {name: AESGCM(sealing_key(raw_key(name))) for name in _NAMES}
_OPENING = {name: [AESGCM(sealing_key(raw)) for raw in keys] for name, keys in ACCEPTED.items()}
_NONCE = bytes(range(12))
_JTI = "AAECAwQFBgcICQoLDA0ODw"
_TEXT = b'{"method": "load_average", "params": {}, "id": 1}'
_ANSWER = b'{"result": [0.1, 0.2, 0.3], "id": 1}'
_FORBIDDEN = {"crit", "zip", "b64", "epk", "apu", "apv", "p2s", "p2c"}


def check(data: bytes) -> None:
    """How: bit 0: the body is a header line and a text, and is sealed here; bits 1 to 3: with which key."""
    how, headers, body = split(data)
    headers.setdefault(b"content-type", b"application/jose")
    if how & 1:
        line, _, text = body.partition(b"\n")
        protected = _url(line)
        cipher = _CIPHERS[_NAMES[(how >> 1) % len(_NAMES)]]
        data_and_tag = cipher.encrypt(_NONCE, text, protected)
        body = b".".join((protected, b"", _url(_NONCE), _url(data_and_tag[:-16]), _url(data_and_tag[-16:])))
    genuine = _genuine(body)
    envelopes = Envelopes(_RING, ("sealed",), ReplayStores(SKEW, 64), clock=lambda: float(NOW))
    try:
        opened = envelopes.open(body, headers, "/system", ADDRESS)
    except RefusedMessage as refusal:
        assert refusal.verified or str(refusal) == UNVERIFIED, refusal
        assert not refusal.verified or genuine is not None, (refusal, body)
        return
    assert genuine is not None, "a token that nobody sealed was opened"
    header, text = genuine
    assert opened.text == text and opened.key == header.get("kid", "default") and opened.envelope == "sealed"
    assert header["aud"] == "/system" and abs(header["iat"] - NOW) <= SKEW and type(header["iat"]) is int
    assert len(base64.urlsafe_b64decode(header["jti"] + "==")) == 16
    assert _FORBIDDEN.isdisjoint(header)
    assert (headers[b"content-type"] or b"").split(b";")[0].strip().lower() == b"application/jose"
    assert b"x-key-id" not in headers and b"x-signature" not in headers
    answer = opened.seal(_ANSWER)
    found = _genuine(answer.body, opened.key)
    assert found is not None and found[1] == _ANSWER and found[0]["irt"] == header["jti"] and "aud" not in found[0]
    for again in (body, b" " + body + b"\r\n"):
        try:
            envelopes.open(again, headers, "/system", ADDRESS)
        except RefusedMessage as refusal:
            assert refusal.reason == "replay", refusal
        else:
            raise AssertionError("a token was opened twice")


def _url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _genuine(body: bytes, named: str | None = None) -> tuple[dict[str, Any], bytes] | None:
    """Open a token with nothing of the product; lenient: what this does not open must not be opened."""
    parts = body.strip(b" \t\r\n").split(b".")
    if len(parts) != 5 or parts[1]:
        return None
    try:
        protected, _, nonce, text, tag = (base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts)
        header = json.loads(protected)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    if (header.get("alg"), header.get("enc"), header.get("typ")) != ("dir", "A256GCM", "scalarizr"):
        return None
    identity = named or header.get("kid", "default")
    for cipher in _OPENING.get(identity, ()) if isinstance(identity, str) else ():
        try:
            return header, cipher.decrypt(nonce, text + tag, parts[0])
        except (InvalidTag, ValueError):
            continue
    return None


def seeds() -> dict[str, bytes]:
    """Make real tokens, and such as are wrong in one thing."""
    key = ServerKey(raw_key("default"))
    base = {"aud": "/system", "iat": NOW, "jti": _JTI}
    line = json.dumps({"alg": "dir", "enc": "A256GCM", "typ": "scalarizr", **base}, separators=(",", ":")).encode()

    def sealed_here(old: bytes = b"", new: bytes = b"", how: int = 1) -> bytes:
        return join(how, {}, (line.replace(old, new) if old else line) + b"\n" + _TEXT)

    token = sealed.seal(key, _TEXT, base, iv=_NONCE)
    return {
        "genuine": join(0, {}, token),
        "genuine-with-charset": join(0, {"Content-Type": "application/JOSE; charset=utf-8"}, token),
        "beside-a-key-id": join(0, {"X-Key-Id": "default"}, token),
        "four-parts": join(0, {}, token.rpartition(b".")[0]),
        "another-tag": join(0, {}, token[:-4] + b"AAAA"),
        "of-another-key": join(0, {}, sealed.seal(ServerKey(raw_key("reader")), _TEXT, base, iv=_NONCE)),
        "reader": join(0, {}, sealed.seal(ServerKey(raw_key("reader")), _TEXT, {**base, "kid": "reader"}, iv=_NONCE)),
        "sealed-here": sealed_here(),
        "sealed-here-rotated": sealed_here(b'"jti"', b'"kid":"rotated","jti"', 1 | 2 << 1),
        "sealed-here-gone": sealed_here(b'"jti"', b'"kid":"gone","jti"', 1 | 3 << 1),
        "crit": sealed_here(b'"jti"', b'"crit":["x"],"jti"'),
        "other-alg": sealed_here(b'"dir"', b'"A256KW"'),
        "other-path": sealed_here(b"/system", b"/storage"),
        "old": sealed_here(b"1340184043", b"1340180000"),
        "float": sealed_here(b"1340184043", b"1340184043.0"),
        "twice": sealed_here(b'"aud"', b'"aud":"/x","aud"'),
        "null-kid": sealed_here(b'"jti"', b'"kid":null,"jti"'),
        "short-jti": sealed_here(_JTI.encode(), b"AAEC"),
        "no-object": join(1, {}, b"[1]\n" + _TEXT),
        "deep": join(1, {}, b'{"a":' + b"[" * 400 + b"\n"),
    }
