"""What an upload that is begun anew gives once more, and what it does not hold."""

from scalarizr.objectstore.upload import Replayed


def test_what_was_taken_is_given_once_more_and_then_what_comes() -> None:
    replayed = Replayed(iter([b"a", b"b", b"c"]), 10)
    first = replayed.chunks()
    assert [next(first), next(first)] == [b"a", b"b"]
    assert list(replayed.chunks()) == [b"a", b"b", b"c"] and replayed.whole
    assert list(replayed.chunks()) == [b"a", b"b", b"c"]


def test_beyond_its_bound_nothing_is_held() -> None:
    replayed = Replayed(iter([b"a" * 6, b"b" * 6]), 10)
    assert list(replayed.chunks()) == [b"a" * 6, b"b" * 6]
    assert not replayed.whole and list(replayed.chunks()) == []
