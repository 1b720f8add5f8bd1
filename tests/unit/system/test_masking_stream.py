"""What must not be seen is not seen, in whatever pieces it comes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from scalarizr.secret import MASK, without
from scalarizr.system.masking_stream import MaskingStream


def shown(texts: list[str], *pieces: bytes) -> bytes:
    stream = MaskingStream(texts)
    return b"".join(stream.feed(piece) for piece in pieces) + stream.end()


@given(
    st.lists(st.text("abn", min_size=4, max_size=8), min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", "n", "an", "ban", "x", "\n"]), max_size=60),
    st.data(),
)
def test_it_masks_the_same_in_pieces_as_at_once(texts: list[str], words: list[str], data: st.DataObject) -> None:
    whole = "".join(words)
    for text in data.draw(st.lists(st.sampled_from(texts), max_size=3)):
        place = data.draw(st.integers(0, len(whole)))
        whole = whole[:place] + text + whole[place:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    pieces = [whole[start:end].encode() for start, end in pairwise(edges)]
    found = shown(texts, *pieces)
    assert found == shown(texts, whole.encode())
    assert not any(text.encode() in found for text in texts)


def test_one_secret_is_masked_as_everywhere_else() -> None:
    text = "user=planted-secret; planted-secret\n"
    assert shown(["planted-secret"], text.encode()).decode() == without(text, ["planted-secret"])


def test_what_cannot_be_the_beginning_of_a_secret_is_not_held_back() -> None:
    stream = MaskingStream(["planted-secret"])
    assert stream.feed(b"hello ") == b"hello "
    assert stream.feed(b"pla") == b""
    assert stream.feed(b"in\n") == b"plain\n"


def test_the_longer_of_two_secrets_wins() -> None:
    assert shown(["abcd", "abcdefgh"], b"abcd", b"efgh.abcdx") == f"{MASK}.{MASK}x".encode()


def test_lines_of_a_secret_with_several_lines_are_masked_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nshort\n-----END KEY-----"
    found = shown([key], b"> AAAABBBBCCCC\n> short\n" + key.encode())
    assert b"AAAABBBB" not in found and b"> short" in found


def test_a_secret_that_is_cut_off_by_the_end_does_not_show_its_beginning() -> None:
    assert shown(["planted-secret"], b"it is planted-sec") == f"it is {MASK}".encode()
    assert shown(["planted-secret"], b"it is p") == b"it is p"


def test_the_longest_value_that_a_variable_can_have_is_masked_too() -> None:
    secret = "k" * 130_000
    assert shown([secret], b"j" * (4 << 20)) == b"j" * (4 << 20)
    found = shown([secret], *[b"k" * 65536] * 4)
    assert secret.encode() not in found and found.startswith(MASK.encode())
