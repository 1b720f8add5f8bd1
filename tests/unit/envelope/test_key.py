"""Keys: which are read, which are refused."""

import base64

import pytest

from scalarizr.envelope.key import ServerKey, WeakKey, make_key_text


def text(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def test_white_space_is_ignored() -> None:
    raw = bytes(range(40))
    folded = b"\n".join([text(raw)[:20], text(raw)[20:]]) + b"\r\n"
    assert ServerKey.from_text(folded).raw == raw


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (text(bytes(range(31))), "31 bytes"),
        (b"not base64!" * 5, "not base64"),
        (text(b"A" * 40), "coincide"),
        (text(bytes(range(8)) + bytes(byte ^ 1 for byte in range(8)) + bytes(range(50, 74))), "coincide"),
        (text(bytes(range(8)) + bytes(range(20, 28)) + bytes(range(8)) + bytes(16)), "coincide"),
    ],
)
def test_a_weak_key_is_refused_with_the_reason(content: bytes, words: str) -> None:
    with pytest.raises(WeakKey, match=words):
        ServerKey.from_text(content)


def test_a_made_key_is_usable_and_new_each_time() -> None:
    first, second = make_key_text(), make_key_text()
    assert first != second and len(ServerKey.from_text(first).raw) == 40


def test_a_key_does_not_show_itself() -> None:
    assert repr(ServerKey(bytes(range(40)))) == "ServerKey(******)"
