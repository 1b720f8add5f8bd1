"""A request as the endpoint sees it, and an answer as it goes onto the wire."""

from typing import NamedTuple

import msgspec

_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_FIRST_LINES = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()}


class Request(NamedTuple):
    """One HTTP request, read whole.

    :ivar method: the verb.
    :ivar target: the request target as sent.
    :ivar headers: by lower-case name; None for a name that came more than once.
    :ivar body: the body, chunks put together.
    :ivar address: the client's address.
    :ivar certificate: the subject of the client's certificate; empty without one.
    """

    method: str
    target: str
    headers: dict[bytes, bytes | None]
    body: bytes
    address: str
    certificate: str = ""


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer.

    :param status: its status code.
    :param headers: name and value of each, without those of the framing.
    :param body: its bytes.
    :param authenticated: whether the request carried a valid signature.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    authenticated: bool = False

    def to_bytes(self, *, close: bool, announce_kept: bool = False, head_only: bool = False) -> bytes:
        """Write it for the wire.

        :param close: whether the connection ends with it.
        :param announce_kept: an HTTP/1.0 client that asked for a kept connection wants to be told.
        :param head_only: for HEAD.
        """
        text = _FIRST_LINES[self.status]
        for name, value in self.headers:
            text += f"{name}: {value}\r\n"
        if self.status != 204:
            text += f"Content-Length: {len(self.body)}\r\n"
        if close:
            text += "Connection: close\r\n"
        elif announce_kept:
            text += "Connection: keep-alive\r\n"
        head = (text + "\r\n").encode("latin-1")
        return head if head_only else head + self.body


def plain_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Make an unsealed answer of one short line."""
    return Answer(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), text.encode() + b"\n")
