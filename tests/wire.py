"""Speaking the wire by hand, for tests: founding and sealed messages, and raw HTTP over a socket."""

import base64
import os
import socket
import time
from typing import Any

import msgspec

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.date import date_text
from scalarizr.envelope.key import ServerKey


def founding_request(
    key: ServerKey, path: str, text: bytes | str | dict[str, Any], *, date: str | None = None, extra: str = ""
) -> bytes:
    body, headers = founding_message(key, text, date=date)
    return http_post(path, body, {**headers, **_headers(extra)})


def founding_message(
    key: ServerKey, text: bytes | str | dict[str, Any], *, date: str | None = None
) -> tuple[bytes, dict[str, str]]:
    date = date or date_text(int(time.time()))
    body, signature = founding.seal(key, as_bytes(text), date)
    return body, {"Date": date, "X-Signature": signature}


def sealed_request(key: ServerKey, path: str, text: bytes | str | dict[str, Any], **header: Any) -> bytes:
    return http_post(path, sealed_message(key, path, text, **header), {"Content-Type": "application/jose"})


def sealed_message(key: ServerKey, path: str, text: bytes | str | dict[str, Any], **header: Any) -> bytes:
    return sealed.seal(key, as_bytes(text), {"aud": path, "iat": int(time.time()), "jti": sealed.new_id(), **header})


def as_bytes(text: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(text, dict):
        return msgspec.json.encode(text)
    return text.encode() if isinstance(text, str) else text


def http_post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _headers(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:200]!r}"

    def opened(self, key: ServerKey) -> Any:
        return msgspec.json.decode(self.opened_text(key))

    def opened_text(self, key: ServerKey) -> bytes:
        assert self.status == 200, self
        if self.headers.get("content-type") == "application/jose":
            return sealed.open_token(key, self.body)[1]
        assert self.headers["content-type"] == "application/json"
        return founding.open_body(key, self.body, self.headers["date"], self.headers["x-signature"])


class Connection:
    """One connection, spoken by hand."""

    def __init__(self, port: int, source: str | None = None, timeout: float = 60) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.rest = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Connection":
        self.socket.sendall(data)
        return self

    def receive(self, *, head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self.rest:
            self._more()
        start, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = start.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            return Answer(status, headers, b"")
        length = 0 if head else int(headers.get("content-length", 0))
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(status, headers, body)

    def ask(self, data: bytes) -> Answer:
        return self.send(data).receive()

    def closed(self) -> bool:
        """Wait for the other side to close."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError(f"closed after {self.rest[:100]!r}")
        self.rest += data


def ask(port: int, data: bytes) -> Answer:
    with Connection(port) as connection:
        return connection.ask(data)


def random_key() -> ServerKey:
    return ServerKey(os.urandom(40))


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
