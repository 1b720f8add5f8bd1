"""The door: which envelope a request came in, whether it is genuine, fresh and new, and how its answer is sealed."""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text, http_date_text, read_date
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.replay import ReplayStore, Seen

UNVERIFIED = "Signature doesn't match"


class RefusedMessage(Exception):
    """The request has no valid envelope. Its text may be told to the sender.

    :ivar verified: whether the signature held.
    """

    def __init__(self, text: str = UNVERIFIED, *, verified: bool = False) -> None:
        super().__init__(text)
        self.verified = verified


class SealedAnswer(NamedTuple):
    """An answer ready to be sent: the body and the headers that belong to it."""

    body: bytes
    headers: tuple[tuple[str, str], ...]


class OpenedMessage(NamedTuple):
    """A request that is genuine, fresh and new.

    :param text: the JSON text.
    :param envelope: `founding` or `sealed`.
    :param seal: seals the answer to it.
    """

    text: bytes
    envelope: str
    seal: Callable[[bytes], SealedAnswer]


class Envelopes:
    """Opens requests and seals answers with the server's key. Thread-safe.

    :param key: the server's key.
    :param accepted: the envelopes that are accepted.
    :param replay: what was accepted before; its `skew` is the window of dates.
    :param clock: the time of day, in seconds.
    """

    def __init__(
        self,
        key: ServerKey,
        accepted: Iterable[str],
        replay: ReplayStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._accepted = frozenset(accepted)
        self._replay = replay
        self._clock = clock
        self._date = (0, "")
        self._date_read = (b"", 0)

    def open(self, body: bytes, headers: Mapping[bytes, bytes | None], path: str) -> OpenedMessage:
        """Open a request.

        :param body: as it came.
        :param headers: by lower-case name; None for a name that came more than once.
        :param path: as it was posted to.
        :raises RefusedMessage: with the text for the sender.
        """
        if b"x-signature" in headers:
            return self._open_founding(body, headers.get(b"x-signature"), headers.get(b"date"))
        media_type = (headers.get(b"content-type") or b"").split(b";")[0].strip().lower()
        if media_type == b"application/jose":
            return self._open_sealed(body, path)
        raise RefusedMessage

    def _open_founding(self, body: bytes, signature: bytes | None, date: bytes | None) -> OpenedMessage:
        if "founding" not in self._accepted or signature is None or date is None:
            raise RefusedMessage
        mac = founding.read_signature(signature)
        if mac is None or not hmac.compare_digest(mac, founding.sign(self._key, body, date)):
            raise RefusedMessage
        try:
            second = self._read_date(date)
        except ValueError:
            raise RefusedMessage(
                'Date is neither like "Wed 20 Jun 2012 09:20:43 UTC" nor like "Wed, 20 Jun 2012 09:20:43 GMT"',
                verified=True,
            ) from None
        now = self._check_window(second)
        try:
            text = founding.decrypt(self._key, body)
        except founding.Malformed as error:
            raise RefusedMessage(str(error), verified=True) from None
        self._accept(mac, second, now)
        return OpenedMessage(text, "founding", self._seal_founding)

    def _open_sealed(self, body: bytes, path: str) -> OpenedMessage:
        if "sealed" not in self._accepted:
            raise RefusedMessage
        try:
            header, text = sealed.open_token(self._key, body)
        except sealed.Unopened:
            raise RefusedMessage from None
        identity = sealed.read_id(header.get("jti"))
        if identity is None:
            raise RefusedMessage("jti is not the base64url of 16 random bytes", verified=True)
        if header.get("aud") != path:
            raise RefusedMessage("aud is not the path that was posted to", verified=True)
        second = header.get("iat")
        if type(second) is not int or not 0 <= second < 1 << 40:
            raise RefusedMessage("iat is not a whole number of seconds", verified=True)
        now = self._check_window(second)
        self._accept(identity, second, now)
        question = header["jti"]
        return OpenedMessage(text, "sealed", lambda answer: self._seal_sealed(answer, question))

    def _read_date(self, date: bytes) -> int:
        # Most messages of a second carry the same text.
        if self._date_read[0] != date:
            self._date_read = (date, read_date(date.decode("latin-1")))
        return self._date_read[1]

    def _check_window(self, second: int) -> float:
        now = self._clock()
        off = second - now
        if abs(off) > self._replay.skew:
            direction = "ahead of" if off > 0 else "behind"
            raise RefusedMessage(
                f"Date is {abs(off):.0f} s {direction} this server's clock; "
                f"at most {self._replay.skew:g} s are accepted",
                verified=True,
            )
        return now

    def _accept(self, identity: bytes, second: int, now: float) -> None:
        try:
            self._replay.accept(identity, second, now)
        except Seen as error:
            raise RefusedMessage(str(error), verified=True) from None

    def _now(self) -> tuple[int, str]:
        second = int(self._clock())
        if self._date[0] != second:
            self._date = (second, date_text(second))
        return self._date

    def _seal_founding(self, answer: bytes) -> SealedAnswer:
        _, date = self._now()
        body, signature = founding.seal(self._key, answer, date)
        return SealedAnswer(body, (("Content-Type", "application/json"), ("Date", date), ("X-Signature", signature)))

    def _seal_sealed(self, answer: bytes, question: str) -> SealedAnswer:
        second, _ = self._now()
        header: dict[str, Any] = {"irt": question, "iat": second, "jti": sealed.new_id()}
        body = sealed.seal(self._key, answer, header)
        return SealedAnswer(body, (("Content-Type", "application/jose"), ("Date", http_date_text(second))))
