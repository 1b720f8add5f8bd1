"""Secrets: made at random."""

from scalarizr.secret import PASSWORD_LENGTH, new_password


def test_a_made_password_is_long_and_never_the_same() -> None:
    made = {new_password().reveal() for _ in range(1000)}
    assert len(made) == 1000 and {len(one) for one in made} == {PASSWORD_LENGTH} == {20}
    assert all(one.isalnum() and one.isascii() for one in made)
