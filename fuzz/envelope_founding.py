"""The founding envelope: only what was signed is opened, what is opened is what was encrypted, and only once."""

import base64

from fuzz.messages import ACCEPTED, ADDRESS, NOW, SKEW, UNVERIFIED, founding_signature, join, keyring, raw_key, split
from scalarizr.envelope import founding
from scalarizr.envelope.envelopes import Envelopes, RefusedMessage
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.replay import ReplayStores

LONGEST = 1024
WORDS = (
    b"x-signature: ",
    b"date: ",
    b"x-key-id: ",
    b"Wed 20 Jun 2012 09:20:43 UTC",
    b"Wed, 20 Jun 2012 09:20:43 GMT",
    b"31 Feb",
    b" UTC",
    b"reader",
    b"rotated",
    b"gone",
    b"elsewhere",
    b"=",
    b"\r\n",
)
_RING = keyring()
_NAMES = ("default", "reader", "rotated", "gone", "elsewhere")
_DATE = b"Wed 20 Jun 2012 09:20:43 UTC"
_TEXT = b'{"method": "load_average", "params": {}, "id": 1}'
_WHITE = b" \t\r\n\v\f"
_CIPHERS = {raw: ServerKey(raw) for keys in ACCEPTED.values() for raw in keys}
_ANSWER = b'{"result": [0.1, 0.2, 0.3], "id": 1}'


def check(data: bytes) -> None:
    """How: bit 0: the message is signed here; bit 1: and encrypted before; bits 2 to 4: with which key."""
    how, headers, body = split(data)
    name = _NAMES[(how >> 2) % len(_NAMES)]
    if how & 1:
        if how & 2:
            body = founding.encrypt(ServerKey(raw_key(name)), body)
        headers.setdefault(b"date", _DATE)
        headers[b"x-signature"] = founding_signature(raw_key(name), body, headers[b"date"] or b"")
        if name != "default":
            headers.setdefault(b"x-key-id", name.encode())
    signature, date, identity = (headers.get(one) for one in (b"x-signature", b"date", b"x-key-id"))
    named = "default" if b"x-key-id" not in headers else (identity or b"\0").decode("latin-1")
    # What of this may be believed, worked out anew.
    signing = [
        raw
        for raw in ACCEPTED.get(named, ())
        if signature is not None and date is not None and signature == founding_signature(raw, body, date)
    ]
    envelopes = Envelopes(_RING, ("founding",), ReplayStores(SKEW, 64), clock=lambda: float(NOW))
    try:
        opened = envelopes.open(body, headers, "/system", ADDRESS)
    except RefusedMessage as refusal:
        assert refusal.verified == bool(signing), (refusal, refusal.problem)
        assert refusal.verified or str(refusal) == UNVERIFIED, refusal
        assert refusal.reason in ("signature", "date", "malformed"), refusal.reason
        assert not signing or not (how & 3 == 3 and date == _DATE), ("a good message was refused", str(refusal))
        return
    assert signing, "a message that nobody signed was opened"
    assert opened.key == named and opened.envelope == "founding"
    # The signature covers the body as it came: that its base64 is spelled in the one canonical way is not asked.
    blocks = base64.b64decode(body.translate(None, _WHITE))
    assert any(base64.b64decode(founding.encrypt(_CIPHERS[raw], opened.text)) == blocks for raw in signing), opened.text
    sealed = opened.seal(_ANSWER)
    told = dict(sealed.headers)
    assert any(_is_answer(raw, sealed.body, told) for raw in signing)
    for again in (body, body + b"\n"):
        try:
            envelopes.open(again, headers, "/", "10.0.0.2")
        except RefusedMessage as refusal:
            assert refusal.reason == ("replay" if again is body else "signature"), refusal
        else:
            raise AssertionError("a message was opened twice")


def _is_answer(raw: bytes, body: bytes, headers: dict[str, str]) -> bool:
    try:
        return founding.open_body(_CIPHERS[raw], body, headers["Date"], headers["X-Signature"]) == _ANSWER
    except PermissionError:
        return False


def seeds() -> dict[str, bytes]:
    """Make real messages, and such as are wrong in one thing."""
    key = ServerKey(raw_key("default"))
    body, signature = founding.seal(key, _TEXT, _DATE.decode())
    good = {"X-Signature": signature, "Date": _DATE.decode()}
    folded = base64.encodebytes(base64.b64decode(body))
    rfc = "Wed, 20 Jun 2012 09:20:43 GMT"
    return {
        "genuine": join(0, good, body),
        "genuine-rfc-date": join(
            0, {"X-Signature": founding_signature(key.raw, body, rfc.encode()).decode(), "Date": rfc}, body
        ),
        "folded": join(
            0, {"X-Signature": founding_signature(key.raw, folded, _DATE).decode(), "Date": _DATE.decode()}, folded
        ),
        "other-key": join(0, {**good, "X-Key-Id": "reader"}, body),
        "signature-of-another": join(0, {**good, "X-Signature": "A" * 27 + "="}, body),
        "no-date": join(0, {"X-Signature": signature}, body),
        "signed-text": join(1, {}, b"no base64"),
        "signed-blocks": join(1, {}, base64.b64encode(bytes(16))),
        "signed-old": join(1, {"Date": "Wed 20 Jun 2012 09:10:43 UTC"}, body),
        "signed-no-date": join(1, {"Date": "31 Feb"}, body),
        "encrypted": join(3, {}, _TEXT),
        "encrypted-empty": join(3, {}, b""),
        "encrypted-reader": join(3 | 1 << 2, {}, _TEXT),
        "encrypted-rotated": join(3 | 2 << 2, {}, _TEXT),
        "encrypted-gone": join(3 | 3 << 2, {}, _TEXT),
        "encrypted-elsewhere": join(3 | 4 << 2, {}, _TEXT),
    }
