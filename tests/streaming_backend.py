"""A backend of plain sockets in a process of its own, for what lasts: slow answers, long downloads and uploads, and
WebSockets (RFC 6455); and the other end of a WebSocket."""

import asyncio
import base64
import hashlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from load_generator import body_of

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE = 1, 8


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the one request of a connection.

    A path that ends with `/bytes/N` or `/slow/N` gives N bytes, as fast as they are taken, or in pieces over 0.3 s; a
    body that is sent is answered with its SHA-256; an upgrade makes a WebSocket that echoes.
    """
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        method, path, _ = lines[0].split()
        if headers.get("upgrade") == "websocket":
            await _echo(reader, writer, headers["sec-websocket-key"])
        elif method == "POST":
            await _answer(writer, (await _digest(reader, headers)).encode())
        else:
            *_, kind, size = path.split("/")
            await _answer(writer, body_of(int(size)), pause=0.05 if kind == "slow" else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(writer: asyncio.StreamWriter, body: bytes, pause: float = 0) -> None:
    head = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
    if not pause:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 1 << 16):
            writer.write(body[start : start + (1 << 16)])
            await writer.drain()
        return
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    step = len(body) // 6 + 1
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _digest(reader: asyncio.StreamReader, headers: dict[str, str]) -> str:
    digest = hashlib.sha256()
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            digest.update(await reader.readexactly(size))
            await reader.readexactly(2)
    else:
        left = int(headers["content-length"])
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def _accepted(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Accept: {_accepted(key)}\r\n\r\n".encode())
    while True:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
        mask = await reader.readexactly(4)
        text = _masked(await reader.readexactly(length), mask)
        writer.write(_frame(first & 0x0F, text))
        await writer.drain()
        if first & 0x0F == _CLOSE:
            return


def _masked(text: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))


def _frame(kind: int, text: bytes, mask: bytes | None = None) -> bytes:
    marked = 0x80 if mask is not None else 0
    length = bytes([marked | len(text)]) if len(text) < 126 else struct.pack("!BH", marked | 126, len(text))
    return bytes([0x80 | kind]) + length + (mask + _masked(text, mask) if mask is not None else text)


class WebSocket(ExitStack):
    """A client's end of a WebSocket that echoes."""

    def __init__(self, port: int, host: str, path: str = "/") -> None:
        super().__init__()
        self._socket = self.enter_context(socket.create_connection(("127.0.0.1", port), 60))
        self._file = self.enter_context(self._socket.makefile("rb"))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b"".join(iter(self._file.readline, b"\r\n")).decode()
        assert " 101 " in head.splitlines()[0] and f"Sec-WebSocket-Accept: {_accepted(key)}" in head

    def echo(self, text: bytes) -> bytes:
        """Send a message; gives what comes back."""
        return self._exchange(_TEXT, text)

    def end(self) -> bytes:
        """End it in the protocol's way; gives the closing frame's text."""
        with self:
            return self._exchange(_CLOSE, struct.pack("!H", 1000))

    def _exchange(self, kind: int, text: bytes) -> bytes:
        self._socket.sendall(_frame(kind, text, os.urandom(4)))
        first, length = self._file.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._file.read(2))
        assert first == 0x80 | kind
        return self._file.read(length)


@contextmanager
def streaming_backend() -> Iterator[int]:
    """Run one; gives its port."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
