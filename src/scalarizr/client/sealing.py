"""The client's half of both envelopes: seal a question, believe only the answer to it."""

import time
from typing import NamedTuple, Protocol

from scalarizr.client.errors import AuthenticationFailed
from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text, read_date
from scalarizr.envelope.key import ServerKey
from scalarizr.settings.key_id import EXPECTED, is_key_id

CLOCK_SKEW = 300


class Question(NamedTuple):
    """A sealed request.

    :ivar body: its body.
    :ivar headers: the headers that belong to the envelope.
    :ivar identity: what the answer has to refer to; empty where the envelope binds nothing.
    """

    body: bytes
    headers: dict[str, str]
    identity: str


class Sealer(Protocol):
    """One envelope, seen from the client."""

    def seal(self, path: str, text: bytes) -> Question:
        """Seal a request to `path`."""

    def open(self, question: Question, headers: dict[str, str], body: bytes) -> bytes:
        """Open its answer.

        :raises AuthenticationFailed: it is not genuine, not fresh, or the answer to something else.
        """


class SealedSealer:
    """The sealed envelope: the answer names its question.

    :param key: the server's key.
    :param key_id: the id that the server knows it by; None for the one that needs none.
    """

    def __init__(self, key: ServerKey, key_id: str | None = None) -> None:
        self._key = key
        self._named = {} if key_id is None else {"kid": key_id}

    def seal(self, path: str, text: bytes) -> Question:
        identity = sealed.new_id()
        header = {"aud": path, "iat": int(time.time()), "jti": identity, **self._named}
        return Question(sealed.seal(self._key, text, header), {"Content-Type": "application/jose"}, identity)

    def open(self, question: Question, headers: dict[str, str], body: bytes) -> bytes:
        del headers  # the envelope's own header carries all that counts
        try:
            header, text = sealed.open_token(self._key, body)
        except sealed.Unopened:
            raise AuthenticationFailed("The answer was not sealed with this key.") from None
        if header.get("irt") != question.identity:
            raise AuthenticationFailed("The answer belongs to another question.")
        _check_fresh(header.get("iat"))
        return text


class FoundingSealer:
    """The founding envelope, for agents that accept nothing better. It does not bind an answer to its question: the
    random id of the call has to.

    :param key: the server's key.
    :param key_id: the id that the server knows it by; None for the one that needs none.
    """

    def __init__(self, key: ServerKey, key_id: str | None = None) -> None:
        self._key = key
        self._named = {} if key_id is None else {"X-Key-Id": key_id}

    def seal(self, path: str, text: bytes) -> Question:
        del path  # not covered by this envelope
        date = date_text(int(time.time()))
        body, signature = founding.seal(self._key, text, date)
        return Question(body, {"Date": date, "X-Signature": signature, **self._named}, "")

    def open(self, question: Question, headers: dict[str, str], body: bytes) -> bytes:
        del question
        try:
            date = headers["date"]
            text = founding.open_body(self._key, body, date, headers["x-signature"])
            _check_fresh(read_date(date))
        except (KeyError, ValueError, PermissionError):
            raise AuthenticationFailed("The answer was not signed with this key.") from None
        return text.rstrip(bytes(range(32)))


def make_sealer(key: ServerKey, envelope: str, key_id: str | None = None) -> Sealer:
    """Choose an envelope.

    :param envelope: `sealed` or `founding`; there is no falling back from one to the other.
    :param key_id: the id that the server knows the key by; None for the one that needs none.
    :raises ValueError: it is neither, or the id is none.
    """
    if key_id is not None and not is_key_id(key_id):
        raise ValueError(f"{key_id[:80]!r} is no id of a key: {EXPECTED}")
    if envelope == "sealed":
        return SealedSealer(key, key_id)
    if envelope == "founding":
        return FoundingSealer(key, key_id)
    raise ValueError(f'envelope is "sealed" or "founding", not {envelope!r}')


def _check_fresh(second: object) -> None:
    if not isinstance(second, int) or abs(second - time.time()) > CLOCK_SKEW:
        raise AuthenticationFailed(
            f"The answer's date is more than {CLOCK_SKEW} s off this machine's clock: check both clocks."
        )
