"""Passwords: prepared and hashed as PostgreSQL's own client library does it."""

import base64
import unicodedata

import psycopg.pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scalarizr.errors import InvalidParameter
from scalarizr.postgresql.passwords import check_password, prepared, scram_verifier
from scalarizr.secret import Secret


def test_a_verifier_is_the_one_of_the_published_example() -> None:
    # RFC 7677, section 3: user "user", password "pencil". The salt is the RFC's; the keys follow from its exchange.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert scram_verifier(Secret("pencil"), salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_each_verifier_has_a_salt_of_its_own_and_holds_no_password() -> None:
    first, second = (scram_verifier(Secret("pencil-case")) for _ in range(2))
    assert first != second and "pencil" not in first
    assert scram_verifier(Secret("x"), iterations=10_000).startswith("SCRAM-SHA-256$10000:")


@pytest.mark.parametrize(
    ("typed", "hashed"),
    [
        ("plain ASCII, \x01 too", "plain ASCII, \x01 too"),
        ("I\u00adX", "IX"),  # RFC 4013, section 3: a soft hyphen goes
        ("\u00aa", "a"),  # … and NFKC makes an a of this
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),  # a no-break space is a space
        ("пароль", "пароль"),
        ("e\u0301", "\u00e9"),
        ("\u0627\u0628", "\u0627\u0628"),  # Arabic alone is fine
        ("\u0627\u0031", "\u0627\u0031"),  # right to left, ending otherwise: refused there, taken as it is
        ("\u00ad", "\u00ad"),  # nothing would be left of it
        ("ü\x07", "ü\x07"),  # a control character: refused there, taken as it is
    ],
)
def test_a_password_is_prepared_by_saslprep(typed: str, hashed: str) -> None:
    assert prepared(typed) == hashed


# Newer than Unicode 3.2 is unassigned to SASLprep, and so taken as it is by all.
known = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@given(st.text(known, min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
@example("\u0221")
@example("\U0001f600 ü")
@example("\u0627\u0031")
@example("\ufdfa")
def test_what_is_hashed_is_what_the_client_library_hashes(password: str) -> None:
    # libpq hashes a password for ALTER ROLE without asking a server when it is told the algorithm; the salt is its own.
    theirs = libpq_verifier(password)
    iterations, salt = theirs.split("$")[1].split(":")
    ours = scram_verifier(Secret(password), iterations=int(iterations), salt=base64.b64decode(salt))
    assert ours == theirs, unicodedata.normalize("NFKC", password)


def libpq_verifier(password: str) -> str:
    # PQencryptPasswordConn wants a connection, and for an algorithm that is named needs none that is open.
    connection = psycopg.pq.PGconn.connect_start(b"host=/nonexistent")
    try:
        return connection.encrypt_password(password.encode(), b"role", b"scram-sha-256").decode()
    finally:
        connection.finish()


@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 1025, "\ud800"])
def test_what_cannot_be_a_password_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_password(Secret(bad), "new_password")
    assert caught.value.facts["parameter"] == "new_password" and caught.value.facts["got"] is None
