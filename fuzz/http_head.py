"""The HTTP side of a connection: however the bytes are cut, the same requests come out of them, and nothing leaks."""

import asyncio
import atexit
from typing import Any, cast

import httptools

from scalarizr.server.connection import HEAD_LIMIT, Connection
from scalarizr.server.limits import Limits
from scalarizr.server.message import Answer, Request, plain_answer
from scalarizr.settings.model import Api
from scalarizr.settings.quantities import Size

LONGEST = 3072
WORDS = (
    b"POST ",
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: x\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"1;a=b\r\n",
    b"\r\n ",
    b"\n",
    b"\0",
    b"\xff",
    b"18446744073709551616",
)
_MOST = 512
_SETTINGS = Api(max_body=Size(_MOST), bodies_in_memory=Size(2 * _MOST), connections=4)
_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)


class _Wire:
    """What the connection writes to: keeps it, as the event loop's transport would send it."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.ended = False

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 40000) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.ended, "an answer behind the end"
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        """Nothing waits here: every answer is given at once."""

    def resume_reading(self) -> None:
        """As above."""


class _Statuses:
    """Reads the answers, to see that they are such."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self.whole = 0
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.found.append(self.parser.get_status_code())

    def on_message_complete(self) -> None:
        self.whole += 1


def check(data: bytes) -> None:
    """The first three bytes say where the rest is cut."""
    cuts, sent = data[:3], data[3:]
    places = sorted({cut * len(sent) // 256 for cut in cuts})
    pieces = [sent[start:end] for start, end in zip([0, *places], [*places, len(sent)], strict=True)]
    asyncio._set_running_loop(_LOOP)
    try:
        whole, ended = _through([sent])
        cut, cut_ended = _through(pieces)
    finally:
        asyncio._set_running_loop(None)
    # What is refused may be refused a little earlier or later; what was taken is the same.
    assert whole == cut or ((ended or cut_ended) and _begins_alike(whole, cut)), (whole, cut)


def _begins_alike(one: list[Request], other: list[Request]) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _through(pieces: list[bytes]) -> tuple[list[Request], bool]:
    taken: list[Request] = []

    def handle(request: Request) -> Answer:
        taken.append(request)
        return plain_answer(200, "ok")

    limits = Limits(_SETTINGS)
    connection = Connection(limits, handle)
    wire = _Wire()
    connection.connection_made(cast(asyncio.Transport, wire))
    for piece in pieces:
        if wire.ended:
            break
        for start in range(0, len(piece), len(limits.buffer)):
            part = piece[start : start + len(limits.buffer)]
            connection.get_buffer(-1)[: len(part)] = part
            connection.buffer_updated(len(part))
    ended = wire.ended
    if not ended:
        connection.eof_received()
        connection.expire()
    connection.connection_lost(None)
    assert not limits.connections and not limits._of_address and limits._body_bytes == 0, "something is still counted"
    for request in taken:
        _check_request(request)
    _check_answers(bytes(wire.sent), taken)
    return taken, ended


def _check_request(request: Request) -> None:
    assert request.method.isascii() and request.method.isalpha() | ("-" in request.method), request.method
    assert len(request.body) <= _MOST
    head = len(request.target) + sum(len(name) + len(value or b"") for name, value in request.headers.items())
    assert head <= HEAD_LIMIT
    for name, value in request.headers.items():
        assert name == name.lower() and b"\n" not in name
        assert value is None or (b"\n" not in value and b"\0" not in value), (name, value)
    length = request.headers.get(b"content-length")
    coding = request.headers.get(b"transfer-encoding")
    assert b"content-length" not in request.headers or length is not None, "two lengths were believed"
    assert not (b"content-length" in request.headers and b"transfer-encoding" in request.headers), "two framings"
    if length is not None:
        assert length.isdigit() and len(request.body) == int(length)
    elif coding is None:
        assert request.body == b""
    assert not any(mark in request.target for mark in " \r\n\0")


def _check_answers(sent: bytes, taken: list[Request]) -> None:
    rest = sent
    found: list[int] = []
    for request in taken:
        rest = _skip_informational(rest)
        head, blank, rest = rest.partition(b"\r\n\r\n")
        assert blank and head.startswith(b"HTTP/1.1 200 OK\r\n"), head
        found.append(200)
        if request.method != "HEAD":
            assert rest.startswith(b"ok\n"), rest
            rest = rest[3:]
    rest = _skip_informational(rest)
    if rest:
        reader = _Statuses()
        reader.parser.feed_data(rest)
        assert reader.whole == 1 and reader.found[0] in (400, 408, 413, 417, 431, 503), (reader.found, rest)


def _skip_informational(sent: bytes) -> bytes:
    while sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        sent = sent[len(b"HTTP/1.1 100 Continue\r\n\r\n") :]
    return sent


def seeds() -> dict[str, bytes]:
    """Make the requests of real clients, and such as try to smuggle."""
    body = b"dGVzdA=="
    post = b"POST /system HTTP/1.1\r\nHost: x\r\n"
    made = {
        "founding": post
        + b"X-Signature: AAAA\r\nDate: Wed 20 Jun 2012 09:20:43 UTC\r\nContent-Length: 8\r\n\r\n"
        + body,
        "sealed": post + b"Content-Type: application/jose\r\nContent-Length: 8\r\n\r\n" + body,
        "chunked": post + b"Transfer-Encoding: chunked\r\n\r\n4\r\ndGVz\r\n4;x=y\r\ndA==\r\n0\r\n\r\n",
        "trailers": post + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
        "expect": post + b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n" + body,
        "old": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
        "health": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "pipelined": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        "head": b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "two-lengths": post + b"Content-Length: 1\r\nContent-Length: 8\r\n\r\n" + body,
        "two-framings": post
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "coding": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "upgrade": post + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 8\r\n\r\n" + body,
        "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "absolute": b"GET http://a/healthz?x HTTP/1.1\r\nHost: a\r\n\r\n",
        "folded": post + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "bare-newlines": b"GET / HTTP/1.1\nHost: x\n\n",
        "large": post + b"Content-Length: 513\r\n\r\n",
        "long-name": post + b"A" * 2000 + b": b\r\n\r\n",
        "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": bytes.fromhex("16030100c8010000c40303"),
    }
    return {name: bytes((64, 128, 192)) + text for name, text in made.items()}
