"""Opening messages: what is genuine, fresh and new, and what is said of all else."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text, http_date_text, read_date
from scalarizr.envelope.envelopes import UNVERIFIED, Envelopes, OpenedMessage, RefusedMessage
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.keyring import Keyring, NamedKey
from scalarizr.envelope.replay import ReplayStores
from scalarizr.settings.key_rules import KeyRules
from wire import founding_message, random_key, sealed_message

KEY = random_key()
TEXT = b'{"method": "x", "params": {}, "id": 1}'


class Door:
    """The envelopes of one server, with a clock that the test sets."""

    def __init__(self, accepted: tuple[str, ...] = ("founding", "sealed")) -> None:
        self.now = time.time()
        ring = Keyring([NamedKey("default", KeyRules(), KEY)])
        self.envelopes = Envelopes(ring, accepted, ReplayStores(300, 1000), lambda: self.now)

    def open(self, body: bytes, headers: dict[bytes, bytes | None], path: str = "/system") -> OpenedMessage:
        return self.envelopes.open(body, headers, path, "127.0.0.1")

    def founding(self, body: bytes, headers: dict[str, str]) -> OpenedMessage:
        return self.open(body, {name.lower().encode(): value.encode() for name, value in headers.items()})

    def sealed(self, body: bytes, path: str = "/system") -> OpenedMessage:
        return self.open(body, {b"content-type": b"application/jose; charset=x"}, path)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(RefusedMessage) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture
def door() -> Door:
    return Door()


@given(st.binary(max_size=300))
def test_founding_messages_open_to_what_was_sealed(text: bytes) -> None:
    body, signature = founding.seal(KEY, text, "x")
    assert founding.open_body(KEY, body, "x", signature) == text


@given(st.binary(max_size=300))
def test_sealed_messages_open_to_what_was_sealed(text: bytes) -> None:
    header, opened = sealed.open_token(KEY, sealed.seal(KEY, text, {"aud": "/x"}))
    assert opened == text and header["aud"] == "/x"


@given(st.data())
@settings(max_examples=200)
def test_a_sealed_message_with_one_changed_character_is_refused(data: Any) -> None:
    token = sealed_message(KEY, "/system", TEXT)
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(b"ABCxyz019-_.=+/ \n\x00\xff"))
    if token[place] == character:
        return
    changed = token[:place] + bytes([character]) + token[place + 1 :]
    assert refusal(Door().sealed, changed) == UNVERIFIED


@given(st.data())
@settings(max_examples=200)
def test_a_founding_message_with_one_changed_character_is_refused(data: Any) -> None:
    body, headers = founding_message(KEY, TEXT)
    place = data.draw(st.integers(0, len(body) - 1))
    character = data.draw(st.integers(0, 255))
    if body[place] == character:
        return
    assert refusal(Door().founding, body[:place] + bytes([character]) + body[place + 1 :], headers) == UNVERIFIED


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_with_one_text(body: bytes, header: bytes) -> None:
    door = Door()
    assert refusal(door.open, body, {b"x-signature": header, b"date": header}, "/") == UNVERIFIED
    assert refusal(door.sealed, body) == UNVERIFIED


def test_a_message_without_any_envelope_is_refused(door: Door) -> None:
    assert refusal(door.open, TEXT, {}, "/system") == UNVERIFIED
    assert refusal(door.open, TEXT, {b"content-type": b"application/json"}, "/system") == UNVERIFIED


@pytest.mark.parametrize("missing", [{"date": None}, {"x-signature": None}])
def test_a_header_that_came_twice_is_refused(door: Door, missing: dict[str, None]) -> None:
    body, headers = founding_message(KEY, TEXT)
    present: dict[bytes, bytes | None] = {name.lower().encode(): value.encode() for name, value in headers.items()}
    present |= {name.encode(): None for name in missing}
    assert refusal(door.open, body, present, "/system") == UNVERIFIED


@pytest.mark.parametrize(
    "change", [lambda s: s + " ", lambda s: s[:-1], lambda s: s + "\n", lambda s: s[:-2] + "B=", str.lower]
)
def test_only_the_canonical_signature_is_accepted(door: Door, change: Any) -> None:
    body, headers = founding_message(KEY, TEXT)
    changed = change(headers["X-Signature"])
    if changed != headers["X-Signature"]:
        assert refusal(door.founding, body, headers | {"X-Signature": changed}) == UNVERIFIED
    assert door.founding(body, headers).text == TEXT


@pytest.mark.parametrize("ending", ["\n", "\r\n", " "])
def test_white_space_that_was_signed_is_passed_over(door: Door, ending: str) -> None:
    body, _ = founding_message(KEY, TEXT)
    body = body[:10] + b"\r\n" + body[10:] + ending.encode()
    date = date_text(int(door.now))
    signature = founding.sign(KEY, body, date.encode())
    import binascii

    headers = {"Date": date, "X-Signature": binascii.b2a_base64(signature, newline=False).decode()}
    assert door.founding(body, headers).text == TEXT


@pytest.mark.parametrize("form", [date_text, http_date_text, lambda second: date_text(second).replace("UTC", "GMT")])
def test_the_forms_of_a_date(door: Door, form: Any) -> None:
    body, headers = founding_message(KEY, TEXT, date=form(int(door.now)))
    assert door.founding(body, headers).text == TEXT


@given(st.integers(0, 4_000_000_000))
def test_a_date_is_read_as_it_was_written(second: int) -> None:
    assert read_date(date_text(second)) == read_date(http_date_text(second)) == second


@pytest.mark.parametrize(
    "text",
    [
        "-",
        "now",
        "2012-06-20",
        "Wed 20 Jun 2012 09:20:43",
        "Wed 31 Feb 2012 09:20:43 UTC",
        "Wed 20 jun 2012 09:20:43 UTC",
    ],
)
def test_what_is_no_date_is_told_after_the_signature_held(door: Door, text: str) -> None:
    body, headers = founding_message(KEY, TEXT, date=text)
    assert "Date is neither" in refusal(door.founding, body, headers)


@pytest.mark.parametrize(("off", "words"), [(-301, "behind"), (301, "ahead of"), (-5000, "5000 s behind")])
def test_a_date_outside_of_the_window_is_told(door: Door, off: int, words: str) -> None:
    door.now = float(int(door.now))
    second = int(door.now) + off
    said = refusal(door.founding, *founding_message(KEY, TEXT, date=date_text(second)))
    assert words in said and "at most 300 s are accepted" in said
    assert words in refusal(door.sealed, sealed_message(KEY, "/system", TEXT, iat=second))


@pytest.mark.parametrize("off", [-300, 300])
def test_a_date_at_the_edge_of_the_window_is_accepted(door: Door, off: int) -> None:
    door.now = float(int(door.now))
    second = int(door.now) + off
    assert door.founding(*founding_message(KEY, TEXT, date=date_text(second))).text == TEXT
    assert door.sealed(sealed_message(KEY, "/system", TEXT, iat=second)).text == TEXT


def test_a_message_is_accepted_once(door: Door) -> None:
    body, headers = founding_message(KEY, TEXT)
    token = sealed_message(KEY, "/system", TEXT)
    door.founding(body, headers)
    door.sealed(token)
    assert refusal(door.founding, body, headers) == "This request was seen before"
    assert refusal(door.sealed, token) == "This request was seen before"


def test_one_jti_serves_one_message(door: Door) -> None:
    identity = sealed.new_id()
    door.sealed(sealed_message(KEY, "/system", TEXT, jti=identity))
    other = sealed_message(KEY, "/system", b"other", jti=identity)
    assert refusal(door.sealed, other) == "This request was seen before"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"aud": "/storage"}, "aud"),
        ({"aud": "/system/"}, "aud"),
        ({"aud": None}, "aud"),
        ({"iat": "1"}, "iat"),
        ({"iat": 1.5}, "iat"),
        ({"iat": True}, "iat"),
        ({"jti": "short"}, "jti"),
        ({"jti": "A" * 21 + "B"}, "jti"),
        ({"jti": 5}, "jti"),
    ],
)
def test_a_sealed_header_that_is_wrong_is_told(door: Door, header: dict[str, Any], words: str) -> None:
    assert words in refusal(door.sealed, sealed_message(KEY, "/system", TEXT, **header))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "A256KW"},
        {"enc": "A128GCM"},
        {"typ": "JWT"},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"zip": "DEF"},
    ],
)
def test_anything_to_be_negotiated_is_refused(door: Door, header: dict[str, Any]) -> None:
    assert refusal(door.sealed, sealed_message(KEY, "/system", TEXT, **header)) == UNVERIFIED


def test_an_encrypted_key_or_a_missing_part_is_refused(door: Door) -> None:
    parts = sealed_message(KEY, "/system", TEXT).split(b".")
    for changed in (parts[:4], [*parts, b""], [parts[0], b"AAAA", *parts[2:]], [parts[0], b"", b"AAAA", *parts[3:]]):
        assert refusal(door.sealed, b".".join(changed)) == UNVERIFIED


def test_an_envelope_that_is_switched_off_is_refused() -> None:
    assert refusal(Door(("sealed",)).founding, *founding_message(KEY, TEXT)) == UNVERIFIED
    assert refusal(Door(("founding",)).sealed, sealed_message(KEY, "/system", TEXT)) == UNVERIFIED


def test_a_signed_body_that_is_no_message_is_told(door: Door) -> None:
    import binascii

    for body, words in (
        (b"!", "base64"),
        (b"QUJD", "multiple of 8"),
        (b"", "multiple of 8"),
        (b"QUJDREVGR0g=", "padding"),
    ):
        date = date_text(int(door.now))
        signature = binascii.b2a_base64(founding.sign(KEY, body, date.encode()), newline=False).decode()
        assert words in refusal(door.founding, body, {"Date": date, "X-Signature": signature})


def test_answers_are_sealed_the_way_the_question_was(door: Door) -> None:
    answer = door.founding(*founding_message(KEY, TEXT)).seal(b"answer")
    headers = dict(answer.headers)
    assert founding.open_body(KEY, answer.body, headers["Date"], headers["X-Signature"]) == b"answer"
    assert b"\n" not in answer.body
    identity = sealed.new_id()
    answer = door.sealed(sealed_message(KEY, "/system", TEXT, jti=identity)).seal(b"answer")
    header, text = sealed.open_token(KEY, answer.body)
    assert text == b"answer" and header["irt"] == identity and "aud" not in header


def test_a_key_that_opens_another_servers_messages_is_of_no_use_here(door: Door) -> None:
    other = ServerKey(bytes(range(40)))
    assert refusal(door.founding, *founding_message(other, TEXT)) == UNVERIFIED
    assert refusal(door.sealed, sealed_message(other, "/system", TEXT)) == UNVERIFIED
