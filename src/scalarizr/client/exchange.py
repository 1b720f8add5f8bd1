"""One call as bytes, without any socket: what both clients send, and what they make of what comes back."""

import keyword
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec

from scalarizr.client.errors import AgentError, AuthenticationFailed, ClientError, Unreachable
from scalarizr.client.sealing import Question, Sealer

_MOST_ANSWER = 256 << 20


class Place(NamedTuple):
    """Where an agent is.

    :ivar host: name or address.
    :ivar port: TCP port.
    :ivar tls: whether the URL is https.
    """

    host: str
    port: int
    tls: bool


def read_url(url: str) -> Place:
    """Take a URL such as `http://10.0.0.7:8010` apart; 8010 is the port where it names none.

    :raises ValueError: it is no such URL.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is no URL such as http://10.0.0.7:8010")
    return Place(parts.hostname, parts.port or 8010, parts.scheme == "https")


class Sent(NamedTuple):
    """A call on its way.

    :ivar data: the whole HTTP request.
    :ivar question: its envelope.
    :ivar id: the JSON-RPC id.
    """

    data: bytes
    question: Question
    id: str


class Received:
    """An HTTP answer, as it comes in: a parser's callbacks.

    :ivar started: whether anything came.
    :ivar complete: whether it is whole.
    :ivar kept: whether the connection may be used again.
    """

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.complete = False
        self.started = False
        self.kept = False
        self._body: list[bytes] = []
        self._size = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take bytes in.

        :raises Unreachable: they are no HTTP answer.
        """
        self.started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Unreachable(f"What answers is not an agent: {error}.") from error

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MOST_ANSWER:
            raise ValueError("the answer is larger than 256 MiB")
        self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
        # Asked here: once the message is behind it, the parser has forgotten.
        self.kept = bool(self._parser.should_keep_alive())

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def body(self) -> bytes:
        return b"".join(self._body)


class Again(Exception):
    """The agent did not take the call, which may be made anew.

    :ivar pause: seconds to wait before.
    :ivar error: what to raise where it is not.
    """

    def __init__(self, pause: float, error: ClientError) -> None:
        super().__init__(str(error))
        self.pause = pause
        self.error = error


def wire_names(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give arguments their names on the wire: `async_` is `async`."""
    return {
        name[:-1] if name.endswith("_") and keyword.iskeyword(name[:-1]) else name: value
        for name, value in arguments.items()
    }


def make_call(place: Place, sealer: Sealer, method: str, params: Mapping[str, Any]) -> Sent:
    """Write a call.

    :param method: `namespace.method`.
    :param params: by their names on the wire.
    """
    namespace, _, name = method.partition(".")
    identity = os.urandom(12).hex()
    call = {"jsonrpc": "2.0", "method": name, "params": params, "id": identity}
    path = f"/{namespace}"
    question = sealer.seal(path, msgspec.json.encode(call))
    host = f"[{place.host}]" if ":" in place.host else place.host
    headers = {"Host": f"{host}:{place.port}", "Content-Length": str(len(question.body)), **question.headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return Sent(head.encode("latin-1") + b"\r\n" + question.body, question, identity)


def read_answer(sealer: Sealer, sent: Sent, received: Received) -> Any:
    """Make sense of an answer.

    :return: the result.
    :raises AgentError: the agent answered with an error.
    :raises AuthenticationFailed: it refused the message, or the answer is not believed.
    :raises Unreachable: it cannot answer now.
    :raises Again: the call was not taken and may be made anew.
    """
    status = received.status
    if status != 200:
        _raise_for_status(status, received)
    text = sealer.open(sent.question, received.headers, received.body)
    try:
        answer = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ClientError("The agent's answer is not JSON.") from error
    if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
        raise ClientError("The agent's answer is no JSON-RPC answer.")
    failure = answer.get("error")
    if answer.get("id") != sent.id and not (failure and answer.get("id") is None):
        raise AuthenticationFailed("The answer belongs to another call.")
    if failure is None:
        return answer["result"]
    if not isinstance(failure, dict) or not isinstance(failure.get("code"), int):
        raise ClientError("The agent's answer is no JSON-RPC answer.")
    raise AgentError(failure["code"], str(failure.get("message", "")), failure.get("data"))


def _raise_for_status(status: int, received: Received) -> None:
    words = received.body[:300].decode("utf-8", "replace").strip()
    if status == 400:
        refused = AuthenticationFailed(f"The agent refused the message: {words}.")
        if "seen before" in words:
            # The same bytes were sent twice, because the connection broke: the first ones had arrived.
            raise Unreachable(
                "The agent took the call, but its answer was lost: look at what it did before you call again."
            )
        if "sign it again" in words:
            raise Again(1.1, refused)
        raise refused
    if status == 503:
        try:
            pause = min(float(received.headers.get("retry-after", "1")), 5.0)
        except ValueError:
            pause = 1.0
        raise Again(pause, Unreachable(f"The agent cannot take a call now: {words}."))
    raise Unreachable(f"The agent answered with HTTP status {status}: {words}.")
