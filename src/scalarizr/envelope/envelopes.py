"""The door: which envelope a request came in and with which key, whether it is genuine, fresh and new, and how its
answer is sealed."""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text, http_date_text, read_date
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.keyring import NOBODY, Keyring, Offer
from scalarizr.envelope.replay import ReplayStores, Seen

UNVERIFIED = "Signature doesn't match"


class RefusedMessage(Exception):
    """The request has no valid envelope. Its text may be told to the sender.

    :ivar verified: whether the signature held.
    :ivar key: the id of the key that it named, where there is such a key; for the log alone.
    :ivar problem: what else the log may say of it, and the sender may not know.
    :ivar reason: `signature`, `date`, `replay` or `malformed`.
    """

    def __init__(
        self,
        text: str = UNVERIFIED,
        *,
        verified: bool = False,
        key: str = NOBODY,
        problem: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason or ("malformed" if verified else "signature")
        self.verified = verified
        self.key = key
        self.problem = problem


class SealedAnswer(NamedTuple):
    """An answer ready to be sent: the body and the headers that belong to it."""

    body: bytes
    headers: tuple[tuple[str, str], ...]


class OpenedMessage(NamedTuple):
    """A request that is genuine, fresh and new.

    :param text: the JSON text.
    :param envelope: `founding` or `sealed`.
    :param key: the id of the key that it was made with.
    :param seal: seals the answer to it.
    """

    text: bytes
    envelope: str
    key: str
    seal: Callable[[bytes], SealedAnswer]


class Envelopes:
    """Opens requests and seals answers with the key that each was made with. Thread-safe.

    :param keys: those that are accepted; may be replaced at any time.
    :param accepted: the envelopes that are accepted.
    :param replay: what was accepted before; its `skew` is the window of dates.
    :param clock: the time of day, in seconds.
    """

    def __init__(
        self,
        keys: Keyring,
        accepted: Iterable[str],
        replay: ReplayStores,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self._accepted = frozenset(accepted)
        self._replay = replay
        self._clock = clock
        self._date = (0, "")
        self._date_read = (b"", 0)

    def open(self, body: bytes, headers: Mapping[bytes, bytes | None], path: str, address: str) -> OpenedMessage:
        """Open a request.

        :param body: as it came.
        :param headers: by lower-case name; None for a name that came more than once.
        :param path: as it was posted to.
        :param address: where it came from.
        :raises RefusedMessage: with the text for the sender.
        """
        if b"x-signature" in headers:
            return self._open_founding(body, headers, address)
        media_type = (headers.get(b"content-type") or b"").split(b";")[0].strip().lower()
        # Of a sealed message the key's id is part of what is authenticated; beside it a header could only mislead.
        if media_type == b"application/jose" and b"x-key-id" not in headers:
            return self._open_sealed(body, path, address)
        raise RefusedMessage

    def _open_founding(self, body: bytes, headers: Mapping[bytes, bytes | None], address: str) -> OpenedMessage:
        signature, date, identity = headers.get(b"x-signature"), headers.get(b"date"), headers.get(b"x-key-id")
        if "founding" not in self._accepted or signature is None or date is None:
            raise RefusedMessage
        if identity is None and b"x-key-id" in headers:
            raise RefusedMessage(problem="X-Key-Id came more than once")
        mac = founding.read_signature(signature)
        if mac is None:
            raise RefusedMessage
        now = self._clock()
        offer = self.keys.offer(None if identity is None else identity.decode("latin-1"), address, now)
        for key in offer.keys:
            if hmac.compare_digest(mac, founding.sign(key, body, date)):
                break
        else:
            raise _unverified(offer)
        if offer.problem is not None:
            raise _unverified(offer)
        try:
            second = self._read_date(date)
        except ValueError:
            raise RefusedMessage(
                'Date is neither like "Wed 20 Jun 2012 09:20:43 UTC" nor like "Wed, 20 Jun 2012 09:20:43 GMT"',
                verified=True,
                key=offer.identity,
            ) from None
        self._check_window(second, now, offer)
        try:
            text = founding.decrypt(key, body)
        except founding.Malformed as error:
            raise RefusedMessage(str(error), verified=True, key=offer.identity) from None
        self._accept(offer, mac, second, now)
        return OpenedMessage(text, "founding", offer.identity, lambda answer: self._seal_founding(key, answer))

    def _open_sealed(self, body: bytes, path: str, address: str) -> OpenedMessage:
        if "sealed" not in self._accepted:
            raise RefusedMessage
        try:
            token = sealed.read_token(body)
            named = token.key_id
        except sealed.Unopened:
            raise RefusedMessage from None
        now = self._clock()
        offer = self.keys.offer(named, address, now)
        key, text = _opened(token, offer)
        if key is None or offer.problem is not None:
            raise _unverified(offer)
        header = token.header
        question: Any = header.get("jti")
        identity = sealed.read_id(question)
        if identity is None:
            raise RefusedMessage("jti is not the base64url of 16 random bytes", verified=True, key=offer.identity)
        if header.get("aud") != path:
            raise RefusedMessage("aud is not the path that was posted to", verified=True, key=offer.identity)
        second = header.get("iat")
        if type(second) is not int or not 0 <= second < 1 << 40:
            raise RefusedMessage("iat is not a whole number of seconds", verified=True, key=offer.identity)
        self._check_window(second, now, offer)
        self._accept(offer, identity, second, now)
        return OpenedMessage(text, "sealed", offer.identity, lambda answer: self._seal_sealed(key, answer, question))

    def _read_date(self, date: bytes) -> int:
        # Most messages of a second carry the same text.
        if self._date_read[0] != date:
            self._date_read = (date, read_date(date.decode("latin-1")))
        return self._date_read[1]

    def _check_window(self, second: int, now: float, offer: Offer) -> None:
        off = second - now
        if abs(off) > self._replay.skew:
            direction = "ahead of" if off > 0 else "behind"
            raise RefusedMessage(
                f"Date is {abs(off):.0f} s {direction} this server's clock; "
                f"at most {self._replay.skew:g} s are accepted",
                verified=True,
                key=offer.identity,
                reason="date",
            )

    def _accept(self, offer: Offer, identity: bytes, second: int, now: float) -> None:
        try:
            self._replay.accept(offer.identity, identity, second, now)
        except Seen as error:
            raise RefusedMessage(str(error), verified=True, key=offer.identity, reason="replay") from None

    def _now(self) -> tuple[int, str]:
        second = int(self._clock())
        if self._date[0] != second:
            self._date = (second, date_text(second))
        return self._date

    def _seal_founding(self, key: ServerKey, answer: bytes) -> SealedAnswer:
        _, date = self._now()
        body, signature = founding.seal(key, answer, date)
        return SealedAnswer(body, (("Content-Type", "application/json"), ("Date", date), ("X-Signature", signature)))

    def _seal_sealed(self, key: ServerKey, answer: bytes, question: str) -> SealedAnswer:
        second, _ = self._now()
        header: dict[str, Any] = {"irt": question, "iat": second, "jti": sealed.new_id()}
        body = sealed.seal(key, answer, header)
        return SealedAnswer(body, (("Content-Type", "application/jose"), ("Date", http_date_text(second))))


def _opened(token: sealed.Token, offer: Offer) -> tuple[ServerKey | None, bytes]:
    for key in offer.keys:
        try:
            return key, sealed.decrypt(key, token)
        except sealed.Unopened:
            continue
    return None, b""


def _unverified(offer: Offer) -> RefusedMessage:
    return RefusedMessage(key=offer.identity, problem=offer.problem)
