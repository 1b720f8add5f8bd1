"""TLS between a socket and a connection: what comes is decrypted before the connection sees it, what goes is encrypted.

The connection exists from the first moment, so a client that stalls in its handshake is one among the strangers: it has
the time of a request's head, and makes room for others like anybody. asyncio's own TLS lets a protocol know of a client
only after the handshake, and takes 256 KiB of memory for each.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from scalarizr.server.connection import Connection
from scalarizr.server.message import plain_answer
from scalarizr.server.tls_files import subject_of
from scalarizr.server.tls_refusals import PLAIN_HTTP, TIMED_OUT, UNFINISHED, HandshakeRefusal, refusal_of


class TlsConnection(asyncio.Transport, asyncio.BufferedProtocol):
    """A protocol towards the socket's transport, a transport towards the connection.

    :param connection: speaks HTTP.
    :param context: gives what connections are accepted with now; asked when a client begins its handshake.
    :param on_refusal: hears of a handshake that failed: the client's address, and why.
    """

    def __init__(
        self,
        connection: Connection,
        context: Callable[[], ssl.SSLContext],
        on_refusal: Callable[[str, HandshakeRefusal], None],
    ) -> None:
        super().__init__()
        self._connection = connection
        self._context = context
        self._on_refusal = on_refusal
        self._socket: asyncio.Transport | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._shaken = False
        self._deaf = False
        self._ended = False

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._connection.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tls is not None and not self._shaken and not self._deaf:
            self._tell(UNFINISHED)
        self._deaf = True
        self._socket = None
        self._connection.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._deaf or self._ended:
            return
        # Copied here, so that the same buffer takes what it decrypts to.
        self._incoming.write(self._connection.get_buffer(-1)[:nbytes])
        if self._tls is None:
            self._tls = self._context().wrap_bio(self._incoming, self._outgoing, server_side=True)
        if self._shaken or self._shake_hands(self._tls):
            self._hand_on()

    def eof_received(self) -> bool:
        return self._shaken and self._end_of_input()

    def pause_writing(self) -> None:
        if self._shaken:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._shaken:
            self._connection.resume_writing()

    def _shake_hands(self, tls: ssl.SSLObject) -> bool:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._refuse(refusal_of(error))
            return False
        self._flush()
        self._shaken = True
        self._connection.certificate = subject_of(tls.getpeercert() or {})
        return True

    def _refuse(self, refusal: HandshakeRefusal) -> None:
        self._tell(refusal)
        self._deaf = True
        if refusal.reason == PLAIN_HTTP and self._socket is not None:
            self._socket.write(plain_answer(400, "This port speaks TLS: use https").to_bytes(close=True))
        else:
            self._flush()  # the alert that tells the client
        self._connection.linger()

    def _tell(self, refusal: HandshakeRefusal) -> None:
        self._on_refusal(self._connection.address, refusal)

    def _hand_on(self) -> None:
        """Decrypt what has come; like what comes without TLS, the connection takes all that was read at once."""
        buffer = self._connection.get_buffer(-1)
        while self._tls is not None and not (self._deaf or self._ended):
            try:
                size = cast(int, self._tls.read(len(buffer), buffer))  # a count, where a buffer is given
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                size = 0
            except ssl.SSLError:
                # Altered on its way, or not TLS any more.
                self._deaf = True
                self._flush()
                self.abort()
                return
            if size:
                self._connection.buffer_updated(size)
            elif not self._end_of_input():
                self.close()
        self._flush()

    def _end_of_input(self) -> bool:
        """Tell the connection, once, that no more comes; gives whether it still has to answer."""
        if self._ended:
            return not self._deaf
        self._ended = True
        return self._connection.eof_received()

    def _flush(self) -> None:
        if self._outgoing.pending and self._socket is not None:
            self._socket.write(self._outgoing.read())

    def _say_goodbye(self) -> None:
        """Tell the client, inside of TLS, that no more comes: it knows then that nothing was cut off."""
        self._deaf = True
        if self._tls is None or not self._shaken:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it is not waited for the client's own goodbye
        self._flush()

    # From the connection

    def write(self, data: Any) -> None:
        """Send bytes, encrypted; nothing before the handshake or after the end."""
        if self._tls is None or not self._shaken or self._deaf:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def can_write_eof(self) -> bool:
        """Tell that writing can end before reading does."""
        return True

    def write_eof(self) -> None:
        """End writing; what still comes is dropped."""
        self._say_goodbye()
        if self._socket is not None:
            self._socket.write_eof()

    def close(self) -> None:
        """End both ways, once what was written is sent."""
        if self._tls is not None and not self._shaken and not self._deaf and self._connection.overdue:
            self._tell(TIMED_OUT)
        self._say_goodbye()
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        """End at once."""
        self._deaf = True
        if self._socket is not None:
            self._socket.abort()

    def pause_reading(self) -> None:
        """Read nothing more from the socket."""
        if self._socket is not None:
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._socket is not None:
            self._socket.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        if self._socket is not None:
            self._socket.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return default if self._socket is None else self._socket.get_extra_info(name, default)
