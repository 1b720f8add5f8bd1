"""One connection: bytes to requests and answers to bytes, within the limits; nothing of what they mean.

Requests of one connection are answered one after another. A client that stalls costs this object and its socket, no
thread and nobody else's time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from scalarizr.server.limits import Limits
from scalarizr.server.message import Answer, Request, plain_answer

HEAD_LIMIT = 16 * 1024
_WRITE_TIMEOUT = 30.0
# After a refusal the rest of what the client still sends is read and dropped for a while: closing at once would reset
# the connection and could take the answer with it (RFC 9112, section 9.6).
_LINGER = 2.0
_NEVER = float("inf")

Handler = Callable[[Request], Answer | Awaitable[Answer]]


class Connection(asyncio.BufferedProtocol):
    """The server's side of one connection.

    :param limits: shared with all connections.
    :param handle: gives the answer to a request, at once or as an awaitable.
    """

    def __init__(self, limits: Limits, handle: Handler) -> None:
        self._limits = limits
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool, int]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._deaf = False
        self._lingering = False
        self._last_turn = False
        self._write_paused = False
        self._read_paused = False
        self._message = 0
        self.address = ""
        self.certificate = ""  # the subject of the client's certificate, where TLS asked for one
        self.authenticated = False
        self.deadline = _NEVER
        self._in_head = self._at_start = True
        self._head_seen = self._head_counted = self._held = 0
        self._target = b""
        self._headers: dict[bytes, bytes | None] = {}
        self._body: list[bytes] = []

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "unix"
        victim = self._limits.admit(self)
        if victim is not None:
            victim.abort()
        self.deadline = self._loop.time() + self._limits.settings.head_timeout

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._limits.leave(self)
        self._drop_body()
        for _, _, held in self._waiting:
            self._limits.give_back_memory(held)
        self._waiting.clear()
        self._transport = None
        self._closing = True

    def pause_writing(self) -> None:
        self._write_paused = True
        self.deadline = self._loop.time() + _WRITE_TIMEOUT

    def resume_writing(self) -> None:
        self._write_paused = False
        if not self._closing:
            self._set_idle_deadline()
            self._next()

    def eof_received(self) -> bool:
        # Half-closed clients still get the answer to what they sent whole.
        if self._lingering or (self._task is None and not self._waiting):
            return False
        self._take_no_more()
        return True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's signature
        return self._limits.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # The parser copies what it hands on, so that the buffer is free again when this returns.
        if not self._closing and not self._deaf:
            self._take(self._limits.buffer[:nbytes])

    def _take(self, data: memoryview) -> None:
        if self._at_start:
            self._at_start = False
            self.deadline = self._loop.time() + self._limits.settings.head_timeout
        in_head, message = self._in_head, self._message
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # A client that wants another protocol goes on in it where the body should be: no such request is served.
            if self._waiting:
                self._limits.give_back_memory(self._waiting.pop()[2])
            self._refuse(plain_answer(400, "Signature doesn't match"))
            return
        except _RefusedRequest as refusal:
            self._refuse(refusal.answer)
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause.answer if isinstance(cause, _RefusedRequest) else plain_answer(400, "Signature doesn't match")
            )
            return
        if in_head and self._in_head and message == self._message:
            self._head_seen += len(data)
            if self._head_seen > HEAD_LIMIT:
                self._refuse(plain_answer(431, "Headers of more than 16 KiB"))
                return
        self._next()

    # From the parser

    def on_message_begin(self) -> None:
        self._begin_head()
        self._at_start = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        name = name.lower()
        self._headers[name] = None if name in self._headers else value

    def on_headers_complete(self) -> None:
        self._in_head = False
        length = self._headers.get(b"content-length", b"0")
        if b"transfer-encoding" in self._headers and (
            b"content-length" in self._headers
            or (self._headers[b"transfer-encoding"] or b"").strip().lower() != b"chunked"
            or self._parser.get_http_version() == "1.0"
        ):
            raise _RefusedRequest(plain_answer(400, "Signature doesn't match"))
        if length is None or not length.isdigit():
            raise _RefusedRequest(plain_answer(400, "Signature doesn't match"))
        if len(length) > 18 or int(length) > self._limits.settings.max_body:
            raise _RefusedRequest(self._too_large())
        self.deadline = self._loop.time() + self._limits.settings.body_timeout
        expectation = self._headers.get(b"expect")
        if expectation is not None and self._parser.get_http_version() != "1.0":
            if expectation.strip().lower() != b"100-continue":
                raise _RefusedRequest(plain_answer(417, "Only 100-continue is known"))
            if self._transport is not None and self._task is None and not self._waiting:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        size = len(body)
        if self._held + size > self._limits.settings.max_body:
            raise _RefusedRequest(self._too_large())
        if not self._limits.take_memory(size):
            raise _RefusedRequest(plain_answer(503, "Busy", ("Retry-After", "1")))
        self._held += size
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode("ascii"),
            self._target.decode("latin-1"),
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self.address,
            self.certificate,
        )
        self._waiting.append((request, self._parser.should_keep_alive(), self._held))
        self._held = 0
        self._message += 1
        self._begin_head()

    # What follows

    def _begin_head(self) -> None:
        self._in_head = True
        self._at_start = True
        self._head_seen = 0
        self._head_counted = 0
        self._target = b""
        self._headers = {}
        self._body = []
        self._held = 0

    def _count_head(self, size: int) -> None:
        self._head_counted += size
        if self._head_counted > HEAD_LIMIT or not self._in_head:
            # Trailers of a chunked body count, too: they arrive after the head and mean nothing here.
            raise _RefusedRequest(plain_answer(431, "Headers of more than 16 KiB"))

    def _too_large(self) -> Answer:
        return plain_answer(413, f"A body may have {self._limits.settings.max_body} bytes at most")

    def _next(self) -> None:
        """Answer what waits, as far as it can be answered without waiting."""
        while self._waiting and self._task is None and not self._write_paused and self._transport is not None:
            request, keep_alive, held = self._waiting.popleft()
            self.deadline = _NEVER
            outcome = self._handle(request)
            if isinstance(outcome, Answer):
                self._send(request, outcome, keep_alive, held)
            else:
                self._task = self._loop.create_task(self._later(request, outcome, keep_alive, held))
        self._pace_reading()

    async def _later(self, request: Request, outcome: Awaitable[Answer], keep_alive: bool, held: int) -> None:
        answer = await outcome
        self._task = None
        self._send(request, answer, keep_alive, held)
        self._next()

    def _send(self, request: Request, answer: Answer, keep_alive: bool, held: int) -> None:
        self._limits.give_back_memory(held)
        if self._transport is None:
            return
        if answer.authenticated:
            self.authenticated = True
        close = self._closing or not keep_alive or (self._last_turn and not self._waiting)
        self._transport.write(
            answer.to_bytes(
                close=close,
                announce_kept=b"keep-alive" in (request.headers.get(b"connection") or b"").lower(),
                head_only=request.method == "HEAD",
            )
        )
        if close:
            self._closing = True
            self.deadline = self._loop.time() + _WRITE_TIMEOUT
            self._transport.close()
        elif not self._write_paused:
            self._set_idle_deadline()

    def _set_idle_deadline(self) -> None:
        limit = self._limits.settings.idle_timeout
        if not self._in_head:
            limit = self._limits.settings.body_timeout
        elif not self._at_start or self._head_seen:
            limit = self._limits.settings.head_timeout
        self.deadline = self._loop.time() + limit

    def _pace_reading(self) -> None:
        if self._transport is None or self._closing:
            return
        pause = bool(self._waiting)
        if pause and not self._read_paused:
            self._transport.pause_reading()
        elif self._read_paused and not pause:
            self._transport.resume_reading()
        self._read_paused = pause

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be read as a request, and end the connection."""
        self._drop_body()
        if self._transport is not None and (self._task is not None or self._waiting):
            # Earlier requests on this connection get their answers first; what follows them is garbage.
            self._take_no_more()
            self._next()
            return
        if self._transport is not None:
            self._transport.write(answer.to_bytes(close=True))
        self.linger()

    def linger(self) -> None:
        """Write and take nothing more, and end the connection when the client has had time to read what was written."""
        self._closing = True
        if self._transport is None:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._lingering = True
        self.deadline = self._loop.time() + _LINGER

    def _take_no_more(self) -> None:
        """End the connection with the answer to the last request that came whole."""
        self._deaf = True
        if self._waiting:
            request, _, held = self._waiting.pop()
            self._waiting.append((request, False, held))
        else:
            self._closing = True

    def _drop_body(self) -> None:
        self._limits.give_back_memory(self._held)
        self._held = 0
        self._body = []

    # From the server

    @property
    def busy(self) -> bool:
        """Whether a request of this connection is being answered."""
        return self._task is not None or bool(self._waiting)

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline <= self._loop.time()

    def give_last_turn(self, patience: float) -> None:
        """End the connection with the answer to its next request.

        :param patience: seconds within which that has to begin, where it is not the first one.
        """
        self._last_turn = True
        if self._message and not self.busy and self._at_start and not self._head_seen:
            self.deadline = min(self.deadline, self._loop.time() + patience)

    def expire(self) -> None:
        """End the connection, whose deadline has passed."""
        if self._closing or self._write_paused:
            self.abort()
        elif self._at_start and not self._head_seen and self._transport is not None:
            self._closing = True
            self._transport.close()
        else:
            self._refuse(plain_answer(408, "The request took too long to arrive"))

    def finish(self) -> None:
        """End the connection once what it asked for is answered."""
        if not self.busy and self._transport is not None and not self._closing:
            self._transport.close()
        self._closing = True

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()


class _RefusedRequest(Exception):
    """Raised inside a parser callback: this request gets that answer, and the connection ends."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer
