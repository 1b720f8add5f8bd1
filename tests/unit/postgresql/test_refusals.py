"""The words of others in an error: ended as a sentence, without passwords."""

import pytest

from scalarizr.postgresql.refusals import sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("could not connect", "could not connect."),
        ("is it running?", "is it running?"),
        ("bad host=db password=hunter2 user=x", "bad host=db password=****** user=x."),
        ("bad password = 'it''s \\' secret' port=1", "bad password = ****** port=1."),
        ("near postgresql://user:hunter2@db/x", "near postgresql://user:******@db/x."),
        ('password authentication failed for user "x"', 'password authentication failed for user "x".'),
        ("", ""),
    ],
)
def test_words_of_others_are_told_without_passwords(words: str, told: str) -> None:
    assert sentence(words) == told
