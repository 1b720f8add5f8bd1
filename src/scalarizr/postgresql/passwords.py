"""Passwords that a server never sees: what it stores of one (SCRAM-SHA-256, RFC 5802 and 7677) is computed here."""

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

from scalarizr.errors import InvalidParameter
from scalarizr.secret import Secret

LONGEST = 1024
ITERATIONS = 4096  # PostgreSQL's own number, which 16 and newer let an administrator raise (scram_iterations)
_SALT = 16
# RFC 4013, section 2.3: what a prepared password may not hold.
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def check_password(password: Secret, parameter: str) -> Secret:
    """Refuse what no client could log in with.

    :param parameter: its name, for the error.
    :raises InvalidParameter: it is empty, too long, or no text.
    """
    text = password.reveal()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidParameter(parameter, None, "a text: it holds half of a surrogate pair") from None
    if not text or len(text) > LONGEST or "\0" in text:
        raise InvalidParameter(parameter, None, f"1 to {LONGEST} characters, none of them NUL")
    return password


def scram_verifier(password: Secret, *, iterations: int = ITERATIONS, salt: bytes | None = None) -> str:
    """Compute what PostgreSQL stores of a password: it proves a login, and cannot be used for one.

    :param password: the password.
    :param iterations: of PBKDF2.
    :param salt: random bytes; new ones when None.
    :return: `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` (PostgreSQL, pg_authid).
    """
    salt = secrets.token_bytes(_SALT) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password.reveal()).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def prepared(password: str) -> str:
    """Prepare a password as PostgreSQL's clients do (RFC 4013, SASLprep), so that both ends compute the same.

    What SASLprep would refuse they take as it is, and so does this; ASCII is left alone, control characters too.
    """
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    result = unicodedata.normalize("NFKC", mapped)
    if not result or any(refuses(char) for char in result for refuses in _PROHIBITED) or not _one_direction(result):
        return password
    return result


def _one_direction(text: str) -> bool:
    """Tell whether right-to-left characters stand as RFC 3454, section 6 wants them."""
    if not any(stringprep.in_table_d1(char) for char in text):
        return True
    mixed = any(stringprep.in_table_d2(char) for char in text)
    return not mixed and stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
